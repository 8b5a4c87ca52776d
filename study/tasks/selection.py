"""Which of a source's images belong to a task: its classes, and its test split.

Owns the renumbering of labels and the draw of a test split where the source has none. Refuses a class
that the source does not have, or has no images of.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from study.seeds import permutation
from study.tasks.image_sets.listing import Listing, Split, choices


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
    """The images of these classes (None: all), and of each class `test_fraction` for testing where
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
                    f"class {listing.class_names[index]!r} has {counts[index]} images: a test split "
                    "is to be drawn from them, which takes 2 or more"
                )
        test = _drawn_test(listing.train.labels, counts, test_fraction)
        train = ~test
        test_part = part("test", listing.train, test)
    return Selection(
        class_names=names, train=part("training", listing.train, train), test=test_part
    )


def _chosen(classes: tuple[int | str, ...] | None, class_names: tuple[str, ...]) -> list[int]:
    """The indices of the task's classes among its source's."""
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
                f"classes: {given!r} is none, choose 0 to {len(class_names) - 1} or from "
                f"{choices(class_names, 200)}"
            )
        if index in chosen:
            raise ValueError(f"classes: {given!r} is given twice (class {index})")
        chosen.append(index)
    return chosen


def _drawn_test(labels: np.ndarray, counts: np.ndarray, fraction: float) -> np.ndarray:
    """Which images are for testing, bool of shape (n,): of each class `fraction`, rounded, at least 1.

    The stream is named by the number of images alone, so that files may be moved or renamed.
    """
    shuffled = permutation(len(labels), "test", len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    num_test = np.minimum(np.maximum(np.rint(counts * fraction), 1), counts - 1)
    test = np.zeros(len(labels), dtype=bool)
    test[by_class] = rank < np.repeat(num_test, counts)
    return test
