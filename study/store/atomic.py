"""Whole objects on a file system: read, published atomically, listed.

Owns how bytes reach a directory or a bucket so that no torn object is ever seen under its own name.
Knows nothing of what they mean: that is `store`. Never appends, never renames on a bucket (there a
move is a copy), never leaves an output stream open over an exception.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.fs as pafs

from study.store import buckets
from study.store.errors import Waits, is_local, tried
from study.store.provenance import release

# `pyarrow.dataset` and the listings of this module pass over names that begin with a dot.
_TEMPORARY: Final = re.compile(r"\.(?P<host>.+)~(?P<pid>\d+)~[0-9a-f]{8}~.+\.tmp")
_NO_HARD_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
_TEMPORARY_LIVES_SECONDS: Final = 24 * 3600.0

_log = logging.getLogger(__name__)


class Newer(ValueError):
    """A whole object that a later release wrote, in a form that this one does not know."""

    def __init__(self, path: str, written_by: str, what: str) -> None:
        super().__init__(
            f"{path} was written by freezewise {written_by or 'of a later release'} ({what}), which "
            f"this version, {release()}, does not read: install that one or a later one"
        )


class Damaged(Exception):
    """An object of the store that is not what was written there. `path` (inside the root), `why`."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.why}"


def read(fs: pafs.FileSystem, path: str, waits: Waits) -> bytes:
    """The whole object. Raises FileNotFoundError, or OSError that names path and cause."""

    def once() -> bytes:
        if is_local(fs):
            return Path(path).read_bytes()
        with fs.open_input_stream(path) as stream:
            return bytes(stream.readall())

    return tried(fs, "read", path, waits, once)


def opened(fs: pafs.FileSystem, path: str, waits: Waits) -> pa.NativeFile:
    """The object for reading parts of it; of a bucket, that takes fewer requests as a whole."""
    if is_local(fs):
        return tried(fs, "read", path, waits, lambda: pa.OSFile(path))
    return pa.BufferReader(read(fs, path, waits))


def put(fs: pafs.FileSystem, path: str, parts: tuple[bytes, ...], waits: Waits) -> None:
    """Publish `parts`, joined, as one object: all of it under its name, or nothing.

    In a directory: a temporary file beside it, flushed to the disk, then renamed over it. Elsewhere:
    one output stream that gets everything in one write. Raises OSError naming path and cause.
    """

    def locally() -> None:
        temporary = temporary_beside(Path(path))
        try:
            _write_whole(temporary, parts)
            _rename(temporary, Path(path))
        finally:
            temporary.unlink(missing_ok=True)

    if is_local(fs):
        tried(fs, "write", path, waits, locally)
    else:
        whole = pa.py_buffer(b"".join(parts))
        tried(fs, "write", path, waits, lambda: _upload(fs, path, whole))


def create(
    fs: pafs.FileSystem,
    path: str,
    parts: tuple[bytes, ...],
    waits: Waits,
    *,
    always_whole: bool = False,
) -> bool:
    """Publish `parts`, joined, unless something else lies there; whether they lie there now.

    Of several that try one succeeds, and what it makes is whole from the beginning. A directory without
    hard links can promise one of the two only: the first, or where `always_whole`, the second. On a
    bucket that heeds no conditions two that try in the same moment may both be told so. Raises OSError
    as `put` does.
    """

    def locally() -> bool:
        temporary.unlink(missing_ok=True)  # of a try after which just this failed
        try:
            _write_whole(temporary, parts)
            return _linked(temporary, Path(path), always_whole)
        finally:
            temporary.unlink(missing_ok=True)

    if is_local(fs):
        temporary = tried(fs, "write", path, waits, lambda: temporary_beside(Path(path)))
        return tried(fs, "write", path, waits, locally)
    # Asked first, too: some stores pass over a condition that they do not know.
    if info(fs, path, waits).type != pafs.FileType.NotFound:
        return False
    whole = b"".join(parts)
    try:
        return tried(fs, "write", path, waits, lambda: buckets.create(fs, path, whole))
    except buckets.Unavailable:
        pass
    except OSError as error:  # of that client; whether of pyarrow's too, is seen by asking it
        _log.warning("%s; asked without a condition", error)
        if info(fs, path, waits).type != pafs.FileType.NotFound:
            return read(fs, path, waits) == whole
    put(fs, path, parts, waits)
    return True


def swap(fs: pafs.FileSystem, path: str, expected: bytes, content: bytes, waits: Waits) -> bool:
    """Put over an object of a bucket that holds `expected`; whether it holds `content` now.

    Raises FileNotFoundError, OSError as `put` does; also where the bucket heeds no conditions.
    """
    try:
        return tried(fs, "write", path, waits, lambda: buckets.swap(fs, path, expected, content))
    except buckets.Unavailable as why:  # any more: it was asked before
        raise OSError(errno.EIO, f"cannot write: {why}", path) from why


