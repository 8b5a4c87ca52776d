"""Cache the features of frozen layers in files on the local disk.

Files are written atomically and verified when read. Another process may delete them at any time."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import time
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from study.store import atomic

if TYPE_CHECKING:
    from torch import Tensor

FOLDER_VARIABLE: Final = "STUDY_FEATURES"

SUFFIX: Final = ".features"

# Size of the trailer (checksum, dtype, shape). The values come first, so they begin at a page boundary.
_ABOUT_BYTES: Final = 256

# Features that are computed faster than this are not cached: on one core, writing takes about 2 s per
# GiB, and reading with the checksum 1 s.
WORTH_SECONDS_PER_GIB: Final = 5.0

UNUSED_SECONDS: Final = 7 * 24 * 3600.0

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def node_folder() -> Path:
    """Return this machine's folder of features: STUDY_FEATURES, or a private folder in the temporary one.

    Creates a missing folder. Raises PermissionError if the folder belongs to another user, OSError if it
    cannot be created.
    """
    folder = _where()
    for each in [folder] if os.environ.get(FOLDER_VARIABLE) else [folder.parent, folder]:
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if each.lstat().st_uid != os.getuid():
            raise PermissionError(
                f"{each} belongs to somebody else: set {FOLDER_VARIABLE} to a folder of yours"
            )
    folder.chmod(0o700)
    return folder


def unused() -> list[Path]:
    """Return this machine's feature files that were not used for a week; does not remove them."""
    try:
        return _unused(_where())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _where() -> Path:
    given = os.environ.get(FOLDER_VARIABLE)
    own = Path(tempfile.gettempdir()) / f"freezewise-{os.getuid()}"
    return Path(given) if given else own / "features"


def read(folder: Path, key: str) -> Tensor | None:
    """Return the features under this key, memory-mapped; None if missing. Removes a corrupted file."""
    import torch

    path = _path(folder, key)
    try:
        num_bytes = path.stat().st_size - _ABOUT_BYTES
        with path.open("rb") as file:
            file.seek(max(num_bytes, 0))
            about = json.loads(file.read())
        held = torch.from_file(str(path), shared=False, size=num_bytes, dtype=torch.uint8)
        if zlib.crc32(held.numpy().data) != about["crc32"]:
            raise ValueError("another checksum")
        found = held.view(getattr(torch, about["dtype"])).view(about["shape"])
        os.utime(path)  # modification time = last use, for `make_room`
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError):
        path.unlink(missing_ok=True)
        return None
    return found


def write(folder: Path, key: str, features: Tensor) -> Tensor:
    """Write features (on the CPU, contiguous) to a file, and return the memory-mapped file's features.

    If the disk is full, return the argument itself.
    """
    import torch

    values = bytes(features.view(-1).view(torch.uint8).numpy().data)
    about = {
        "crc32": zlib.crc32(values),
        "dtype": str(features.dtype).removeprefix("torch."),
        "shape": list(features.shape),
    }
    parts = (values, json.dumps(about).ljust(_ABOUT_BYTES).encode())
    assert len(parts[1]) == _ABOUT_BYTES, about
    try:
        atomic.put(str(_path(folder, key)), parts, ())
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return features
    found = read(folder, key)
    return features if found is None else found


def make_room(folder: Path, num_bytes: int) -> bool:
    """Remove the longest unused files to make room; return False if `num_bytes` may not be written.

    All feature files together take at most half of the space that would be free without them.
    """
    _tidied_once(folder)
    files = _by_last_use(folder)
    used = sum(size for _, size, _ in files)
    most = (shutil.disk_usage(folder).free + used) // 2
    if num_bytes > most:
        return False
    for _, size, path in files:
        if used + num_bytes <= most:
            break
        path.unlink(missing_ok=True)
        used -= size
    return True


def tidy(folder: Path) -> list[Path]:
    """Remove drafts of killed processes and files unused for a week; return the removed paths."""
    removed = atomic.sweep(folder)
    for path in _unused(folder):
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed


@lru_cache(maxsize=8)
def _tidied_once(folder: Path) -> None:
    # Once per process: listing the folder takes milliseconds, a large part of a small Run.
    tidy(folder)


def _unused(folder: Path) -> list[Path]:
    now = time.time()
    return [path for used_at, _, path in _by_last_use(folder) if now - used_at > UNUSED_SECONDS]


def _by_last_use(folder: Path) -> list[tuple[float, int, Path]]:
    found = []
    for entry in os.scandir(folder):
        if entry.name.endswith(SUFFIX):
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue  # another process has just removed it
            found.append((stat.st_mtime, stat.st_size, Path(entry.path)))
    return sorted(found)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{SUFFIX}"
