"""Retry temporary errors of disks and buckets, and word permanent errors for users."""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

_AGAIN: Final = "and give the same command again: what is finished stays"
_NETWORK: Final = (
    "check the root, the network, and the server's address (endpoint_override in the root's URI, or "
    "AWS_ENDPOINT_URL)"
)
_RIGHTS: Final = (
    "check the credentials (for s3:// in the environment, or with boto3 installed as of `aws`), and their "
    "permissions for this bucket"
)

_TO_READ: Final = "have its owner let you read it"
_TO_DO: Final = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another",
    errno.EISDIR: "this is a folder: choose another name",
    errno.EEXIST: "it exists already and is not a folder: choose another name",
    errno.EACCES: "choose another place, or ask its owner for permission to write",
    errno.EPERM: "choose another place, or ask its owner for permission to write",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: f"make room there {_AGAIN}",
    errno.EDQUOT: f"make room there {_AGAIN}",
    errno.EROFS: "it is mounted read-only: choose another place, or mount it for writing",
    errno.EIO: "the disk cannot read or write it: `study verify SPACE` lists what else is damaged",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_RENEW: Final = f"renew the token (log in again) {_AGAIN}"
OF_CLIENT: Final = "bucket's client"  # precedes the cause in each error of `buckets`
# Advice for a bucket's error, by the first pattern that its cause contains.
_OF_BUCKET: Final = (
    (r"ExpiredToken|TokenRefreshRequired|InvalidToken", _RENEW),
    # 169.254.…: the address from which a cloud machine gets its keys.
    (r"HTTP status 40[13]|no keys found|//169\.254\.", _RIGHTS),
    (r"HTTP status 404", "make the bucket, or check its name"),
    (r"HTTP status 5\d\d|HTTP status 429", f"wait until it answers, {_AGAIN}"),
    (r"redirect", "check the region in the root's URI, or AWS_REGION"),
    (r"https?://", _NETWORK),
)


def os_error_text(error: OSError, *, advise: bool = True) -> str:
    """Return an error as one line for users: path, failed action, cause; with `advise`, a fix."""
    said = " ".join(str(error.strerror or error).split())
    path = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
    if OF_CLIENT in said:
        said = said.replace(f"{OF_CLIENT}: ", "")
        to_do = next(
            (to_do for pattern, to_do in _OF_BUCKET if re.search(pattern, said)),
            "check the root and the permissions there",
        )
        text = f"{path}: {said}" if path else said
        return f"{text}; {to_do}" if advise else text
    if error.errno is None:
        return str(error)  # already a message of this project
    # pyarrow: "Failed to open local file '/a/b'. Detail: [errno 2] No such file or directory".
    detail = re.fullmatch(r".*?'(?P<path>[^']+)'.*Detail: \[errno \d+\] (?P<why>.+)", said)
    if detail:
        path, said = path or detail["path"], detail["why"]
    said = re.sub(r".*Detail: \[errno \d+\] ", "", said)
    text = f"{path}: {said}" if path else said
    to_do = _TO_DO.get(error.errno or 0, "")
    if isinstance(error, PermissionError) and re.match("cannot (read|list|look at)", said):
        to_do = _TO_READ
    return f"{text}; {to_do}" if to_do and advise else text


@contextmanager
def naming(place: str | Path, instead_of: str | Path | None = None) -> Iterator[None]:
    """Set the path of the block's disk errors to `place` if they have no path, or one below `instead_of`.

    For files that are first written elsewhere, and for libraries whose errors have no path.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _TO_DO:
            raise  # a network error
        named = "" if error.filename is None else str(error.filename)
        detail = re.search(r"'([^']+)'.*Detail: \[errno \d+\] (.+)", str(error), re.DOTALL)
        why = str(error.strerror or error)
        if detail and not named:
            named, why = detail[1], detail[2].strip()
        if named and not (instead_of is not None and named.startswith(str(instead_of))):
            raise
        # OSError chooses its subclass by errno: a FileNotFoundError stays a FileNotFoundError.
        raise OSError(error.errno, why, str(place)) from error


Waits = tuple[float, ...]

# Seconds before each retry of a temporary disk error. The client of `buckets` retries by itself, with
# the shortest and longest of these waits and a proportional number of retries.
WAITS: Final[Waits] = (0.5, 1.0, 2.0, 4.0, 8.0)

# Temporary errors of a network mount or a busy kernel.
_PASSING: Final = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNREFUSED,
}
# An unreadable sector can sometimes be read at a second try.
_NUM_WAITS_UNREADABLE: Final = 2
# Space may be freed, or the disk remounted. Every Run retries by itself, so the waits are short.
_UNWRITABLE: Final = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_NUM_WAITS_UNWRITABLE: Final = 3

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


def tried(verb: str, path: str | Path, waits: Waits, once: Callable[[], Answer]) -> Answer:
    """Return the result of `once`, retried after each of the `waits` (seconds) while errors are temporary.

    Raises FileNotFoundError unchanged, else an OSError that names the failed action (`verb`), path,
    cause and number of tries.
    """
    num_tries = 0
    while True:
        num_tries += 1
        try:
            return once()
        except FileNotFoundError:
            raise
        except OSError as error:
            worth = waits_for(error, waits)
            if num_tries > len(worth):
                raise _named(error, verb, path, num_tries) from error
            _log.warning(
                "%s; trying again", os_error_text(_named(error, verb, path, 1), advise=False)
            )
            time.sleep(worth[num_tries - 1] * (0.75 + 0.5 * secrets.randbelow(1000) / 1000))


def waits_for(error: OSError, waits: Waits) -> Waits:
    """Return the delays before each retry; empty if the error is permanent."""
    if error.errno == errno.EIO:
        return waits[:_NUM_WAITS_UNREADABLE]
    if error.errno in _UNWRITABLE:
        return waits[:_NUM_WAITS_UNWRITABLE]
    return waits if error.errno in _PASSING else ()


def is_content(error: OSError) -> bool:
    """Return True if a local file could not be read because its content is lost (EIO) or invalid.

    pyarrow's errors about invalid content have no errno; permission, time-out and stale mount have others.
    """
    return error.errno in (errno.EIO, None)


def _named(error: OSError, verb: str, path: str | Path, num_tries: int) -> OSError:
    cause = error.strerror or " ".join(str(error).split())
    tries = f" ({num_tries} tries)" if num_tries > 1 else ""
    return OSError(error.errno or errno.EIO, f"cannot {verb}{tries}: {cause}", str(path))
