"""A prepared task: one Arrow file of decoded images and labels, memory-mapped and checked.

The columns are `image` (c·h·w values), `label` and `split` ("train" first, then "test"), in one record
batch, so that a memory map gives numpy arrays without a copy. The schema's metadata contain all other
fields of PreparedTask, with a digest of their own.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from study.fields import canonical_json
from study.store import Damaged, Store, arrow_file
from study.store.atomic import draft_beside, make_folder
from study.store.errors import WAITS, tried
from study.store.layout import task_path
from study.store.prepared_tasks import metadata_of, newer, read_task_head
from study.store.store import store_command

SPLITS: Final = ("train", "test")
_BYTES_AT_ONCE: Final = 1 << 24


@dataclass(frozen=True, kw_only=True)
class TaskInfo:
    """A task's numbers of images, its class names, and the shape (c, h, w) of its images."""

    name: str
    num_train: int
    num_test: int
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]

    @property
    def num_classes(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTask:
    """A task's images, uint8 of shape (n, c, h, w), and labels, int64 of shape (n,): read-only.

    - `fingerprint`: SHA-256 over images, labels, split and class names, in hex.
    - `definition`: canonical JSON of the Task from which this was prepared.
    - `origin`: digest of the names, sizes and times of the source's files.
    - `remarks`: warnings about the images, such as lost values.
    """

    info: TaskInfo
    fingerprint: str
    definition: str
    origin: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    remarks: tuple[str, ...] = ()


def fingerprint_of(info: TaskInfo, images: np.ndarray, labels: np.ndarray) -> str:
    """Return the SHA-256 in hex of info (without the name), images and labels (train first, then test)."""
    plain = asdict(info)
    del plain["name"]
    digest = hashlib.sha256(canonical_json(plain).encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def publish(
    store: Store,
    info: TaskInfo,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    fingerprint: str,
    definition: str,
    origin: str,
    remarks: Sequence[str] = (),
) -> None:
    """Write the task's file and put it into the store as one object.

    `images`: uint8, shape (n, c, h, w), contiguous; `labels`: int64, shape (n,); train first.
    """
    num, length = len(images), int(np.prod(info.image_shape))
    buffer: Any = images
    assert num == len(labels) == info.num_train + info.num_test
    values = pa.Array.from_buffers(pa.uint8(), num * length, [None, pa.py_buffer(buffer)])
    split = np.repeat(np.arange(2, dtype=np.int8), [info.num_train, info.num_test])
    columns = {
        "image": pa.FixedSizeListArray.from_arrays(values, length),
        "label": pa.array(labels, pa.int64()),
        "split": pa.DictionaryArray.from_arrays(split, list(SPLITS)),
    }
    head = metadata_of(
        {
            "info": asdict(info),
            "fingerprint": fingerprint,
            "definition": definition,
            "origin": origin,
        }
        | ({"remarks": list(remarks)} if remarks else {})
    )
    batch = pa.record_batch(columns).replace_schema_metadata(head)
    with draft_beside(scratch_folder(store) / f"{info.name}.arrow") as local:
        # All pixels are one array: beyond 2 GiB, the array's length does not fit 32 bits.
        options = pa.ipc.IpcWriteOptions(allow_64bit=True)
        with (
            pa.OSFile(str(local), "wb") as sink,
            pa.ipc.new_file(sink, batch.schema, options=options) as writer,
        ):
            writer.write_batch(batch)
        store.put_file(task_path(info.name), local)
    _head_of_lease.cache_clear()


def load(name: str, store: Store) -> PreparedTask:
    """Return the prepared task, memory-mapped; check its fingerprint once per process.

    A bucket's task is copied once to this machine's temporary directory. Raises ValueError if the task is
    not prepared, Damaged if its file is corrupted, Newer if a later release wrote it.
    """
    path = task_path(name)
    local = store.local_path(path)
    missing = (
        f"task={name!r}: not prepared in {store.shown}, run: "
        f"{store_command('prepare', name, root=store.root)}"
    )
    if local is not None:
        if not store.exists(path):
            raise ValueError(missing)
        return _opened(local, path, name, _version(local))
    try:
        about = _head(store, path)
    except FileNotFoundError:
        raise ValueError(missing) from None
    local = scratch_folder(store) / f"{name}-{about['fingerprint'][:16]}.arrow"
    if local.exists():
        try:
            return _opened(local, path, name, _version(local))
        except Damaged:
            local.unlink(missing_ok=True)  # only the local copy is damaged; fetch the task again
    with draft_beside(local) as draft:
        store.fetch(path, draft)
        draft.replace(local)
    return _opened(local, path, name, _version(local))


def load_info(name: str, store: Store) -> TaskInfo | None:
    """Return a prepared task's TaskInfo without reading its images; None if it is not prepared."""
    path = task_path(name)
    try:
        return _info_from(_head(store, path), path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def scratch_folder(store: Store) -> Path:
    """Return a folder for drafts: the store's tasks, or this machine's temporary directory."""
    local = store.local_path("tasks")
    if local is not None:
        make_folder(local)
        return local
    folder = Path(tempfile.gettempdir()) / f"freezewise-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():  # lstat: a link's own owner
        raise PermissionError(f"{folder} belongs to somebody else: set TMPDIR to a folder of yours")
    return folder


def _head(store: Store, path: str) -> dict[str, Any]:
    if store.local_path(path) is None and store.lease_number:
        return _head_of_lease(store, path, store.lease_number)
    return _read_head(store, path)


@lru_cache(maxsize=64)
def _head_of_lease(store: Store, path: str, lease_number: int) -> dict[str, Any]:
    # While this driver holds the lease, a bucket's task changes only by `publish`.
    return _read_head(store, path)


def _read_head(store: Store, path: str) -> dict[str, Any]:
    try:
        with store.opened(path, whole=False) as file:
            return read_task_head(file, path)
    except FileNotFoundError:
        raise
    # Read the whole file only if the head seems damaged or cannot be read.
    except (OSError, Damaged):
        return read_task_head(pa.BufferReader(store.get(path)), path)


@lru_cache(maxsize=64)
def _opened(local: Path, path: str, name: str, version: tuple[int, ...]) -> PreparedTask:
    # `version` is part of the cache key: a replaced file is opened and checked again.
    _read_through(local, path)
    with pa.memory_map(str(local)) as file:
        about = read_task_head(file, path)
        with arrow_file.opened(file, path) as reader:
            batch: Any = reader.get_batch(0)
            batch.validate(full=True)  # a corrupted offset could point outside the file
            images = _values(batch.column("image").flatten())
            labels = _values(batch.column("label"))
            split = batch.column("split")
            test, splits = _values(split.indices), split.dictionary.to_pylist()
            info = _info_from(about, path)
            images = images.reshape(-1, *info.image_shape)
    if info.name != name:
        raise Damaged(path, f"it holds the task {info.name!r}")
    num = info.num_train
    whole = (
        len(images) == len(labels) == len(test) == num + info.num_test
        and splits == list(SPLITS)
        and images.dtype == np.uint8
        and labels.dtype == np.int64
        and not test[:num].any()
        and (test[num:] == 1).all()
        and fingerprint_of(info, images, labels) == about["fingerprint"]
    )
    if not whole:
        raise Damaged(path, "its images and labels do not fit its fingerprint")
    return PreparedTask(
        info=info,
        fingerprint=about["fingerprint"],
        definition=about["definition"],
        origin=about["origin"],
        train_images=images[:num],
        train_labels=labels[:num],
        test_images=images[num:],
        test_labels=labels[num:],
        remarks=tuple(about.get("remarks", ())),
    )


def _read_through(local: Path, path: str) -> None:
    # If a sector is lost, reading it through a memory map would end the process.

    def once() -> None:
        with local.open("rb", buffering=0) as file:
            while file.read(_BYTES_AT_ONCE):
                pass

    try:
        tried("read", local, WAITS, once)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        raise Damaged(path, str(error.strerror)) from error


def _values(array: pa.Array) -> np.ndarray:
    if array.null_count:
        raise ValueError("a value is missing")
    return array.to_numpy(zero_copy_only=True)


def _version(local: Path) -> tuple[int, ...]:
    stat = local.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _info_from(about: dict[str, Any], path: str) -> TaskInfo:
    values: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in about["info"].items()
    }
    try:
        return TaskInfo(**values)
    except TypeError as error:
        # The checksum matches, so another release wrote it in this form.
        raise newer(path, about, str(error)) from error
