"""Read and write whole objects below a root, which is a directory or a bucket."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, TypeVar

import pyarrow as pa

from study.store import atomic, layout
from study.store.atomic import Damaged, Entry, Unreadable
from study.store.buckets import Buckets, parse
from study.store.errors import WAITS, Waits

# Threads that read small objects: they hide a bucket's latency, and a directory needs no more.
_NUM_READERS: Final = 16
_IDS_A_TASK: Final = 32

Answer = TypeVar("Answer")


class _Files(Protocol):
    """The interface of the module `atomic` (directories) and of `Buckets`."""

    def read(self, path: str, waits: Waits) -> bytes: ...
    def opened(self, path: str, waits: Waits, *, whole: bool = True) -> pa.NativeFile: ...
    def put(self, path: str, parts: tuple[bytes, ...], waits: Waits) -> None: ...
    def put_file(self, path: str, local: Path, waits: Waits) -> None: ...
    def create(
        self, path: str, parts: tuple[bytes, ...], waits: Waits, *, always_whole: bool = False
    ) -> bool: ...
    def exists(self, path: str, waits: Waits) -> bool: ...
    def listed(self, folder: str, waits: Waits, *, recursive: bool = False) -> list[Entry]: ...
    def remove(self, path: str, waits: Waits) -> None: ...
    def remove_folder(self, path: str, waits: Waits) -> None: ...
    def move(self, path: str, new_path: str, waits: Waits) -> None: ...


@dataclass(frozen=True)
class Store:
    """One store. Paths are relative to the root, with "/"; ids are Runs' ids.

    `lease_number`: the number of this driver's lease, or 0. The paths of Runs in flight (`unfinished`)
    contain it.

    Every method raises OSError, with path and cause, if the root cannot be read or written. Temporary
    errors are retried first.
    """

    root: str = field(repr=False)  # may contain credentials
    buckets: Buckets | None = field(compare=False, repr=False)
    base: str
    waits: Waits = field(default=WAITS, compare=False, repr=False)
    lease_number: int = field(default=0, compare=False)

    @property
    def shown(self) -> str:
        """Return the root for messages, without credentials."""
        return without_secrets(self.root)

    def put(self, path: str, *parts: bytes) -> None:
        """Publish one object, `parts` joined, atomically."""
        self._files.put(self._at(path), parts, self.waits)

    def create(self, path: str, *parts: bytes) -> bool:
        """Publish one object unless another exists; return True if the object has these bytes now."""
        return self._files.create(self._at(path), parts, self.waits)

    def publish(self, path: str, *parts: bytes) -> bool:
        """Publish like `create`, but never leave an incomplete file, even without hard links."""
        return self._files.create(self._at(path), parts, self.waits, always_whole=True)

    def swap(self, path: str, expected: bytes | None, content: bytes) -> bool:
        """Replace an object of a bucket; return True if it holds `content` now.

        `expected`: the content that the object must have before; None for any content.

        Raises FileNotFoundError. Requires that `conditions_unheeded` returns None.
        """
        assert self.buckets is not None, self.shown
        return self.buckets.swap(self._at(path), expected, content, self.waits)

    def conditions_unheeded(self) -> str | None:
        """Return why this bucket's conditional writes are unreliable; tested once per process.

        None if they are reliable, and for a directory.
        """
        if self.buckets is None:
            return None
        return self.buckets.refusal(self._at(layout.LEASE), self.waits)

    def put_file(self, path: str, local: Path) -> None:
        """Publish a finished local file. A directory moves it; a bucket copies it."""
        self._files.put_file(self._at(path), local, self.waits)

    def get(self, path: str) -> bytes:
        """Return the whole object, unchecked.

        Raises FileNotFoundError, and Damaged if a disk cannot read it (EIO). Other errors, and all errors
        of a bucket, do not mean that the object is damaged.
        """
        try:
            return self._files.read(self._at(path), self.waits)
        except OSError as error:
            if self.buckets is not None or error.errno != errno.EIO:
                raise
            raise Damaged(path, str(error.strerror)) from error

    def opened(self, path: str, *, whole: bool = True) -> AbstractContextManager[pa.NativeFile]:
        """Open the object to read parts of it. Raises FileNotFoundError.

        `whole`: read a bucket's object in one request, which is faster if it is small.
        """
        source: AbstractContextManager[pa.NativeFile] = self._files.opened(
            self._at(path), self.waits, whole=whole
        )
        return source

    def fetch(self, path: str, local: Path) -> None:
        """Copy an object of a bucket to a new local file. Raises FileNotFoundError."""
        assert self.buckets is not None, self.shown
        self.buckets.fetch(self._at(path), local, self.waits)

    def exists(self, path: str) -> bool:
        return self._files.exists(self._at(path), self.waits)

    def local_path(self, path: str) -> Path | None:
        """Return the local path, whether it exists or not; None on a bucket."""
        return Path(self._at(path)) if self.buckets is None else None

    def listed(self, folder: str, *, recursive: bool = False) -> list[Entry]:
        """List the files in a folder, except temporary files, in one paged listing."""
        return self._files.listed(self._at(folder), self.waits, recursive=recursive)

    def remove(self, path: str) -> None:
        """Remove an object if it exists."""
        self._files.remove(self._at(path), self.waits)

    def remove_folder(self, folder: str) -> None:
        """Remove a folder's content, if any."""
        self._files.remove_folder(self._at(folder), self.waits)

    def remove_each(self, folder: str, paths: Collection[str]) -> None:
        """Remove a folder that contains only these files: one request to a bucket, without a listing."""
        if self.buckets is None:
            self.remove_folder(folder)
        elif paths:
            self.buckets.remove_each([self._at(path) for path in paths], self.waits)

    def quarantine(self, path: str) -> str | None:
        """Move a damaged object to damaged/…, and return its new path. Raises FileNotFoundError.

        Returns None if the directory does not permit the move; the object then stays until it is replaced.
        """
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        new_path = layout.damaged_path(path, stamp)
        try:
            self._files.move(self._at(path), self._at(new_path), self.waits)
        except FileNotFoundError:
            raise
        except OSError:
            if self.buckets is not None:
                raise
            return None
        return new_path

    def quarantined(self) -> list[str]:
        """Return the paths of all quarantined objects, in one recursive listing."""
        return [self.relative(e.path) for e in self.listed(layout.DAMAGED, recursive=True)]

    def relative(self, path: str) -> str:
        """Return the path of a listed entry relative to the root, as this store's methods need it."""
        return path.removeprefix(self._at(""))

    def _at(self, path: str) -> str:
        return f"{self.base}/{path}"

    @property
    def _files(self) -> _Files:
        return atomic if self.buckets is None else self.buckets

    def matching(self, folder: str, pattern: re.Pattern[str]) -> frozenset[str]:
        """Return the first group of the pattern for each matching file of the folder, in one listing."""
        entries = self.listed(folder)
        matches = (pattern.fullmatch(entry.base_name) for entry in entries)
        return frozenset(match[1] for match in matches if match)


