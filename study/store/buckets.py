"""Read and write the objects of a bucket (s3://, gs://) with obstore.

The client retries temporary errors of each request itself. Every error is raised as an OSError that
names path, cause and number of tries."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import pyarrow as pa

from study.messages import require
from study.store.atomic import Entry
from study.store.errors import OF_CLIENT, Waits, os_error_text

SCHEMES: Final = ("s3", "gs")
_OPTIONS: Final = ("scheme", "endpoint_override", "region")

# Timeout for a server that accepts a request and sends nothing. The time includes sending the request,
# so a large object is sent in parts of 5 MB, one after another.
_SILENCE: Final = timedelta(seconds=30)
_REQUEST: Final = timedelta(minutes=10)
# No retry begins later than this after the first try.
_RETRYING: Final = timedelta(seconds=90)
# Random waits grow slowly: 15 waits of 0.5 to 8 s bridge an outage of about a minute.
_TRIES_A_WAIT: Final = 3
_GROWTH: Final = 3
_BYTES_AT_ONCE: Final = 1 << 24
_TAIL_BYTES: Final = 1 << 16
# Amazon includes a bucket's region in every response.
_REGIONS_URL: Final = "https://s3.amazonaws.com"
_NAMING_SERVER: Final = frozenset(
    ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
)

Version = Mapping[str, Any]

# Service and bucket → why its conditional writes are unreliable; None if they are reliable.
_refusals: dict[tuple[Buckets, str], str | None] = {}


class Unavailable(OSError):
    """The bucket does not support the request, such as a conditional write."""


class _Refused(Exception):
    """A request's condition was not met."""


