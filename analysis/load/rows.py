"""Read a study's rows from a store, an exported Parquet file or a user's table."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from study.store import Damaged, Finished, Store, finished_ids, read_rows, rows_path, schema
from study.store.store import unreadable
from study.store.studies import Registration

FILES_A_TASK: Final = 32

# Opening decodes every column for its checksum. These columns are cached up to KEPT_BYTES (all six for
# 10,000 Runs × 4,000 epochs), because reading them again would take longer than everything else.
KEPT_AT_ONCE: Final = (
    "test_error",
    "train_error",
    "train_error_clean",
    "train_error_flipped",
    "test_loss",
    "train_loss",
)
KEPT_BYTES: Final = 15 * 2**27

SIZES: Final = tuple(field.name for field in fields(schema.Sizes))

# Receives a Run's id and columns; called once for each Run, from several threads at a time.
Use = Callable[[str, Mapping[str, np.ndarray]], None]


@dataclass(frozen=True, eq=False)
class Evaluations:
    """When a Run was evaluated: `epochs` (float64) and `steps` (int64), both of shape (rows,)."""

    epochs: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Outcome, sizes, evaluations and provenance of one ended Run."""

    outcome: str
    num_rows: int
    num_layers: int
    num_classes: int
    parameters_total: int
    parameters_trained: int
    evaluations: str
    provenance: Mapping[str, Any]
    num_channels: int = 0
    num_pieces: int = 0
    last_piece_channels: int = 0
    num_test: int = 0


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The Runs with rows.

    `facts`: by id; `evaluations`: by the name in facts; `damaged`: reasons by id, for damaged files.
    """

    facts: Mapping[str, Facts]
    evaluations: Mapping[str, Evaluations]
    damaged: Mapping[str, str]


class Kept:
    """A cache of columns, up to `limit` bytes; other columns are read again.

    Opening a file costs more than reading a column, and test and train error are read repeatedly.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._columns: dict[tuple[str, str], np.ndarray] = {}
        self._room = limit
        self._lock = threading.Lock()

    def get(self, run_id: str, names: Iterable[str]) -> dict[str, np.ndarray] | None:
        """Return all these columns of a Run, or None if one is not cached."""
        found = {name: self._columns.get((run_id, name)) for name in names}
        kept = {name: values for name, values in found.items() if values is not None}
        return kept if len(kept) == len(found) else None

    def add(self, run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        """Cache read-only copies of these columns if there is room."""
        for name, values in columns.items():
            with self._lock:
                if (run_id, name) in self._columns or values.nbytes > self._room:
                    continue
                self._room -= values.nbytes
            own = values.copy()  # a view could keep a whole file in memory
            own.flags.writeable = False
            self._columns[run_id, name] = own


@dataclass(frozen=True)
class StoreRows:
    """The rows of a store: one file per Run."""

    store: Store
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)


@dataclass(frozen=True)
class ExportRows:
    """The rows of an exported Parquet file.

    `groups`: the ids in each row group, in order; `registrations`: of the study at its export,
    oldest first; None if the file has none.
    """

    path: str
    file: pq.ParquetFile
    groups: tuple[tuple[str, ...], ...]
    num_rows: Mapping[str, int]
    registrations: tuple[Registration, ...] | None = None


