"""List and read images of Parquet files, local or from the Hugging Face hub.

Hub files are downloaded only by `study prepare`, and only at a full commit hash: a branch can change."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from study.messages import missing_text
from study.tasks.images import Listing, Split, choices, shown

# A file of kilobytes may decode to gigabytes. Limits of an encoded image, of all rows in memory at a
# time, and of a page, which is decoded at once (writers end a page after at most ROWS_A_PAGE rows).
MAX_ENCODED_BYTES: Final = 64 * 2**20
BYTES_AT_ONCE: Final = 256 * 2**20
MAX_ROWS_AT_ONCE: Final = 256
MAX_PAGE_BYTES: Final = 2**30
ROWS_A_PAGE: Final = 1024


@dataclass(frozen=True, kw_only=True)
class ParquetImages:
    """Parquet files of encoded images, in the Hugging Face hub's form.

    `train`, `test`: relative to the data directory; each is a file, a folder of files, a pattern like
    "data/train-*.parquet", or several of these. `image_column` is a struct with `bytes`, or binary;
    `label_column` has whole numbers, or names. Class names come from the `huggingface` metadata, if any.
    """

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] | None = None
    image_column: str = "image"
    label_column: str = "label"


def parquet_files(source: ParquetImages, data: Path) -> list[Path]:
    """Return all files of a source, train first. Raises ValueError if a field names none."""
    test = () if source.test is None else _found("test", source.test, data)
    return [*_found("train", source.train, data), *test]


def list_parquet(source: ParquetImages, data: Path) -> Listing:
    """List the files' images. Raises ValueError for a missing file or column, or a label without class."""
    train_files = _found("train", source.train, data)
    train_labels = _labels(train_files, source, data)
    class_names = _names_in_metadata(train_files[0], source.label_column, data)
    for file in parquet_files(source, data):
        names = _names_in_metadata(file, source.label_column, data)
        if names != class_names:  # the label numbers would mean other classes
            raise ValueError(
                f"{shown(file, data)}: its class names {choices(names or ())} are not those of "
                f"{shown(train_files[0], data)}, {choices(class_names or ())}"
            )
    values = np.unique(train_labels)
    if class_names is not None and train_labels.dtype.kind == "i":
        values = np.arange(len(class_names))
    elif class_names is not None:
        values = np.asarray(class_names)

    def split(files: list[Path], labels: np.ndarray) -> Split:
        order = np.argsort(values, kind="stable")
        place = np.searchsorted(values[order], labels).clip(max=len(values) - 1)
        wrong = np.flatnonzero(values[order[place]] != labels)
        if len(wrong):
            raise ValueError(
                f"{_row(files, wrong[0], data)}: {source.label_column}={labels[wrong[0]].item()!r} "
                f"is not a class, choose from {choices(values.tolist())}"
            )

        def read(positions: np.ndarray) -> Iterator[tuple[str, bytes]]:
            return _images(files, source.image_column, positions, data)

        return Split(labels=order[place].astype(np.int64), read=read)

    test = None
    if source.test is not None:
        test_files = _found("test", source.test, data)
        test = split(test_files, _labels(test_files, source, data))
    return Listing(
        class_names=class_names or tuple(str(value) for value in values),
        train=split(train_files, train_labels),
        test=test,
    )


def _found(field: str, given: str | tuple[str, ...], data: Path) -> list[Path]:
    files: list[Path] = []
    for name in (given,) if isinstance(given, str) else given:
        path = data / name
        if path.is_dir():
            found = sorted(path.glob("*.parquet"))
        elif "*" in path.name:
            found = sorted(path.parent.glob(path.name))
        else:
            found = [path] if path.is_file() else []
        if not found:
            raise ValueError(
                f"{field}={name!r}: no Parquet file at {path} (data directory: {data})"
            )
        files += found
    return files


def _names_in_metadata(file: Path, label_column: str, data: Path) -> tuple[str, ...] | None:
    with _open(file, data) as opened:
        text = (opened.schema_arrow.metadata or {}).get(b"huggingface")
    if text is None:
        return None
    features = json.loads(text).get("info", {}).get("features") or {}
    names = features.get(label_column, {}).get("names")
    return None if names is None else tuple(names)


def _labels(files: list[Path], source: ParquetImages, data: Path) -> np.ndarray:
    """Return the labels of all files: int64 or str, shape (n,)."""
    field = source.label_column
    columns = []
    for file in files:
        name = shown(file, data)
        with _open(file, data) as opened:
            _check_column("label_column", field, opened, name)
            column: Any = opened.read(columns=[field]).column(0).combine_chunks()
        if column.null_count:
            row = column.is_valid().index(False).as_py()
            raise ValueError(f"{name} row {row}: no {field}")
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if pa.types.is_integer(column.type):
            columns.append(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            columns.append(np.asarray(column.to_pylist(), dtype=np.str_))
        else:
            raise ValueError(
                f"label_column={field!r}: {name} has {column.type} there, "
                "choose a column of whole numbers or of names"
            )
    return np.concatenate(columns)


def _images(
    files: list[Path], field: str, positions: np.ndarray, data: Path
) -> Iterator[tuple[str, bytes]]:
    """Yield the encoded images at these ascending positions over all files' rows."""
    before = 0
    for file in files:
        name = shown(file, data)
        with _open(file, data) as opened:
            _check_column("image_column", field, opened, name)
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
                    image = batch.column(0)[row].as_py()
                    content = image.get("bytes") if isinstance(image, dict) else image
                    where = f"{name} row {first_row + row}"
                    if not isinstance(content, bytes):
                        raise ValueError(f"{where}: no image bytes in column {field!r}")
                    if len(content) > MAX_ENCODED_BYTES:
                        raise ValueError(
                            f"{where}: an image of {len(content):,} bytes, the limit is "
                            f"{MAX_ENCODED_BYTES:,}"
                        )
                    yield where, content
                first_row += len(batch)
            before += first_row


def _rows_at_once(opened: pq.ParquetFile, field: str, name: str) -> int:
    """Return how many rows of images may be in memory at a time.

    Raises ValueError if a page, Parquet's unit, would need too much: a small file may contain much data.
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
        raise ValueError(f"{field}={value!r}: not in {name}, choose from {choices(names)}")


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
_DONE: Final = "freezewise-files.json"  # written when all files are there
SECONDS_TO_ANSWER: Final = 10.0


@dataclass(frozen=True)
class HubImages:
    """A data set of the Hugging Face hub by its name, "uoft-cs/cifar10", at one commit.

    - `revision`: the commit, 40 hexadecimal digits. Without it, or with a branch or a tag, an error
      names the current commit in `study prepare`.
    - `train`, `test`: patterns of the data set's Parquet files, in which * matches any characters,
      including "/"; `test` None: it has no test split.
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
    """Return the message for a revision that is no commit; for a download, it names the current commit."""
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
    except Exception as error:  # of huggingface_hub or its HTTP library
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
    # huggingface_hub itself reads it only once, on import.
    return os.environ.get("HF_ENDPOINT")


def _unavailable_text(images: HubImages, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = lines[0] if lines else type(error).__name__
    return f"name={images.name!r}: cannot be downloaded from the hub ({cause})"