@dataclass(frozen=True)
class Buckets:
    """The buckets of one service, with the options in the URI of a store's root.

    The path of an object begins with the bucket's name. `waits`: seconds; the client uses the shortest
    and the longest, () disables retries. `endpoint`: the URL of a server other than the default.
    """

    scheme: str
    endpoint: str = ""
    region: str = ""
    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def read(self, path: str, waits: Waits) -> bytes:
        """Return the whole object. Raises FileNotFoundError."""
        return self._read(path, waits)[0]

    def opened(self, path: str, waits: Waits, *, whole: bool = True) -> pa.NativeFile:
        """Open the object to read parts of it. `whole`: read it in one request, not in ranges."""
        if whole:
            return pa.BufferReader(self.read(path, waits))
        with self._asked("read", path, waits) as (client, key):
            return pa.PythonFile(_TailFirst(client, key), mode="r")

    def fetch(self, path: str, local: Path, waits: Waits) -> None:
        """Copy the object to a new local file, in ranges; each range is retried."""
        with (
            self._asked("read", path, waits) as (client, key),
            local.open("xb") as stream,
        ):
            shutil.copyfileobj(_reader(client, key), stream, _BYTES_AT_ONCE)

    def put(self, path: str, parts: tuple[bytes, ...], waits: Waits) -> None:
        """Publish `parts`, joined, as one object, atomically."""
        with self._asked("write", path, waits) as (client, key):
            client.put(key, b"".join(parts), max_concurrency=1)

    def put_file(self, path: str, local: Path, waits: Waits) -> None:
        """Publish a finished local file."""
        with self._asked("write", path, waits) as (client, key):
            client.put(key, local, max_concurrency=1)

    def create(
        self, path: str, parts: tuple[bytes, ...], waits: Waits, *, always_whole: bool = False
    ) -> bool:
        """Publish `parts`, joined, unless another object exists; return True if the object holds them now.

        On a bucket without conditions, two simultaneous callers may both get True.
        """
        place = (self, path.partition("/")[0])
        # Some servers ignore a condition that they do not support.
        is_proven = place in _refusals and _refusals[place] is None
        if not is_proven and self.exists(path, waits):
            return False
        if _refusals.get(place) is None:
            try:
                return self._put_if(path, b"".join(parts), "create", waits)
            except Unavailable as why:
                _refusals[place] = os_error_text(why, advise=False)
        self.put(path, parts, waits)
        return True

    def swap(self, path: str, expected: bytes | None, content: bytes, waits: Waits) -> bool:
        """Replace an object that holds `expected` (None: anything); return True if it holds `content` now.

        Raises FileNotFoundError.
        """
        there, version = self._read(path, waits)
        if expected is not None and there != expected:
            return there == content
        return self._put_if(path, content, version, waits)

    def exists(self, path: str, waits: Waits) -> bool:
        try:
            with self._asked("look at", path, waits) as (client, key):
                client.head(key)
        except FileNotFoundError:
            return False
        return True

    def listed(self, folder: str, waits: Waits, *, recursive: bool = False) -> list[Entry]:
        """List the objects in a folder, without dot files, in one paged listing."""
        with self._asked("list", folder, waits) as (client, key):
            found = (
                client.list(key).collect()
                if recursive
                else client.list_with_delimiter(key)["objects"]
            )
        above = folder.removesuffix(key)
        entries = [
            Entry(
                above + each["path"], each["size"], each["last_modified"], each.get("e_tag") or ""
            )
            for each in found
        ]
        # Earlier releases left empty objects named "folder/", which are listed without the slash.
        folders = {folder} | {entry.path.rpartition("/")[0] for entry in entries}
        return [
            entry
            for entry in entries
            if not entry.base_name.startswith(".") and (entry.size or entry.path not in folders)
        ]

    def remove(self, path: str, waits: Waits) -> None:
        """Remove an object if it exists."""
        with self._asked("remove", path, waits) as (client, key), suppress(FileNotFoundError):
            client.delete(key)

    def remove_folder(self, path: str, waits: Waits) -> None:
        """Remove all objects in a folder."""
        with self._asked("remove", path, waits) as (client, key):
            client.delete([entry["path"] for entry in client.list(key).collect()])

    def remove_each(self, paths: Sequence[str], waits: Waits) -> None:
        """Remove these objects of one bucket in one request."""
        with self._asked("remove", paths[0], waits) as (client, _), suppress(FileNotFoundError):
            client.delete([path.partition("/")[2] for path in paths])

    def move(self, path: str, new_path: str, waits: Waits) -> None:
        """Rename an object by copy and remove. Raises FileNotFoundError."""
        with self._asked("move", path, waits) as (client, key):
            client.rename(key, new_path.partition("/")[2])

    def refusal(self, folder: str, waits: Waits) -> str | None:
        """Return why conditional writes are unreliable; None if the bucket enforces their conditions.

        The test writes and removes an object in this folder, once per process.
        """
        place = (self, folder.partition("/")[0])
        if place not in _refusals:
            try:
                self._probe(f"{folder}/probe-{secrets.token_hex(8)}", waits)
                _refusals[place] = None
            except OSError as error:
                why = os_error_text(error, advise=False)
                if not isinstance(error, Unavailable):
                    return why
                _refusals[place] = why
        return _refusals[place]

    def _probe(self, path: str, waits: Waits) -> None:
        """Raise Unavailable unless conditional writes succeed and fail as they must."""
        try:
            first = self._put(path, b"first", "create", waits)
            if first is None and self.read(path, waits) != b"first":
                raise Unavailable("a conditional write of a new object fails as if it existed")
            version = first or self._read(path, waits)[1]
            if self._put(path, b"second", "create", waits) is not None:
                raise Unavailable("a conditional write replaced an object that existed")
            if not self._put_if(path, b"second", version, waits):
                raise Unavailable("a conditional write with the current version fails")
            if self._put(path, b"third", version, waits) is not None:
                raise Unavailable("a conditional write replaced an object that had changed")
        finally:
            # A cleanup error must not hide the first error.
            with suppress(OSError):
                self.remove(path, waits)

    def _put_if(self, path: str, content: bytes, mode: str | Version, waits: Waits) -> bool:
        """Put an object on a condition; return True if it holds `content` now. Raises Unavailable."""
        if self._put(path, content, mode, waits) is not None:
            return True
        # The object is another process's, or our own, if the response to an earlier try was lost.
        try:
            return self.read(path, waits) == content
        except FileNotFoundError:
            return False

    def _put(self, path: str, content: bytes, mode: str | Version, waits: Waits) -> Version | None:
        """Put an object on a condition; return its version, or None if the condition was not met."""
        try:
            with self._asked("write", path, waits) as (client, key):
                return _version_of(client.put(key, content, mode=mode, use_multipart=False))
        except _Refused:
            return None

    def _read(self, path: str, waits: Waits) -> tuple[bytes, Version]:
        with self._asked("read", path, waits) as (client, key):
            found = client.get(key)
            return bytes(found.bytes()), _version_of(found.meta)

    @contextmanager
    def _asked(self, verb: str, path: str, waits: Waits) -> Iterator[tuple[Any, str]]:
        """Yield the client of this path's bucket and the key in the bucket; translate its errors.

        Raises FileNotFoundError for a missing object, _Refused for an unmet condition, else OSError.
        """
        require("obstore")
        from obstore import exceptions

        bucket, _, key = path.partition("/")
        try:
            yield client_of(self, bucket, waits), key
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
            raise _Refused from error
        except (exceptions.BaseError, NotImplementedError, OSError) as error:
            said = str(error)
            if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in said:
                raise FileNotFoundError(errno.ENOENT, "no such object", path) from error
            if isinstance(error, OSError) and error.errno is not None:
                raise  # an error of a local file
            num_retries = re.search(r"after (\d+) retries", said)
            tries = f" ({int(num_retries[1]) + 1} tries)" if num_retries else ""
            why = f"cannot {verb}{tries}: {OF_CLIENT}: {_cause(said)}"
            unknown = isinstance(error, exceptions.NotSupportedError | NotImplementedError)
            kind = Unavailable if unknown or "HTTP status 501" in why else OSError
            raise kind(errno.EIO, why, path) from error


