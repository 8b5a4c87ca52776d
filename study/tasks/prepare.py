"""Select a task's images, decode them, and write them to the store.

Within a store, a task's name always means the same version of its images."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from study.fields import canonical_json
from study.messages import show_message
from study.seeds import permutation
from study.store import Damaged, Newer, Store
from study.store.layout import task_path
from study.tasks.images import (
    Encoded,
    Listing,
    Notes,
    Skipped,
    Split,
    choices,
    plain_name,
    skipped_text,
    to_pixels,
)
from study.tasks.prepared_file import (
    PreparedTask,
    TaskInfo,
    fingerprint_of,
    load,
    publish,
    scratch_folder,
)
from study.tasks.task import Task, is_origin, list_images, origin_of, source_files


@dataclass(frozen=True, kw_only=True)
class Part:
    """Images of one split of the source: ascending positions, and labels as the task numbers them."""

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

    Raises ValueError for an unknown class, and for a class without images.
    """
    chosen = _chosen(classes, listing.class_names)
    if len(chosen) < 2:
        raise ValueError(
            f"it has {len(chosen)} class ({choices(listing.class_names)}), a task needs 2 or more"
        )
    number = np.full(len(listing.class_names), -1)
    number[chosen] = np.arange(len(chosen))
    names = tuple(listing.class_names[index] for index in chosen)

    def part(what: str, split: Split, among: np.ndarray) -> Part:
        positions = np.flatnonzero((number[split.labels] >= 0) & among)
        labels = number[split.labels[positions]].astype(np.int64)
        empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
        if len(empty):
            others = f", nor have {len(empty) - 1} other classes" if len(empty) > 1 else ""
            raise ValueError(
                f"class {names[empty[0]]!r} has no {what} image"
                f"{_only_skipped(listing, names[empty[0]], what)}{others}; narrow the task by `classes`"
            )
        return Part(split=split, positions=positions, labels=labels)

    everything = np.ones(len(listing.train.labels), dtype=bool)
    train_part = part("training", listing.train, everything)
    if listing.test is not None:
        test_part = part("test", listing.test, np.ones(len(listing.test.labels), dtype=bool))
    else:
        counts = np.bincount(listing.train.labels, minlength=len(number))
        for index in chosen:
            if counts[index] < 2:
                raise ValueError(
                    f"class {listing.class_names[index]!r} has {counts[index]} images"
                    f"{_only_skipped(listing, listing.class_names[index], 'training')}: drawing "
                    "a test split needs 2 or more"
                )
        test = _drawn_test(listing.train.labels, counts, test_fraction)
        train_part = part("training", listing.train, ~test)
        test_part = part("test", listing.train, test)
    return Selection(class_names=names, train=train_part, test=test_part)


