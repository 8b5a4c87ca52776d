"""The names of a store's objects, and the forms of those that carry their checksum within.

Owns the layout under a root:

    tasks/<task>.arrow                      decoded images (`tasks`)
    rows/<id>.arrow                         a finished Run; published last, it is the mark of completion
    weights/<id>-<digest>.safetensors       where another Run starts from it
    unfinished/<id>/checkpoint|began.json|failure.json
    studies/<name>.json                     which Runs a study asked for
    damaged/…                               what was set aside
    lease/…                                 which driver is at work here (`lease`)

and the sealed forms: JSON beside its digest, and a checkpoint behind its own. (Rows are `rows`;
weights are named by their digest.) Reads and writes nothing.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from study.store import rows
from study.store.atomic import Damaged

_ID: Final = r"[0-9a-f]{12}"
ROWS_NAME: Final = re.compile(rf"({_ID})\.arrow")
WEIGHTS_NAME: Final = re.compile(rf"({_ID})-[0-9a-f]{{12}}\.safetensors")
UNFINISHED_PATH: Final = re.compile(rf"unfinished/({_ID})/(checkpoint|began\.json|failure\.json)")
_STUDY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

_MAGIC: Final = b"freezewise checkpoint 1\n"


def rows_path(run_id: str) -> str:
    """Where a finished Run's rows lie."""
    return f"rows/{checked_id(run_id)}{rows.SUFFIX}"


def weights_path(run_id: str, digest: str) -> str:
    """Where a Run's weights with this digest lie."""
    assert re.fullmatch(r"[0-9a-f]{64}", digest), digest
    return f"weights/{checked_id(run_id)}-{digest[:12]}.safetensors"


def unfinished_path(run_id: str, name: str) -> str:
    """Where a file of a Run in flight lies: checkpoint, began.json, failure.json."""
    return f"unfinished/{checked_id(run_id)}/{name}"


def study_path(name: str) -> str:
    """Where it is noted what a study asked for. ValueError if the name is no file's name."""
    if not _STUDY.fullmatch(name):
        raise ValueError(f"study={name!r}: use letters, digits, '.', '_' and '-' only")
    return f"studies/{name}.json"


def checked_id(run_id: str) -> str:
    """The id itself; ValueError if it is none."""
    if not re.fullmatch(_ID, run_id):
        raise ValueError(f"run id {run_id!r}: an id is 12 hex digits")
    return run_id


def seal(content: dict[str, Any]) -> bytes:
    """Plain values as JSON, with their digest."""
    return json.dumps({"digest": _digest_of(content), "content": content}, indent=1).encode()


def unseal(payload: bytes, path: str) -> Any:
    """What `seal` was given. Raises Damaged."""
    try:
        envelope = json.loads(payload)
        content, digest = envelope["content"], envelope["digest"]
        found = _digest_of(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(path, f"not the whole of a file of the store ({error})") from error
    if found != digest:
        raise Damaged(path, "its checksum does not fit")
    return content


def frame(payload: bytes) -> bytes:
    """What stands before a checkpoint's payload in its object."""
    return _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n"


def unframe(framed: bytes, path: str) -> bytes:
    """A checkpoint's payload. Raises Damaged."""
    size = len(_MAGIC) + 65
    payload = framed[size:]
    if len(framed) < size or not framed.startswith(_MAGIC):
        raise Damaged(path, f"{len(framed)} bytes that do not begin as a checkpoint")
    if frame(payload) != framed[:size]:
        raise Damaged(path, "its checksum does not fit")
    return payload


def _digest_of(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
