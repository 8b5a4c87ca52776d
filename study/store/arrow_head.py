"""The bytes of an Arrow file whose metadata carry a digest of themselves, and their check.

Owns that form, which rows and predictions share: what the metadata are, and what follows from them, is
each kind's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from study.store.atomic import Damaged

# Files are small and many: callers read several at a time.
IN_THIS_THREAD: Final = pa.ipc.IpcReadOptions(use_threads=False)

_DIGEST: Final = b"head_digest"


def to_bytes(table: pa.Table, head: Mapping[bytes, bytes]) -> bytes:
    """The table as one record batch, with this head and its digest, taken in its order."""
    metadata = {**head, _DIGEST: _digest(head)}
    whole = table.combine_chunks().replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    # Not lz4, though it is decoded sooner: there, some flipped bits change no value and go unnoticed.
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, whole.schema, options=options) as writer:
        writer.write_table(whole)
    return bytes(sink.getvalue())


def checked(
    metadata: Mapping[bytes, bytes] | None, keys: tuple[bytes, ...], path: str, what: str
) -> Mapping[bytes, bytes]:
    """The head with these keys, in the order in which it was written. `what`: of the file, in messages.

    Raises Damaged where a key is absent or the digest does not fit.
    """
    found = metadata or {}
    absent = [key.decode() for key in (*keys, _DIGEST) if key not in found]
    if absent:
        raise Damaged(path, f"no {what} of a study: its metadata lack {', '.join(absent)}")
    head = {key: found[key] for key in keys}
    if found[_DIGEST] != _digest(head):
        raise Damaged(path, "its metadata are not those that were written")
    return head


def brief(error: BaseException) -> str:
    """An error's text in one line, not too long."""
    return " ".join(str(error).split())[:200]


def _digest(head: Mapping[bytes, bytes]) -> bytes:
    total = hashlib.sha256()
    for value in head.values():
        total.update(b"%d:" % len(value) + value)
    return total.hexdigest().encode()
