"""Make temporary folders, and find those that killed processes left on this machine."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from study.store.atomic import is_alive
from study.training import feature_cache

# Tune's own files of a launch; the name contains the driver's process number.
TUNE_PREFIX: Final = "freezewise-tune-"
CHECK_PREFIX: Final = "freezewise-check-"  # a store of `study check`; also with the process number
_OURS: Final = re.compile(
    rf"(?:{TUNE_PREFIX}|{CHECK_PREFIX})(?:(?P<pid>\d+)-)?\w+|freezewise-features-\w+"
)
# For files without a process number in their name.
_LIVES_SECONDS: Final = 24 * 3600.0


@contextmanager
def temporary_folder(prefix: str) -> Iterator[str]:
    """Yield a new folder; `leftovers` never returns it, even in another container that shares /tmp."""
    with tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-") as folder:
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            yield folder
        finally:
            os.close(held)


def leftovers() -> list[Path]:
    """Return temporary files, folders and cached features of this user that no process uses."""
    found = []
    for path in sorted(Path(tempfile.gettempdir()).iterdir()):
        match = _OURS.fullmatch(path.name)
        with suppress(FileNotFoundError):
            if match and path.lstat().st_uid == os.getuid() and not _is_used(path, match["pid"]):
                found.append(path)
    return [*found, *feature_cache.unused()]


def _is_used(path: Path, pid: str | None) -> bool:
    if pid is not None:
        return is_alive(int(pid)) or _is_locked(path)
    newest = max(each.lstat().st_mtime for each in (path, *path.rglob("*")))
    return time.time() - newest < _LIVES_SECONDS


def _is_locked(path: Path) -> bool:
    """Return True if a process has locked the folder, also if the process is in another container."""
    if not path.is_dir() or path.is_symlink():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
