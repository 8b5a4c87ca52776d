"""Copy many rows files into a few Parquet files, so that readers need not decode each rows file.

The rows files stay the source of truth. A reader compares the SHA-256 of every rows file (on a bucket:
its ETag) with the manifest, and uses the copy of a Run only if they are equal. The manifest has one line
for each copied Run: its coordinates, provenance and checksum, and where its rows are.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from study.fields import digest_of
from study.messages import show_message
from study.store import arrow_file, atomic, layout, provenance, rows, schema
from study.store.atomic import Damaged, Newer
from study.store.layout import manifest_path, part_path, rows_path
from study.store.provenance import Provenance, release
from study.store.rows import Finished, finished_etags
from study.store.store import Store, in_pieces, store_command, unreadable
from study.store.studies import read_study, study_names

# If fewer Runs are not copied, `study run` does not copy them: reading their rows files is fast.
MIN_NEW: Final = 500

# Rows in a Parquet row group, which contains whole Runs: 1 MB a column. Readers decode whole groups.
ROWS_A_GROUP: Final = 2**17

# A larger Parquet file in a bucket is read in ranges.
_BYTES_AT_ONCE: Final = 2**28

_NAME: Final = "freezewise compacted 1, rows "  # followed by the number of the rows' format
_FORMAT, _WRITTEN_BY, _PARTS = b"format", b"written_by", b"parts"
_HEAD: Final = (_FORMAT, _WRITTEN_BY, _PARTS)

_LINES: Final = pa.schema(
    [
        *(field.remove_metadata() for field in schema.arrow_schema(schema.COORDINATES)),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("row_group", pa.int32(), nullable=False),
        pa.field("num_rows", pa.int64(), nullable=False),
        # The line, within the part, of the first Run with equal epochs and steps. Other lines omit them.
        pa.field("first_alike", pa.int32(), nullable=False),
        pa.field("epochs", pa.list_(pa.float64())),
        pa.field("steps", pa.list_(pa.int64())),
    ]
)

_RUNS_AT_ONCE: Final = 256  # rows files read at a time while copying

Answer = TypeVar("Answer")
_Group = list[tuple[Finished, str]]  # with the SHA-256 of each rows file


@dataclass(frozen=True)
class Part:
    """A Parquet file of copied rows; `etag`: "" in a directory."""

    path: str
    sha256: str
    etag: str
    num_bytes: int


@dataclass(frozen=True, eq=False)
class Copy:
    """The manifest. `lines`: one per copied Run, in the order of the parts and of their row groups."""

    parts: tuple[Part, ...]
    lines: pa.Table

    @cached_property
    def line_of(self) -> dict[str, int]:
        """Return the index of each Run in `lines`, by id."""
        ids = self.lines["run_id"].cast(pa.string()).to_pylist()
        return {run_id: line for line, run_id in enumerate(ids)}

    @cached_property
    def _sha256(self) -> list[str]:
        found: list[str] = self.lines["sha256"].to_pylist()
        return found

    @cached_property
    def _etags(self) -> list[str]:
        found: list[str] = self.lines["etag"].to_pylist()
        return found

    def has_bytes(self, run_id: str, payload: bytes) -> bool:
        """Return True if the Run was copied from a rows file with these bytes."""
        line = self.line_of.get(run_id)
        return line is not None and _is_same(self._sha256[line], payload)

    def has_etag(self, run_id: str, etag: str) -> bool:
        """Return True if the Run was copied from an object with this ETag."""
        line = self.line_of.get(run_id)
        return line is not None and bool(etag) and self._etags[line] == etag

    def provenances(self, run_ids: Iterable[str]) -> dict[str, Provenance]:
        """Return the provenance of these copied Runs, by id."""
        texts = self.lines["provenance"].to_pylist()
        return {i: provenance.from_json(texts[self.line_of[i]]) for i in run_ids}

    def of_part(self, part: Part) -> pa.Table:
        """Return the manifest's lines about this part."""
        return self.lines.filter(pc.equal(self.lines["file"], part.path))


def _is_same(sha256: str, payload: bytes) -> bool:
    return sha256 == digest_of(payload)


