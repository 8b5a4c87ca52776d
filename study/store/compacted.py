"""Read copies of many rows files from a few Parquet files (see `compaction`), not each rows file.

The rows files stay the source of truth. A reader compares the SHA-256 of every rows file (on a bucket:
its ETag) with the manifest, and uses the copy of a Run only if they are equal. The manifest has one line
for each copied Run: its coordinates, provenance and checksum, and where its rows are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from study.fields import digest_of
from study.messages import show_message
from study.store import arrow_file, layout, provenance, rows, schema
from study.store.atomic import Damaged, Newer
from study.store.layout import manifest_path, rows_path
from study.store.provenance import Provenance
from study.store.rows import finished_etags
from study.store.store import Store, in_pieces, store_command, unreadable

# A larger Parquet file in a bucket is read in ranges.
_BYTES_AT_ONCE: Final = 2**28

NAME: Final = "freezewise compacted 1, rows "  # followed by the number of the rows' format
FORMAT, WRITTEN_BY, PARTS = b"format", b"written_by", b"parts"
_INSTEAD: Final = "the rows files are read instead"
_HEAD: Final = (FORMAT, WRITTEN_BY, PARTS)

LINES: Final = pa.schema(
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

Answer = TypeVar("Answer")


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
    return provenances_with(open_copy(store), store, run_ids, etags=etags, most=most)


def provenances_with(
    copy: Copy | None,
    store: Store,
    run_ids: Collection[str],
    *,
    etags: Mapping[str, str] | None = None,
    most: int | None = None,
) -> dict[str, Provenance | Damaged]:
    """Return the same as `read_provenances`; `copy`: `open_copy(store)`."""
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
        return _open_copy(store)
    except Damaged as error:
        show_message(f"{error}; {_INSTEAD}")
    return None


def _open_copy(store: Store) -> Copy | None:
    try:
        return read_manifest(store)
    except FileNotFoundError:
        return None
    except Newer as error:
        show_message(f"{error}; {_INSTEAD}")
    except PermissionError as error:
        show_message(f"{unreadable(error)}; {_INSTEAD}")
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
        number = head[FORMAT].decode().removeprefix(NAME)
        if not number.isdigit() or int(number) > schema.FORMAT:
            raise Newer(path, head[WRITTEN_BY].decode(), head[FORMAT].decode())
        if int(number) < schema.FORMAT:
            raise FileNotFoundError(path)
        lines = arrow_file.read_table(reader)
    if not lines.schema.equals(LINES, check_metadata=False):
        raise Damaged(path, "its columns are not those of a manifest")
    return Copy(tuple(Part(**plain) for plain in json.loads(head[PARTS])), lines)


def difference(
    copy: Copy | None,
    store: Store,
    there: Collection[str],
    made_by: Mapping[str, Provenance | Damaged],
) -> str:
    """Return a sentence if rows files of copied Runs have changed or vanished, or parts vanished; else "".

    `copy`: `open_copy(store)`; `there`: the ids of all finished Runs; `made_by`: the result of
    `read_provenances` for some Runs.
    """
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


def check_copy(store: Store) -> tuple[Copy | None, list[Damaged]]:
    """Return the manifest as `open_copy` does, and a Damaged for it or for each unusable part."""
    try:
        copy = _open_copy(store)
    except Damaged as damaged:
        return None, [damaged]
    return copy, [] if copy is None else list(damaged_parts(store, copy).values())


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
        show_message(f"{each}; {_INSTEAD}")
    files = {}
    for part in copy.parts:
        if part.path not in damaged:
            source = store.opened(part.path, whole=part.num_bytes <= _BYTES_AT_ONCE)
            # In a directory, `damaged_parts` has checked all bytes.
            is_checked = store.buckets is None
            files[part.path] = pq.ParquetFile(source, page_checksum_verification=not is_checked)
    return files
