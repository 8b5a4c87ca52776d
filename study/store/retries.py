"""Trying again where an error may pass, and telling clearly where it does not.

Owns which errors of a directory or a bucket are worth another try, how often and after which waits.
"""

from __future__ import annotations

import errno
import logging
import re
import secrets
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import pyarrow.fs as pafs

from study.store.os_errors import os_error_text

Waits = tuple[float, ...]

# Seconds before each further try where an error may pass. pyarrow's S3 client tries again by itself
# for 6 s (for about 100 s where a server accepts and never answers), so six tries bear an outage of
# nearly a minute.
WAITS: Final[Waits] = (0.5, 1.0, 2.0, 4.0, 8.0)

# Of a directory, only what a network mount or a busy kernel may answer now and then is tried again.
_PASSING: Final = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
}
# What a disk cannot read is now and then read at a second try.
_NUM_WAITS_UNREADABLE: Final = 2
# Somebody may make room, or mount it anew. Every Run meets it by itself, so none waits for long.
_UNWRITABLE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_NUM_WAITS_UNWRITABLE: Final = 3
# pyarrow gives a bucket's errors as OSError without a number; these names in their text never pass.
_LASTING: Final = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"
    r"|UNRECOGNIZED_CLIENT|NOT_AUTHORIZED|MISSING_AUTHENTICATION|INVALID_CLIENT_TOKEN_ID"
    r"|HTTP status (?:301|400|401|403)|InvalidBucketName"
)

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def is_local(fs: pafs.FileSystem) -> bool:
    """Whether paths of this file system are paths of this machine."""
    return isinstance(fs, pafs.LocalFileSystem)


def tried(
    fs: pafs.FileSystem, verb: str, path: str, waits: Waits, once: Callable[[], Answer]
) -> Answer:
    """What `once` returns, tried again after each of the `waits` (seconds) while errors may pass.

    Raises FileNotFoundError as it comes, and otherwise an OSError that says what could not be done
    (`verb`), with which path, why, and after how many tries.
    """
    num_tries = 0
    while True:
        num_tries += 1
        try:
            return once()
        except FileNotFoundError:
            raise
        except OSError as error:
            worth = waits_for(fs, error, waits)
            if num_tries > len(worth):
                raise _named(error, verb, path, num_tries) from error
            _log.warning(
                "%s; trying again", os_error_text(_named(error, verb, path, 1), advise=False)
            )
            time.sleep(worth[num_tries - 1] * (0.75 + 0.5 * secrets.randbelow(1000) / 1000))


def waits_for(fs: pafs.FileSystem, error: OSError, waits: Waits) -> Waits:
    """Those of the waits that this error is worth: none where nothing will change by waiting."""
    if isinstance(error, PermissionError):
        return ()
    if is_local(fs) or error.errno is not None:
        if error.errno == errno.EIO:
            return waits[:_NUM_WAITS_UNREADABLE]
        if error.errno in _UNWRITABLE:
            return waits[:_NUM_WAITS_UNWRITABLE]
        return waits if error.errno in _PASSING else ()
    return () if _LASTING.search(str(error)) else waits


def is_content(error: OSError) -> bool:
    """Whether an error in reading a file of this machine is of its bytes: lost (EIO), or wrong ones.

    Others (permission, time-out, a stale mount) have another number; what pyarrow cannot decode has none.
    """
    return error.errno in (errno.EIO, None)


def _named(error: OSError, verb: str, path: str, num_tries: int) -> OSError:
    cause = error.strerror or " ".join(str(error).split())
    tries = f" ({num_tries} tries)" if num_tries > 1 else ""
    arguments: tuple[Any, ...] = (error.errno or errno.EIO, f"cannot {verb}{tries}: {cause}", path)
    return OSError(*arguments)
