"""Write to a bucket conditionally: only if a key is absent, or unchanged since it was read.

A store that ignores or rejects conditions raises `Unavailable`; the caller then continues without them."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow.fs as pafs

from study.store.errors import OF_CLIENT, Waits, os_error_text, tried

# By itself the client tries again for seconds; `errors` does so for longer, as of every bucket.
_RETRIES: Final = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
}
_PROBE: Final = (b"first", b"second", b"third")

_clients: dict[tuple[str, ...], Any] = {}
_refusals: dict[tuple[str, ...], str] = {}  # "" where conditions are heeded

Answer = TypeVar("Answer")
Version = Mapping[str, Any]


class Unavailable(Exception):
    """No put on a condition can be made on this store; says why."""


class _Refused(Exception):
    """The condition did not hold."""


def create(fs: pafs.FileSystem, path: str, content: bytes) -> bool:
    """Puts an object where none lies; whether it is this one that lies there now.

    Raises Unavailable, OSError where the bucket does not answer.
    """
    client, key = _client(fs, path)
    try:
        _put(client, key, content, "create")
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error  # no bucket
    except _Refused:
        return _is_there(client, key, content)
    return True


def swap(fs: pafs.FileSystem, path: str, expected: bytes, content: bytes) -> bool:
    """Puts over an object that holds `expected`; whether it holds `content` now.

    Raises FileNotFoundError where there is none (any more), Unavailable, OSError.
    """
    client, key = _client(fs, path)
    there, version = _read(client, key)
    if there != expected:
        return there == content
    try:
        _put(client, key, content, version)
    except _Refused:
        return _is_there(client, key, content)
    return True


def refusal(fs: pafs.FileSystem, folder: str, waits: Waits) -> str | None:
    """Why nothing can be relied on here; None where conditions were seen to be heeded.

    Asked once a process, by an object of its own in this folder, which is removed. Where this client
    cannot reach the bucket, that is why, too: whether pyarrow's can is for others to say.
    """

    def asked() -> str:
        try:
            _probe(fs, f"{folder}/probe-{secrets.token_hex(8)}")
        except Unavailable as why:
            return str(why)
        return ""

    place = (*_place(fs), folder)
    if place not in _refusals:
        try:
            _refusals[place] = tried(fs, "write", folder, waits, asked)
        except OSError as error:
            return os_error_text(error, advise=False)
    return _refusals[place] or None


def _probe(fs: pafs.FileSystem, path: str) -> None:
    """Raises Unavailable unless a put that must not succeed is refused, and one that may is not."""
    client, key = _client(fs, path)
    first, second, third = _PROBE
    try:
        if not create(fs, path, first):
            raise Unavailable("it refuses a new object as one that is there")
        _, version = _read(client, key)
        if _succeeds(client, key, second, "create"):
            raise Unavailable("it puts over what is there although told not to")
        if not _succeeds(client, key, second, version):
            raise Unavailable("it refuses what it has given itself as an object's version")
        if _succeeds(client, key, third, version):
            raise Unavailable("it puts over what has changed although told not to")
    finally:
        # Only tidiness; what went wrong before must be heard of.
        with suppress(OSError, Unavailable):
            _asked(lambda: client.delete(key))


def _succeeds(client: Any, key: str, content: bytes, mode: str | Version) -> bool:
    try:
        _put(client, key, content, mode)
    except (_Refused, FileNotFoundError):
        return _is_there(client, key, content)  # of a put whose answer was lost
    return True


def _put(client: Any, key: str, content: bytes, mode: str | Version) -> None:
    _asked(lambda: client.put(key, content, mode=mode, use_multipart=False))


def _read(client: Any, key: str) -> tuple[bytes, Version]:
    def once() -> tuple[bytes, Version]:
        found = client.get(key)
        tags = {name: found.meta.get(name) for name in ("e_tag", "version")}
        return bytes(found.bytes()), {name: tag for name, tag in tags.items() if tag is not None}

    return _asked(once)


def _is_there(client: Any, key: str, content: bytes) -> bool:
    """Told apart are another's object, and one's own of a try whose answer was lost."""
    try:
        return _read(client, key)[0] == content
    except FileNotFoundError:
        return False


def _asked(once: Callable[[], Answer]) -> Answer:
    """What the client answers, its errors in our words."""
    from obstore import exceptions

    try:
        return once()
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise _Refused from error
    except exceptions.NotFoundError as error:
        raise FileNotFoundError(_cause(error)) from error
    except (
        exceptions.NotSupportedError,
        exceptions.PermissionDeniedError,
        exceptions.UnauthenticatedError,
        NotImplementedError,
    ) as error:
        raise Unavailable(_cause(error)) from error
    except exceptions.BaseError as error:
        said = _cause(error)
        if said == "HTTP status 501":  # not implemented
            raise Unavailable(said) from error
        raise OSError(f"{OF_CLIENT}: {said}") from error


def _cause(error: BaseException) -> str:
    """Of the client's words and the listing of its insides below them, what says why."""
    said, _, insides = str(error).partition("\n\n")
    found = re.search(r"status code: (\d+)", said) or re.search(
        r"(?:message|error): \"([^\"]+)\"", insides
    )
    if found is None:
        return " ".join(said.split())[:300]
    return f"HTTP status {found[1]}" if found[1].isdigit() else found[1]


