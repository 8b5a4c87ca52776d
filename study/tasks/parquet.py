"""List and read images of Parquet files, local or from the Hugging Face hub.

Hub files are downloaded only by `study prepare`, and only at a full commit hash: a branch can change."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.messages import did_you_mean, missing_text
from study.tasks.images import Listing, Skipped, Split, choices, shown

# A file of kilobytes may decode to gigabytes. These limit an encoded image, all rows in memory at a time,
# and a Parquet page, which is decoded at once (writers end a page after at most ROWS_A_PAGE rows).
MAX_ENCODED_BYTES: Final = 64 * 2**20
BYTES_AT_ONCE: Final = 256 * 2**20
MAX_ROWS_AT_ONCE: Final = 256
MAX_PAGE_BYTES: Final = 2**30
ROWS_A_PAGE: Final = 1024


@dataclass(frozen=True, kw_only=True)
class ParquetImages:
    """Parquet files of encoded images, in the Hugging Face hub's form.

    `train`, `test`: relative to the data directory; each is a file, a folder of files, a pattern like
    "data/train-*.parquet" or "data/**/*.parquet", or a tuple of these. `image_column` is a struct with
    `bytes`, or binary; `label_column` has whole numbers, or names. Class names come from the
    `huggingface` metadata, if any.
    """

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] | None = None
    image_column: str = "image"
    label_column: str = "label"


def parquet_files(source: ParquetImages, data: Path) -> list[Path]:
    """Return all files of a source, train first. Raises ValueError if `train` or `test` matches none."""
    test = () if source.test is None else _found("test", source.test, data)
    return [*_found("train", source.train, data), *test]


def skipped_beside(source: ParquetImages, data: Path) -> tuple[Skipped, ...]:
    """Return the files in the source's folders that are not read."""
    found = []
    for split, given in (("train", source.train), ("test", source.test or ())):
        for name in (given,) if isinstance(given, str) else given:
            for file in sorted((data / name).rglob("*") if (data / name).is_dir() else ()):
                is_read = file.parent == data / name and file.match("*.parquet")
                if file.is_file() and not is_read:
                    kind = f"{file.suffix} file" if file.suffix else "file without a suffix"
                    where = "" if file.parent == data / name else " in a folder of its own"
                    found.append(
                        Skipped(reason=f"{kind}{where}", path=shown(file, data), split=split)
                    )
    return tuple(found)


def list_parquet(source: ParquetImages, data: Path) -> Listing:
    """List the files' images. Raises ValueError for a missing file or column, or a label without class."""
    train_files = _found("train", source.train, data)
    test_files = [] if source.test is None else _found("test", source.test, data)
    files = [*train_files, *test_files]
    for file in dict.fromkeys(files):
        _check_images(file, source.image_column, data)
    labels = {file: _labels(file, source.label_column, data) for file in dict.fromkeys(files)}
    for field, those in (("train", train_files), ("test", test_files)):
        if those and not any(map(len, map(labels.__getitem__, those))):
            raise ValueError(f"{field}={getattr(source, field)!r}: {_several(those, data)} no rows")
    filled = [file for file in files if len(labels[file])]
    _check_kinds(filled, labels, source.label_column, data)
    class_names = _names_in_metadata(filled[0], source.label_column, data)
    for file in filled:
        names = _names_in_metadata(file, source.label_column, data)
        if names != class_names:  # the label numbers would mean other classes
            raise ValueError(
                f"{shown(file, data)}: its class names {choices(names or ())} are not those of "
                f"{shown(filled[0], data)}, {choices(class_names or ())}"
            )
    train_labels = _joined(train_files, labels)
    values = np.unique(train_labels)
    if class_names is not None:
        is_number = train_labels.dtype.kind == "i"
        values = np.arange(len(class_names)) if is_number else np.asarray(class_names)

    def split(files: list[Path], labels: np.ndarray) -> Split:
        order = np.argsort(values, kind="stable")
        place = np.searchsorted(values[order], labels).clip(max=len(values) - 1)
        wrong = np.flatnonzero(values[order[place]] != labels)
        if len(wrong):
            raise ValueError(
                f"{_row(files, wrong[0], data)}: {source.label_column}={labels[wrong[0]].item()!r} "
                f"is not a class, choose from {choices(values.tolist())}"
            )

        def read(positions: np.ndarray) -> Iterator[tuple[str, bytes | ValueError]]:
            return _images(files, source.image_column, positions, data)

        return Split(labels=order[place].astype(np.int64), read=read)

    return Listing(
        class_names=class_names or tuple(str(value) for value in values),
        train=split(train_files, train_labels),
        test=split(test_files, _joined(test_files, labels)) if test_files else None,
        remarks=tuple(_doubts(train_labels, source.label_column, values))
        + tuple(f"{shown(file, data)} has no rows" for file in labels if not len(labels[file])),
    )


