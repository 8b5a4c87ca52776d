"""Define the Arrow schema of a study's rows, and the words for a Run's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np
import pyarrow as pa

from study import run as runs
from study.fields import Plain
from study.run import Run, coordinates

# Outcomes of stored rows.
FINISHED: Final = "finished"
DIVERGED: Final = "diverged"  # a loss was not finite; the rows end before that loss

# States of a wanted Run.
DONE: Final = "done"
RUNNING: Final = "running"
WAITING: Final = "waiting"
PARTIAL: Final = "partial"
FAILED: Final = "failed"
START_FAILED: Final = "start failed"
ABSENT: Final = "absent"
MISSING: Final = "missing"
DAMAGED: Final = "damaged"
OTHER_START: Final = "other start"


# Dictionary-encoded, so that a coordinate repeated over 4,000 rows costs a few bytes a row.
NAME: Final = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Column:
    """One column of the table; `unit` is "" for a number without unit.

    `since`: the first format version with this column; `original`: the value for older files, if the Run
    does not determine it.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    nullable: bool = False
    since: int = 1
    original: Plain = None


_TYPES: Final[Mapping[str, pa.DataType]] = {
    "name": NAME,
    "count": pa.int32(),
    "seed": pa.int64(),
    "fraction": pa.float64(),
}

# Coordinates that some Runs do not have.
_NULLABLE: Final = frozenset(c.name for c in runs.COORDINATES if c.absent is not None)

COORDINATES: Final = (
    Column("run_id", NAME, "", "the Run's id"),
    *(
        Column(
            c.name, _TYPES[c.kind], c.unit, c.meaning, nullable=c.name in _NULLABLE, since=c.since
        )
        for c in runs.COORDINATES
    ),
    Column("num_layers", pa.int32(), "layers", "layers of the network, its head included"),
    Column("num_classes", pa.int32(), "classes", "classes of the task"),
    Column("parameters_total", pa.int64(), "parameters", "of the network, its head included"),
    Column("parameters_trained", pa.int64(), "parameters", "above the cut"),
    Column("parameters_frozen", pa.int64(), "parameters", "below the cut"),
    Column(
        "num_channels",
        pa.int32(),
        "channels",
        "of the last layer before the head, if some can be trained alone; 0: none, or not noted",
        since=2,
        original=0,
    ),
    Column(
        "num_pieces",
        pa.int32(),
        "pieces",
        "of the first trained layer, which can be cut between them; 0: not noted",
        since=3,
        original=0,
    ),
    Column(
        "last_piece_channels",
        pa.int32(),
        "channels",
        "of num_channels, those in the last piece of the layer before the head",
        since=3,
        original=0,
    ),
    Column("num_test", pa.int32(), "images", "test images; 0: not noted", since=2, original=0),
    Column(
        "outcome", NAME, "", "finished, or diverged: a loss was not finite, the rows end before"
    ),
)

MEASUREMENTS: Final = (
    Column(
        "epoch", pa.float64(), "epochs", "passes over the training images; 0 is before training"
    ),
    Column("step", pa.int64(), "steps", "optimiser steps so far"),
    Column(
        "train_loss",
        pa.float64(),
        "nats",
        "against the labels trained on: mean cross-entropy, or the loss of the recipe",
    ),
    Column("train_error", pa.float64(), "fraction", "against the labels trained on"),
    Column("train_loss_clean", pa.float64(), "nats", "over images with their own label"),
    Column("train_error_clean", pa.float64(), "fraction", "over images with their own label"),
    Column("train_loss_flipped", pa.float64(), "nats", "over flipped images", nullable=True),
    Column("train_error_flipped", pa.float64(), "fraction", "over flipped images", nullable=True),
    Column(
        "test_loss",
        pa.float64(),
        "nats",
        "on the clean test set: mean cross-entropy, or the loss of the recipe",
    ),
    Column("test_error", pa.float64(), "fraction", "on the clean test set"),
    Column("learning_rate", pa.float64(), "", "of the step before; of the first step at step 0"),
    Column("wall_seconds", pa.float64(), "s", "time spent in training and evaluation so far"),
)

COLUMNS: Final = COORDINATES + MEASUREMENTS

# The format of rows files: it rises with each added column, which older files lack.
FORMAT: Final = max(column.since for column in COLUMNS)


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of these columns, with unit and meaning as metadata."""
    return pa.schema(
        [
            pa.field(
                column.name,
                column.type,
                nullable=column.nullable,
                metadata={"unit": column.unit, "meaning": column.meaning},
            )
            for column in columns
        ]
    )


def schema_of(number: int) -> pa.Schema:
    """Return the columns of rows files of this format, 1 to FORMAT."""
    assert 1 <= number <= FORMAT, number
    return arrow_schema(column for column in COLUMNS if column.since <= number)


ROWS: Final = schema_of(FORMAT)


def known_schemas() -> list[pa.Schema]:
    """Return the schemas of all formats, the newest first."""
    return [schema_of(number) for number in range(FORMAT, 0, -1)]


@dataclass(frozen=True, kw_only=True)
class Row:
    """The measurements of one evaluation; the fields are MEASUREMENTS, in their order and units."""

    epoch: float
    step: int
    train_loss: float
    train_error: float
    train_loss_clean: float
    train_error_clean: float
    train_loss_flipped: float | None
    train_error_flipped: float | None
    test_loss: float
    test_error: float
    learning_rate: float
    wall_seconds: float


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes that depend on the network and the task."""

    num_layers: int
    num_classes: int
    parameters_total: int
    parameters_trained: int
    num_channels: int = 0
    num_pieces: int = 0
    last_piece_channels: int = 0
    num_test: int = 0


