"""List images of folders and of scikit-learn's digits, and decode image files with Pillow.

Only formats that Pillow decodes itself are read: EPS, for example, would call another program."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps

from study.messages import did_you_mean

# One image: an encoded file's bytes, its path, pixels (uint8 of shape (h, w) or (h, w, 3)), or the error
# of an image that the source lacks.
Encoded = bytes | Path | np.ndarray | ValueError

_HAS_AVIF: Final = importlib.util.find_spec("PIL.AvifImagePlugin") is not None  # Pillow 11.3
FORMATS: Final = (
    *("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"),
    *(("AVIF",) if _HAS_AVIF else ()),
)
# Decoding takes a quarter of a GiB, in each of up to 16 threads. Large cameras produce 2**26 pixels.
MAX_PIXELS: Final = 2**26
MAX_PIXELS_VARIABLE: Final = "STUDY_MAX_PIXELS"

# Frequent content of files that are not images: first bytes → kind of file, and the fix.
_NO_IMAGES: Final = {
    b"version https://git-lfs": "a pointer of Git LFS: run git lfs pull",
    b"<!doctype html": "a web page, probably of a failed download",
    b"<html": "a web page, probably of a failed download",
    b"<svg": "an SVG drawing: convert it to PNG",
    b"<?xml": "an XML file, such as an SVG drawing: convert it to PNG",
}
_HEIC_BRANDS: Final = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_HEIC_TEXT: Final = "a HEIC photo: convert it to JPEG or PNG; `pip install pillow-heif` reads it"


class Notes:
    """Collects remarks on a task's images while they are decoded. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_animated, self._animated = 0, ""
        self._num_deep, self._deep = 0, ""
        self._lowest, self._highest = 2**16, -1

    def add_animated(self, where: str) -> None:
        with self._lock:
            self._num_animated += 1
            self._animated = min(self._animated or where, where)

    def add_deep(self, where: str, lowest: int, highest: int) -> None:
        """Add the range of values of an image of 16 bits a channel."""
        with self._lock:
            self._num_deep += 1
            self._deep = min(self._deep or where, where)
            self._lowest, self._highest = min(self._lowest, lowest), max(self._highest, highest)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Return a sentence for each kind of lost information."""
        found = []
        if self._num_animated:
            found.append(
                f"{_images(self._num_animated)} several frames or pages, of which only the first is "
                f"used, such as {self._animated}"
            )
        # A dark 16-bit photo uses more than half of the levels; 15 bits or fewer do not.
        if self._num_deep and (self._highest >> 8) - (self._lowest >> 8) < 127:
            bits = max(self._highest.bit_length(), 1)
            found.append(
                f"{_images(self._num_deep)} 16 bits a channel, such as {self._deep}, but only values from "
                f"{self._lowest:,} to {self._highest:,}, which become {self._lowest >> 8} to "
                f"{self._highest >> 8} of 255. {self._how_to_scale(bits)} and save the images again"
            )
        return tuple(found)

    def _how_to_scale(self, bits: int) -> str:
        if bits < 16:
            return f"If {2**bits - 1:,} means white, multiply the values by {2 ** (16 - bits)}"
        return f"Subtract {self._lowest:,}, multiply by {65535 / (self._highest - self._lowest or 1):.3g}"


def _images(number: int) -> str:
    return "1 image has" if number == 1 else f"{number:,} images have"


def to_pixels(
    encoded: Encoded, where: str, image_size: int | None, notes: Notes | None = None
) -> np.ndarray:
    """Decode one image: uint8, shape (3, h, w), with h = w = `image_size` unless that is None.

    Resizes with Pillow's antialiased bilinear filter after cropping to a centred square. Grey becomes
    three equal channels, 16-bit grey keeps its upper 8 bits, transparent parts become white, and the
    camera's orientation tag is applied. `notes` collects losses. Raises ValueError with `where`, a name.
    """
    if isinstance(encoded, ValueError):
        raise encoded
    notes = notes or Notes()
    try:
        if isinstance(encoded, np.ndarray):
            picture = _as_rgb(Image.fromarray(encoded), where, notes)
            mode = picture.mode
        else:
            file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
            with _opened(file) as opened:
                is_deep = _is_deep(opened)
                # Phones keep a preview or a gain map as a second picture (MPO).
                if getattr(opened, "is_animated", False) and opened.format != "MPO":
                    notes.add_animated(where)
                picture = ImageOps.exif_transpose(opened)
                picture.load()
                # Pillow scales 16-bit PGM files to 0 … 65,535 by their own maximum; older releases
                # read 16-bit PNG files in this mode, too.
                is_sixteen = opened.format in ("PPM", "PNG") and picture.mode == "I"
                mode = "I;16" if is_sixteen else picture.mode
                if mode not in ("I", "F"):
                    picture = _as_rgb(picture, where, notes, is_deep=is_deep)
    except Exception as error:  # Pillow's decoders raise many types of errors
        hint = _hint(encoded)
        raise ValueError(f"{where}: not a readable image ({error}{hint})") from error
    if mode in ("I", "F"):
        raise ValueError(
            f"{where}: {mode!r} pixels (signed, of 32 bits, or fractions) have no known range; scale them "
            "to 0 … 255 and save 8-bit images"
        )
    if image_size is not None and picture.size != (image_size, image_size):
        picture = ImageOps.fit(picture, (image_size, image_size), method=Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def max_pixels() -> int:
    """Return the most pixels that an image may have. Raises ValueError if the setting is invalid."""
    given = os.environ.get(MAX_PIXELS_VARIABLE)
    if not given:
        return MAX_PIXELS
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"{MAX_PIXELS_VARIABLE}={given}: must be a whole number, 1 or more")
    return int(given)


def _opened(file: io.BytesIO | Path) -> Image.Image:
    """Open an image; nothing is decoded yet. Raises ValueError for too many pixels."""
    limit = max_pixels()
    setting = f"the limit is {limit:,} in all (set {MAX_PIXELS_VARIABLE} to raise it)"
    if limit > MAX_PIXELS and Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, limit)  # Pillow's own limit
    try:
        opened = Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error} Here {setting}") from error
    width, height = opened.size  # from the header
    if width * height > limit:
        opened.close()
        raise ValueError(f"{width:,}×{height:,} pixels, {setting}")
    return opened


def _hint(encoded: Encoded) -> str:
    """Return the end of a message about a known kind of file that is not an image; "" if unknown."""
    try:
        if isinstance(encoded, Path):
            with encoded.open("rb") as file:
                start = file.read(64)
        elif isinstance(encoded, bytes):
            start = encoded[:64]
        else:
            return ""
    except OSError:
        return ""  # the caller's error has the cause
    if not start:
        return "; it is empty"
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        return f"; it is {_HEIC_TEXT}"
    known = (what for first, what in _NO_IMAGES.items() if start.lstrip().lower().startswith(first))
    return "".join(f"; it is {what}" for what in known)


def _is_deep(opened: Image.Image) -> bool:
    """Return True if Pillow reduces 16 bits a channel to 8 while it loads a colour image."""
    tiles: Any = getattr(
        opened, "tile", ()
    )  # (decoder, place, offset, raw mode or a tuple with it)
    raw_modes = [tile[3] if isinstance(tile[3], str) else str(tile[3][:1]) for tile in tiles]
    is_sixteen = any(";16" in raw_mode for raw_mode in raw_modes)
    return is_sixteen and opened.mode in ("RGB", "RGBA", "RGBX", "LA", "CMYK")


def _as_rgb(
    picture: Image.Image, where: str, notes: Notes, *, is_deep: bool = False
) -> Image.Image:
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        notes.add_deep(where, int(values.min()), int(values.max()))
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    elif is_deep:
        bands: dict[str, Any] = dict(zip(picture.getbands(), picture.getextrema(), strict=True))
        colours = [bounds for band, bounds in bands.items() if band not in ("A", "a", "X")]
        lowest = min(int(low) for low, _ in colours)
        notes.add_deep(where, lowest << 8, max(int(high) for _, high in colours) << 8 | 255)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


SUFFIXES: Final = (
    *(
        ".apng",
        ".bmp",
        ".dib",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
    ),
    *(".ppm", ".tif", ".tiff", ".webp", *((".avif",) if _HAS_AVIF else ())),
)
# The suffixes that release 0.1.0 read; tasks that it prepared stay valid.
FIRST_SUFFIXES: Final = (
    *(".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
# Folders made by operating systems and NAS devices: neither classes nor images, although with thumbnails.
JUNK_FOLDERS: Final = frozenset(
    (
        *("__MACOSX", "__pycache__", "lost+found", "System Volume Information", "$RECYCLE.BIN"),
        *("RECYCLER", "@eaDir", "@Recycle", "#recycle", "#snapshot"),
    )
)
# Suffix → (kind of file, package that converts such files).
_OTHER_FILES: Final = {
    **dict.fromkeys((".heic", ".heif", ".hif"), ("HEIC photos", "pillow-heif")),
    **dict.fromkeys((".avif",), ("AVIF images", "'pillow>=11.3'")),
    **dict.fromkeys((".jxl",), ("JPEG XL images", "pillow-jxl-plugin")),
    **dict.fromkeys((".svg", ".svgz"), ("vector drawings", "cairosvg")),
    **dict.fromkeys((".dcm", ".dicom"), ("DICOM images", "pydicom")),
    **dict.fromkeys(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf"), ("raw photos", "rawpy")
    ),
    **dict.fromkeys((".jp2", ".j2k", ".tga", ".psd", ".ico", ".eps"), ("images", "pillow")),
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images that are not decoded yet.

    - `labels`: int64, shape (n,).
    - `read`: receives ascending positions, yields (name for errors, image) for each position.
    """

    labels: np.ndarray
    read: Callable[[np.ndarray], Iterator[tuple[str, Encoded]]]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A file or folder that is not read; `split`: "train" or "test"; `of_class`: class folder or ""."""

    reason: str
    path: str
    split: str
    of_class: str = ""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The content of a source. `test` is None without a test split.

    - `image_shape`: (c, h, w) of all images, if known without decoding an image.
    - `skipped`: files of the source that are not read; `remarks`: warnings about unusual content.
    """

    class_names: tuple[str, ...]
    train: Split
    test: Split | None
    image_shape: tuple[int, int, int] | None = None
    skipped: tuple[Skipped, ...] = ()
    remarks: tuple[str, ...] = ()


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
    """Return the image files below `folder`, sorted by name, except hidden files and junk folders."""
    return _walked(folder)[0]