def put_file(fs: pafs.FileSystem, path: str, local: Path, waits: Waits) -> None:
    """Publish a finished file of this machine. In a directory it is moved there, flushed first."""

    def locally() -> None:
        with local.open("rb") as stream:
            os.fsync(stream.fileno())
        make_folder(Path(path).parent)
        try:
            _rename(local, Path(path))
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(local, Path(path))

    if is_local(fs):
        tried(fs, "write", path, waits, locally)
    else:
        with pa.memory_map(str(local)) as source:
            whole = source.read_buffer()
            tried(fs, "write", path, waits, lambda: _upload(fs, path, whole))


def info(fs: pafs.FileSystem, path: str, waits: Waits) -> pafs.FileInfo:
    """What lies at the path; its type is NotFound where nothing does."""
    return tried(fs, "look at", path, waits, lambda: fs.get_file_info(path))


def listed(
    fs: pafs.FileSystem, folder: str, waits: Waits, *, recursive: bool = False
) -> list[pafs.FileInfo]:
    """The files in a folder, temporary ones left out, in one paged listing; [] where it is absent."""
    selector = pafs.FileSelector(folder, allow_not_found=True, recursive=recursive)
    found = tried(fs, "list", folder, waits, lambda: fs.get_file_info(selector))
    return [
        entry
        for entry in found
        if entry.type == pafs.FileType.File and not entry.base_name.startswith(".")
    ]


def remove(fs: pafs.FileSystem, path: str, waits: Waits) -> None:
    """Remove a file; nothing happens where there is none."""

    def once() -> None:
        with contextlib.suppress(FileNotFoundError):
            fs.delete_file(path)

    tried(fs, "remove", path, waits, once)


def remove_folder(fs: pafs.FileSystem, path: str, waits: Waits) -> None:
    """Remove a folder and all in it; nothing happens where there is none."""

    def once() -> None:
        with contextlib.suppress(FileNotFoundError):
            fs.delete_dir(path)

    tried(fs, "remove", path, waits, once)


def move(fs: pafs.FileSystem, path: str, new_path: str, waits: Waits) -> None:
    """Move a file that nobody is to read again under its old name (on a bucket: copy, remove)."""

    def once() -> None:
        if is_local(fs):
            make_folder(Path(new_path).parent)
        fs.move(path, new_path)

    tried(fs, "move", path, waits, once)


def make_folder(path: Path) -> None:
    """Makes it, and those above it, for good: a folder that power loss takes takes all that is in it."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _flush_folder(path.parent)


def temporary_beside(path: Path) -> Path:
    """A new name in the folder of `path` (made if absent) that listings and datasets pass over.

    It tells host and process, so that `sweep` knows what a killed process has left behind.
    """
    make_folder(path.parent)
    return path.with_name(f".{_host()}~{os.getpid()}~{secrets.token_hex(4)}~{path.name}.tmp")


def sweep(folder: Path, pattern: str = "**/.*.tmp") -> list[Path]:
    """Remove, under a folder, what `temporary_beside` named and dead processes of this host have left.

    Also what is a day old, whoever left it. Returns what was removed. A host that shares its name with
    another must not sweep while that one writes; in a store the driver that holds the lease is the one
    to call it.
    """
    removed = []
    for path in folder.glob(pattern):
        match = _TEMPORARY.fullmatch(path.name)
        with contextlib.suppress(FileNotFoundError):
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
    """Whether a process of this number runs on this host."""
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
    """Gives the file this name unless another has it."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        # A network file system that had to repeat the request says so of its own success, too; and
        # where this was done before, and then failed, it is another file with the same in it.
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
    """Where there are no hard links: created empty, then filled."""
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
            # A full disk: a file that says nothing is in everybody's way.
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
    temporary = temporary_beside(path)
    try:
        with local.open("rb") as source, temporary.open("xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 24)
            stream.flush()
            os.fsync(stream.fileno())
        _rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    local.unlink()


def _upload(fs: pafs.FileSystem, path: str, whole: pa.Buffer) -> None:
    # An open pyarrow stream publishes what it has got when it is closed or forgotten, whatever the
    # reason. In a thread of its own no signal's exception can fall between opening and closing, and
    # the only call that could fail in between is the one write.
    failure: list[BaseException] = []

    def upload() -> None:
        try:
            with fs.open_output_stream(path) as stream:
                stream.write(whole)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=upload, name="upload")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