def _several(files: Sequence[Path], data: Path) -> str:
    first = shown(files[0], data)
    return f"{first} has" if len(files) == 1 else f"{first} and {len(files) - 1} other files have"


def _joined(files: Sequence[Path], labels: Mapping[Path, np.ndarray]) -> np.ndarray:
    # Empty files are left out: their labels may have another type.
    return np.concatenate([labels[file] for file in files if len(labels[file])])


def _check_kinds(
    files: Sequence[Path], labels: Mapping[Path, np.ndarray], column: str, data: Path
) -> None:
    """Raise ValueError if some files have numbers as labels, and others names: 0 and "0" may differ."""
    kinds = {"i": "whole numbers", "U": "names"}
    first = files[0]
    for file in files:
        ours, theirs = (labels[each].dtype.kind for each in (file, first))
        if ours != theirs:
            raise ValueError(
                f"label_column={column!r}: {shown(file, data)} has {kinds[ours]} (row 0: "
                f"{labels[file][0].item()!r}), but {shown(first, data)} has {kinds[theirs]} (row 0: "
                f"{labels[first][0].item()!r}). Write the column in one type"
            )


def _doubts(labels: np.ndarray, column: str, values: np.ndarray) -> Iterator[str]:
    """Yield a warning for each label that may be a placeholder rather than a class."""
    for value in values.tolist():
        if value < 0 if isinstance(value, int) else not value.strip():
            number = int((labels == value).sum())
            yield (
                f"{column}={value!r} is a class of {number:,} training images; if it means that there is "
                "no label, remove these rows or choose `classes`"
            )


_MAGIC: Final = re.compile(r"[*?[]")


def _found(field: str, given: str | tuple[str, ...], data: Path) -> list[Path]:
    files: list[Path] = []
    for name in (given,) if isinstance(given, str) else given:
        path = data / name
        if path.is_dir() or path.is_file() or not _MAGIC.search(name):
            places = [path]
        else:
            below = name if Path(name).is_absolute() else f"{glob.escape(str(data))}/{name}"
            places = sorted(map(Path, glob.glob(below, recursive=True)))  # noqa: PTH207 (recursive)
        found = [
            file
            for place in places
            for file in (sorted(place.glob("*.parquet")) if place.is_dir() else [place])
        ]
        for file in found:
            if file.is_symlink() and not file.exists():
                raise ValueError(f"{field}={name!r}: {file} is a broken link")
        found = [file for file in found if file.is_file()]
        if not found:
            raise ValueError(
                f"{field}={name!r}: no Parquet file at {path} (data directory: {data}){_below(path, name)}"
            )
        # A pattern may name a folder and the files in it.
        files += dict.fromkeys(found)
    return files


def _below(path: Path, name: str) -> str:
    """Return the end of a message if a folder has Parquet files only in its subfolders, else ""."""
    inner = next(path.rglob("*.parquet"), None) if path.is_dir() else None
    return "" if inner is None else f"; for {inner.relative_to(path)}, give '{name}/**/*.parquet'"


