"""All sources of images behind two questions: what is there, and is it still the same.

Owns the union of the sources, and which module answers for which. Refuses to look for relative paths
without a data directory.
"""

from __future__ import annotations

from pathlib import Path

from study.fields import canonical_json, digest_of
from study.tasks.image_sets.digits import Digits, list_digits
from study.tasks.image_sets.folders import ImageFolderImages, folder_files, list_folder
from study.tasks.image_sets.hub import HubImages, list_hub
from study.tasks.image_sets.listing import Listing, shown
from study.tasks.image_sets.parquet import ParquetImages, list_parquet, parquet_files
from study.tasks.image_sets.torchvision_sets import (
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
    """What a source has. Only those of torchvision and the hub are downloaded, if `download` says so.

    Raises ValueError naming the field, the missing file and the data directory.
    """
    match images:
        case Digits():
            return list_digits()
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


def _files(images: Images, data: Path | None) -> list[Path]:
    match images:
        case Digits() | TorchvisionImages() | HubImages():  # Known by their checksums, or commit.
            return []
        case ImageFolderImages():
            return folder_files(images, _needed(data))
        case ParquetImages():
            return parquet_files(images, _needed(data))
        case TinyImageNetImages():
            return tiny_imagenet_files(images, _needed(data))


def origin_of(images: Images, data: Path | None) -> str:
    """Digest over names, sizes and times of change of the source's files, below the data directory."""
    files = [(shown(file, _needed(data)), file.stat()) for file in _files(images, data)]
    plain = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
    return digest_of(canonical_json(plain))


def is_origin(images: Images, data: Path | None, origin: str) -> bool:
    """Whether the source's files are those of `origin`, or are not at hand to be compared."""
    if data is None:
        return True
    try:
        return origin_of(images, data) == origin
    except ValueError:  # They are gone; a prepared task needs them no more.
        return True


def _needed(data: Path | None) -> Path:
    if data is None:
        raise ValueError("it needs a data directory, and none is given: use --data or STUDY_DATA")
    return data
