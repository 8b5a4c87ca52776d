"""Read the metadata of prepared tasks, and count test images that are also training images.

Must stay importable without `study.tasks`, for the analysis."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from study.fields import canonical_json, digest_of
from study.store import arrow_file
from study.store.atomic import Damaged, Newer
from study.store.layout import task_path
from study.store.provenance import release
from study.store.store import Store

FORMAT: Final = "freezewise task 1"

_ABOUT, _DIGEST = b"freezewise", b"sha256"


def metadata_of(plain: dict[str, Any]) -> dict[bytes, bytes]:
    """Return a schema's metadata: these plain values, format, release and a digest."""
    about = canonical_json({"format": FORMAT, "written_by": release(), **plain})
    return {_ABOUT: about.encode(), _DIGEST: digest_of(about).encode()}


def read_task_head(file: Any, path: str) -> dict[str, Any]:
    """Return the plain values of `metadata_of` from an open Arrow file. Raises Damaged, Newer."""
    with arrow_file.opened(file, path) as reader:
        metadata = reader.schema.metadata or {}
    about = metadata.get(_ABOUT, b"")
    if metadata.get(_DIGEST) != digest_of(about).encode():
        raise Damaged(path, "its metadata do not match their checksum")
    plain: dict[str, Any] = json.loads(about)
    if plain.get("format", FORMAT) != FORMAT:  # the first files have no format
        raise newer(path, plain, str(plain["format"]))
    return plain


def newer(path: str, plain: Mapping[str, Any], what: str) -> Newer:
    """Return the error for a file with this head, written by a later release."""
    return Newer(path, str(plain.get("written_by", "")), what)


def num_repeated(store: Store, task: str) -> int | None:
    """Return the number of test images that equal a training image, pixel by pixel.

    None if the task is not prepared on this machine. Raises Damaged, Newer.
    """
    path = task_path(task)
    local = store.local_path(path)
    if local is None or not local.exists():
        return None
    with pa.memory_map(str(local)) as file:
        info = read_task_head(file, path)["info"]
        place = pa.ipc.open_file(file).schema.get_field_index("image")
        only = pa.ipc.IpcReadOptions(included_fields=[place])
        images = pa.ipc.open_file(file, options=only).get_batch(0).column(0).flatten()
        pixels = images.to_numpy(zero_copy_only=True).reshape(-1, int(np.prod(info["image_shape"])))
        num_train = info["num_train"]
        trained_on = {hashlib.sha256(each.data).digest() for each in pixels[:num_train]}
        tested = (hashlib.sha256(each.data).digest() for each in pixels[num_train:])
        return sum(digest in trained_on for digest in tested)


def repeated_text(store: Store, task: str) -> str | None:
    """Return a sentence about repeated images; None if their number is 0 or unknown."""
    try:
        number = num_repeated(store, task)
    except (Damaged, Newer, pa.ArrowException, KeyError, ValueError):
        return None  # `study verify` reports the damaged task; the rows are valid without the task
    if not number:
        return None
    are = (
        "1 test image is also a training image"
        if number == 1
        else f"{number:,} test images are also training images"
    )
    return f"Task {task}: {are}, pixel by pixel: the test error is no estimate for unseen images."
