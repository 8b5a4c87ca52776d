"""The bytes of an Arrow file whose metadata carry a digest of themselves, and one of the whole file.

Owns that form, which rows and predictions share, and its checks: what the metadata are, and what follows
from them, is each kind's own. The digest of the file is a value of its metadata, in whose place zeros are
taken: so a reader that does not know it reads the file as ever.
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
_SEAL: Final = b"file_digest"
# Found in the bytes themselves: what says that there is a digest must not be lost with one flipped bit.
_MARK: Final = b"SHA-256 of this file with zeros for this digest: "
_ZEROS: Final = b"0" * 64
_NUM_MARKS: Final = (
    2  # an Arrow file has its metadata in its first message, and once more in its footer
)


def to_bytes(table: pa.Table, head: Mapping[bytes, bytes]) -> bytes:
    """The table as one record batch, with this head and its digest, taken in its order, and the file's."""
    metadata = {**head, _DIGEST: _digest(head), _SEAL: _MARK + _ZEROS}
    whole = table.combine_chunks().replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    # Not lz4, though it is decoded sooner: there, some flipped bits change no value and go unnoticed.
    options = pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)
    with pa.ipc.new_file(sink, whole.schema, options=options) as writer:
        writer.write_table(whole)
    unsealed = bytes(sink.getvalue())
    assert unsealed.count(_MARK + _ZEROS) == _NUM_MARKS
    return unsealed.replace(_MARK + _ZEROS, _MARK + hashlib.sha256(unsealed).hexdigest().encode())


def is_sealed(payload: bytes, path: str) -> bool:
    """Whether the file carries a digest of all its bytes, as those of earlier releases do not.

    Raises Damaged where it does not fit.
    """
    first, *others = payload.split(_MARK)
    if not others:
        return False
    size = len(_ZEROS)
    unsealed = _MARK.join((first, *(_ZEROS + each[size:] for each in others)))
    digest = hashlib.sha256(unsealed).hexdigest().encode()
    if len(others) != _NUM_MARKS or any(each[:size] != digest for each in others):
        raise Damaged(path, "its bytes are not those that were written")
    return True


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