def read_each(
    store: Store,
    run_ids: Collection[str],
    read: Callable[[Mapping[str, bytes]], Mapping[str, Answer | Damaged]],
    copy: Copy | None,
    etags: Mapping[str, str],
) -> tuple[frozenset[str], dict[str, Answer | Damaged]]:
    """Check the bytes of rows files, and read the files that differ from those that were copied.

    Args:
        read: Called from several threads with the bytes of some rows files, by Run id.
        etags: `finished_etags(store)`. A bucket's objects with the manifest's ETag are not read.

    Returns:
        The ids of Runs whose rows file has not changed since it was copied; for the other Runs, by id, the
        result of `read` or a Damaged. Runs without a rows file are in neither.
    """
    same = {i for i in run_ids if copy is not None and copy.has_etag(i, etags.get(i, ""))}
    others: dict[str, Answer | Damaged] = {}

    def piece(some: Iterable[str]) -> None:
        payloads: dict[str, bytes] = {}
        for run_id in some:
            try:
                payload = store.get(rows_path(run_id))
            except Damaged as damaged:
                others[run_id] = damaged
            except PermissionError as error:
                others[run_id] = unreadable(error)
            except FileNotFoundError:
                pass  # the file was quarantined after the listing
            else:
                if copy is not None and copy.has_bytes(run_id, payload):
                    same.add(run_id)
                else:
                    payloads[run_id] = payload
        others.update(read(payloads))

    in_pieces(piece, [run_id for run_id in run_ids if run_id not in same])
    return frozenset(same), others


def read_provenances(
    store: Store,
    run_ids: Collection[str],
    *,
    etags: Mapping[str, str] | None = None,
    most: int | None = None,
) -> dict[str, Provenance | Damaged]:
    """Check the bytes of rows files; return each Run's provenance, or a Damaged, by id.

    Files without a checksum of their bytes are read whole. `etags`: `finished_etags(store)`, if known.
    `most`: how many objects of a bucket may be read; the Runs of further objects are left out.
    """
    copy = open_copy(store)
    if store.buckets is None or etags is None:
        etags = finished_etags(store) if store.buckets is not None else {}
    if most is not None and store.buckets is not None:
        same = {i for i in run_ids if copy is not None and copy.has_etag(i, etags.get(i, ""))}
        others = [i for i in run_ids if i not in same]
        run_ids = [*same, *others[max(len(others) - most, 0) :]]
    copied, read = read_each(store, run_ids, _provenances, copy, etags)
    answers = {**({} if copy is None else copy.provenances(copied)), **read}
    return {run_id: answers[run_id] for run_id in run_ids if run_id in answers}


def _provenances(payloads: Mapping[str, bytes]) -> dict[str, Provenance | Damaged]:
    found: dict[str, Provenance | Damaged] = {}
    for run_id, payload in payloads.items():
        try:
            found[run_id] = rows.provenance_from(payload, run_id, rows_path(run_id))
        except Damaged as damaged:
            found[run_id] = damaged
    return found


def open_copy(store: Store) -> Copy | None:
    """Return the manifest; None if it does not exist, or, with a message, if it is unusable."""
    try:
        return read_manifest(store)
    except FileNotFoundError:
        return None
    except (Damaged, Newer) as error:
        show_message(f"{error}; the rows files are read instead")
    except PermissionError as error:
        show_message(f"{unreadable(error)}; the rows files are read instead")
    return None


def read_manifest(store: Store) -> Copy:
    """Return the manifest. Raises FileNotFoundError, Damaged, Newer.

    A manifest of an earlier format lacks columns, and also raises FileNotFoundError.
    """
    path = manifest_path()
    payload = store.get(path)
    if not arrow_file.is_sealed(payload, path):
        raise Damaged(path, "it has no checksum")
    with arrow_file.opened(pa.BufferReader(payload), path) as reader:
        head = arrow_file.checked(reader.schema.metadata, _HEAD, path, "manifest")
        number = head[_FORMAT].decode().removeprefix(_NAME)
        if not number.isdigit() or int(number) > schema.FORMAT:
            raise Newer(path, head[_WRITTEN_BY].decode(), head[_FORMAT].decode())
        if int(number) < schema.FORMAT:
            raise FileNotFoundError(path)
        lines = arrow_file.read_table(reader)
    if not lines.schema.equals(_LINES, check_metadata=False):
        raise Damaged(path, "its columns are not those of a manifest")
    return Copy(tuple(Part(**plain) for plain in json.loads(head[_PARTS])), lines)


