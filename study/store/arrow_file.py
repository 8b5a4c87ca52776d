"""Serialise Arrow tables with checksums, and verify them.

A file's checksum is in its own metadata, and is computed with zeros in place of the checksum. Any Arrow
reader can read the file. A table's checksum covers only values, not pyarrow's version or compression.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa

from study.store.atomic import Damaged, Newer
from study.store.errors import is_content

# Callers read many small files in threads of their own.
_IN_THIS_THREAD: Final = pa.ipc.IpcReadOptions(use_threads=False)

_DIGEST: Final = b"head_digest"
_SEAL: Final = b"file_digest"
# Precedes the file's digest. Searched in the raw bytes: one flipped bit must not hide the digest.
_MARK: Final = b"SHA-256 of this file with zeros for this digest: "
_ZEROS: Final = b"0" * 64
# An Arrow file has its metadata in its first message and again in its footer.
_NUM_MARKS: Final = 2


def to_bytes(table: pa.Table, head: Mapping[bytes, bytes]) -> bytes:
    """Return an Arrow file of one record batch; its metadata are `head` and digests of head and file."""
    metadata = {**head, _DIGEST: _digest(head), _SEAL: _MARK + _ZEROS}
    whole = table.combine_chunks().replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    # Not lz4, although it decodes faster: in lz4, some flipped bits change no value and go unnoticed.
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, whole.schema, options=options) as writer:
        writer.write_table(whole)
    unsealed = bytes(sink.getvalue())
    assert unsealed.count(_MARK + _ZEROS) == _NUM_MARKS
    return unsealed.replace(_MARK + _ZEROS, _MARK + hashlib.sha256(unsealed).hexdigest().encode())


def is_sealed(payload: bytes, path: str) -> bool:
    """Return True if the file has a digest of all its bytes; False for files of earlier releases.

    Raises Damaged if the digest does not match.
    """
    first, *others = payload.split(_MARK)
    if not others:
        return False
    size = len(_ZEROS)
    unsealed = _MARK.join((first, *(_ZEROS + each[size:] for each in others)))
    digest = hashlib.sha256(unsealed).hexdigest().encode()
    if len(others) != _NUM_MARKS or any(each[:size] != digest for each in others):
        raise Damaged(path, "its bytes do not match their checksum")
    return True


def checked(
    metadata: Mapping[bytes, bytes] | None, keys: tuple[bytes, ...], path: str, what: str
) -> Mapping[bytes, bytes]:
    """Return the metadata of these keys; verify their digest. `what`: the kind of file, for messages.

    Raises Damaged if a key is missing or the digest does not match.
    """
    found = metadata or {}
    absent = [key.decode() for key in (*keys, _DIGEST) if key not in found]
    if absent:
        raise Damaged(path, f"no {what} of a study: its metadata lack {', '.join(absent)}")
    head = {key: found[key] for key in keys}
    if found[_DIGEST] != _digest(head):
        raise Damaged(path, "its metadata do not match their digest")
    return head


@contextmanager
def opened(source: pa.NativeFile, path: str) -> Iterator[pa.ipc.RecordBatchFileReader]:
    """Open an Arrow file for the block.

    Raises Damaged if the block cannot decode the file, or a sector is unreadable. Other disk errors are
    raised unchanged.
    """
    if not source.size():
        raise Damaged(path, "it is empty")
    try:
        with pa.ipc.open_file(source, options=_IN_THIS_THREAD) as reader:
            yield reader
    except Newer:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        if isinstance(error, OSError) and not is_content(error):
            raise
        why = " ".join(str(error).split())[:200]
        raise Damaged(path, f"not a whole Arrow file ({why})") from error


def read_table(reader: pa.ipc.RecordBatchFileReader) -> pa.Table:
    """Read all columns. Raises an error if an offset points outside its buffer."""
    table = reader.read_all()
    table.validate(full=True)
    return table


def _digest(head: Mapping[bytes, bytes]) -> bytes:
    total = hashlib.sha256()
    for value in head.values():
        total.update(b"%d:" % len(value) + value)
    return total.hexdigest().encode()


def table_digest(table: pa.Table) -> str:
    """Return SHA-256 hex over names, types, nulls and values of the columns, in their order.

    Dictionary-encoded columns are hashed as strings, numbers as little-endian bytes. Tables have the same
    digest if and only if they are equal bit for bit.
    """
    parts: list[Any] = [b"%d rows" % table.num_rows]
    for name, column in zip(table.column_names, table.columns, strict=True):
        kind, values = _canonical(column)
        for part in (name.encode(), kind.encode(), *values):
            parts += (b"%d:" % len(part), part)
    # A single update: every update releases the GIL, and must then wait for threads that read files.
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _canonical(column: pa.ChunkedArray) -> tuple[str, list[Any]]:
    """Return the column's type as text, and the bytes of its validity (b"": no nulls) and values."""
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        if len(array.dictionary) == 1 and not array.null_count:
            # All rows have the same text, as in a coordinate: encoding again would change nothing.
            texts = json.dumps(array.dictionary.to_pylist()).encode()
            return "string", [b"", texts, _little_endian(array.indices)]
        array = array.dictionary_decode()
    present = b""  # no nulls
    if array.null_count:
        present = array.is_valid().to_numpy(zero_copy_only=False).tobytes()
        if not pa.types.is_string(array.type):
            array = array.fill_null(pa.scalar(0, array.type))
    if pa.types.is_string(array.type):
        # Distinct texts in the order of their first appearance, and the index of each row's text.
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
