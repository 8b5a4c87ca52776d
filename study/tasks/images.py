"""List images of folders and of scikit-learn's digits, and decode image files with Pillow.

Only formats that Pillow decodes itself are read: EPS, for example, would call another program."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps

Encoded = bytes | Path | np.ndarray

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# A quarter of a GiB while decoding, in each of up to 16 threads; large cameras produce 2**26.
MAX_PIXELS: Final = 2**26


def to_pixels(encoded: Encoded, where: str, image_size: int | None) -> np.ndarray:
    """Decode one image: uint8, shape (3, h, w), with h = w = `image_size` unless that is None.

    Resizes with Pillow's antialiased bilinear filter after cropping to a centred square. Grey becomes
    three equal channels, 16-bit grey keeps its upper 8 bits, transparent parts become white, and the
    camera's orientation tag is applied. Raises ValueError, naming `where`.
    """
    try:
        if isinstance(encoded, np.ndarray):
            picture = Image.fromarray(encoded)
        else:
            file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            opened = Image.open(file, formats=FORMATS)
            _refuse_large(opened)
            picture = ImageOps.exif_transpose(opened)
        picture.load()
    except Exception as error:  # Pillow's decoders raise many types of errors
        raise ValueError(f"{where}: not a readable image ({error})") from error
    picture = _as_rgb(picture, where)
    if image_size is not None and picture.size != (image_size, image_size):
        picture = ImageOps.fit(picture, (image_size, image_size), method=Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _refuse_large(picture: Image.Image) -> None:
    width, height = picture.size  # from the header; nothing is decoded yet
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width:,}×{height:,} pixels, the limit is {MAX_PIXELS:,} in all")


def _as_rgb(picture: Image.Image, where: str) -> Image.Image:
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise ValueError(f"{where}: {picture.mode!r} pixels (32 bits) have no known range")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


SUFFIXES: Final = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")

"""One image: an encoded file's bytes, its path, or pixels, uint8 of shape (h, w) or (h, w, 3)."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images that are not decoded yet.

    - `labels`: int64, shape (n,).
    - `read`: given ascending positions, yields each image with its name for errors.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], Iterator[tuple[str, Encoded]]]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The content of a source. `test` is None without a test split.

    `image_shape` (c, h, w): of all images, if known without decoding one.
    """

    class_names: tuple[str, ...]
    train: Split
    test: Split | None
    image_shape: tuple[int, int, int] | None = None


def array_split(pixels: np.ndarray, labels: Any, name: str) -> Split:
    """Return a split of images in memory: `pixels` uint8, shape (n, h, w) or (n, h, w, 3)."""

    def read(positions: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        for position in positions:
            yield f"{name}, image {position}", pixels[position]

    return Split(labels=np.asarray(labels, dtype=np.int64), read=read)


def file_split(paths: list[Path], labels: list[int], root: Path) -> Split:
    """Return a split of image files; errors name them relative to `root`."""

    def read(positions: np.ndarray) -> Iterator[tuple[str, Path]]:
        for position in positions:
            yield shown(paths[position], root), paths[position]

    return Split(labels=np.asarray(labels, dtype=np.int64), read=read)


def image_files(folder: Path) -> list[Path]:
    """Return the image files below `folder`, sorted by name, without hidden ones."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    plain = (p for p in found if not any(n.startswith(".") for n in p.relative_to(folder).parts))
    return sorted(plain, key=lambda path: path.relative_to(folder).as_posix())


def choices(names: Sequence[object], most: int = 20) -> str:
    """Return the names for a message; only the first `most` of a long list."""
    first = ", ".join(repr(name) for name in names[:most])
    return first if len(names) <= most else f"{first}, … ({len(names)} in all)"


def shown(path: Path, root: Path) -> str:
    """Return the path for a message: relative to `root` if it is below."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


@dataclass(frozen=True)
class Digits:
    """The 1,797 handwritten digits of scikit-learn: 8×8, grey, 17 levels. No test split."""


def list_digits() -> Listing:
    """List the digits of scikit-learn; the values 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Listing(
        class_names=tuple(str(name) for name in digits.target_names),
        train=array_split(pixels, digits.target, "digits"),
        test=None,
    )


@dataclass(frozen=True, kw_only=True)
class ImageFolderImages:
    """A folder tree with one folder per class, named like the class: `<train>/<class>/**/<image file>`.

    `train`, `test`: folders relative to the data directory. Classes are sorted by name.
    """

    train: str
    test: str | None = None


def folder_files(source: ImageFolderImages, data: Path) -> list[Path]:
    """Return all image files of a folder tree, train first. Raises ValueError for a missing folder."""
    folders = {"train": source.train} | ({} if source.test is None else {"test": source.test})
    return [
        file
        for field, folder in folders.items()
        for name in sorted(_class_folders(field, folder, data))
        for file in image_files(data / folder / name)
    ]


def list_folder(source: ImageFolderImages, data: Path) -> Listing:
    """List the images of a folder tree. Raises ValueError for a missing folder, or one without classes."""
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
