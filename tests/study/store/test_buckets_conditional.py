"""Conditional writes to a bucket: one of several writers succeeds, the others get a conflict."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study.launching import lease
from study.store import Store, buckets, open_store, read_head, read_rows
from study.store.rows import publish_rows
from tests import s3_server
from tests.stored import a_provenance, a_run, a_table

pytestmark = pytest.mark.s3


def at_once(num: int, do: Callable[[int], Any]) -> list[Any]:
    """Call `do` in `num` threads at the same time; return their results."""
    begin = threading.Barrier(num)
    answers: list[Any] = [None] * num

    def one(number: int) -> None:
        begin.wait()
        answers[number] = do(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_create_by_several_threads_succeeds_once(bucket: Store) -> None:
    for i in range(20):
        answers = at_once(3, lambda n, i=i: bucket.create(f"x/{i}", b"%d" % n * 1000))
        assert sorted(answers) == [False, False, True]
        assert bucket.get(f"x/{i}") == b"%d" % answers.index(True) * 1000


def test_swap_changed_object_is_a_conflict(bucket: Store) -> None:
    bucket.put("x", b"0")
    for i in range(10):
        answers = at_once(3, lambda n, i=i: bucket.swap("x", b"%d" % i, b"%d" % (i + 1)))
        assert any(answers), "all were refused"
        assert bucket.get("x") == b"%d" % (i + 1)
    assert not bucket.swap("x", b"3", b"4")
    assert bucket.get("x") == b"10"
    bucket.remove("x")
    with pytest.raises(FileNotFoundError):
        bucket.swap("x", b"10", b"11")


def test_conditional_put_lost_response_is_not_a_conflict(
    bucket: Store, proxy: s3_server.Proxy
) -> None:
    bucket.create("x", b"first")
    proxy.lose_answer("PUT .*/y", 1)
    assert bucket.create("y", b"mine")
    proxy.lose_answer("PUT .*/y", 1)
    assert bucket.swap("y", b"mine", b"mine, too")
    assert bucket.get("y") == b"mine, too"
    assert not bucket.create("x", b"second")


def test_publish_rows_second_writer_returns_false(bucket: Store) -> None:
    run, table = a_run(), a_table()
    made = [replace(a_provenance(), host=f"host-{n}") for n in range(3)]
    for _ in range(5):
        answers = at_once(3, lambda n: publish_rows(bucket, run, table, made[n]))
        assert sorted(answers) == [False, False, True]
        assert read_head(bucket, run.id).provenance == made[answers.index(True)]
        bucket.remove(f"rows/{run.id}.arrow")
    bucket.put(f"rows/{run.id}.arrow", b"torn")
    assert publish_rows(bucket, run, table, made[1])
    assert not publish_rows(bucket, run, table, made[2])
    assert publish_rows(bucket, run, table, made[2], replace=True)
    assert read_rows(bucket, run.id).provenance == made[2]


def test_conditions_unheeded_is_probed_and_remembered(
    bucket: Store, proxy: s3_server.Proxy
) -> None:
    assert bucket.conditions_unheeded() is None
    with lease.acquire(bucket.root) as held:
        assert lease.place_of(bucket).is_exact
        assert lease.beat(lease.place_of(bucket), held.number, held.owner)
        bucket.put(f"lease/{held.number:08d}.json", b"another's")
        assert not lease.beat(lease.place_of(bucket), held.number, held.owner)

    def as_if_first() -> str | None:
        buckets._refusals.clear()
        return bucket.conditions_unheeded()

    proxy.unheeded = True
    assert "replaced an object that existed" in str(as_if_first())
    assert not lease.place_of(bucket).is_exact
    proxy.unheeded = False
    bucket = replace(bucket, waits=(0.01,))
    proxy.fail("PUT .*/probe-", 100, 501)
    assert "501" in str(as_if_first())
    assert bucket.create("x/1", b"without conditions")
    assert not bucket.create("x/1", b"again")
    proxy.heal()
    proxy.fail("PUT .*/probe-", 100, 403)
    assert "403" in str(as_if_first())
    proxy.heal()
    assert as_if_first() is None
    nowhere = open_store("s3://key:secret@bucket/x?scheme=http&endpoint_override=127.0.0.1:9")
    assert "Connection refused" in str(replace(nowhere, waits=()).conditions_unheeded())
    assert [entry.base_name for entry in bucket.listed("lease")] == ["00000001.json"]


def test_create_without_conditions_is_remembered(bucket: Store, proxy: s3_server.Proxy) -> None:
    bucket = replace(bucket, waits=(0.01,))
    buckets._refusals.clear()
    proxy.fail("PUT .*/x", 4, 501)  # all tries of one request
    assert bucket.create("x", b"first")
    assert not bucket.create("x", b"second")
    assert bucket.get("x") == b"first"
    proxy.heal()
    assert bucket.create("y", b"first")
    assert sum("PUT" in request for request in proxy.requests) == 1
    buckets._refusals.clear()


def test_bucket_without_obstore_names_the_package(
    bucket: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "obstore" else found(name)
    )
    with pytest.raises(ValueError, match=r"needs obstore, .*pip install"):
        bucket.exists("x")


def test_client_takes_address_and_keys_from_the_root_then_as_aws(
    proxy: s3_server.Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # not the one that is given
    root = s3_server.root(proxy.port, uuid.uuid4().hex)
    given = open_store(root.replace("s3://", "s3://named:in%2Furi@"))
    assert given.conditions_unheeded() is None
    assert "no keys found" in str(open_store(root).conditions_unheeded())
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = of_file\naws_secret_access_key = any\n"
    )
    buckets._refusals.clear()
    assert open_store(root).conditions_unheeded() is None
    keys = {line.split("Credential=")[1].split("/")[0] for line in proxy.authorizations}
    assert keys == {"named", "of_file"}


def test_bucket_region_is_requested_unless_in_the_environment(
    proxy: s3_server.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in buckets._NAMING_SERVER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(buckets, "_REGIONS_URL", f"http://127.0.0.1:{proxy.port}")
    assert buckets._region(s3_server.BUCKET) == "us-east-1"
    proxy.fail("HEAD", 1, 403)
    assert buckets._region(s3_server.BUCKET) == ""
    assert proxy.requests == [f"HEAD /{s3_server.BUCKET}"] * 2
    monkeypatch.setattr(buckets, "_REGIONS_URL", "http://127.0.0.1:9")
    assert buckets._region(s3_server.BUCKET) is None
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert buckets._region(s3_server.BUCKET) is None


CONTEND = """
import sys, time
from study.launching import lease
from study.store import open_store
root, num_left = sys.argv[1], int(sys.argv[2])
while num_left:
    try:
        with lease.acquire(root) as held:
            began = time.monotonic()
            time.sleep(0.02)
            num_left -= 1
            print(f"{began:.6f} {time.monotonic():.6f} {held.number}", flush=True)
    except lease.LeaseHeld:
        pass
"""


@pytest.mark.slow
def test_lease_on_a_bucket_is_held_by_one_process_at_a_time(bucket: Store) -> None:
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTEND, bucket.root, "5"],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    held: list[tuple[float, ...]] = []
    said = ""
    for each in contenders:
        out, err = each.communicate(timeout=600)
        said += err
        assert each.returncode == 0
        held += [tuple(map(float, line.split())) for line in out.splitlines()]
    held.sort()
    numbers = [number for _, _, number in held]
    assert len(held) == 15
    assert "clock is wrong" not in said, "a torn lease was read"
    assert numbers == sorted(set(numbers)), "a number was given twice, or went back"
    for (_, ended, _), (began, _, _) in itertools.pairwise(held):
        assert began >= ended, "two held it at once"
