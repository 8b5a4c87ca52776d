"""An error of a disk or a bucket, as a user reads it: path, cause, what to do."""

from __future__ import annotations

import errno
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from study.store.errors import naming, os_error_text
from study.store.store import open_store

CLIENT = (
    "cannot list (6 tries): When listing objects under key 'x/' in bucket 'b': AWS Error {} during "
    "ListObjectsV2 operation: {}"
)


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
            CLIENT.format("ACCESS_DENIED", "Forbidden"),
            "b/x",
            "ACCESS_DENIED; check the cred",
        ),
        (
            errno.EIO,
            CLIENT.format("NO_SUCH_BUCKET", "none"),
            "b/x",
            "NO_SUCH_BUCKET; make the bucket",
        ),
        (
            errno.EIO,
            "cannot list (6 tries): google::cloud::Status(UNAVAILABLE: Could not create a OAuth2 access "
            "token to authenticate the request. PerformWork() - CURL error [6]=Could not resolve hostname "
            "error_info={reason=, domain=})",
            "b/x",
            "b/x: cannot list (6 tries): Could not resolve hostname; check the root, the network",
        ),
        (
            errno.EIO,
            CLIENT.format(
                "NETWORK_CONNECTION",
                "curlCode: 7, Could not connect to server; Details: Failed to connect to 127.0.0.1:9 "
                "after 0 ms: Could not connect to server",
            ),
            "b/x",
            "b/x: cannot list (6 tries): Failed to connect to 127.0.0.1:9; check the root, the network",
        ),
    ],
)
def test_path_cause_and_what_to_do_in_one_line(number: int, why: str, path: str, says: str) -> None:
    text = os_error_text(OSError(number, why, path))
    assert says in text
    assert os_error_text(OSError(number, why, path), advise=False) == text.partition("; ")[0]
    assert path in text and "Errno" not in text and "\n" not in text


def test_pyarrows_own_words_are_a_path_and_a_cause(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as refused:
        pq.ParquetWriter(tmp_path / "file" / "x", pq.read_schema)  # it opens before it looks
    text = os_error_text(refused.value)
    assert text.startswith(f"{tmp_path}/file/x: Not a directory; ")
    full = OSError(
        28, "Error writing bytes to file. Detail: [errno 28] No space left on device", "x"
    )
    assert os_error_text(full).startswith("x: No space left on device; make room there")


def test_an_error_without_a_path_gets_that_of_what_was_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError) as full, naming(tmp_path / "place", instead_of="/draft"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path / "place") in os_error_text(full.value)
    with pytest.raises(FileNotFoundError) as gone, naming("place", instead_of="/draft"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/draft/figures/x.svg")
    assert os_error_text(gone.value).startswith("place: No such file")
    with pytest.raises(FileNotFoundError) as other, naming("place", instead_of="/draft"):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/other")
    assert os_error_text(other.value).startswith("/other: ")


@pytest.mark.s3
def test_a_bucket_that_nobody_serves_is_named_without_the_clients_words() -> None:
    root = "s3://key:SECRET@nobody/x?region=x&scheme=http&endpoint_override=127.0.0.1:9"
    store = open_store(root)
    with pytest.raises(OSError) as refused:
        store.fs.get_file_info("nobody/x")
    text = os_error_text(refused.value)
    assert "127.0.0.1:9" in text and "check the root, the network" in text
    assert "AWS" not in text.partition("; ")[0] and "SECRET" not in text