@dataclass(frozen=True, eq=False)
class TableRows:
    """Curves of a user's table, in memory: by id the columns `measured`, each (rows,), in row order.

    `known`: the table's coordinates, by our names; any other coordinate has one value for all rows.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    measured: tuple[str, ...]
    known: tuple[str, ...]


Rows = StoreRows | ExportRows | TableRows


def survey(rows: StoreRows, wanted: Iterable[str]) -> Survey:
    """Find the wanted Runs that have rows in a store. Every value of every file is read once."""
    store = rows.store
    facts: dict[str, Facts] = {}
    evaluations: dict[str, Evaluations] = {}
    damaged: dict[str, str] = {}

    def one(run_id: str) -> None:
        try:
            finished = read_rows(store, run_id)
        except Damaged as damage:
            damaged[run_id] = str(damage)
            return
        except PermissionError as error:
            damaged[run_id] = str(unreadable(error))
            return
        facts[run_id] = facts_of(finished, evaluations)
        rows.kept.add(run_id, {name: to_numpy(finished.table, name) for name in KEPT_AT_ONCE})

    there = finished_ids(store)
    _in_threads(one, [run_id for run_id in wanted if run_id in there])
    return Survey(facts=facts, evaluations=evaluations, damaged=damaged)


def facts_of(finished: Finished, evaluations: dict[str, Evaluations]) -> Facts:
    """Return the facts of an ended Run; add its evaluations to `evaluations`."""
    table = finished.table
    epochs, steps = (table.column(name).to_numpy() for name in ("epoch", "step"))
    return Facts(
        outcome=table.column("outcome")[0].as_py(),
        num_rows=table.num_rows,
        **{name: table.column(name)[0].as_py() for name in SIZES},
        evaluations=name_evaluations(epochs, steps, evaluations),
        provenance=dict(vars(finished.provenance)),
    )


def read(rows: Rows, run_ids: Iterable[str], columns: Sequence[str], use: Use) -> None:
    """Pass each Run's columns to `use`: float64 (null is NaN) or int64, shape (rows,), in row order.

    `use` is called from several threads at a time, once per Run, in no order.
    """
    if isinstance(rows, StoreRows):
        _in_threads(lambda run_id: use(run_id, _read_file(rows, run_id, columns)), run_ids)
        return
    if isinstance(rows, TableRows):
        for run_id in run_ids:
            use(run_id, {name: rows.values[run_id][name] for name in columns})
        return
    asked = set(run_ids)
    groups = [index for index, ids in enumerate(rows.groups) if not asked.isdisjoint(ids)]
    for index in groups:
        table = read_group(rows.path, rows.file, index, columns)
        values = {name: to_numpy(table, name) for name in columns}
        first = 0
        for run_id in rows.groups[index]:
            last = first + rows.num_rows[run_id]
            if run_id in asked:
                use(run_id, {name: values[name][first:last] for name in columns})
            first = last


def read_group(path: str, file: pq.ParquetFile, index: int, columns: Sequence[str]) -> pa.Table:
    """Return columns of one row group of an export. Raises ValueError on a checksum mismatch."""
    try:
        return file.read_row_group(index, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. Export the study again") from error


def to_numpy(table: pa.Table, name: str) -> np.ndarray:
    """Return one column as numbers; null becomes NaN. Raises ValueError for a text column."""
    kind = table.schema.field(name).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise ValueError(f"{name!r} is no column of numbers, but of {kind}")
    values: np.ndarray = table.column(name).to_numpy()
    return values


def _read_file(rows: StoreRows, run_id: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
    kept = rows.kept.get(run_id, columns)
    if kept is not None:
        return kept
    # The survey has checked the file's values, so only the requested columns are decompressed.
    indices = [schema.ROWS.get_field_index(name) for name in columns]
    options = pa.ipc.IpcReadOptions(included_fields=indices, use_threads=False)
    path = rows_path(run_id)
    local = rows.store.local_path(path)
    file = pa.OSFile(str(local), "rb") if local else pa.BufferReader(rows.store.get(path))
    with file:
        table = pa.ipc.open_file(file, options=options).read_all()
    read_now = {name: to_numpy(table, name) for name in columns}
    rows.kept.add(run_id, read_now)
    return read_now


def name_evaluations(epochs: np.ndarray, steps: np.ndarray, known: dict[str, Evaluations]) -> str:
    """Return a name for these evaluations, a hash of their values; add them to `known`."""
    name = hashlib.sha256(epochs.tobytes() + steps.tobytes()).hexdigest()[:8]
    if name not in known:
        # Views would keep the whole table in memory.
        own = Evaluations(epochs.copy(), steps.copy())
        own.epochs.flags.writeable = own.steps.flags.writeable = False
        known[name] = own
    return name


def _in_threads(work: Callable[[str], None], run_ids: Iterable[str]) -> None:
    ids = list(run_ids)
    pieces = [ids[first : first + FILES_A_TASK] for first in range(0, len(ids), FILES_A_TASK)]

    def piece(some: Sequence[str]) -> None:
        for run_id in some:
            work(run_id)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for done in pool.map(piece, pieces):
            assert done is None
