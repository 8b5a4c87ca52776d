"""Read a study's rows from a store, an exported Parquet file or a user's table."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from study.store import Damaged, Finished, Store, rows_path, schema
from study.store.compacted import Copy, open_copy, open_parts, read_each
from study.store.rows import finished_etags, read_many
from study.store.studies import Registration

FILES_A_TASK: Final = 32

# Opening a study decodes every column of every rows file. These columns are cached up to KEPT_BYTES (all
# six for 10,000 Runs × 4,000 epochs), because reading them again would take longer than everything else.
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

# A callback that receives a Run's id and columns: once per Run, from several threads at a time.
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
    """The wanted Runs that have rows files.

    `facts`: by run id; `evaluations`: by `Facts.evaluations`; `damaged`: reasons by id of unreadable Runs.
    """

    facts: Mapping[str, Facts]
    evaluations: Mapping[str, Evaluations]
    damaged: Mapping[str, str]


class Kept:
    """A cache of columns, by Run or row group, up to `limit` bytes; further columns are not cached.

    Opening a file costs more than reading a column, and test and train errors are read repeatedly.
    """

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._columns: dict[tuple[str, str], np.ndarray] = {}
        self._room = limit
        self._lock = threading.Lock()

    def get(self, key: str, names: Iterable[str]) -> dict[str, np.ndarray] | None:
        """Return these columns of a Run or a row group; None unless all are cached."""
        found = {name: self._columns.get((key, name)) for name in names}
        kept = {name: values for name, values in found.items() if values is not None}
        return kept if len(kept) == len(found) else None

    def add(self, key: str, columns: Mapping[str, np.ndarray]) -> None:
        """Cache read-only copies of these columns if there is room."""
        for name, values in columns.items():
            with self._lock:
                if (key, name) in self._columns or values.nbytes > self._room:
                    continue
                self._room -= values.nbytes
            own = values.copy()  # a view could keep a whole file in memory
            own.flags.writeable = False
            self._columns[key, name] = own


@dataclass(frozen=True)
class Grouped:
    """A Parquet file of whole Runs. `groups`: the run ids in each row group, in order."""

    path: str
    file: pq.ParquetFile
    groups: tuple[tuple[str, ...], ...]
    num_rows: Mapping[str, int]


@dataclass(frozen=True)
class ExportRows(Grouped):
    """The rows of an exported file.

    `registrations`: the study's registrations at its export, oldest first; None if unknown (older files).
    """

    registrations: tuple[Registration, ...] | None = None


@dataclass(frozen=True)
class StoreRows:
    """The rows of a store: one file per Run.

    `parts`: compacted files; `copied`: ids of Runs that can be read from `parts`.
    """

    store: Store
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)
    parts: tuple[Grouped, ...] = field(default=(), compare=False, repr=False)
    copied: frozenset[str] = field(default=frozenset(), compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class TableRows:
    """Curves of a user's table, in memory.

    `values`: the columns `measured`, each (rows,), by curve id. `known`: our names of the table's columns;
    any other coordinate has one value for all rows.
    """

    values: Mapping[str, Mapping[str, np.ndarray]]
    measured: tuple[str, ...]
    known: tuple[str, ...]


Rows = StoreRows | ExportRows | TableRows


def survey(store: Store, wanted: Iterable[str]) -> tuple[StoreRows, Survey]:
    """Find the wanted Runs that have rows in a store.

    All bytes of every rows file are checked. Values are checked now, or were checked at compaction.
    """
    evaluations: dict[str, Evaluations] = {}
    kept = Kept()

    def facts_in(payloads: Mapping[str, bytes]) -> dict[str, Facts | Damaged]:
        found: dict[str, Facts | Damaged] = {}
        for run_id, one in read_many(payloads, trust_seal=True).items():
            if isinstance(one, Damaged):
                found[run_id] = one
            else:
                found[run_id] = facts_of(one, evaluations)
                kept.add(run_id, {name: to_numpy(one.table, name) for name in KEPT_AT_ONCE})
        return found

    there, copy = finished_etags(store), open_copy(store)
    ids = [run_id for run_id in wanted if run_id in there]
    copied, read = read_each(store, ids, facts_in, copy, there)
    facts = {i: one for i, one in read.items() if not isinstance(one, Damaged)}
    damaged = {i: str(one) for i, one in read.items() if isinstance(one, Damaged)}
    parts: tuple[Grouped, ...] = ()
    if copy is not None and copied:
        facts |= _copied_facts(copy, copied, evaluations)
        parts = _grouped(store, copy)
    in_parts = copied & {i for part in parts for i in part.num_rows}
    rows = StoreRows(store, kept, parts, in_parts)
    return rows, Survey(facts=facts, evaluations=evaluations, damaged=damaged)


def _copied_facts(
    copy: Copy, run_ids: Collection[str], evaluations: dict[str, Evaluations]
) -> dict[str, Facts]:
    """Return the facts of compacted Runs from the manifest; fill `evaluations`."""
    made_by = copy.provenances(run_ids)
    facts = {}
    for part in copy.parts:
        lines = copy.of_part(part)
        columns = {
            name: lines[name].to_pylist() for name in ("run_id", "outcome", "num_rows", *SIZES)
        }
        names = {
            line: name_evaluations(np.array(epochs), np.array(steps, np.int64), evaluations)
            for line, (epochs, steps) in enumerate(
                zip(lines["epochs"].to_pylist(), lines["steps"].to_pylist(), strict=True)
            )
            if epochs is not None
        }
        for line, first in enumerate(lines["first_alike"].to_pylist()):
            own = {name: values[line] for name, values in columns.items()}
            run_id = own.pop("run_id")
            if run_id in made_by:
                facts[run_id] = Facts(
                    **own, evaluations=names[first], provenance=dict(vars(made_by[run_id]))
                )
    return facts


def _grouped(store: Store, copy: Copy) -> tuple[Grouped, ...]:
    files = open_parts(store, copy)
    parts = []
    for part in copy.parts:
        if part.path in files:
            lines = copy.of_part(part)
            ids, groups = (lines[name].to_pylist() for name in ("run_id", "row_group"))
            ends = np.searchsorted(groups, np.arange(max(groups) + 2))
            members = tuple(tuple(ids[a:b]) for a, b in itertools.pairwise(ends))
            num_rows = dict(zip(ids, lines["num_rows"].to_pylist(), strict=True))
            parts.append(Grouped(part.path, files[part.path], members, num_rows))
    return tuple(parts)


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
    """Call `use` with each Run's columns: float64 (null is NaN) or int64, shape (rows,), in row order.

    Calls come from several threads at a time, once per Run, in any order.
    """
    if isinstance(rows, StoreRows):
        singly = set(run_ids) - rows.copied
        for part in rows.parts:
            singly |= _read_groups(part, set(run_ids) & rows.copied, columns, use, rows.kept)
        _in_threads(lambda run_id: use(run_id, _read_file(rows, run_id, columns)), singly)
    elif isinstance(rows, TableRows):
        for run_id in run_ids:
            use(run_id, {name: rows.values[run_id][name] for name in columns})
    else:
        _read_groups(rows, set(run_ids), columns, use)


def _read_groups(
    rows: Grouped, asked: Set[str], columns: Sequence[str], use: Use, kept: Kept | None = None
) -> set[str]:
    """Call `use` with the asked Runs' columns; return ids of Runs whose row group can no longer be read.

    `kept`: a store's cache; None for an export, whose unreadable groups raise ValueError.
    """
    lost: set[str] = set()
    for index, ids in enumerate(rows.groups):
        if asked.isdisjoint(ids):
            continue
        key = f"{rows.path} {index}"
        values = None if kept is None else kept.get(key, columns)
        if values is None:
            try:
                table = read_group(rows.path, rows.file, index, columns)
            except ValueError:
                if kept is None:
                    raise
                lost |= asked & set(ids)  # the store was compacted again after opening
                continue
            values = {name: to_numpy(table, name) for name in columns}
            if kept is not None:
                kept.add(key, values)
        first = 0
        for run_id in ids:
            last = first + rows.num_rows[run_id]
            if run_id in asked:
                use(run_id, {name: values[name][first:last] for name in columns})
            first = last
    return lost


def read_group(path: str, file: pq.ParquetFile, index: int, columns: Sequence[str]) -> pa.Table:
    """Return columns of one row group. Raises ValueError on a checksum mismatch."""
    try:
        return file.read_row_group(index, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. Export the study again") from error


def to_numpy(table: pa.Table, name: str) -> np.ndarray:
    """Return one column as a numeric array; null becomes NaN. Raises ValueError for a text column."""
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
    path = rows_path(run_id)
    local = rows.store.local_path(path)
    file = pa.OSFile(str(local), "rb") if local else pa.BufferReader(rows.store.get(path))
    with file:
        there = pa.ipc.open_file(file).schema.names  # formats differ in their number of columns
        indices = [there.index(name) for name in columns]
        options = pa.ipc.IpcReadOptions(included_fields=indices, use_threads=False)
        table = pa.ipc.open_file(file, options=options).read_all()
    read_now = {name: to_numpy(table, name) for name in columns}
    rows.kept.add(run_id, read_now)
    return read_now


def name_evaluations(epochs: np.ndarray, steps: np.ndarray, known: dict[str, Evaluations]) -> str:
    """Return a name for these evaluations, a hash of the values; add the evaluations to `known`."""
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
