"""The store on a bucket: a real S3 server, made to fail now and then."""

from __future__ import annotations

import pickle
import random
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.dataset
import pyarrow.fs as pafs
import pytest

from study.launching import lease
from study.store import (
    Damaged,
    Store,
    buckets,
    finished_ids,
    open_store,
    read_failures,
    read_head,
    read_rows,
    read_study,
    read_weights,
    rows_path,
    study_names,
    weights_path,
)
from study.store.artifacts import ids_with_weights, publish_weights
from study.store.layout import lease_path, unfinished_path
from study.store.processes import this_process
from study.store.rows import publish_rows
from study.store.studies import write_study
from study.store.unfinished import (
    clear_failure,
    list_unfinished,
    note_began,
    read_began,
    read_checkpoint,
    sweep,
    write_checkpoint,
    write_failure,
)
from tests import s3_server
from tests.stored import a_failure, a_provenance, a_run, a_table

pytestmark = pytest.mark.s3


@pytest.fixture
def impatient(bucket: Store) -> Store:
    """The same store, with three retries after short waits."""
    return replace(bucket, waits=(0.01,))


def test_bucket_every_method_returns_what_was_written(bucket: Store, tmp_path: Path) -> None:
    run, table, provenance = a_run(), a_table(), a_provenance()
    assert finished_ids(bucket) == ids_with_weights(bucket) == frozenset()
    assert list_unfinished(bucket) == read_failures(bucket) == {}
    assert study_names(bucket) == []
    assert bucket.local_path("rows") is None

    note_began(bucket, run.id, this_process())
    assert read_began(bucket, run.id) == this_process()
    assert read_checkpoint(bucket, run.id) is None
    write_checkpoint(bucket, run.id, b"checkpoint")
    assert read_checkpoint(bucket, run.id) == b"checkpoint"
    assert list_unfinished(bucket)[run.id].files == {"began.json", "checkpoint"}
    write_failure(bucket, run.id, a_failure())
    assert read_failures(bucket) == {run.id: a_failure()}
    clear_failure(bucket, run.id)
    clear_failure(bucket, run.id)
    assert read_failures(bucket) == {}

    digest = publish_weights(bucket, run.id, b"weights")
    assert read_weights(bucket, run.id, digest) == b"weights"
    assert ids_with_weights(bucket) == {run.id}
    publish_rows(bucket, run, table, replace(provenance, weights_digest=digest))
    assert finished_ids(bucket) == {run.id}
    assert read_rows(bucket, run.id).table.equals(table)
    assert read_head(bucket, run.id).run == run
    assert sweep(bucket) == [f"unfinished/{run.id}"]
    assert list_unfinished(bucket) == {}

    write_study(bucket, "a", [run])
    assert read_study(bucket, "a") == [run]
    assert study_names(bucket) == ["a"]

    (tmp_path / "file").write_bytes(b"task")
    bucket.put_file("tasks/t.arrow", tmp_path / "file")
    assert bucket.get("tasks/t.arrow") == b"task"
    assert bucket.exists("tasks/t.arrow")
    assert not bucket.exists("tasks")
    with pytest.raises(FileNotFoundError):
        bucket.get("tasks/absent.arrow")

    server, _ = pafs.FileSystem.from_uri(bucket.root)
    whole = pyarrow.dataset.dataset(f"{bucket.base}/rows", filesystem=server, format="ipc")
    assert whole.count_rows() == table.num_rows
    assert finished_ids(pickle.loads(pickle.dumps(bucket))) == {run.id}


@pytest.mark.parametrize("size", [10, 300_000])
def test_bucket_opened_object_reads_like_a_file_and_its_end_in_one_request(
    bucket: Store, proxy: s3_server.Proxy, size: int
) -> None:
    content = random.Random(0).randbytes(size)
    bucket.put("x", content)
    proxy.heal()
    with bucket.opened("x", whole=False) as file:
        assert file.size() == size
        for begin, num in ((size - 4, 4), (size - 10, 7), (size, 1), (0, size), (3, 1 << 17)):
            file.seek(begin)
            assert file.read(num) == content[begin : begin + num]
            assert file.tell() == max(begin, min(begin + num, size))
            assert len(proxy.requests) == 1 or begin < 10 < size


def test_bucket_torn_objects_are_damaged_and_can_be_quarantined(bucket: Store) -> None:
    run = a_run()
    digest = publish_weights(bucket, run.id, b"weights")
    for path in (rows_path(run.id), weights_path(run.id, digest)):
        bucket.put(path, b"torn")
    bucket.put(unfinished_path(run.id, "checkpoint"), b"")
    with pytest.raises(Damaged, match=rows_path(run.id)):
        read_rows(bucket, run.id)
    with pytest.raises(Damaged, match=weights_path(run.id, digest)):
        read_weights(bucket, run.id, digest)
    with pytest.raises(Damaged, match="checkpoint"):
        read_checkpoint(bucket, run.id)
    aside = bucket.quarantine(rows_path(run.id))
    assert bucket.get(aside) == b"torn"
    assert finished_ids(bucket) == frozenset()


LARGE = bytes(12_000_000)  # two parts of an upload in parts