def _names_in_metadata(file: Path, label_column: str, data: Path) -> tuple[str, ...] | None:
    with _open(file, data) as opened:
        text = (opened.schema_arrow.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    where = f"{shown(file, data)}: its metadata 'huggingface'"
    fix = "write the file without it, or write it again with the library `datasets`"
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where} are not JSON ({error}); {fix}") from error
    for key in ("info", "features", label_column, "names"):
        if not isinstance(found, dict):
            raise ValueError(
                f"{where} have {_short(found)} instead of an object with {key!r}; {fix}"
            )
        found = found.get(key)
        if found is None:
            return None
    is_list = isinstance(found, list) and all(isinstance(name, str) for name in found)
    if not is_list or len(set(found)) < len(found):
        raise ValueError(
            f"{where} have the names {_short(found)} for column {label_column!r}, which must be a list of "
            f"different names; {fix}"
        )
    return tuple(found)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _labels(file: Path, field: str, data: Path) -> np.ndarray:
    """Return the labels of a file: int64 or str, shape (n,)."""
    name = shown(file, data)
    with _open(file, data) as opened:
        _check_column("label_column", field, opened, name)
        column: Any = opened.read(columns=[field]).column(0).combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if len(column) == 0:
        return np.empty(0, dtype=np.int64)
    if column.null_count:
        row = column.is_valid().index(False).as_py()
        raise ValueError(f"{name} row {row}: no {field}")
    if pa.types.is_integer(column.type):
        values = column.to_numpy(zero_copy_only=False)
        large = np.flatnonzero(values > np.iinfo(np.int64).max)
        if len(large):
            raise ValueError(
                f"{name} row {large[0]}: {field}={values[large[0]].item()} does not fit into int64; "
                "number the classes from 0"
            )
        return values.astype(np.int64)
    if not (
        pa.types.is_string(column.type)
        or pa.types.is_large_string(column.type)
        or pa.types.is_string_view(column.type)
    ):
        raise ValueError(
            f"label_column={field!r}: {name} has {column.type} there (row 0: {_value(column[0])}), "
            "choose a column of whole numbers or of names"
        )
    try:
        column.validate(full=True)
        return np.asarray(column.to_pylist(), dtype=np.str_)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: {field} has a name that is not UTF-8 ({error})") from error


def _value(scalar: Any) -> str:
    text = repr(scalar.as_py())
    return text if len(text) <= 60 else f"{text[:60]}…"


def _images(
    files: list[Path], field: str, positions: np.ndarray, data: Path
) -> Iterator[tuple[str, bytes | ValueError]]:
    """Yield (name, encoded image or error) at ascending positions, counted over the rows of all files."""
    before = 0
    for file in files:
        name = shown(file, data)
        with _open(file, data) as opened:
            leaves = (opened.schema.column(index) for index in range(len(opened.schema)))
            # Keep dictionary encoding: an image in many rows is in memory once.
            encoded = [
                leaf.path
                for leaf in leaves
                if leaf.path.split(".")[0] == field and leaf.physical_type == "BYTE_ARRAY"
            ]
        with _open(file, data, read_dictionary=encoded) as opened:
            first_row = 0
            num_rows = _rows_at_once(opened, field, name)
            # By row group: a batch across two would have two dictionaries, which pyarrow does not
            # support.
            batches = (
                batch
                for group in range(opened.num_row_groups)
                for batch in opened.iter_batches(num_rows, row_groups=[group], columns=[field])
            )
            for batch in batches:
                bounds = before + first_row, before + first_row + len(batch)
                wanted = positions[slice(*np.searchsorted(positions, bounds))] - bounds[0]
                for row in wanted.tolist():
                    where = f"{name} row {first_row + row}"
                    yield where, _content(batch.column(0)[row].as_py(), field, where)
                first_row += len(batch)
            before += first_row


