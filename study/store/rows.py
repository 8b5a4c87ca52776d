"""A finished Run as the bytes of one Arrow IPC file, and back: checked, or refused as damaged.

Owns the file's metadata and both digests. The rows digest is taken over the columns' values, so it
does not depend on which version of pyarrow wrote the file, how it was compressed or cut into batches.
Reads and writes no file: that is `store`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from study import run as runs
from study.run import Run
from study.store import provenance as prov
from study.store import schema
from study.store.atomic import Damaged
from study.store.provenance import Provenance

FORMAT: Final = "freezewise rows 1"
SUFFIX: Final = ".arrow"

# Files are small and many: callers read several at a time.
_IN_THIS_THREAD: Final = pa.ipc.IpcReadOptions(use_threads=False)

_FORMAT, _RUN, _PROVENANCE = b"format", b"run", b"provenance"
_ROWS_DIGEST, _HEAD_DIGEST = b"rows_digest", b"head_digest"
_HEAD: Final = (_FORMAT, _RUN, _PROVENANCE, _ROWS_DIGEST)


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a rows file says of itself, read without its rows."""

    run: Run
    provenance: Provenance
    rows_digest: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished (or diverged) Run; `table` has schema.ROWS, one row an evaluation."""

    run: Run
    table: pa.Table
    provenance: Provenance


def to_bytes(run: Run, table: pa.Table, provenance: Provenance) -> bytes:
    """The rows file, as one record batch, so that dictionaries are whole."""
    assert table.schema.equals(schema.ROWS), f"{run.id}: {table.schema.names} is not schema.ROWS"
    assert table.num_rows > 0, f"{run.id}: a Run has at least the row of epoch 0"
    for field in schema.ROWS:
        assert field.nullable or table[field.name].null_count == 0, f"{run.id}: null {field.name}"
    assert pc.unique(table["run_id"].cast(pa.string())).to_pylist() == [run.id], run.id
    head = {
        _FORMAT: FORMAT.encode(),
        _RUN: runs.to_json(run).encode(),
        _PROVENANCE: prov.to_json(provenance).encode(),
        _ROWS_DIGEST: digest(table).encode(),
    }
    head[_HEAD_DIGEST] = _head_digest(head)
    whole = table.unify_dictionaries().combine_chunks().replace_schema_metadata(head)
    sink = pa.BufferOutputStream()
    # Not lz4, though it is decoded sooner: there, some flipped bits change no value and go unnoticed.
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, whole.schema, options=options) as writer:
        writer.write_table(whole)
    return sink.getvalue().to_pybytes()


def from_bytes(payload: bytes, run_id: str, path: str) -> Finished:
    """The Run in the bytes of a rows file. `run_id`: the one that the file's name says.

    Raises Damaged if anything in it is not as written, and ValueError for a whole file of a format
    that this version does not know.
    """
    with _opened(pa.BufferReader(payload), path) as reader:
        head = _checked_head(reader.schema, run_id, path)
        if not reader.schema.equals(schema.ROWS, check_metadata=False):
            raise Damaged(path, "its columns are not those of a study's table")
        try:
            table = reader.read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise Damaged(path, f"its rows cannot be read ({_brief(error)})") from error
    found = digest(table)
    if found != head.rows_digest:
        raise Damaged(path, f"rows digest {found[:12]}, written as {head.rows_digest[:12]}")
    rows = pa.Table.from_arrays(table.columns, schema=schema.ROWS)
    return Finished(run=head.run, table=rows, provenance=head.provenance)


def head_from(source: pa.NativeFile, run_id: str, path: str) -> Head:
    """What `from_bytes` gives but for the rows, which are not looked at. Raises the same."""
    with _opened(source, path) as reader:
        return _checked_head(reader.schema, run_id, path)


def digest(table: pa.Table) -> str:
    """SHA-256 hex over names, kinds, nulls and values of the columns, in their order.

    Dictionary-encoded columns count as their strings. Values are taken as little-endian bytes, so
    that two tables are equal by it if and only if they are so bit for bit.
    """
    parts: list[Any] = [b"%d rows" % table.num_rows]
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind, values = _canonical(column)
        for part in (name.encode(), kind.encode(), *values):
            parts += (b"%d:" % len(part), part)
    # At once: each update lets go of the interpreter, for which threads that read files would queue.
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _canonical(column: pa.ChunkedArray) -> tuple[str, list[Any]]:
    """The column's kind, and buffers of bytes that hold its nulls and values."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        if len(array.dictionary) == 1 and not array.null_count:
            # One text in all rows, as of a coordinate: encoded anew, it would be what it is.
            texts = json.dumps(array.dictionary.to_pylist()).encode()
            return "string", [b"", texts, _little_endian(array.indices)]
        array = array.dictionary_decode()
    present = b""  # stands for all
    if array.null_count:
        present = array.is_valid().to_numpy(zero_copy_only=False).tobytes()
        if not pa.types.is_string(array.type):
            array = array.fill_null(pa.scalar(0, array.type))
    if pa.types.is_string(array.type):
        # Distinct texts in the order of their first appearance, and which of them stands where.
        encoded = array.dictionary_encode()
        texts = json.dumps(encoded.dictionary.to_pylist()).encode()
        indices = encoded.indices.fill_null(-1) if array.null_count else encoded.indices
        return "string", [present, texts, _little_endian(indices)]
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return str(array.type), [present, _little_endian(array)]
    raise ValueError(f"no digest is defined for a column of {array.type}")


def _little_endian(array: pa.Array) -> memoryview:
    values = array.to_numpy()
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return memoryview(little).cast("B")


def _head_digest(metadata: dict[bytes, bytes]) -> bytes:
    total = hashlib.sha256()
    for key in _HEAD:
        total.update(b"%d:" % len(metadata[key]) + metadata[key])
    return total.hexdigest().encode()


def _opened(source: pa.NativeFile, path: str) -> pa.ipc.RecordBatchFileReader:
    if not source.size():
        raise Damaged(path, "it is empty")
    try:
        return pa.ipc.open_file(source, options=_IN_THIS_THREAD)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise Damaged(path, f"not a whole Arrow file ({_brief(error)})") from error


def _checked_head(file_schema: pa.Schema, run_id: str, path: str) -> Head:
    metadata = file_schema.metadata or {}
    absent = [key.decode() for key in (*_HEAD, _HEAD_DIGEST) if key not in metadata]
    if absent:
        raise Damaged(path, f"no rows file of a study: its metadata lack {', '.join(absent)}")
    if metadata[_HEAD_DIGEST] != _head_digest(metadata):
        raise Damaged(path, "its metadata are not those that were written")
    if metadata[_FORMAT] != FORMAT.encode():
        raise ValueError(
            f"{path}: its format is {metadata[_FORMAT].decode()!r}, this version of freezewise reads "
            f"{FORMAT!r} only"
        )
    try:
        run = runs.from_json(metadata[_RUN].decode())
        provenance = prov.from_json(metadata[_PROVENANCE].decode())
    except ValueError as error:
        # The checksum fits, so this was written so: by a release with other fields.
        raise ValueError(f"{path}: {error}") from error
    if run.id != run_id:
        raise Damaged(path, f"it holds Run {run.id}, not the one of its name")
    return Head(
        run=run,
        provenance=provenance,
        rows_digest=metadata[_ROWS_DIGEST].decode(),
    )


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