def test_bucket_transient_errors_are_retried(impatient: Store, proxy: s3_server.Proxy) -> None:
    for status in (500, 503, None):
        proxy.fail("PUT .*/small", 1, status)
        impatient.put("x/small", b"value")
        proxy.fail("(HEAD|GET) .*/small", 1, status)
        assert impatient.get("x/small") == b"value"
        proxy.fail("GET .*list-type", 1, status)
        assert [info.base_name for info in impatient.listed("x")] == ["small"]
    proxy.fail("PUT .*partNumber=2", 1)
    impatient.put("x/large", LARGE)
    assert impatient.get("x/large") == LARGE


@pytest.mark.parametrize(
    ("failing", "status"),
    [
        ("POST .*uploads", 500),
        ("partNumber=1", 500),
        ("partNumber=2", 500),
        ("partNumber=2", None),
        ("POST .*uploadId", 500),
    ],
)
def test_bucket_failed_upload_leaves_no_object(
    impatient: Store, proxy: s3_server.Proxy, failing: str, status: int | None
) -> None:
    # A stream of pyarrow's publishes what it has got whenever it is closed: at each request of an
    # upload it must be seen that nothing is.
    proxy.fail(failing, 1_000, status)
    with pytest.raises(OSError, match=r"cannot write \(4 tries\).*x/large"):
        impatient.put("x/large", LARGE)
    proxy.heal()
    assert impatient.listed("x") == []


def test_bucket_permanent_error_is_not_retried(bucket: Store, proxy: s3_server.Proxy) -> None:
    absent = replace(bucket, base="no-such-bucket/root")
    for ask in (
        lambda: absent.put("x/y", b"v"),
        lambda: absent.get("x/y"),
        lambda: absent.listed("x"),
    ):
        proxy.heal()
        with pytest.raises(OSError, match=r"cannot .*NoSuchBucket.*no-such-bucket/root/x"):
            ask()
        assert len(proxy.requests) == 1
    for status in (400, 401, 403):
        proxy.heal()
        proxy.fail(".*", 100, status)
        with pytest.raises(OSError, match=rf"cannot write: .*HTTP status {status}.*root/x/y"):
            bucket.put("x/y", b"value")
        assert len(proxy.requests) == 1


def test_bucket_silent_server_times_out(
    bucket: Store, proxy: s3_server.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_SILENCE", timedelta(seconds=0.2))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        root = bucket.root.replace(str(proxy.port), str(silent.getsockname()[1]))
        store = replace(open_store(root), waits=(0.01,))
        for ask in (
            lambda: store.put("x", b"v"),
            lambda: store.create("x", b"v"),
            lambda: store.get("x"),
        ):
            with pytest.raises(
                OSError, match=r"cannot .*\(4 tries\).*timed out \(http://127.0.0.1:"
            ):
                ask()


def test_bucket_server_silent_for_a_while_is_retried(
    bucket: Store, proxy: s3_server.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "_SILENCE", timedelta(seconds=0.5))
    store = replace(bucket, waits=(0.01, 0.5))
    writer = threading.Thread(target=store.put, args=("x", b"value"))
    with proxy._one_request:  # no request is answered meanwhile
        writer.start()
        for _ in range(1_000):
            if len(proxy.requests) >= 2:
                break
            time.sleep(0.01)
        assert proxy.requests[:2] == [f"PUT /{bucket.base}/x"] * 2
    writer.join()
    assert store.get("x") == b"value"


def test_bucket_folder_markers_of_0_1_0_are_no_objects(
    bucket: Store, proxy: s3_server.Proxy
) -> None:
    bucket.put("unfinished/a/checkpoint", b"")
    bucket.put("unfinished/a/.hidden", b"")
    direct = s3_server.connection(proxy.server_port)
    for folder in ("unfinished", "unfinished/a"):
        direct.request("PUT", f"/{bucket.base}/{folder}/", b"")
        direct.getresponse().read()
    found = bucket.listed("unfinished", recursive=True)
    assert [bucket.relative(entry.path) for entry in found] == ["unfinished/a/checkpoint"]
    assert [entry.base_name for entry in bucket.listed("unfinished/a")] == ["checkpoint"]
    bucket.remove_folder("unfinished")
    bucket.remove_folder("unfinished")
    assert not bucket.exists("unfinished/a/checkpoint")


@pytest.mark.slow
def test_bucket_a_thousand_runs_take_two_list_requests(
    bucket: Store, proxy: s3_server.Proxy
) -> None:
    ids = [f"{number:012x}" for number in range(1_001)]
    direct = s3_server.connection(proxy.server_port)
    for run_id in ids:
        direct.request("PUT", f"/{bucket.base}/rows/{run_id}.arrow", b"")
        direct.getresponse().read()
    proxy.heal()
    assert finished_ids(bucket) == set(ids)
    assert len(proxy.requests) == 2


def test_bucket_second_driver_is_refused_and_a_lost_lease_is_noticed(bucket: Store) -> None:
    second = lease.acquire(bucket.root)
    with lease.acquire(bucket.root), pytest.raises(lease.LeaseHeld, match=r"driver, process \d+"):
        second.__enter__()
    with lease.acquire(bucket.root, expiry_seconds=6.0) as later:
        earlier = replace(later.owner, since="2001-01-01T00:00:00+00:00", token="0")
        for _ in range(300):
            bucket.put(lease_path(later.number), lease.to_json(earlier))
            if later.lost.wait(0.1):
                break
        assert later.is_lost