def _walked(folder: Path) -> tuple[list[Path], list[tuple[str, Path]]]:
    """Return the image files below `folder`, and (reason, path) of skipped paths; both sorted by name.

    Raises ValueError for a folder that cannot be listed.
    """
    found: list[Path] = []
    skipped: list[tuple[str, Path]] = []

    def refuse(error: OSError) -> None:
        raise ValueError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        here = Path(place)
        for name in sorted(folders):
            reason = _why_no_folder(here / name)
            if reason is not None:
                skipped.append((reason, here / name))
        folders[:] = [name for name in folders if _why_no_folder(here / name) is None]
        for name in files:
            reason = _why_no_image(here / name)
            if reason is None:
                found.append(here / name)
            else:
                skipped.append((reason, here / name))

    def by_name(path: Path) -> str:
        return path.relative_to(folder).as_posix()

    return sorted(found, key=by_name), sorted(skipped, key=lambda one: by_name(one[1]))


def _why_no_folder(path: Path) -> str | None:
    """Return why nothing below this folder is read, or None."""
    if path.name in JUNK_FOLDERS:
        return f"{path.name} folder"
    if path.name.startswith("."):
        return "hidden folder"
    return "linked folder" if path.is_symlink() else None


def _why_no_image(path: Path) -> str | None:
    """Return why this file is not read, or None."""
    if path.name.startswith("."):
        return "hidden file"
    if path.is_symlink() and not path.exists():
        return "broken link"
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        return f"{suffix} file" if suffix else "file without a suffix"
    return None if path.is_file() else "special file"


