"""Read, write and list files of a directory; every file appears whole or not at all.

In all functions, `waits` are the seconds before each retry."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pyarrow as pa

from study.store.errors import Waits, tried
from study.store.provenance import release

# `pyarrow.dataset` and the listings of this module skip names that begin with a dot.
_TEMPORARY: Final = re.compile(r"\.(?P<host>.+)~(?P<pid>\d+)~[0-9a-f]{8}~.+\.tmp")
_NO_HARD_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_TEMPORARY_LIVES_SECONDS: Final = 24 * 3600.0


class Newer(ValueError):
    """An undamaged object of a later release, in a format that this release does not support."""

    def __init__(self, path: str, written_by: str, what: str) -> None:
        super().__init__(
            f"{path} was written by freezewise {written_by or 'of a later release'} ({what}). This "
            f"version, {release()}, cannot read it: install that one or a later one"
        )


class Damaged(Exception):
    """A corrupted object. `path`: relative to the root; `why`: the reason."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.why}"


class Unreadable(Damaged):
    """An object that this user may not read. It may be undamaged, so it must not be replaced."""

    def __str__(self) -> str:
        return f"{self.path} cannot be read ({self.why}); have its owner let you read it"


@dataclass(frozen=True)
class Entry:
    """A file, or an object of a bucket, in a listing; `mtime` in UTC.

    `etag`: the object's ETag, which changes with its content; "" for a file.
    """

    path: str
    size: int
    mtime: datetime
    etag: str = ""

    @property
    def base_name(self) -> str:
        return self.path.rpartition("/")[2]


def read(path: str, waits: Waits) -> bytes:
    """Return the whole file. Raises FileNotFoundError, or OSError that names path and cause."""
    return tried("read", path, waits, Path(path).read_bytes)


def opened(path: str, waits: Waits, *, whole: bool = True) -> pa.NativeFile:
    """Open the file to read parts of it. `whole` has no effect."""
    return tried("read", path, waits, lambda: pa.OSFile(path))


def put(path: str, parts: tuple[bytes, ...], waits: Waits) -> None:
    """Write `parts`, joined, to a temporary file, flush it to the disk, and rename it to `path`.

    Raises OSError that names path and cause.
    """

    def once() -> None:
        with draft_beside(Path(path)) as draft:
            _write_whole(draft, parts)
            _rename(draft, Path(path))

    tried("write", path, waits, once)


def create(
    path: str, parts: tuple[bytes, ...], waits: Waits, *, always_whole: bool = False
) -> bool:
    """Publish `parts`, joined, unless another file exists; return True if the file holds them now.

    If several callers try, exactly one succeeds, and readers never see an incomplete file. Without hard
    links, only the first guarantee holds, or with `always_whole` only the second.
    Raises OSError like `put`.
    """

    def once() -> bool:
        temporary.unlink(missing_ok=True)  # left by an earlier try if its cleanup failed
        try:
            _write_whole(temporary, parts)
            return _linked(temporary, Path(path), always_whole)
        finally:
            temporary.unlink(missing_ok=True)

    temporary = tried("write", path, waits, lambda: temporary_beside(Path(path)))
    return tried("write", path, waits, once)


def put_file(path: str, local: Path, waits: Waits) -> None:
    """Flush a finished file and move it to `path`, possibly on another disk."""

    def once() -> None:
        with local.open("rb") as stream:
            os.fsync(stream.fileno())
        make_folder(Path(path).parent)
        try:
            _rename(local, Path(path))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(local, Path(path))

    tried("write", path, waits, once)


def exists(path: str, waits: Waits) -> bool:
    return tried("look at", path, waits, Path(path).is_file)


def listed(folder: str, waits: Waits, *, recursive: bool = False) -> list[Entry]:
    """List the files in a folder, without dot files; [] if the folder does not exist."""
    found = tried("list", folder, waits, lambda: list(_entries(folder, recursive)))
    return sorted(found, key=lambda entry: entry.path)


