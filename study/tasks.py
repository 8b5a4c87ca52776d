"""Which tasks there are, and how one is decoded once into the store.

Owns a task's definition (images, classes, size), and the rule that a name means one version of the
images in a store. Refuses another version under that name.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from tqdm import tqdm

from study.images import (
    Digits,
    Encoded,
    ImageFolderImages,
    Listing,
    image_files,
    list_digits,
    list_folder,
    shown,
    to_pixels,
)
from study.parquet_images import ParquetImages, list_parquet, parquet_files
from study.selection import Selection, select
from study.store import Damaged, Store
from study.task_files import (
    PreparedTask,
    TaskInfo,
    canonical_json,
    fingerprint_of,
    load,
    load_info,
    publish,
    scratch_folder,
    task_path,
)

__all__ = [
    "BUILTIN",
    "Digits",
    "ImageFolderImages",
    "ParquetImages",
    "PreparedTask",
    "Task",
    "TaskInfo",
    "describe",
    "load",
    "load_info",
    "prepare",
]

Images = Digits | ImageFolderImages | ParquetImages


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task by its definition.

    - `name`: letters, digits, ".", "_", "-"; Runs and the store know the task by it.
    - `images`: where the images come from.
    - `classes`: the task is narrowed to these, by index or name, and they are numbered in this order;
      None: all.
    - `image_size`: images are resized to a square of so many pixels; None: they are taken as they are,
      and must all have one size.
    - `test_fraction`: of each class, so many images are drawn for testing where the source has no
      test split. The draw depends on the source alone, so that tasks narrowed from one source agree
      on which of its images are for testing.
    """

    name: str
    images: Images
    classes: tuple[int | str, ...] | None = None
    image_size: int | None = None
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"Task.name={self.name!r}: choose letters, digits, '.', '_' and '-'")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError(f"Task.classes={self.classes!r}: a task needs 2 classes or more")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"Task.image_size={self.image_size!r}: choose 1 or more, or None")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"Task.test_fraction={self.test_fraction!r}: must be inside (0, 1)")


# 16×16 instead of the digits' own 8×8, so that the deeper layers of a ResNet, which halve the image
# three times, still see 2×2 positions instead of one.
BUILTIN: Final[Mapping[str, Task]] = {
    task.name: task
    for task in (
        Task(name="digits", images=Digits(), image_size=16),
        Task(name="digits-low", images=Digits(), image_size=16, classes=(0, 1, 2, 3, 4)),
        Task(name="digits-high", images=Digits(), image_size=16, classes=(5, 6, 7, 8, 9)),
    )
}


def describe(task: Task, data: Path | None) -> TaskInfo:
    """What the task will be once it is prepared; one image is decoded, and nothing is downloaded.

    Raises ValueError naming task, field, and the missing file with the data directory.
    """
    try:
        selection = select(_list(task.images, data), task.classes, task.test_fraction)
        return _info(task, selection)
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from error


def prepare(task: Task, store: Store, data: Path | None, *, progress: bool) -> PreparedTask:
    """Decode the task into the store, once; what is there already is checked and handed back.

    It is decoded again only where its definition, or the names or sizes of its files, are not those
    that it was prepared from; that the pixels are then the same decides. (JPEG decoders differ in
    the last bit: a task is prepared once and shared, not once on each machine.) `progress` shows a
    bar on stderr. Raises ValueError for a source that cannot be read, and for another version under
    the name of a task that the store holds; a damaged one is set aside and made anew.
    """
    try:
        return _prepare(task, store, data, progress)
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from error