def skipped_text(skipped: Sequence[Skipped], most: int = 10) -> list[str]:
    """Return a line for each reason of skipping files, most frequent first: number, example and fix."""
    counts = Counter(each.reason for each in skipped)
    lines = []
    for reason, number in counts.most_common(most):
        example = next(each.path for each in skipped if each.reason == reason)
        lines.append(f"{number_of(number, reason)}, such as {example}{_fix(reason)}")
    if len(counts) > most:
        rest = sum(number for _, number in counts.most_common()[most:])
        lines.append(f"{rest:,} more files for {len(counts) - most} other reasons")
    return lines


def number_of(number: int, what: str) -> str:
    """Return "1 .svg file", "2 .svg files", "3 files without a suffix"."""
    if number == 1:
        return f"1 {what}"
    first, *rest = re.split(r"(?= without| in | outside)", what, maxsplit=1)
    return f"{number:,} {first}s{''.join(rest)}"


def _fix(reason: str) -> str:
    what, package = _OTHER_FILES.get(reason.removesuffix(" file"), ("", ""))
    if what == "AVIF images":
        return f" ({what}: to read them, python -m pip install {package})"
    if what:
        return f" ({what}: convert them to PNG or JPEG; `pip install {package}` reads them)"
    return ""


def choices(names: Sequence[object], most: int = 20) -> str:
    """Return the names for a message; only the first `most` of a long list."""
    first = ", ".join(repr(name) for name in names[:most])
    return first if len(names) <= most else f"{first}, … ({len(names)} in all)"


