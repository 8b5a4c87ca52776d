"""Define a classification task and its image source, and list the built-in tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from study.fields import (
    canonical_json,
    check_int,
    check_number,
    digest_of,
    make_plain,
    plain_value,
)
from study.tasks.images import (
    Digits,
    ImageFolderImages,
    Listing,
    Skipped,
    first_folder_files,
    folder_files,
    known_digits,
    list_digits,
    list_folder,
    shown,
)
from study.tasks.parquet import (
    HubImages,
    ParquetImages,
    list_hub,
    list_parquet,
    parquet_files,
    skipped_beside,
)
from study.tasks.torchvision_sets import (
    TinyImageNetImages,
    TorchvisionImages,
    known_listing,
    list_tiny_imagenet,
    list_torchvision,
    tiny_imagenet_files,
)

Images = (
    Digits | ImageFolderImages | ParquetImages | HubImages | TorchvisionImages | TinyImageNetImages
)


def list_images(images: Images, data: Path | None, *, download: bool) -> Listing:
    """List the source's images; download torchvision's and the hub's if `download` is set.

    Raises ValueError naming the field, the missing file and the data directory.
    """
    match images:
        case Digits():
            return list_digits() if download else known_digits()
        case ImageFolderImages():
            return list_folder(images, _needed(data))
        case ParquetImages():
            return list_parquet(images, _needed(data))
        case HubImages():
            return list_hub(images, _needed(data), download=download)
        case TorchvisionImages() if download:
            return list_torchvision(images, _needed(data))
        case TinyImageNetImages() if download or data is not None:
            return list_tiny_imagenet(images, _needed(data), download=download)
        case TorchvisionImages() | TinyImageNetImages():
            return known_listing(images)


def source_files(images: Images, data: Path | None) -> tuple[list[Path], tuple[Skipped, ...]]:
    """Return the source's files ([] if checksums or a commit identify them), and the skipped files.

    Raises ValueError for a missing folder or file.
    """
    match images:
        case Digits() | TorchvisionImages() | HubImages():
            return [], ()
        case ImageFolderImages():
            return folder_files(images, _needed(data))
        case ParquetImages():
            data = _needed(data)
            return parquet_files(images, data), skipped_beside(images, data)
        case TinyImageNetImages():
            return tiny_imagenet_files(images, _needed(data)), ()


# Prefix of a folder tree's origin under the second rules for files to read: more suffixes, no junk.
_RULE: Final = "2:"


def origin_of(images: Images, files: Sequence[Path], data: Path | None) -> str:
    """Return a digest over names, sizes and modification times of `source_files`."""
    return (_RULE if isinstance(images, ImageFolderImages) else "") + _digest(files, data)


def is_origin(images: Images, files: Sequence[Path], data: Path | None, origin: str) -> bool:
    """Return True if `origin` is the digest of the files, under the rules of the release that made it."""
    if isinstance(images, ImageFolderImages) and not origin.startswith(_RULE):
        return _digest(first_folder_files(images, _needed(data)), data) == origin
    return origin_of(images, files, data) == origin


def _digest(files: Sequence[Path], data: Path | None) -> str:
    there = [(shown(file, _needed(data)), file.stat()) for file in files]
    return digest_of(canonical_json([(name, s.st_size, s.st_mtime_ns) for name, s in there]))


def _needed(data: Path | None) -> Path:
    if data is None:
        raise ValueError("it needs a data directory, and none is given: use --data or STUDY_DATA")
    return data


@dataclass(frozen=True, kw_only=True)
class Task:
    """The definition of a classification task.

    - `name`: letters, digits, ".", "_", "-"; identifies the task in Runs and the store.
    - `images`: the source of the images.
    - `classes`: keep only these, by index or name, numbered in this order; None: all.
    - `image_size`: images are resized to a square of this many pixels; None: keep their size, which must
      be the same for all.
    - `test_fraction`: share of each class drawn for testing if the source has no test split. The draw
      depends only on the source: tasks with the same source agree on which images are for testing.
    """

    name: str
    images: Images
    classes: tuple[int | str, ...] | None = None
    image_size: int | None = None
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        make_plain(self)
        if self.classes is not None and not isinstance(self.classes, str):
            object.__setattr__(self, "classes", tuple(map(plain_value, self.classes)))
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"Task.name={self.name!r}: choose letters, digits, '.', '_' and '-'")
        if self.classes is not None and (isinstance(self.classes, str) or len(self.classes) < 2):
            raise ValueError(f"Task.classes={self.classes!r}: a task needs 2 classes or more")
        if self.image_size is not None:
            check_int("Task", "image_size", self.image_size, low=1)
        check_number(
            "Task",
            "test_fraction",
            self.test_fraction,
            low=0,
            high=1,
            low_open=True,
            high_open=True,
        )


# The digits are 16×16 instead of their own 8×8: a ResNet halves the image three times, and its deeper
# layers still get 2×2 positions instead of one. The other tasks are 32×32: networks that are built for
# one size (ViT) can start from any of them.
BUILTIN: Final[Mapping[str, Task]] = {
    task.name: task
    for task in (
        Task(name="digits", images=Digits(), image_size=16),
        Task(name="digits-low", images=Digits(), image_size=16, classes=(0, 1, 2, 3, 4)),
        Task(name="digits-high", images=Digits(), image_size=16, classes=(5, 6, 7, 8, 9)),
        Task(name="mnist", images=TorchvisionImages(dataset="MNIST"), image_size=32),
        Task(name="fashion-mnist", images=TorchvisionImages(dataset="FashionMNIST"), image_size=32),
        Task(name="cifar10", images=TorchvisionImages(dataset="CIFAR10"), image_size=32),
        Task(name="cifar100", images=TorchvisionImages(dataset="CIFAR100"), image_size=32),
        Task(name="svhn", images=TorchvisionImages(dataset="SVHN"), image_size=32),
        Task(name="food101", images=TorchvisionImages(dataset="Food101"), image_size=32),
        Task(name="tiny-imagenet", images=TinyImageNetImages(), image_size=32),
    )
}
