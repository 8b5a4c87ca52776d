"""The digest of an Arrow table, over its columns' values.

It does not depend on which version of pyarrow wrote a file, how it was compressed or cut in batches.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow as pa


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