def rows_table(run: Run, sizes: Sizes, rows: Sequence[Row], outcome: str) -> pa.Table:
    """Return the table of one finished or diverged Run: a row per evaluation, the columns of ROWS."""
    assert outcome in (FINISHED, DIVERGED), outcome
    assert rows, f"{run.id}: a Run has at least the row of epoch 0"
    constants = {
        "run_id": run.id,
        **coordinates(run),
        **asdict(sizes),
        "parameters_frozen": sizes.parameters_total - sizes.parameters_trained,
        "outcome": outcome,
    }
    values = {name: [value] * len(rows) for name, value in constants.items()}
    values |= {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}
    return pa.table([pa.array(values[column.name], column.type) for column in COLUMNS], schema=ROWS)


def completed(table: pa.Table, run: Run, number: int) -> pa.Table:
    """Return a table of format `number`, with columns of later formats added from the Run's values."""
    if number == FORMAT:
        return pa.Table.from_arrays(table.columns, schema=ROWS)
    known = {column.name: column.original for column in COLUMNS} | coordinates(run)
    arrays = [
        table[column.name]
        if column.since <= number
        else pa.array([known[column.name]] * table.num_rows, column.type)
        for column in COLUMNS
    ]
    return pa.table(arrays, schema=ROWS)


def rows_of(table: pa.Table) -> list[Row]:
    """Return the measured rows of one Run's table, in order."""
    return [Row(**row) for row in table.select([field.name for field in fields(Row)]).to_pylist()]


def fault_in_rows(table: pa.Table, runs: Sequence[Run], num_rows: Sequence[int]) -> str | None:
    """Return why no trainer can have written these rows for these Runs; None if the rows are possible.

    A checksum shows that a file has not changed, not that a trainer wrote it.

    Args:
        table: Columns of ROWS; all rows of the first Run, then all rows of the next Run, …
        runs, num_rows: The Runs, and the number of rows of each Run.
    """
    if min(num_rows, default=0) < 1 or sum(num_rows) != table.num_rows:
        return f"{table.num_rows} rows are not those of {len(runs)} Runs"
    first = np.cumsum([0, *num_rows[:-1]])
    given = [{"run_id": run.id, **coordinates(run)} for run in runs]
    values: dict[str, np.ndarray] = {}

    def found(wrong: np.ndarray, name: str, what: str) -> str | None:
        if not wrong.any():
            return None
        row = int(np.argmax(wrong))
        run = runs[int(np.searchsorted(first, row, side="right")) - 1]
        return f"{name} of Run {run.id} {what}"

    for column in COLUMNS:
        name, texts = column.name, {}
        if column.since > 1 and name not in table.column_names:
            continue
        array = table[name].combine_chunks()
        if column.type == NAME:
            texts = {text: code for code, text in enumerate(array.dictionary.to_pylist())}
            array = array.indices
        values[name] = held = (array.fill_null(-1) if array.null_count else array).to_numpy()
        if name in given[0]:  # -1 means null; no coordinate has this value
            own = [each[name] for each in given]
            wanted = [
                texts.get(value, -2) if texts and value is not None else value for value in own
            ]
            expected = np.array([-1 if value is None else value for value in wanted])
            if why := found(held != np.repeat(expected, num_rows), name, "is that of another Run"):
                return why
        elif column in COORDINATES:
            if why := found(held != np.repeat(held[first], num_rows), name, "changes"):
                return why
            if name == "outcome" and not texts.keys() <= {FINISHED, DIVERGED}:
                return f"outcome: {', '.join(map(repr, texts))}"
            if why := found(held < 0, name, "is negative"):
                return why
        else:
            high = 1.0 if column.unit == "fraction" else np.finfo(np.float64).max
            possible = (held >= 0.0) & (held <= high)  # False for NaN
            if array.null_count:
                possible |= array.is_null().to_numpy(zero_copy_only=False)
            if why := found(~possible, name, "is no possible value"):
                return why
    for name in ("epoch", "step"):
        falls = np.diff(values[name]) <= 0
        falls[first[1:] - 1] = False
        if why := found(np.append(False, falls), name, "does not ascend"):
            return why
    parts = values["parameters_trained"] + values["parameters_frozen"]
    return found(
        parts != values["parameters_total"], "parameters_total", "is not the sum of its parts"
    )
