"""A root and whole objects under it, in a directory or on a bucket.

Owns the root, which is a directory or a URI that `pyarrow.fs` reads (s3://, gs://), and publishing:
an object appears whole or not at all. Knows no kind of object: each kind has a file of its own beside
this one (`rows`, `weights`, `unfinished`, `studies`, `similarity`).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs

from study.store import atomic, buckets, layout
from study.store.atomic import Damaged
from study.store.errors import WAITS, Waits, is_local

# Concurrent reads of small objects: hides a bucket's latency; a directory needs no more.
_NUM_READERS: Final = 16

SECONDS_FOR_GOOGLE: Final = 10  # a request; `retries` tries again, as of every bucket

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Store:
    """One store. Paths are relative to the root, with "/"; ids are Runs' ids.

    `lease_number`: of the lease under which it is written to, 0 where none is held: part of every path
    of a Run in flight (`unfinished`).

    Every method raises OSError, naming path and cause, where the root cannot be read or written: on
    a bucket after bounded retries, in a directory at once unless the error is one that may pass.
    """

    root: str
    fs: pafs.FileSystem = field(compare=False, repr=False)
    base: str = field(repr=False)
    waits: Waits = field(default=WAITS, compare=False, repr=False)
    lease_number: int = field(default=0, compare=False)

    @property
    def shown(self) -> str:
        """The root for messages: without the credentials that a URI may carry."""
        return without_secrets(self.root)

    def put(self, path: str, *parts: bytes) -> None:
        """Publish one object, these parts joined: all of it under its name, or nothing."""
        atomic.put(self.fs, self._at(path), parts, self.waits)

    def create(self, path: str, *parts: bytes) -> bool:
        """Publish one object unless another is there; whether it is this one that is there now."""
        return atomic.create(self.fs, self._at(path), parts, self.waits)

    def publish(self, path: str, *parts: bytes) -> bool:
        """`create` for what must never be torn, also where a directory has no hard links."""
        return atomic.create(self.fs, self._at(path), parts, self.waits, always_whole=True)

    def swap(self, path: str, expected: bytes, content: bytes) -> bool:
        """Put over an object of a bucket that holds `expected`; whether it holds `content` now.

        Raises FileNotFoundError. Only where `conditions_unheeded` says None.
        """
        return atomic.swap(self.fs, self._at(path), expected, content, self.waits)

    def conditions_unheeded(self) -> str | None:
        """Why this bucket cannot be relied on to refuse a put whose condition does not hold.

        None where it can be, which is tried once a process, and in a directory.
        """
        if is_local(self.fs):
            return None
        return buckets.refusal(self.fs, self._at(layout.LEASE), self.waits)

    def put_file(self, path: str, local: Path) -> None:
        """Publish a finished file of this machine; the caller gives it up (it may be moved)."""
        atomic.put_file(self.fs, self._at(path), local, self.waits)

    def get(self, path: str) -> bytes:
        """The whole object, unchecked. Raises FileNotFoundError, and Damaged where a disk has lost it.

        Lost is what it cannot read (EIO) after bounded retries. No other error of a directory says that
        a file would be better made anew, nor does any of a bucket.
        """
        try:
            return atomic.read(self.fs, self._at(path), self.waits)
        except OSError as error:
            if not is_local(self.fs) or error.errno != errno.EIO:
                raise
            raise Damaged(path, str(error.strerror)) from error

    def opened(self, path: str) -> AbstractContextManager[pa.NativeFile]:
        """The object, open for reading parts of it. Raises FileNotFoundError."""
        source: AbstractContextManager[pa.NativeFile] = atomic.opened(
            self.fs, self._at(path), self.waits
        )
        return source

    def exists(self, path: str) -> bool:
        """Whether a file lies there."""
        return bool(atomic.info(self.fs, self._at(path), self.waits).type == pafs.FileType.File)

    def local_path(self, path: str) -> Path | None:
        """The path on this machine; None on a bucket. Says nothing of whether it exists."""
        return Path(self._at(path)) if is_local(self.fs) else None

    def listed(self, folder: str, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """The files in a folder, temporary ones left out, in one paged listing."""
        return atomic.listed(self.fs, self._at(folder), self.waits, recursive=recursive)

    def remove(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""
        atomic.remove(self.fs, self._at(path), self.waits)

    def remove_folder(self, folder: str) -> None:
        """Remove all that lies in a folder; nothing happens where there is none."""
        atomic.remove_folder(self.fs, self._at(folder), self.waits)

    def set_aside(self, path: str) -> str | None:
        """Move a damaged object to damaged/…, and return its new path. Raises FileNotFoundError.

        None where a directory does not let it be moved: it stays until another is put in its place.
        """
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        new_path = layout.damaged_path(path, stamp)
        try:
            atomic.move(self.fs, self._at(path), self._at(new_path), self.waits)
        except FileNotFoundError:
            raise
        except OSError:
            if not is_local(self.fs):
                raise
            return None
        return new_path

    def aside(self) -> list[str]:
        """Where everything lies that was set aside: one recursive listing."""
        return [self.relative(e.path) for e in self.listed(layout.DAMAGED, recursive=True)]

    def relative(self, path: str) -> str:
        """The path as this store's methods take it, of an entry of `listed`."""
        return path.removeprefix(self._at(""))

    def _at(self, path: str) -> str:
        return f"{self.base}/{path}"

    def matching(self, folder: str, pattern: re.Pattern[str]) -> frozenset[str]:
        """The first group of the pattern, for each file of the folder whose name it fits: one listing."""
        entries = self.listed(folder)
        matches = (pattern.fullmatch(entry.base_name) for entry in entries)
        return frozenset(match[1] for match in matches if match)


