"""What the file of a prepared task says of itself: the metadata of its schema, checked.

Here and not beside the images, so that the analysis, which reads the labels, imports no `study.tasks`.
"""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from study.fields import canonical_json, digest_of
from study.store.atomic import Damaged
from study.store.retries import is_content

_ABOUT, _DIGEST = b"freezewise", b"sha256"


def metadata_of(plain: dict[str, Any]) -> dict[bytes, bytes]:
    """These plain values, with their digest, as a schema's metadata."""
    about = canonical_json(plain)
    return {_ABOUT: about.encode(), _DIGEST: digest_of(about).encode()}


def read_task_head(file: Any, path: str) -> dict[str, Any]:
    """What `metadata_of` was given, from an open Arrow file. Raises Damaged."""
    try:
        metadata = pa.ipc.open_file(file).schema.metadata
        about = metadata[_ABOUT]
        whole = digest_of(about).encode() == metadata[_DIGEST]
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and not is_content(error):
            raise
        raise Damaged(path, f"not readable: {error}") from error
    if not whole:
        raise Damaged(path, "the checksum of its metadata does not fit")
    plain: dict[str, Any] = json.loads(about)
    return plain