def shown(path: Path, root: Path) -> str:
    """Return the path for a message: relative to `root` if the path is below `root`."""
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


DIGITS_BY_CLASS: Final = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


def known_digits() -> Listing:
    """List the digits without scikit-learn: labels in no particular order, and no images."""

    def read(positions: np.ndarray) -> Iterator[tuple[str, Encoded]]:
        raise AssertionError("a known shape needs no image")

    labels = np.repeat(np.arange(len(DIGITS_BY_CLASS)), DIGITS_BY_CLASS)
    return Listing(
        class_names=tuple(str(label) for label in range(len(DIGITS_BY_CLASS))),
        train=Split(labels=labels, read=read),
        test=None,
        image_shape=(3, 8, 8),
    )


@dataclass(frozen=True, kw_only=True)
class ImageFolderImages:
    """A folder tree with one folder per class, named like the class: `<train>/<class>/**/<image file>`.

    `train`, `test`: folders relative to the data directory. Classes are sorted by name.
    """

    train: str
    test: str | None = None


def folder_files(source: ImageFolderImages, data: Path) -> tuple[list[Path], tuple[Skipped, ...]]:
    """Return all image files of a folder tree, train first, and the skipped files.

    Raises ValueError for a missing folder.
    """
    splits = [_split_files(*each, data) for each in _fields(source)]
    skipped = tuple(each for split in splits for each in split.skipped)
    return [file for split in splits for files in split.images.values() for file in files], skipped


def first_folder_files(source: ImageFolderImages, data: Path) -> list[Path]:
    """Return the files that release 0.1.0 would read, in its order."""

    def is_read(path: Path, folder: Path) -> bool:
        is_hidden = any(name.startswith(".") for name in path.relative_to(folder).parts)
        return not is_hidden and path.suffix.lower() in FIRST_SUFFIXES and path.is_file()

    found = []
    for _, folder in _fields(source):
        classes = (p for p in (data / folder).iterdir() if p.is_dir() and p.name[0] != ".")
        for top in sorted(classes, key=lambda path: path.name):
            files = {p.relative_to(top).as_posix(): p for p in top.rglob("*") if is_read(p, top)}
            found += [files[name] for name in sorted(files)]
    return found


def list_folder(source: ImageFolderImages, data: Path) -> Listing:
    """List the images of a folder tree. Raises ValueError for a missing folder, or one without classes."""
    (field_name, folder), *_ = fields = _fields(source)
    train, *tests = (_split_files(*each, data) for each in fields)
    class_names = tuple(train.images)
    if len(class_names) < 2:
        raise ValueError(
            f"{field_name}={folder!r}: {data / folder} has {number_of(len(class_names), 'class folder')}"
            f"{_listed(class_names)}, a task needs 2 or more"
            f"{_likely(folder, data, class_names)}"
        )
    for test in tests:
        for name in test.images:
            if name not in class_names:
                raise ValueError(
                    f"test={source.test!r}: {data / str(source.test) / name} is not a class of "
                    f"train={source.train!r}, choose from {choices(class_names)}"
                    f"{_near_class(name, class_names)}"
                )

    def split(found: _SplitFiles) -> Split:
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            files = found.images.get(name, [])
            paths += files
            labels += [label] * len(files)
        return file_split(paths, labels, data)

    return Listing(
        class_names=class_names,
        train=split(train),
        test=split(tests[0]) if tests else None,
        skipped=tuple(each for found in (train, *tests) for each in found.skipped),
    )