def _prepare(task: Task, store: Store, data: Path | None, progress: bool) -> PreparedTask:
    definition = _definition(task)
    there = None
    if store.exists(task_path(task.name)):
        try:
            there = load(task.name, store)
        except Damaged:
            store.set_aside(task_path(task.name))
    if there and there.definition == definition and _is_origin(task.images, data, there.origin):
        return there

    selection = select(_list(task.images, data), task.classes, task.test_fraction)
    info = _info(task, selection)
    # Written image by image to a file without a name, so that it needs no memory, a full disk is an
    # ordinary error, and a killed process leaves nothing behind.
    with tempfile.TemporaryFile(dir=scratch_folder(store)) as file:
        for pixels in _decoded(task, selection, info, progress):
            file.write(pixels.data)
        file.flush()
        shape = (info.num_train + info.num_test, *info.image_shape)
        images = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        labels = np.concatenate([selection.train.labels, selection.test.labels])
        fingerprint = fingerprint_of(info, images, labels)
        if there is None:
            publish(
                store,
                info,
                images,
                labels,
                fingerprint=fingerprint,
                definition=definition,
                origin=_origin(task.images, data),
            )
        elif there.fingerprint != fingerprint:
            raise ValueError(
                f"{store.root} holds another version under this name: fingerprint "
                f"{there.fingerprint[:12]}, made from {there.definition}; this one is "
                f"{fingerprint[:12]}, made from {definition}. Give the new one another name, "
                "or use another root"
            )
    return load(task.name, store)


def _definition(task: Task) -> str:
    kind = type(task.images).__name__
    return canonical_json(asdict(task) | {"images": {"kind": kind, **asdict(task.images)}})


def _list(images: Images, data: Path | None) -> Listing:
    match images:
        case Digits():
            return list_digits()
        case ImageFolderImages():
            return list_folder(images, _needed(data))
        case ParquetImages():
            return list_parquet(images, _needed(data))


def _files(images: Images, data: Path | None) -> list[Path]:
    match images:
        case Digits():
            return []
        case ImageFolderImages(train=train, test=test):
            folders = [train] if test is None else [train, test]
            return [file for folder in folders for file in image_files(_needed(data) / folder)]
        case ParquetImages():
            return parquet_files(images, _needed(data))


def _origin(images: Images, data: Path | None) -> str:
    """Digest over names and sizes of the source's files, wherever the data directory is."""
    sizes = [(shown(file, _needed(data)), file.stat().st_size) for file in _files(images, data)]
    return hashlib.sha256(canonical_json(sizes).encode()).hexdigest()


def _is_origin(images: Images, data: Path | None, origin: str) -> bool:
    """Whether the source's files are those of `origin`, or are not at hand to be compared."""
    if data is None:
        return True
    try:
        return _origin(images, data) == origin
    except ValueError:  # They are gone; a prepared task needs them no more.
        return True


def _needed(data: Path | None) -> Path:
    if data is None:
        raise ValueError("it needs a data directory, and none is given: use --data or STUDY_DATA")
    return data


def _info(task: Task, selection: Selection) -> TaskInfo:
    train = selection.train
    where, first = next(train.split.read(train.positions[:1]))
    channels, height, width = to_pixels(first, where, task.image_size).shape
    return TaskInfo(
        name=task.name,
        num_train=len(train.labels),
        num_test=len(selection.test.labels),
        classes=selection.class_names,
        image_shape=(channels, height, width),
    )


def _decoded(
    task: Task, selection: Selection, info: TaskInfo, progress: bool
) -> Iterator[np.ndarray]:
    """All images in order, train first: uint8, shape (c, h, w)."""

    def decode(item: tuple[str, Encoded]) -> np.ndarray:
        where, encoded = item
        pixels = to_pixels(encoded, where, task.image_size)
        if pixels.shape != info.image_shape:
            raise ValueError(
                f"image_size=None: {where} is {pixels.shape[2]}×{pixels.shape[1]} pixels, the first "
                f"image {info.image_shape[2]}×{info.image_shape[1]}; choose an image_size"
            )
        return pixels

    with (
        # Pillow lets go of the interpreter while it decodes and resizes.
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as decoders,
        tqdm(
            total=info.num_train + info.num_test,
            desc=task.name,
            unit=" images",
            disable=not progress,
        ) as bar,
    ):
        for part in (selection.train, selection.test):
            images = part.split.read(part.positions)
            while some := list(islice(images, 256)):
                yield from decoders.map(decode, some)
                bar.update(len(some))
