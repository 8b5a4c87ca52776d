"""Select a task's images, decode them, and write them to the store.

Within a store, a task's name always means the same version of its images."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from study.fields import canonical_json
from study.seeds import permutation
from study.store import Damaged, Newer, Store
from study.store.layout import task_path
from study.tasks.images import Encoded, Listing, Split, choices, to_pixels
from study.tasks.prepared_file import (
    PreparedTask,
    TaskInfo,
    fingerprint_of,
    load,
    publish,
    scratch_folder,
)
from study.tasks.task import Task, is_origin, list_images, origin_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images of one split of the source by position, ascending, with the task's own labels."""

    split: Split
    positions: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The images of a task, and its class names."""

    class_names: tuple[str, ...]
    train: Part
    test: Part


def select(
    listing: Listing, classes: tuple[int | str, ...] | None, test_fraction: float
) -> Selection:
    """Select the images of these classes (None: all); draw `test_fraction` of each class for testing if
    the source has no test split.

    Raises ValueError for an unknown class, and one without images.
    """
    chosen = _chosen(classes, listing.class_names)
    number = np.full(len(listing.class_names), -1)
    number[chosen] = np.arange(len(chosen))
    names = tuple(listing.class_names[index] for index in chosen)

    def part(what: str, split: Split, among: np.ndarray) -> Part:
        positions = np.flatnonzero((number[split.labels] >= 0) & among)
        labels = number[split.labels[positions]].astype(np.int64)
        empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
        if len(empty):
            raise ValueError(
                f"class {names[empty[0]]!r} has no {what} image"
                + (f", nor have {len(empty) - 1} other classes" if len(empty) > 1 else "")
                + "; narrow the task by `classes`"
            )
        return Part(split=split, positions=positions, labels=labels)

    train = np.ones(len(listing.train.labels), dtype=bool)
    if listing.test is not None:
        everything = np.ones(len(listing.test.labels), dtype=bool)
        test_part = part("test", listing.test, everything)
    else:
        counts = np.bincount(listing.train.labels, minlength=len(number))
        for index in chosen:
            if counts[index] < 2:
                raise ValueError(
                    f"class {listing.class_names[index]!r} has {counts[index]} images: drawing "
                    "a test split needs 2 or more"
                )
        test = _drawn_test(listing.train.labels, counts, test_fraction)
        train = ~test
        test_part = part("test", listing.train, test)
    return Selection(
        class_names=names, train=part("training", listing.train, train), test=test_part
    )


def _chosen(classes: tuple[int | str, ...] | None, class_names: tuple[str, ...]) -> list[int]:
    if classes is None:
        return list(range(len(class_names)))
    chosen: list[int] = []
    for given in classes:
        if type(given) is int and 0 <= given < len(class_names):
            index = given
        elif given in class_names:
            index = class_names.index(str(given))
        else:
            raise ValueError(
                f"classes: {given!r} is not a class, choose 0 to {len(class_names) - 1} or from "
                f"{choices(class_names, 200)}"
            )
        if index in chosen:
            raise ValueError(f"classes: {given!r} is given twice (class {index})")
        chosen.append(index)
    return chosen


def _drawn_test(labels: np.ndarray, counts: np.ndarray, fraction: float) -> np.ndarray:
    """Draw the test images, bool of shape (n,): of each class `fraction`, rounded, at least 1.

    The stream's name contains only the number of images, so that files may be moved or renamed.
    """
    shuffled = permutation(len(labels), "test", len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    num_test = np.minimum(np.maximum(np.rint(counts * fraction), 1), counts - 1)
    test = np.zeros(len(labels), dtype=bool)
    test[by_class] = rank < np.repeat(num_test, counts)
    return test


IMAGES_AT_ONCE: Final = 512
BYTES_AT_ONCE: Final = 256 * 2**20


def describe(task: Task, data: Path | None) -> TaskInfo:
    """Return what the task will be once prepared; decodes one image, downloads nothing.

    Raises ValueError naming task, field, and the missing file with the data directory.
    """
    try:
        listing = list_images(task.images, data, download=False)
        return _info(task, listing, select(listing, task.classes, task.test_fraction))
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from error


def prepare(task: Task, store: Store, data: Path | None, *, progress: bool) -> PreparedTask:
    """Decode the task into the store, once; if it is prepared already, check and return it.

    It is decoded again only if its definition, or a name, size or time of its files, has changed; then the
    pixels are compared. (JPEG decoders differ in the last bit: prepare a task once and share it between
    machines.) `progress`: show a bar on stderr. Raises ValueError for an unreadable source, and if the
    store has another version under this name; a damaged task is quarantined and made again.
    """
    try:
        return _prepare(task, store, data, progress)
    except Newer:
        raise
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from error


def _prepare(task: Task, store: Store, data: Path | None, progress: bool) -> PreparedTask:
    definition = _definition(task)
    there = None
    if store.exists(task_path(task.name)):
        try:
            there = load(task.name, store)
        except Damaged:
            store.quarantine(task_path(task.name))
    if there and there.definition == definition and is_origin(task.images, data, there.origin):
        return there

    listing = list_images(task.images, data, download=True)
    origin = origin_of(task.images, data)
    selection = select(listing, task.classes, task.test_fraction)
    info = _info(task, listing, selection)
    # Written image by image to an unnamed file: it needs no memory, a full disk is an ordinary error,
    # and a killed process leaves nothing behind.
    with tempfile.TemporaryFile(dir=scratch_folder(store)) as file:
        for pixels in _decoded(task, selection, info, progress):
            file.write(pixels.data)
        file.flush()
        shape = (info.num_train + info.num_test, *info.image_shape)
        images = np.memmap(file, dtype=np.uint8, mode="r", shape=shape)
        labels = np.concatenate([selection.train.labels, selection.test.labels])
        fingerprint = fingerprint_of(info, images, labels)
        if there and there.fingerprint != fingerprint:
            raise ValueError(
                f"{store.shown} holds another version under this name: fingerprint "
                f"{there.fingerprint[:12]}, made from {there.definition}; this one is "
                f"{fingerprint[:12]}, made from {definition}. Give the new one another name, "
                "or use another root"
            )
        # The same pixels from another source are published again, so that they are not decoded each
        # time.
        publish(
            store,
            info,
            images,
            labels,
            fingerprint=fingerprint,
            definition=definition,
            origin=origin,
        )
    return load(task.name, store)


def _definition(task: Task) -> str:
    kind = type(task.images).__name__
    return canonical_json(asdict(task) | {"images": {"kind": kind, **asdict(task.images)}})


def _info(task: Task, listing: Listing, selection: Selection) -> TaskInfo:
    train, size = selection.train, task.image_size
    if size is not None:
        shape = (3, size, size)
    elif listing.image_shape is not None:
        shape = listing.image_shape
    else:
        where, first = next(train.split.read(train.positions[:1]))
        shape = to_pixels(first, where, None).shape
    return TaskInfo(
        name=task.name,
        num_train=len(train.labels),
        num_test=len(selection.test.labels),
        classes=selection.class_names,
        image_shape=shape,
    )


def _some(
    images: Iterator[tuple[str, Encoded]], info: TaskInfo
) -> Iterator[list[tuple[str, Encoded]]]:
    """Yield the images in parts that take little memory, encoded and decoded."""
    most = max(1, min(IMAGES_AT_ONCE, BYTES_AT_ONCE // math.prod(info.image_shape)))
    gathered: list[tuple[str, Encoded]] = []
    num_bytes = 0
    for where, encoded in images:
        gathered.append((where, encoded))
        num_bytes += len(encoded) if isinstance(encoded, bytes) else 0
        if len(gathered) == most or num_bytes > BYTES_AT_ONCE:
            yield gathered
            gathered, num_bytes = [], 0
    if gathered:
        yield gathered


def _decoded(
    task: Task, selection: Selection, info: TaskInfo, progress: bool
) -> Iterator[np.ndarray]:
    """Yield all images in order, train first: uint8, shape (c, h, w)."""

    def decode(where: str, encoded: Encoded) -> np.ndarray:
        pixels = to_pixels(encoded, where, task.image_size)
        if pixels.shape != info.image_shape:
            raise ValueError(
                f"image_size=None: {where} is {pixels.shape[2]}×{pixels.shape[1]} pixels, the first "
                f"image {info.image_shape[2]}×{info.image_shape[1]}; choose an image_size"
            )
        return pixels

    def decode_lot(lot: list[tuple[str, Encoded]]) -> list[np.ndarray]:
        return [decode(where, encoded) for where, encoded in lot]

    from tqdm import tqdm  # not needed if nothing is decoded

    with (
        # Pillow releases the GIL while it decodes and resizes. A small image costs less than handing it
        # to a thread, so threads get lots.
        ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as decoders,
        tqdm(
            total=info.num_train + info.num_test,
            desc=task.name,
            unit=" images",
            disable=not progress,
        ) as bar,
    ):
        for part in (selection.train, selection.test):
            for some in _some(part.split.read(part.positions), info):
                lots = [some[start : start + 32] for start in range(0, len(some), 32)]
                for lot in decoders.map(decode_lot, lots):
                    yield from lot
                    bar.update(len(lot))