def open_store(root: str | Path) -> Store:
    """Return the store at a directory or at s3:// or gs://bucket/folder, without any access.

    The query of a URI may name another server and a region:
    s3://bucket/folder?endpoint_override=127.0.0.1:9000&scheme=http&region=eu-central-1. Without them the
    environment counts: AWS_ENDPOINT_URL, AWS_REGION. Raises ValueError.
    """
    if not str(root).strip():
        raise ValueError(
            f"root={str(root)!r}: choose a directory, or a URI such as s3://bucket/folder"
        )
    if "://" not in str(root):
        path = Path(root).expanduser().absolute()
        return Store(str(path), None, str(path))
    try:
        return Store(str(root), *parse(str(root)))
    except ValueError as error:
        raise ValueError(f"root={without_secrets(str(root))!r}: {error}") from error


def open_uri(uri: str) -> pa.NativeFile:
    """Open one object of a bucket to read parts of it.

    Raises FileNotFoundError, ValueError, and OSError that names path and cause.
    """
    try:
        buckets, path = parse(uri)
    except ValueError as error:
        raise ValueError(f"{without_secrets(uri)}: {error}") from error
    return buckets.opened(path, WAITS, whole=False)


def default_root() -> str:
    """Return the default store: STUDY_ROOT, or ./store."""
    return os.environ.get("STUDY_ROOT") or "./store"


def store_command(*words: str, root: str) -> str:
    """Return a command line for messages, with `--root` unless `root` is the default."""
    is_default = root == default_root() or Path(root) == Path(default_root())
    flags = [] if is_default else ["--root", without_secrets(root, mark="…")]
    return shlex.join(["study", *words, *flags])


def without_secrets(text: str, mark: str = "") -> str:
    """Return a text for messages, with secrets in URIs replaced by `mark`.

    Secrets are everything before the "@" of a URI, and the values of parameters such as client_secret.
    """
    # A key that is not percent-encoded may contain a "/".
    text = re.sub(r"//(?:[^/@\s]*|[^/:@\s]*:[^@?\s]*)@", f"//{mark}@" if mark else "//", text)
    return re.sub(
        r"([?&][^=&]*(?:secret|key|token|password|sas)[^=&]*=)[^&\s]+", rf"\1{mark}", text
    )


def concurrently(
    read: Callable[[str], Answer], run_ids: Iterable[str]
) -> dict[str, Answer | Damaged]:
    """Call `read` for several ids at a time; return its result, or the Damaged that it raises, by id.

    A PermissionError becomes Unreadable. Ids whose object does not exist are left out.
    """
    answers: dict[str, Answer | Damaged] = {}

    def ask(run_id: str) -> None:
        try:
            answers[run_id] = read(run_id)
        except Damaged as damaged:
            answers[run_id] = damaged
        except PermissionError as error:
            answers[run_id] = unreadable(error)
        except FileNotFoundError:
            pass  # another process has finished or quarantined the Run after the listing

    ids = list(run_ids)
    in_pieces(lambda some: list(map(ask, some)), ids)
    return {run_id: answers[run_id] for run_id in ids if run_id in answers}


def in_pieces(work: Callable[[Sequence[str]], object], run_ids: Sequence[str]) -> None:
    """Call `work` with some of the ids at a time, from several threads."""
    # One task per id would cost more than reading it; small pieces let few ids use every thread.
    size = min(_IDS_A_TASK, len(run_ids) // (4 * _NUM_READERS) + 1)
    pieces = [run_ids[first : first + size] for first in range(0, len(run_ids), size)]
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        for _ in readers.map(work, pieces):
            pass


def unreadable(error: PermissionError) -> Unreadable:
    """Return the Unreadable for a PermissionError about one object."""
    return Unreadable(str(error.filename), os.strerror(error.errno or errno.EACCES))


def damaged_among(read: Callable[[str], object], run_ids: Iterable[str]) -> dict[str, Damaged]:
    """Return each Damaged that `read` raises, by id; discard the results of `read`."""

    def check(run_id: str) -> None:
        read(run_id)

    checked = concurrently(check, run_ids)
    return {run_id: found for run_id, found in checked.items() if found is not None}
