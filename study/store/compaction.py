"""Copy many rows files into a few Parquet files, and write the manifest that `compacted` reads."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.fields import digest_of
from study.store import arrow_file, atomic, layout, provenance, rows, schema
from study.store.atomic import Damaged, Newer
from study.store.compacted import (
    FORMAT,
    LINES,
    NAME,
    PARTS,
    WRITTEN_BY,
    Copy,
    Part,
    damaged_parts,
    read_each,
    read_manifest,
)
from study.store.layout import manifest_path, part_path
from study.store.provenance import release
from study.store.rows import Finished, finished_etags
from study.store.store import Store
from study.store.studies import read_study, study_names

# If fewer Runs are not copied, `study run` does not copy them: reading their rows files is fast.
MIN_NEW: Final = 500

# Rows in a Parquet row group, which contains whole Runs: 1 MB a column. Readers decode whole groups.
ROWS_A_GROUP: Final = 2**17

_RUNS_AT_ONCE: Final = 256  # rows files read at a time

_Group = list[tuple[Finished, str]]  # with the SHA-256 of each rows file


@dataclass(frozen=True, kw_only=True)
class Compacted:
    """The result of `compact`.

    `num_runs`: Runs that have a copy; `num_new`: those copied by this call; `num_bytes`: the size of all
    Parquet files together; `damaged`: the damaged rows files, which are not copied.
    """

    num_runs: int
    num_new: int
    num_bytes: int
    damaged: tuple[Damaged, ...]


def compact(store: Store, *, at_least: int = 1) -> Compacted | None:
    """Copy the rows files that are not copied yet; return None if there are fewer than `at_least`.

    Smaller parts are merged with the new Runs, so that parts stay few. The values of every copied file are
    checked. Only the driver that holds the lease may call this.
    """
    old = _usable_copy(store)
    etags = finished_etags(store)
    copied, _ = read_each(store, etags.keys(), dict.fromkeys, old, etags)
    batch = set(etags) - copied
    if len(batch) + len(old.line_of.keys() - copied) < at_least:
        _remove_other_parts(store, old.parts)  # left by a killed driver
        return None
    kept = []
    for part in sorted(old.parts, key=lambda part: old.of_part(part).num_rows):
        ids = set(old.of_part(part)["run_id"].cast(pa.string()).to_pylist())
        if len(ids) <= len(batch) or not ids <= copied:
            batch |= ids & etags.keys()
        else:
            kept.append(part)
    damaged: list[Damaged] = []
    parts, tables = [*kept], [old.of_part(part) for part in kept]
    lines = _write_part(store, _in_order(store, batch), etags, damaged)
    if lines is not None:
        parts.append(lines[0])
        tables.append(lines[1])
    new = Copy(tuple(parts), pa.concat_tables(tables) if tables else LINES.empty_table())
    store.put(manifest_path(), _to_bytes(new))
    _remove_other_parts(store, parts)
    return Compacted(
        num_runs=new.lines.num_rows,
        num_new=len(batch - copied) - len(damaged),
        num_bytes=sum(part.num_bytes for part in parts),
        damaged=tuple(damaged),
    )


def _usable_copy(store: Store) -> Copy:
    try:
        old = read_manifest(store)
    except (FileNotFoundError, Damaged):
        return Copy((), LINES.empty_table())
    bad = damaged_parts(store, old)
    parts = tuple(part for part in old.parts if part.path not in bad)
    lines = [old.of_part(part) for part in parts]
    return Copy(parts, pa.concat_tables(lines) if lines else LINES.empty_table())


def _remove_other_parts(store: Store, parts: Collection[Part]) -> None:
    # A reader that still has the old manifest reads the rows files instead.
    used = {manifest_path(), *(part.path for part in parts)}
    for entry in store.listed(layout.COMPACTED):
        if (path := store.relative(entry.path)) not in used:
            store.remove(path)


def _in_order(store: Store, run_ids: Collection[str]) -> list[str]:
    """Return the ids in the order of the studies' lists, so that Runs of a study are neighbours."""
    order: dict[str, None] = {}
    for name in study_names(store):
        try:
            order |= dict.fromkeys(run.id for run in read_study(store, name))
        except (FileNotFoundError, Damaged, Newer):
            continue  # the order decides only how fast a study is read
    return [i for i in order if i in run_ids] + sorted(set(run_ids) - order.keys())


def _to_bytes(copy: Copy) -> bytes:
    head = {
        FORMAT: f"{NAME}{schema.FORMAT}".encode(),
        WRITTEN_BY: release().encode(),
        PARTS: json.dumps([asdict(part) for part in copy.parts]).encode(),
    }
    return arrow_file.to_bytes(copy.lines.unify_dictionaries(), head)