def difference(
    store: Store, there: Collection[str], made_by: Mapping[str, Provenance | Damaged]
) -> str:
    """Return a sentence if rows files of copied Runs have changed or vanished, or parts vanished; else "".

    `there`: the ids of all finished Runs; `made_by`: the result of `read_provenances` for some Runs.
    """
    copy = open_copy(store)
    if copy is None:
        return ""
    known = copy.provenances(made_by.keys() & copy.line_of.keys())
    num_replaced = sum(
        not isinstance(made_by[i], Damaged) and made_by[i] != one for i, one in known.items()
    )
    num_missing = len(copy.line_of.keys() - set(there))
    parts = {store.relative(entry.path) for entry in store.listed(layout.COMPACTED)}
    lost = [part.path for part in copy.parts if part.path not in parts]
    if not num_replaced and not num_missing and not lost:
        return ""
    return (
        f"{layout.COMPACTED}/: {num_replaced} of its Runs have another rows file now, {num_missing} have "
        f"none, {len(lost)} of its files are missing; the rows files count. To compact them again: "
        f"{store_command('compact', root=store.root)}"
    )


def damaged_objects(store: Store) -> list[Damaged]:
    """Return a Damaged if the manifest is damaged, else one for each unusable part."""
    try:
        return list(damaged_parts(store, read_manifest(store)).values())
    except Damaged as damaged:
        return [damaged]
    except (FileNotFoundError, Newer, PermissionError):
        return []


def paths(store: Store) -> set[str]:
    """Return the paths of the manifest and of its parts. Raises Damaged, Newer."""
    with suppress(FileNotFoundError):
        return {manifest_path(), *(part.path for part in read_manifest(store).parts)}
    return {manifest_path()}


def damaged_parts(store: Store, copy: Copy) -> dict[str, Damaged]:
    """Return a Damaged for each unusable part, by path. Parts with an unchanged ETag are not read."""
    there = {store.relative(entry.path): entry for entry in store.listed(layout.COMPACTED)}
    found = {}
    for part in copy.parts:
        if part.path not in there:
            found[part.path] = Damaged(part.path, "it is missing")
        elif not part.etag or there[part.path].etag != part.etag:
            try:
                _check_part(store, part.path, part.sha256)
            except Damaged as damaged:
                found[part.path] = damaged
            except PermissionError as error:
                found[part.path] = unreadable(error)
    return found


def read_at(store: Store, path: str) -> Copy | str:
    """Check the file at this path; return the manifest, or a part's digest. Raises Damaged, Newer."""
    if path == manifest_path():
        return read_manifest(store)
    return _check_part(store, path, path.rpartition("/")[2].removesuffix(".parquet"))


def _check_part(store: Store, path: str, digest: str) -> str:
    """Return the SHA-256 of a part. Raises Damaged unless it begins with `digest`."""
    local = store.local_path(path)
    if local is None:
        found = digest_of(store.get(path))
    else:
        try:
            with local.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:  # a disk error: `get` retries, and raises Damaged for an unreadable sector
            found = digest_of(store.get(path))
    if not found.startswith(digest):
        raise Damaged(path, "its bytes do not match their checksum")
    return found


def open_parts(store: Store, copy: Copy) -> dict[str, pq.ParquetFile]:
    """Open the undamaged parts, and return them by path. Show a message for each damaged part."""
    damaged = damaged_parts(store, copy)
    for each in damaged.values():
        show_message(f"{each}; the rows files are read instead")
    files = {}
    for part in copy.parts:
        if part.path not in damaged:
            source = store.opened(part.path, whole=part.num_bytes <= _BYTES_AT_ONCE)
            # In a directory, `damaged_parts` has checked all bytes.
            is_checked = store.buckets is None
            files[part.path] = pq.ParquetFile(source, page_checksum_verification=not is_checked)
    return files


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
    new = Copy(tuple(parts), pa.concat_tables(tables) if tables else _LINES.empty_table())
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
        return Copy((), _LINES.empty_table())
    bad = damaged_parts(store, old)
    parts = tuple(part for part in old.parts if part.path not in bad)
    lines = [old.of_part(part) for part in parts]
    return Copy(parts, pa.concat_tables(lines) if lines else _LINES.empty_table())


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
        _FORMAT: f"{_NAME}{schema.FORMAT}".encode(),
        _WRITTEN_BY: release().encode(),
        _PARTS: json.dumps([asdict(part) for part in copy.parts]).encode(),
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
    index = _LINES.get_field_index("file")
    return part, table.set_column(index, _LINES.field(index), pa.repeat(part.path, len(table)))


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
    columns = [pa.array(values, _LINES.field(name).type) for name, values in own_columns.items()]
    return pa.Table.from_arrays([*firsts.columns, *columns], schema=_LINES)
