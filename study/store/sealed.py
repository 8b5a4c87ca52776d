"""Objects that carry their checksum within: plain values as JSON, or a payload behind its digest.

Owns the two forms. Reads and writes nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from study.fields import canonical_json, digest_of
from study.store.atomic import Damaged, Newer
from study.store.provenance import release

_MAGIC: Final = b"freezewise checkpoint 1\n"
_ANY_MAGIC: Final = re.compile(rb"freezewise checkpoint \d+\n")
_DIGEST_BYTES: Final = 64


def seal(content: dict[str, Any]) -> bytes:
    """Plain values as JSON, with their digest and the release that wrote them."""
    envelope = {
        "digest": digest_of(canonical_json(content)),
        "written_by": release(),
        "content": content,
    }
    return json.dumps(envelope, indent=1).encode()


def unseal(payload: bytes, path: str) -> tuple[Any, str]:
    """What `seal` was given, and the release that wrote it ("" before this was noted).

    Raises Damaged.
    """
    try:
        envelope = json.loads(payload)
        content, digest = envelope["content"], envelope["digest"]
        found = digest_of(canonical_json(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(path, f"not the whole of a file of the store ({error})") from error
    if found != digest:
        raise Damaged(path, "its checksum does not fit")
    return content, str(envelope.get("written_by", ""))


def frame(payload: bytes) -> bytes:
    """What stands before a checkpoint's payload in its object."""
    return _MAGIC + digest_of(payload).encode() + b"\n"


def unframe(framed: bytes, path: str) -> bytes:
    """A checkpoint's payload. Raises Damaged, Newer."""
    size = len(_MAGIC) + _DIGEST_BYTES + 1
    payload = framed[size:]
    later = _ANY_MAGIC.match(framed)
    if later is not None and later[0] != _MAGIC:
        raise Newer(path, "", later[0].decode().strip())
    if len(framed) < size or not framed.startswith(_MAGIC):
        raise Damaged(path, f"{len(framed)} bytes that do not begin as a checkpoint")
    if frame(payload) != framed[:size]:
        raise Damaged(path, "its checksum does not fit")
    return payload