def _entries(folder: str, recursive: bool) -> Iterator[Entry]:
    absent = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with absent, os.scandir(folder) as found:
        for each in found:
            # The file may have vanished since the folder was listed.
            with contextlib.suppress(FileNotFoundError):
                if each.is_dir():
                    if recursive:
                        yield from _entries(each.path, recursive)
                elif not each.name.startswith(".") and each.is_file():
                    stat = each.stat()
                    time = datetime.fromtimestamp(stat.st_mtime, UTC)
                    yield Entry(each.path, stat.st_size, time)


def remove(path: str, waits: Waits) -> None:
    """Remove a file if it exists."""
    tried("remove", path, waits, lambda: Path(path).unlink(missing_ok=True))


def remove_folder(path: str, waits: Waits) -> None:
    """Remove a folder and its content if it exists."""

    def once() -> None:
        while Path(path).exists():
            # Another process may remove files of the folder at the same time.
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(path)

    tried("remove", path, waits, once)


def move(path: str, new_path: str, waits: Waits) -> None:
    """Move a file to another name. Raises FileNotFoundError."""

    def once() -> None:
        make_folder(Path(new_path).parent)
        Path(path).rename(new_path)

    tried("move", path, waits, once)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, and flush them to the disk to survive a power loss."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _flush_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """Return a new name in the folder of `path` (made if missing) that listings and datasets skip.

    The name contains host and pid, so that `sweep` finds the files of killed processes.
    """
    make_folder(path.parent)
    return path.with_name(f".{_host()}~{os.getpid()}~{secrets.token_hex(4)}~{path.name}.tmp")


@contextlib.contextmanager
def draft_beside(path: Path) -> Iterator[Path]:
    """Yield `temporary_beside(path)`; afterwards, remove the file of that name if it still exists."""
    draft = temporary_beside(path)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def sweep(folder: Path, pattern: str = "**/.*.tmp") -> list[Path]:
    """Remove the temporary files of dead processes of this host below a folder; return their paths.

    Temporary files older than a day are always removed. While one host sweeps, no other host of the same
    name may write: in a store, only the driver that holds the lease calls this.
    """
    removed = []
    for path in folder.glob(pattern):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(FileNotFoundError, PermissionError):
            old = time.time() - path.stat().st_mtime > _TEMPORARY_LIVES_SECONDS
            orphaned = (
                match is not None and match["host"] == _host() and not is_alive(int(match["pid"]))
            )
            if old or orphaned:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
                removed.append(path)
    return removed


def _host() -> str:
    return re.sub(r"[^\w.-]", "-", socket.gethostname())


def is_alive(pid: int) -> bool:
    """Return True if a process with this number runs on this host."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_whole(path: Path, parts: tuple[bytes, ...]) -> None:
    with path.open("xb") as stream:
        for part in parts:
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())


def _linked(temporary: Path, path: Path, always_whole: bool) -> bool:
    """Link `temporary` to `path` unless `path` exists; return True if `path` has its content now."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        # Also raised if a network file system repeats a request that succeeded. If an earlier try
        # linked its file and then failed, `path` is a different file with the same content.
        with contextlib.suppress(OSError):
            return path.samefile(temporary) or path.read_bytes() == temporary.read_bytes()
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        if not always_whole:
            return _filled(path, temporary.read_bytes())
        if path.exists():
            return False
        _rename(temporary, path)
        return True
    _flush_folder(path.parent)
    return True


def _filled(path: Path, content: bytes) -> bool:
    """Create the file, then write its content; return False if the file already exists.

    For directories without hard links.
    """
    try:
        stream = path.open("xb")
    except FileExistsError:
        return False
    with stream:
        try:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        except OSError:
            # For example a full disk: an incomplete file would block all other writers.
            path.unlink(missing_ok=True)
            raise
    return True


def _rename(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    _flush_folder(path.parent)


def _flush_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        # Some network and user-space file systems cannot flush a folder; the file itself is safe.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
            raise
    finally:
        os.close(folder)


def _copy(local: Path, path: Path) -> None:
    with draft_beside(path) as draft:
        with local.open("rb") as source, draft.open("xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 24)
            stream.flush()
            os.fsync(stream.fileno())
        _rename(draft, path)
    local.unlink()