def parse(uri: str) -> tuple[Buckets, str]:
    """Return the service and the path of a URI, without a request.

    Raises ValueError for an unknown scheme or option; its message does not contain the URI.
    """
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        choices = ", ".join(f"{scheme}://bucket/folder" for scheme in SCHEMES)
        raise ValueError(f"unknown scheme. Choose a directory, {choices}")
    options = dict(parse_qsl(parts.query))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}. Choose from {', '.join(_OPTIONS)}")
    keys, _, bucket = parts.netloc.rpartition("@")
    if not bucket:
        raise ValueError("it names no bucket or folder")
    key, _, secret = keys.partition(":")
    endpoint = options.get("endpoint_override", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"{options.get('scheme', 'https')}://{endpoint}"
    buckets = Buckets(
        parts.scheme, endpoint, options.get("region", ""), unquote(key), unquote(secret)
    )
    return buckets, f"{bucket}{unquote(parts.path)}".rstrip("/")


@cache
def client_of(buckets: Buckets, bucket: str, waits: Waits) -> Any:
    """Return the process's client for one bucket."""
    from obstore.store import GCSStore, S3Store

    common: dict[str, Any] = {
        # The address decides whether TLS is used.
        "client_options": {"allow_http": True, "timeout": _REQUEST, "read_timeout": _SILENCE},
        "retry_config": {
            "max_retries": _TRIES_A_WAIT * len(waits),
            "retry_timeout": _RETRYING,
            "backoff": {
                "init_backoff": timedelta(seconds=min(waits, default=1)),
                "max_backoff": timedelta(seconds=max(waits, default=1)),
                "base": _GROWTH,
            },
        },
    }
    config: dict[str, Any] = {}
    if buckets.scheme == "gs":
        if buckets.endpoint:
            config["base_url"] = buckets.endpoint
        if buckets.key == "anonymous":
            config["skip_signature"] = True
        return GCSStore(bucket, config=config, **common)
    if buckets.endpoint:
        # Set under both names, because the environment may set either.
        config["endpoint"] = config["aws_endpoint_url_s3"] = buckets.endpoint
    region = buckets.region or (None if buckets.endpoint else _region(bucket))
    if region:
        config["region"] = region
    return S3Store(bucket, config=config, credential_provider=_keys(buckets), **common)


def _keys(buckets: Buckets) -> Any:
    """Return a provider of the URI's keys, else of the keys that `aws` would use (needs boto3).

    None if the client finds the keys itself: in the environment, a container or a cloud machine.
    """
    if buckets.key:
        given = {
            "access_key_id": buckets.key,
            "secret_access_key": buckets.secret,
            "token": None,
            "expires_at": None,
        }
        return lambda: given
    if "AWS_ACCESS_KEY_ID" in os.environ or importlib.util.find_spec("boto3") is None:
        return None
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError as error:
        raise OSError("no keys found") from error


def _region(bucket: str) -> str | None:
    """Return the region of an Amazon bucket; None if the environment sets a region or another server."""
    if not _NAMING_SERVER.isdisjoint(os.environ):
        return None
    # If Amazon cannot be reached, the client's default region applies. If that is wrong, the client's
    # error names the region.
    with suppress(OSError):
        request = urllib.request.Request(f"{_REGIONS_URL}/{bucket}", method="HEAD")
        try:
            headers = urllib.request.urlopen(request, timeout=10).headers
        except urllib.error.HTTPError as error:  # the bucket cannot be read without keys
            headers = error.headers
        return str(headers["x-amz-bucket-region"] or "")
    return None


def _version_of(meta: Mapping[str, Any]) -> Version:
    tags = {name: meta.get(name) for name in ("e_tag", "version")}
    return {name: tag for name, tag in tags.items() if tag is not None}


def _reader(client: Any, key: str) -> Any:
    from obstore import open_reader

    return open_reader(client, key)


class _TailFirst:
    """An object, read in ranges. The first request reads its end, which has the head of Arrow files."""

    closed = False

    def __init__(self, client: Any, key: str) -> None:
        found = client.get(key, options={"range": {"suffix": _TAIL_BYTES}})
        self._tail, self._size = bytes(found.bytes()), int(found.meta["size"])
        self._at = 0
        self._rest = cache(lambda: _reader(client, key))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        pass  # pyarrow calls it; there is nothing to close

    def read(self, size: int = -1) -> bytes:
        begin, tail_begin = self._at, self._size - len(self._tail)
        end = self._size if size < 0 else min(begin + size, self._size)
        self._at = max(begin, end)
        if begin >= tail_begin:
            return self._tail[begin - tail_begin : max(end - tail_begin, 0)]
        self._rest().seek(begin)
        return bytes(self._rest().read(end - begin))


def _cause(said: str) -> str:
    """Return the reason from an error's text, without the URL and the client's state."""
    said, _, state = said.partition("\n\n")
    status = re.search(r"status code: (\d+)", said)
    if status:
        code = re.search(r"<Code>(\w+)</Code>", said)
        return f"HTTP status {status[1]}" + (f" ({code[1]})" if code else "")
    server = re.search(r"https?://[^/\s]+", said)
    at = f" ({server[0]})" if server else ""
    reason = re.search(r"(?:message|error): \"([^\"]+)\"", state)
    if reason:
        return f"{reason[1]}{at}"
    if "TimedOut" in state:
        return f"timed out{at}"
    if "IncompleteMessage" in state or "ConnectionReset" in state:
        return f"the connection was closed{at}"
    return " ".join(said.rpartition(" - ")[2].split())[:300] + at
