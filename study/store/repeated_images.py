"""Test images of a prepared task that are among its training images, pixel by pixel.

Here and not beside the images, so that the analysis can warn of them without `study.tasks`. Refuses to
fetch a task from a bucket for it: its answer is then that it is not known.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa

from study.store.atomic import Damaged, Newer
from study.store.layout import task_path
from study.store.store import Store
from study.store.task_head import read_task_head


def num_repeated(store: Store, task: str) -> int | None:
    """How many of the task's test images have a digest that one of its training images has.

    None where the task is not prepared on this machine. Raises Damaged, Newer.
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
    """That there are such images, as a sentence; None where there are none, or nothing is known."""
    try:
        number = num_repeated(store, task)
    except (Damaged, Newer, pa.ArrowException, KeyError, ValueError):
        return None  # `study verify` says so; the rows stand without the task
    if not number:
        return None
    are = "1 test image is" if number == 1 else f"{number:,} test images are"
    return (
        f"Task {task}: {are} among the training images, pixel by pixel: the test error says too little "
        "of unseen images."
    )
