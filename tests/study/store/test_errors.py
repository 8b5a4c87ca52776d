"""Errors of disks and buckets: the text for users, and the number of retries."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.store.errors import WAITS, naming, os_error_text, tried, waits_for
from study.store.store import open_store

CLIENT = "cannot list (16 tries): bucket's client: {}"


@pytest.mark.parametrize(
    ("number", "why", "path", "says"),
    [
        (
            errno.ENOSPC,
            "No space left on device",
            "/a/b",
            "/a/b: No space left on device; make room",
        ),
        (errno.ENOTDIR, "Not a directory", "/a/b", "/a/b: Not a directory; a part of this path"),
        (
            errno.EIO,
            CLIENT.format("HTTP status 403 (AccessDenied)"),
            "b/x",
            "HTTP status 403 (AccessDenied); check the cred",
        ),
        (
            errno.EIO,
            CLIENT.format("HTTP status 404 (NoSuchBucket)"),
            "b/x",
            "NoSuchBucket); make the bucket",
        ),
        (
            errno.EIO,
            CLIENT.format("HTTP status 503 (SlowDown)"),
            "b/x",
            "b/x: cannot list (16 tries): HTTP status 503 (SlowDown); wait until it answers",
        ),
        (
            errno.EIO,
            CLIENT.format("Connection refused (http://127.0.0.1:9)"),
            "b/x",
            "tries): Connection refused (http://127.0.0.1:9); check the root, the network",
        ),
        (
            errno.EIO,
            CLIENT.format("host unreachable (http://169.254.169.254)"),
            "b/x",
            "check the credentials",
        ),
    ],
)
def test_os_error_text_is_one_line_with_path_cause_and_fix(
    number: int, why: str, path: str, says: str
) -> None:
    text = os_error_text(OSError(number, why, path))
    assert says in text
    assert os_error_text(OSError(number, why, path), advise=False) == text.partition("; ")[0]
    assert path in text and "Errno" not in text and "\n" not in text


def test_os_error_text_of_pyarrow_has_path_and_cause(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as refused:
        pq.ParquetWriter(tmp_path / "file" / "x", pq.read_schema)  # it opens before it looks
    text = os_error_text(refused.value)
    assert text.startswith(f"{tmp_path}/file/x: Not a directory; ")
    full = OSError(
        28, "Error writing bytes to file. Detail: [errno 28] No space left on device", "x"
    )
    assert os_error_text(full).startswith("x: No space left on device; make room there")


def test_naming_adds_the_path_to_an_error_without_one(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, naming(tmp_path / "place", instead_of="/draft"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path / "place") in os_error_text(full.value)
    with pytest.raises(FileNotFoundError) as gone, naming("place", instead_of="/draft"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/draft/figures/x.svg")
    assert os_error_text(gone.value).startswith("place: No such file")
    with pytest.raises(FileNotFoundError) as other, naming("place", instead_of="/draft"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/other")
    assert os_error_text(other.value).startswith("/other: ")


@pytest.mark.parametrize(
    ("server", "cause"),
    [
        ("127.0.0.1:9", "Connection refused (http://127.0.0.1:9)"),
        ("no.such.host.invalid", "failed to lookup address"),
    ],
)
def test_bucket_unreachable_server_is_named_without_secrets(server: str, cause: str) -> None:
    root = f"s3://key:SECRET@nobody/x?region=x&scheme=http&endpoint_override={server}"
    store = replace(open_store(root), waits=())
    for ask in (lambda: store.get("y"), lambda: store.listed("y"), lambda: store.put("y", b"")):
        with pytest.raises(OSError) as refused:
            ask()
        text = os_error_text(refused.value)
        assert cause in text and "check the root, the network" in text and "nobody/x/y: " in text
        assert "SECRET" not in text + repr(store) and "\n" not in text


# Retries


@pytest.mark.parametrize(
    ("number", "num_waits"),
    [
        (errno.ESTALE, len(WAITS)),
        (errno.ENOSPC, 3),
        (errno.EROFS, 3),
        (errno.EFBIG, 0),
        (errno.EACCES, 0),
    ],
)
def test_waits_for_permanent_errors_is_empty(number: int, num_waits: int) -> None:
    error = OSError(number, "it fails")
    assert waits_for(error, WAITS) == WAITS[:num_waits]


@pytest.mark.parametrize("num_failing", [0, 2, 3, 4])
def test_tried_repeats_once_per_wait(num_failing: int) -> None:
    calls = 0

    def once() -> str:
        nonlocal calls
        calls += 1
        if calls <= num_failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return "written"

    if num_failing <= 3:
        assert tried("write", "a/b", (0.0,) * 5, once) == "written"
        assert calls == num_failing + 1
    else:
        with pytest.raises(OSError, match=r"cannot write \(4 tries\): No space.*a/b") as raised:
            tried("write", "a/b", (0.0,) * 5, once)
        assert raised.value.errno == errno.ENOSPC


def test_tried_missing_file_is_not_retried() -> None:
    def once() -> None:
        raise FileNotFoundError("x")

    with pytest.raises(FileNotFoundError):
        tried("read", "x", (60.0,), once)