def _content(image: Any, field: str, where: str) -> bytes | ValueError:
    """Return the bytes of an encoded image, or the error if they are missing or too many."""
    content = image.get("bytes") if isinstance(image, dict) else image
    if content is None:
        text = f"{where}: no image bytes in column {field!r}"
        path = image.get("path") if isinstance(image, dict) else None
        if path:
            text += f", only the path {path!r}; write the file's bytes into the column, too"
        return ValueError(text)
    if len(content) > MAX_ENCODED_BYTES:
        return ValueError(
            f"{where}: an image of {len(content):,} bytes, the limit is {MAX_ENCODED_BYTES:,}"
        )
    return bytes(content)


def _check_images(file: Path, field: str, data: Path) -> None:
    """Raise ValueError unless the type of the file's column allows encoded images."""
    name = shown(file, data)
    with _open(file, data) as opened:
        _check_column("image_column", field, opened, name)
        inner = kind = opened.schema_arrow.field(field).type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        inner = kind.field(index).type if index >= 0 else kind
    if pa.types.is_dictionary(inner):
        inner = inner.value_type
    is_binary = (
        pa.types.is_binary(inner)
        or pa.types.is_large_binary(inner)
        or pa.types.is_binary_view(inner)
        or pa.types.is_null(inner)  # no row has bytes; reading a row gives an error
    )
    if not is_binary:
        raise ValueError(
            f"image_column={field!r}: {name} has {kind} there, choose a column of encoded images "
            "(binary, or a struct with `bytes`)"
        )


def _rows_at_once(opened: pq.ParquetFile, field: str, name: str) -> int:
    """Return how many rows of images may be in memory at a time.

    Raises ValueError if a page may need more memory than MAX_PAGE_BYTES.
    """
    most = MAX_ROWS_AT_ONCE
    for index in range(opened.num_row_groups):
        group = opened.metadata.row_group(index)
        columns = (group.column(number) for number in range(group.num_columns))
        num_bytes = sum(
            column.total_uncompressed_size
            for column in columns
            if column.path_in_schema.split(".")[0] == field
        )
        of_a_page = num_bytes * min(1, ROWS_A_PAGE / max(group.num_rows, 1))
        if of_a_page > MAX_PAGE_BYTES:
            raise ValueError(
                f"{name}: row group {index} holds {num_bytes:,} bytes of images in {group.num_rows:,} "
                f"rows, of which a page may need {of_a_page:,.0f} bytes of memory, and the limit is "
                f"{MAX_PAGE_BYTES:,}; rewrite it with fewer rows in a group"
            )
        most = min(most, int(BYTES_AT_ONCE * group.num_rows / max(num_bytes, 1)))
    return max(most, 1)


def _row(files: list[Path], position: int, data: Path) -> str:
    for file in files:
        with _open(file, data) as opened:
            num_rows = opened.metadata.num_rows
        if position < num_rows:
            return f"{shown(file, data)} row {position}"
        position -= num_rows
    raise AssertionError("a position beyond the last row")


def _check_column(field: str, value: str, opened: pq.ParquetFile, name: str) -> None:
    names = opened.schema_arrow.names
    if value not in names:
        near = did_you_mean(value, names)
        raise ValueError(f"{field}={value!r}: not in {name}, choose from {choices(names)}{near}")
    if names.count(value) > 1:
        raise ValueError(f"{field}={value!r}: {name} has {names.count(value)} columns of this name")


@contextmanager
def _open(
    file: Path, data: Path, read_dictionary: list[str] | None = None
) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file, read_dictionary=read_dictionary) as opened:
            yield opened
    # Messages of pyarrow do not name the file.
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{shown(file, data)}: not a readable Parquet file ({error})") from error


_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_DONE: Final = "freezewise-files.json"  # written after all files are downloaded
SECONDS_TO_ANSWER: Final = 10.0