def _place(fs: pafs.FileSystem) -> tuple[str, ...]:
    """What tells this file system from others."""
    return (fs.type_name, *(f"{k}={v}" for k, v in sorted(_options(fs).items())))


def _options(fs: pafs.FileSystem) -> dict[str, Any]:
    """What pyarrow's file system was made with: what it gives of itself to another process."""
    if fs.type_name not in ("s3", "gcs"):
        return {}
    options: dict[str, Any] = fs.__reduce__()[1][0]
    return options


def _client(fs: pafs.FileSystem, path: str) -> tuple[Any, str]:
    """The client for the bucket of this path, and the path within. Raises Unavailable."""
    bucket, _, key = path.partition("/")
    if fs.type_name not in ("s3", "gcs"):
        raise Unavailable(f"there is no client for {fs.type_name}")
    if importlib.util.find_spec("obstore") is None:
        raise Unavailable("obstore is not installed here: python -m pip install obstore")
    place = (*_place(fs), bucket)
    if place not in _clients:
        from obstore.exceptions import BaseError

        make = _s3 if fs.type_name == "s3" else _google
        try:
            _clients[place] = make(bucket, _options(fs))
        except BaseError as error:  # keys of a kind that it does not know
            raise Unavailable(_cause(error)) from error
    return _clients[place], key


def _s3(bucket: str, options: Mapping[str, Any]) -> Any:
    from obstore.store import S3Store

    config: dict[str, Any] = {}
    if options["region"]:
        config["region"] = options["region"]
    if options["endpoint_override"]:
        at = _url(options["scheme"], options["endpoint_override"])
        if options["force_virtual_addressing"]:
            config["virtual_hosted_style_request"] = True
            at = at.replace("://", f"://{bucket}.", 1)
        # Under both names: the environment may have another one, which pyarrow does not use here.
        config["endpoint"] = config["aws_endpoint_url_s3"] = at
    if options["role_arn"]:
        raise Unavailable("its client takes no role")
    return S3Store(
        bucket,
        config={**config, **({"skip_signature": True} if options["anonymous"] else {})},
        client_options=_connection(options),
        retry_config=_RETRIES,
        credential_provider=_keys(options),
    )


def _keys(options: Mapping[str, Any]) -> Any:
    """The keys that the root names, else those of `aws`; None where the client finds the same itself."""
    if options["access_key"]:
        keys = {
            "access_key_id": options["access_key"],
            "secret_access_key": options["secret_key"],
            "token": options["session_token"] or None,
            "expires_at": None,
        }
        return lambda: keys
    if options["anonymous"] or "AWS_ACCESS_KEY_ID" in os.environ:
        return None
    if importlib.util.find_spec("boto3") is None:
        raise Unavailable("boto3, which finds the keys, is not installed here: pip install boto3")
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        return Boto3CredentialProvider()
    except ValueError as error:
        raise Unavailable("boto3 finds no keys") from error


def _google(bucket: str, options: Mapping[str, Any]) -> Any:
    from obstore.store import GCSStore

    if options["target_service_account"]:
        raise Unavailable("its client takes no target_service_account")
    config: dict[str, Any] = {}
    if options["endpoint_override"]:
        config["base_url"] = _url(options["scheme"], options["endpoint_override"])
    if options["anonymous"]:
        config["skip_signature"] = True
    if options["access_token"]:
        config["bearer_token"] = options["access_token"]
    return GCSStore(
        bucket, config=config, client_options=_connection(options), retry_config=_RETRIES
    )


def _connection(options: Mapping[str, Any]) -> dict[str, Any]:
    connection: dict[str, Any] = {
        "allow_http": options["scheme"] == "http" or "http://" in options["endpoint_override"]
    }
    if options.get("tls_ca_file_path"):
        connection["root_certificate"] = Path(options["tls_ca_file_path"]).read_bytes()
    proxy = options.get("proxy_options") or {}
    if proxy.get("host"):
        user = f"{proxy['username']}:{proxy['password']}@" if proxy["username"] else ""
        connection["proxy_url"] = f"{proxy['scheme']}://{user}{proxy['host']}:{proxy['port']}"
    return connection


def _url(scheme: str, address: str) -> str:
    return address if "://" in address else f"{scheme}://{address}"
