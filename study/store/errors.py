"""Retry temporary errors of disks and buckets, and word the permanent ones for users."""

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
from typing import Any, Final, TypeVar

import pyarrow.fs as pafs

_AGAIN: Final = "and give the same command again: what is finished stays"
_NETWORK: Final = (
    "check the root, the network, and the server's address (endpoint_override in the root's URI, or "
    "AWS_ENDPOINT_URL)"
)
_RIGHTS: Final = (
    "check the credentials (for s3:// as of `aws`), and what they may do in this bucket"
)

_TO_DO: Final = {
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file, not a folder: choose another",
    errno.EISDIR: "a folder lies there: choose another name",
    errno.EEXIST: "what lies there already is no folder: choose another name",
    errno.EACCES: "choose another place, or have its owner let you write there",
    errno.EPERM: "choose another place, or have its owner let you write there",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: f"make room there {_AGAIN}",
    errno.EDQUOT: f"make room there {_AGAIN}",
    errno.EROFS: "it is mounted for reading only: choose another place, or mount it anew",
    errno.EIO: "the disk cannot read or write it: `study verify SPACE` says what else is damaged",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
# What of a bucket's client's words says why, and what can be done: the first that fits.
_OF_BUCKET: Final = (
    (r"Could not resolve host\w*(?:: [\w.-]*\w)?", _NETWORK),
    (r"Failed to connect to [\w-]+[.:][\w.:-]*\w", _NETWORK),
    (
        r"Could not connect to server|Connection refused|failed to lookup address|[Tt]imed? ?out"
        r"|NETWORK_CONNECTION|SSL|curlCode: \d+, [^;]*",
        _NETWORK,
    ),
    (r"NO_SUCH_BUCKET|NoSuchBucket|HTTP status 404", "make the bucket, or check its name"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|NOT_AUTHORIZED"
        r"|MISSING_AUTHENTICATION|INVALID_CLIENT_TOKEN_ID|HTTP status 40[13]|PERMISSION_DENIED"
        r"|access token",
        _RIGHTS,
    ),
    (r"SLOW_DOWN|HTTP status 5\d\d|SERVICE_UNAVAILABLE", f"wait until it answers, {_AGAIN}"),
)
OF_CLIENT: Final = "bucket's client"  # of `buckets`, before its words
_BUCKET_WORDS: Final = re.compile(
    rf"AWS Error|google::cloud|GcsFileSystem|Azure|curlCode|{OF_CLIENT}"
)


def os_error_text(error: OSError, *, advise: bool = True) -> str:
    """The error for people, in one line: path, what could not be done and why; `advise`: what to do."""
    said = " ".join(str(error.strerror or error).split())
    path = os.fspath(error.filename) if isinstance(error.filename, str | os.PathLike) else ""
    if _BUCKET_WORDS.search(said):
        what, _, words = said.partition(": ")
        what = what if what.startswith("cannot ") else "cannot be reached"
        cause, to_do = _of_bucket(words or said)
        text = f"{f'{path}: ' if path else ''}{what}: {cause}"
        return f"{text}; {to_do}" if advise else text
    if error.errno is None:
        return str(error)  # a sentence of ours
    # Of pyarrow: "Failed to open local file '/a/b'. Detail: [errno 2] No such file or directory".
    detail = re.fullmatch(r".*?'(?P<path>[^']+)'.*Detail: \[errno \d+\] (?P<why>.+)", said)
    if detail:
        path, said = path or detail["path"], detail["why"]
    said = re.sub(r".*Detail: \[errno \d+\] ", "", said)
    text = f"{path}: {said}" if path else said
    to_do = _TO_DO.get(error.errno or 0, "")
    return f"{text}; {to_do}" if to_do and advise else text


@contextmanager
def naming(place: str | Path, instead_of: str | Path | None = None) -> Iterator[None]:
    """A disk's error from the block that names no path, or one below `instead_of`, names `place`.

    For what is written beside its place first, and for libraries that do not say where they wrote.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _TO_DO:
            raise  # of a network
        named = "" if error.filename is None else str(error.filename)
        detail = re.search(r"'([^']+)'.*Detail: \[errno \d+\] (.+)", str(error), re.DOTALL)
        why = str(error.strerror or error)
        if detail and not named:
            named, why = detail[1], detail[2].strip()
        if named and not (instead_of is not None and named.startswith(str(instead_of))):
            raise
        # Of the number, OSError makes the class: FileNotFoundError stays one.
        raise OSError(error.errno, why, str(place)) from error


def _of_bucket(words: str) -> tuple[str, str]:
    for pattern, to_do in _OF_BUCKET:
        found = re.search(pattern, words)
        if found:
            return found[0], to_do
    return words, "check the root, and what may be done there"


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
