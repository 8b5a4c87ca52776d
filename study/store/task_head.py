"""What the file of a prepared task says of itself: the metadata of its schema, checked.

Here and not beside the images, so that the analysis, which reads the labels, imports no `study.tasks`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

from study.fields import canonical_json, digest_of
from study.store.atomic import Damaged, Newer
from study.store.provenance import release
from study.store.retries import is_content

FORMAT: Final = "freezewise task 1"

_ABOUT, _DIGEST = b"freezewise", b"sha256"


def metadata_of(plain: dict[str, Any]) -> dict[bytes, bytes]:
    """These plain values with their form, release and digest, as a schema's metadata."""
    about = canonical_json({"format": FORMAT, "written_by": release(), **plain})
    return {_ABOUT: about.encode(), _DIGEST: digest_of(about).encode()}


def read_task_head(file: Any, path: str) -> dict[str, Any]:
    """What `metadata_of` was given, from an open Arrow file. Raises Damaged, Newer."""
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
    if plain.get("format", FORMAT) != FORMAT:  # the first ones did not say it
        raise newer(path, plain, str(plain["format"]))
    return plain


def newer(path: str, plain: Mapping[str, Any], what: str) -> Newer:
    """That the file, whose head this is, was written by a later release."""
    return Newer(path, str(plain.get("written_by", "")), what)
