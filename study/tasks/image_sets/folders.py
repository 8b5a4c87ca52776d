"""An image set that is a tree of folders, one for each class.

Refuses to guess: a folder that is no class is an error that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.tasks.image_sets.listing import Listing, Split, choices, file_split, image_files


@dataclass(frozen=True, kw_only=True)
class ImageFolderImages:
    """A tree with one folder for each class, named as the class: `<train>/<class>/**/<image file>`.

    `train`, `test`: folders relative to the data directory. Classes are in the order of their names.
    """

    train: str
    test: str | None = None


def folder_files(source: ImageFolderImages, data: Path) -> list[Path]:
    """All image files of a folder tree, train first. Raises ValueError for a missing folder."""
    folders = {"train": source.train} | ({} if source.test is None else {"test": source.test})
    return [
        file
        for field, folder in folders.items()
        for name in sorted(_class_folders(field, folder, data))
        for file in image_files(data / folder / name)
    ]


def list_folder(source: ImageFolderImages, data: Path) -> Listing:
    """The images of a folder tree. Raises ValueError for a folder that is missing or without classes."""
    class_names = tuple(sorted(_class_folders("train", source.train, data)))
    if len(class_names) < 2:
        raise ValueError(
            f"train={source.train!r}: {data / source.train} has {len(class_names)} class folders, "
            "a task needs 2 or more"
        )

    def split(field: str, folder: str) -> Split:
        paths: list[Path] = []
        labels: list[int] = []
        for name in _class_folders(field, folder, data):
            if name not in class_names:
                raise ValueError(
                    f"{field}={folder!r}: {data / folder / name} is not a class of "
                    f"train={source.train!r}, choose from {choices(class_names)}"
                )
        for label, name in enumerate(class_names):
            found = image_files(data / folder / name)
            paths += found
            labels += [label] * len(found)
        return file_split(paths, labels, data)

    return Listing(
        class_names=class_names,
        train=split("train", source.train),
        test=None if source.test is None else split("test", source.test),
    )


def _class_folders(field: str, folder: str, data: Path) -> list[str]:
    path = data / folder
    if not path.is_dir():
        raise ValueError(f"{field}={folder!r}: no folder {path} (data directory: {data})")
    return [p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