def _only_skipped(listing: Listing, name: str, what: str) -> str:
    """Return the part of a message about files of this class that are not read; "" if there are none."""
    skipped = [
        each for each in listing.skipped if each.of_class == name and what.startswith(each.split)
    ]
    return f", only {'; '.join(skipped_text(skipped, 3))}" if skipped else ""


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
    """Draw `fraction` of each class, rounded and at least 1, as test images: bool, shape (n,).

    The random stream depends only on the number of images, so that files may be moved or renamed.
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
    """Return the TaskInfo that the prepared task will have; decode one image, download nothing.

    Raises ValueError naming task, field, and the missing file with the data directory.
    """
    try:
        listing = list_images(task.images, data, download=False)
        return _info(task, listing, select(listing, task.classes, task.test_fraction))
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from error


def prepare(task: Task, store: Store, data: Path | None, *, progress: bool) -> PreparedTask:
    """Decode the task into the store, once; if the task is prepared already, check and return it.

    The images are decoded again only if the task's definition, or name, size or time of a file, has
    changed; the pixels must then be equal. (JPEG decoders differ in the last bit: prepare a task once and
    share it between machines.) Warnings name skipped files and lost values. `progress`: show a bar on
    stderr. A damaged task is quarantined and prepared again. Raises ValueError for an unreadable source,
    and if the store has another version under this name.
    """
    try:
        prepared = _prepare(task, store, data, progress)
    except Newer:
        raise
    except ValueError as error:
        raise ValueError(f"task {task.name!r}: {error}") from error
    for remark in prepared.remarks:
        show_message(f"warning: task {task.name!r}: {remark}")
    return prepared


def _prepare(task: Task, store: Store, data: Path | None, progress: bool) -> PreparedTask:
    definition = _definition(task)
    there = None
    if store.exists(task_path(task.name)):
        try:
            there = load(task.name, store)
        except Damaged:
            store.quarantine(task_path(task.name))
    if there and there.definition == definition:
        try:
            files, skipped = source_files(task.images, data)
        except ValueError:  # files are missing, but a prepared task does not need them
            return there
        if is_origin(task.images, files, data, there.origin):
            _show_skipped(task, skipped)
            return there

    listing = list_images(task.images, data, download=True)
    files, skipped = source_files(task.images, data)
    _show_skipped(task, skipped)
    origin = origin_of(task.images, files, data)
    selection = select(listing, task.classes, task.test_fraction)
    info = _info(task, listing, selection)
    # Images are written one by one to an unnamed file: this needs no memory, a full disk is an ordinary
    # error, and a killed process leaves nothing behind.
    notes = Notes()
    with tempfile.TemporaryFile(dir=scratch_folder(store)) as file:
        for pixels in _decoded(task, selection, info, notes, progress):
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
        # Equal pixels from a changed source are published again: the next call need not decode them.
        publish(
            store,
            info,
            images,
            labels,
            fingerprint=fingerprint,
            definition=definition,
            origin=origin,
            remarks=(*listing.remarks, *_similar(info.classes), *notes.remarks),
        )
    return load(task.name, store)


def _show_skipped(task: Task, skipped: Sequence[Skipped]) -> None:
    for each in skipped_text(skipped):
        show_message(f"warning: task {task.name!r}: skipped {each}")


def _similar(class_names: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for class names that differ only in case, spaces or the form of their letters."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(plain_name(name), []).append(name)
    for names in groups.values():
        if len(names) > 1:
            yield (
                f"the classes {choices(names)} differ only in case, spaces or Unicode form; if they are "
                "one class, give their images one label"
            )


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
        shape = _first_shape(train)
    return TaskInfo(
        name=task.name,
        num_train=len(train.labels),
        num_test=len(selection.test.labels),
        classes=selection.class_names,
        image_shape=shape,
    )


def _first_shape(part: Part) -> tuple[int, int, int]:
    """Return the shape of the first readable image. Raises the first image's error if there is none."""
    first_error: ValueError | None = None
    for where, encoded in part.split.read(part.positions):
        try:
            channels, height, width = to_pixels(encoded, where, None).shape
        except ValueError as error:
            first_error = first_error or error
        else:
            return channels, height, width
    assert first_error is not None, "each class has an image"
    raise first_error


def _some(
    images: Iterator[tuple[str, Encoded]], info: TaskInfo
) -> Iterator[list[tuple[str, Encoded]]]:
    """Yield the images in lists that take little memory, both encoded and decoded."""
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


MAX_NAMED: Final = 10


def _decoded(
    task: Task, selection: Selection, info: TaskInfo, notes: Notes, progress: bool
) -> Iterator[np.ndarray]:
    """Yield all images in order, train first: uint8, shape (c, h, w).

    After the last image, raises ValueError if some could not be decoded, with the first MAX_NAMED errors.
    """

    def decode(where: str, encoded: Encoded) -> np.ndarray | ValueError:
        try:
            pixels = to_pixels(encoded, where, task.image_size, notes)
        except ValueError as error:
            return error
        if pixels.shape != info.image_shape:
            return ValueError(
                f"image_size=None: {where} is {pixels.shape[2]}×{pixels.shape[1]} pixels, the first "
                f"image {info.image_shape[2]}×{info.image_shape[1]}; choose an image_size"
            )
        return pixels

    def decode_lot(lot: list[tuple[str, Encoded]]) -> list[np.ndarray | ValueError]:
        return [decode(where, encoded) for where, encoded in lot]

    from tqdm import tqdm  # not needed if nothing is decoded

    errors: list[str] = []
    num_errors = 0
    with (
        # Pillow releases the GIL while it decodes and resizes. A small image costs less than handing it
        # to a thread, so each thread gets several at a time.
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
                    for pixels in lot:
                        if isinstance(pixels, np.ndarray):
                            yield pixels
                            continue
                        num_errors += 1
                        if num_errors <= MAX_NAMED:
                            errors.append(str(pixels))
                    bar.update(len(lot))
    if num_errors > MAX_NAMED:
        errors.append(f"… and {num_errors - MAX_NAMED:,} more images")
    if errors:
        raise ValueError(
            "\n  ".join(errors if num_errors == 1 else ["these images are broken:", *errors])
        )