def plain_name(name: str) -> str:
    """Return the name without differences in case, spaces and Unicode form."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def _near_class(name: str, class_names: Sequence[str]) -> str:
    for each in class_names:
        if plain_name(each) == plain_name(name):
            return f"; did you mean {each!r}?"
    return did_you_mean(name, class_names)


def _fields(source: ImageFolderImages) -> list[tuple[str, str]]:
    test = [] if source.test is None else [("test", source.test)]
    return [("train", source.train), *test]


@dataclass(frozen=True)
class _SplitFiles:
    """The files of one split: images by class, sorted by name, and skipped files."""

    images: dict[str, list[Path]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


TRAIN_NAMES: Final = ("train", "training", "trainset", "train_set")
TEST_NAMES: Final = ("test", "testing", "val", "valid", "validation", "dev", "eval", "testset")


def _split_files(field_name: str, folder: str, data: Path) -> _SplitFiles:
    """Return the files below this folder. Raises ValueError unless the folder has class folders."""
    path, found = data / folder, _SplitFiles()
    if not path.is_dir():
        raise ValueError(f"{field_name}={folder!r}: no folder {path} (data directory: {data})")
    num_beside = 0
    for each in sorted(path.iterdir(), key=lambda path: path.name):
        if not each.is_dir():
            why = _why_no_image(each)
            num_beside += why is None
            reason = why or "image file outside the class folders"
            found.skipped.append(Skipped(reason=reason, path=shown(each, data), split=field_name))
        elif (why := _why_no_folder(each)) not in (None, "linked folder"):
            found.skipped.append(Skipped(reason=str(why), path=shown(each, data), split=field_name))
        else:
            found.images[each.name], skipped = _walked(each)
            found.skipped.extend(
                Skipped(reason=reason, path=shown(file, data), split=field_name, of_class=each.name)
                for reason, file in skipped
            )
    likely = (
        _likely(folder, data, list(found.images)) if _are_splits(path, list(found.images)) else ""
    )
    if likely:
        raise ValueError(
            f"{field_name}={folder!r}: {path} has the folders {choices(list(found.images))}, which are "
            f"splits, not classes{likely}"
        )
    if not found.images:
        what = f", only {number_of(num_beside, 'image file')}" if num_beside else ""
        raise ValueError(
            f"{field_name}={folder!r}: {path} has no class folders{what}; put the images of each class "
            "into a folder with the name of the class"
        )
    return found


def _are_splits(path: Path, names: Sequence[str]) -> bool:
    """Return True if the folders are probably splits: training and test folders exist, and either no
    others exist, or the training folder contains folders."""
    trains = [name for name in names if name.lower() in TRAIN_NAMES]
    tests = [name for name in names if name.lower() in TEST_NAMES]
    if not trains or not tests:
        return False
    return len(trains) + len(tests) == len(names) or bool(_folders(path / trains[0]))


def _likely(folder: str, data: Path, names: Sequence[str]) -> str:
    """Return the end of a message: "; did you mean …?", or "" without a guess."""
    trains = [name for name in names if name.lower() in TRAIN_NAMES]
    tests = [name for name in names if name.lower() in TEST_NAMES]
    if trains:
        test = f", test={f'{folder}/{tests[0]}'!r}" if tests else ""
        return f"; did you mean train={f'{folder}/{trains[0]}'!r}{test}?"
    if len(names) == 1 and len(_folders(data / folder / names[0])) > 1:
        return f"; did you mean {f'{folder}/{names[0]}'!r}?"
    return ""


def _folders(path: Path) -> list[str]:
    return [each.name for each in path.iterdir() if each.is_dir() and not _why_no_folder(each)]


def _listed(names: Sequence[str]) -> str:
    return f" ({choices(names)})" if names else ""