@dataclass(frozen=True)
class HubImages:
    """A data set of the Hugging Face hub by its name, "uoft-cs/cifar10", at one commit.

    - `revision`: the commit, 40 hexadecimal digits. For None, a branch or a tag, `study prepare` raises an
      error that names the current commit.
    - `train`, `test`: patterns of the data set's Parquet files, in which * matches any characters,
      including "/"; `test` None: no test split.
    - `image_column`, `label_column`: as in ParquetImages.
    """

    name: str
    revision: str | None = None
    train: str = "*train-*.parquet"
    test: str | None = "*test-*.parquet"
    image_column: str = "image"
    label_column: str = "label"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"HubImages.name={self.name!r}: choose a data set's name, as owner/name"
            )


def list_hub(images: HubImages, data: Path, *, download: bool) -> Listing:
    """List the data set's files below `data`; download them first if `download` is set.

    Raises ValueError for a revision that is no commit, unavailable files, and as `list_parquet` does.
    """
    if images.revision is None or not _COMMIT.fullmatch(images.revision):
        raise ValueError(_moves(images, download))
    folder = data / "hub" / images.name.replace("/", "--") / images.revision
    if not (folder / _DONE).is_file():
        if not download:
            raise ValueError(
                f"name={images.name!r}: its files are not in {folder}; `study prepare` downloads them"
            )
        _download(images, folder)
    names = json.loads((folder / _DONE).read_text(encoding="utf-8"))
    found = {field: _matching(images, field, names) for field in ("train", "test")}
    return list_parquet(
        ParquetImages(
            train=found["train"],
            test=found["test"] or None,
            image_column=images.image_column,
            label_column=images.label_column,
        ),
        folder,
    )


def _matching(images: HubImages, field: str, names: list[str]) -> tuple[str, ...]:
    pattern = getattr(images, field)
    if pattern is None:
        return ()
    found = tuple(sorted(name for name in names if fnmatch(name, pattern)))
    if not found:
        there = [name for name in names if name.endswith(".parquet")]
        raise ValueError(
            f"{field}={pattern!r}: no file of {images.name} matches, choose from {choices(there)}"
        )
    return found


def _moves(images: HubImages, download: bool) -> str:
    """Return the message for a revision that is no commit; for a download, include the current commit."""
    text = f"revision={images.revision!r}: give a commit, 40 hexadecimal digits; a branch or a tag moves"
    if not download:
        return f"{text}: `study prepare` prints the current one"
    return f"{text}. It is {_ask(images).sha} now"


def _ask(images: HubImages) -> Any:
    hub = _library()
    try:
        return hub.HfApi(endpoint=_endpoint()).dataset_info(
            images.name, revision=images.revision, timeout=SECONDS_TO_ANSWER
        )
    except Exception as error:  # many types, of huggingface_hub or its HTTP library
        raise ValueError(_unavailable_text(images, error)) from error


def _download(images: HubImages, folder: Path) -> None:
    hub = _library()
    names = [each.rfilename for each in _ask(images).siblings or ()]
    if any(".." in PurePosixPath(name).parts for name in names):
        raise ValueError(f"name={images.name!r}: it has files outside its folder")
    wanted = [*_matching(images, "train", names), *_matching(images, "test", names)]
    try:
        hub.snapshot_download(
            images.name,
            repo_type="dataset",
            revision=images.revision,
            local_dir=folder,
            allow_patterns=wanted,
            endpoint=_endpoint(),
        )
    except (OSError, hub.errors.HfHubHTTPError) as error:
        raise ValueError(_unavailable_text(images, error)) from error
    (folder / _DONE).write_text(json.dumps(wanted), encoding="utf-8")


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ValueError(missing_text("huggingface_hub")) from error
    return huggingface_hub


def _endpoint() -> str | None:
    # huggingface_hub itself reads this variable only once, on import.
    return os.environ.get("HF_ENDPOINT")


def _unavailable_text(images: HubImages, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = lines[0] if lines else type(error).__name__
    return f"name={images.name!r}: cannot be downloaded from the hub ({cause})"
