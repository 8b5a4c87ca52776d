"""Where a task's images come from, and how an image file becomes pixels.

Owns two sources (scikit-learn's digits, a folder tree), what every source gives (`parquet_images` and
`torchvision_tasks` have the others), and decoding with Pillow. Refuses to guess: an image that cannot
be read, or a folder that is no class, is an error that names the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from study.tasks.image_sets.decoding import Encoded

SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

"""One image: an encoded file's bytes, its path, or pixels, uint8 of shape (h, w) or (h, w, 3)."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images that are not decoded yet.

    - `labels`: int64, shape (n,).
    - `read`: given ascending positions, yields each image with the words that name it in an error.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], Iterator[tuple[str, Encoded]]]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a source has. `test` is None where the source has no test split.

    `image_shape` (c, h, w): of all its images, where that is known without decoding one.
    """

    class_names: tuple[str, ...]
    train: Split
    test: Split | None
    image_shape: tuple[int, int, int] | None = None


def array_split(pixels: np.ndarray, labels: Any, name: str) -> Split:
    """Images that are in memory: `pixels` uint8, shape (n, h, w) or (n, h, w, 3)."""

    def read(positions: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        for position in positions:
            yield f"{name}, image {position}", pixels[position]

    return Split(labels=np.asarray(labels, dtype=np.int64), read=read)


def file_split(paths: list[Path], labels: list[int], root: Path) -> Split:
    """Images that are files of their own; errors name them relative to `root`."""

    def read(positions: np.ndarray) -> Iterator[tuple[str, Path]]:
        for position in positions:
            yield shown(paths[position], root), paths[position]

    return Split(labels=np.asarray(labels, dtype=np.int64), read=read)


def image_files(folder: Path) -> list[Path]:
    """The image files below `folder`, in the order of their names; hidden ones are left out."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    plain = (p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts))
    return sorted(plain, key=lambda path: path.relative_to(folder).as_posix())


def choices(names: Sequence[object], most: int = 20) -> str:
    """The names, for a message; only the first `most` of a long list."""
    first = ", ".join(repr(name) for name in names[:most])
    return first if len(names) <= most else f"{first}, … ({len(names)} in all)"


def shown(path: Path, root: Path) -> str:
    """The path for a message: relative to `root` where it lies below."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
