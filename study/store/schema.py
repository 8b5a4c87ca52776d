"""The Arrow table of a study: every column's name, type, unit and meaning, in one place.

A finished Run is one table with this schema: the Run's coordinates, the same in every row, and what
was measured at each evaluated epoch. Owns the names; reads and writes no file (that is `store`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import pyarrow as pa

from study.run import Run

# Dictionary-encoded, so that a coordinate repeated over 4,000 rows costs a few bytes a row.
NAME: Final = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True)
class Column:
    """One column of the table; `unit` is "" where there is none."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    nullable: bool = False


COORDINATES: Final = (
    Column("run_id", NAME, "", "the Run's id"),
    Column("task", NAME, "", "target task"),
    Column("part", NAME, "", "which of the task's training images may be drawn: all, a or b"),
    Column("size", pa.int32(), "images", "number of training images"),
    Column("label_noise", pa.float64(), "fraction", "labels replaced by a different class"),
    Column("model", NAME, "", "network"),
    Column("width", pa.int32(), "", "width in the unit of the network's family", nullable=True),
    Column("frozen", pa.int32(), "layers", "leading layers kept frozen"),
    Column("seed", pa.int64(), "", "replicate"),
    Column("recipe", NAME, "", "id of the Recipe"),
    Column("start", NAME, "", "none, pretrained, or the id of the Run it starts from"),
    Column("source_task", NAME, "", "task of the start", nullable=True),
    Column("source_part", NAME, "", "part of the start", nullable=True),
    Column("source_size", pa.int32(), "images", "size of the start", nullable=True),
    Column("source_label_noise", pa.float64(), "fraction", "of the start", nullable=True),
    Column("source_seed", pa.int64(), "", "replicate of the start", nullable=True),
    Column("source_recipe", NAME, "", "id of the start's Recipe", nullable=True),
    Column("num_layers", pa.int32(), "layers", "layers of the network, its head included"),
    Column("num_classes", pa.int32(), "classes", "classes of the task"),
    Column("parameters_total", pa.int64(), "parameters", "of the network, its head included"),
    Column("parameters_trained", pa.int64(), "parameters", "above the cut"),
    Column("parameters_frozen", pa.int64(), "parameters", "below the cut"),
    Column(
        "outcome", NAME, "", "finished, or diverged: a loss was not finite, the rows end before"
    ),
)

MEASUREMENTS: Final = (
    Column(
        "epoch", pa.float64(), "epochs", "passes over the training images; 0 is before training"
    ),
    Column("step", pa.int64(), "steps", "optimiser steps so far"),
    Column("train_loss", pa.float64(), "nats", "mean cross-entropy against the labels trained on"),
    Column("train_error", pa.float64(), "fraction", "against the labels trained on"),
    Column("train_loss_clean", pa.float64(), "nats", "over images with their own label"),
    Column("train_error_clean", pa.float64(), "fraction", "over images with their own label"),
    Column("train_loss_flipped", pa.float64(), "nats", "over flipped images", nullable=True),
    Column("train_error_flipped", pa.float64(), "fraction", "over flipped images", nullable=True),
    Column("test_loss", pa.float64(), "nats", "mean cross-entropy on the clean test set"),
    Column("test_error", pa.float64(), "fraction", "on the clean test set"),
    Column("learning_rate", pa.float64(), "", "of the step before; of the first step at step 0"),
    Column("wall_seconds", pa.float64(), "s", "time spent in training and evaluation so far"),
)

COLUMNS: Final = COORDINATES + MEASUREMENTS

ROWS: Final = pa.schema(
    [
        pa.field(
            column.name,
            column.type,
            nullable=column.nullable,
            metadata={"unit": column.unit, "meaning": column.meaning},
        )
        for column in COLUMNS
    ]
)

FINISHED: Final = "finished"
DIVERGED: Final = "diverged"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured at one evaluation; the fields are MEASUREMENTS, in their order and units."""

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
class Dimensions:
    """What a Run's fields do not say by themselves: the sizes that its network and task give."""

    num_layers: int
    num_classes: int
    parameters_total: int
    parameters_trained: int


def rows_table(run: Run, dimensions: Dimensions, rows: list[Row], outcome: str) -> pa.Table:
    """The table of one ended Run, without metadata beyond the schema's own: shape (rows, columns)."""
    assert outcome in (FINISHED, DIVERGED), outcome
    assert rows, f"{run.id}: a Run has at least the row of epoch 0"
    source = run.source
    constants = {
        "run_id": run.id,
        "task": run.task,
        "part": run.part,
        "size": run.size,
        "label_noise": float(run.label_noise),
        "model": run.model,
        "width": run.width,
        "frozen": run.frozen,
        "seed": run.seed,
        "recipe": run.recipe.id,
        "start": source.id if source else str(run.start or "none"),
        "source_task": source.task if source else None,
        "source_part": source.part if source else None,
        "source_size": source.size if source else None,
        "source_label_noise": float(source.label_noise) if source else None,
        "source_seed": source.seed if source else None,
        "source_recipe": source.recipe.id if source else None,
        "num_layers": dimensions.num_layers,
        "num_classes": dimensions.num_classes,
        "parameters_total": dimensions.parameters_total,
        "parameters_trained": dimensions.parameters_trained,
        "parameters_frozen": dimensions.parameters_total - dimensions.parameters_trained,
        "outcome": outcome,
    }
    values = {name: [value] * len(rows) for name, value in constants.items()}
    values |= {field.name: [getattr(row, field.name) for row in rows] for field in fields(Row)}
    return pa.table([pa.array(values[column.name], column.type) for column in COLUMNS], schema=ROWS)


def rows_of(table: pa.Table) -> list[Row]:
    """The measured rows of one Run's table, in order."""
    return [Row(**row) for row in table.select([field.name for field in fields(Row)]).to_pylist()]