def open_store(root: str | Path) -> Store:
    """The store at a directory, or at a URI that `pyarrow.fs` reads; nothing is made or asked yet.

    An S3 server of one's own is given in the URI's query, s3://bucket/folder?scheme=http&
    endpoint_override=127.0.0.1:9000, or by AWS_ENDPOINT_URL in the environment. Raises ValueError, and
    OSError where a bucket has to be asked for its region and does not answer.
    """
    if not str(root).strip():
        raise ValueError(
            f"root={str(root)!r}: choose a directory, or a URI such as s3://bucket/folder"
        )
    if "://" not in str(root):
        path = Path(root).expanduser().absolute()
        return Store(str(path), pafs.LocalFileSystem(), str(path))
    try:
        fs, base = pafs.FileSystem.from_uri(_patient(str(root)))
    except pa.ArrowException as error:
        raise ValueError(
            f"root={without_secrets(str(root))!r}: {without_secrets(str(error))}. Choose a directory, "
            "s3://bucket/folder, gs://bucket/folder, or another URI that pyarrow.fs reads"
        ) from error
    except OSError as error:  # the bucket's region is asked for
        raise OSError(error.errno or errno.EIO, str(error), without_secrets(str(root))) from error
    if not base.strip("/"):
        raise ValueError(f"root={without_secrets(str(root))!r}: it names no bucket or folder")
    return Store(str(root), fs, base.rstrip("/"))


def _patient(uri: str) -> str:
    """Of Google's storage, each request is given up after a while: of its client's own, 15 minutes."""
    if not uri.startswith(("gs://", "gcs://")) or "retry_limit_seconds=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}retry_limit_seconds={SECONDS_FOR_GOOGLE}"


def default_root() -> str:
    """Where the store is if nobody says so: STUDY_ROOT, or ./store."""
    return os.environ.get("STUDY_ROOT") or "./store"


def without_secrets(text: str, mark: str = "") -> str:
    """A text without what URIs in it may hold of secrets, for messages; `mark` stands in their place.

    That is all before the "@" of a URI, and the values of such parameters as client_secret.
    """
    # A key that was not encoded as it should be may hold a "/".
    text = re.sub(r"//(?:[^/@\s]*|[^/:@\s]*:[^@?\s]*)@", f"//{mark}@" if mark else "//", text)
    return re.sub(
        r"([?&][^=&]*(?:secret|key|token|password|sas)[^=&]*=)[^&\s]+", rf"\1{mark}", text
    )


def concurrently(
    read: Callable[[str], Answer], run_ids: Iterable[str]
) -> dict[str, Answer | Damaged]:
    """What `read` gives for each id, several at a time; its Damaged where it raises one.

    An id whose object is not there (any more) has no entry.
    """
    answers: dict[str, Answer | Damaged] = {}

    def ask(run_id: str) -> None:
        try:
            answers[run_id] = read(run_id)
        except Damaged as damaged:
            answers[run_id] = damaged
        except FileNotFoundError:
            pass  # gone since it was listed: another process has finished it, or set it aside

    ids = list(run_ids)
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        list(readers.map(ask, ids))
    return {run_id: answers[run_id] for run_id in ids if run_id in answers}


def damaged_among(read: Callable[[str], object], run_ids: Iterable[str]) -> dict[str, Damaged]:
    """Those of these ids for which `read` raises Damaged, and what; what it gives is let go at once."""

    def check(run_id: str) -> None:
        read(run_id)

    checked = concurrently(check, run_ids)
    return {run_id: found for run_id, found in checked.items() if found is not None}