def _write_part(
    store: Store, run_ids: Sequence[str], etags: Mapping[str, str], damaged: list[Damaged]
) -> tuple[Part, pa.Table] | None:
    """Write these Runs to a part; return the part and its lines, or None if no Run can be read."""
    lines: list[pa.Table] = []
    alike: dict[bytes, int] = {}
    with _draft(store) as draft:
        with pq.ParquetWriter(
            draft, schema.ROWS, compression="zstd", write_page_checksum=True
        ) as writer:
            for number, group in enumerate(_groups(store, run_ids, damaged)):
                table = pa.concat_tables([each.table for each, _ in group]).unify_dictionaries()
                writer.write_table(table, row_group_size=table.num_rows)
                num_before = sum(some.num_rows for some in lines)
                lines.append(_lines(table, group, number, num_before, etags, alike))
        if not lines:
            return None
        with draft.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        part = Part(part_path(digest), digest, "", draft.stat().st_size)
        store.put_file(part.path, draft)
    if store.buckets is not None:
        there = {store.relative(entry.path): entry for entry in store.listed(layout.COMPACTED)}
        part = replace(part, etag=there[part.path].etag)
    table = pa.concat_tables(lines).unify_dictionaries()
    index = LINES.get_field_index("file")
    return part, table.set_column(index, LINES.field(index), pa.repeat(part.path, len(table)))


@contextmanager
def _draft(store: Store) -> Iterator[Path]:
    """Yield the path of a new local file, on the store's own disk if the store is a directory."""
    local = store.local_path(f"{layout.COMPACTED}/part.parquet")
    if local is not None:
        with atomic.draft_beside(local) as draft:
            yield draft
    else:
        with tempfile.TemporaryDirectory(prefix="freezewise-") as folder:
            yield Path(folder) / "part.parquet"


def _groups(store: Store, run_ids: Sequence[str], damaged: list[Damaged]) -> Iterator[_Group]:
    """Yield lists of whole Runs with about ROWS_A_GROUP rows; add damaged files to `damaged`."""
    group: _Group = []
    num_rows = 0
    for first in range(0, len(run_ids), _RUNS_AT_ONCE):
        ids = run_ids[first : first + _RUNS_AT_ONCE]
        read = read_each(store, ids, _whole, None, {})[1]
        for found in (read[run_id] for run_id in ids if run_id in read):
            if isinstance(found, Damaged):
                damaged.append(found)
                continue
            num_more = found[0].table.num_rows
            if group and num_rows + num_more > ROWS_A_GROUP:
                yield group
                group, num_rows = [], 0
            group.append(found)
            num_rows += num_more
    if group:
        yield group


def _whole(payloads: Mapping[str, bytes]) -> dict[str, tuple[Finished, str] | Damaged]:
    read = rows.read_many(payloads, trust_seal=False)
    return {
        i: found if isinstance(found, Damaged) else (found, digest_of(payloads[i]))
        for i, found in read.items()
    }


def _lines(
    table: pa.Table,
    group: _Group,
    number: int,
    num_before: int,
    etags: Mapping[str, str],
    alike: dict[bytes, int],
) -> pa.Table:
    """Return the manifest's lines of a row group, without the part's path.

    `num_before`: number of the part's earlier lines. `alike`: digest of epochs and steps → first line.
    """
    runs = [finished for finished, _ in group]
    first_alike, epochs, steps = [], [], []
    for line, finished in enumerate(runs, start=num_before):
        own = [finished.table[name].to_numpy() for name in ("epoch", "step")]
        first = alike.setdefault(hashlib.sha256(own[0].tobytes() + own[1].tobytes()).digest(), line)
        first_alike.append(first)
        epochs.append(own[0] if first == line else None)
        steps.append(own[1] if first == line else None)
    num_rows = [finished.table.num_rows for finished in runs]
    firsts = table.select([column.name for column in schema.COORDINATES]).take(
        np.cumsum([0, *num_rows[:-1]])
    )
    own_columns = {
        "sha256": [digest for _, digest in group],
        "etag": [etags.get(finished.run.id, "") for finished in runs],
        "provenance": [provenance.to_json(finished.provenance) for finished in runs],
        "file": [""] * len(runs),
        "row_group": [number] * len(runs),
        "num_rows": num_rows,
        "first_alike": first_alike,
        "epochs": epochs,
        "steps": steps,
    }
    columns = [pa.array(values, LINES.field(name).type) for name, values in own_columns.items()]
    return pa.Table.from_arrays([*firsts.columns, *columns], schema=LINES)
