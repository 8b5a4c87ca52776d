"""The lease of a directory: one driver holds it, and one successor after its death."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from study.launching import lease
from study.launching.lease import Directory, LeaseHeld
from study.store import layout, open_store
from study.store.unfinished import write_checkpoint

HOLDER = """
import sys, time
from study.launching import lease
with lease.acquire(sys.argv[1], expiry_seconds=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(root: Path, expiry_seconds: float = 60.0) -> Iterator[subprocess.Popen]:
    """Start another process that holds the lease of the root."""
    command = [sys.executable, "-c", HOLDER, str(root), str(expiry_seconds)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"held\n"
            yield process
        finally:
            process.kill()


@contextmanager
def repeated(do: Callable[[], object]) -> Iterator[None]:
    """Call `do` every tenth of a second in a thread."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(0.1):
            do()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(keep)
        try:
            yield
        finally:
            ended.set()


def wait_until(condition: Callable[[], object]) -> None:
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition never holds")


def rejected(root: Path, expiry_seconds: float = 60.0) -> str:
    """Acquire a lease that another driver holds, and return the message."""
    with pytest.raises(LeaseHeld) as caught, lease.acquire(root, expiry_seconds=expiry_seconds):
        pass
    return str(caught.value)


def held_elsewhere(root: Path, seconds_ago: float) -> Path:
    """Write the lease of a driver on another machine, with a heartbeat this long ago; return its file."""
    with lease.acquire(root) as ours:
        process = replace(ours.owner.process, host="elsewhere", machine="another")
        owner = replace(ours.owner, process=process, token="0")
    (released,) = (root / "lease").iterdir()
    path = released.with_name(f"{int(released.stem) + 1:08d}.json")
    path.write_bytes(lease.to_json(owner))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_acquire_held_lease_names_the_holder_and_the_fix(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        text = rejected(tmp_path)
        assert f"{tmp_path} is in use by another driver, process {other.pid} on " in text
        assert " since 20" in text
        assert "Wait until it ends, or stop it, then run this again." in text
        other.communicate()
        with lease.acquire(tmp_path) as ours:
            assert not ours.is_lost
            rejected(tmp_path)


def test_acquire_after_a_killed_driver_succeeds_immediately(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.kill()
        # Not waited for, so the dead process still has its number.
        stat = Path(f"/proc/{other.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
        with lease.acquire(tmp_path):
            pass


def test_acquire_beside_a_suspended_driver_raises(tmp_path: Path) -> None:
    with holder(tmp_path, expiry_seconds=0.05) as other:
        other.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        rejected(tmp_path, expiry_seconds=0.05)


def test_acquire_lease_of_another_machine_expires(tmp_path: Path) -> None:
    alive = held_elsewhere(tmp_path, seconds_ago=30.0)
    assert re.search(r"on elsewhere .*last sign of life (29|30|31) s ago", rejected(tmp_path))
    os.utime(alive, (time.time() - 61.0,) * 2)
    with lease.acquire(tmp_path, expiry_seconds=0.3):
        assert not alive.exists()


def test_acquire_empty_lease_waits_for_its_content(tmp_path: Path) -> None:
    path = held_elsewhere(tmp_path, seconds_ago=0.0)
    content = path.read_bytes()
    path.write_bytes(b"")

    def fill() -> None:  # at once: another driver never sees a part
        (tmp_path / "whole").write_bytes(content)
        (tmp_path / "whole").replace(path)

    with repeated(fill):
        assert "on elsewhere" in rejected(tmp_path)
    path.write_bytes(b"")  # and stays empty
    with lease.acquire(tmp_path, expiry_seconds=1e9):
        assert not path.exists()


@pytest.mark.parametrize("seconds_ago", [3_600.0, -2_592_000.0])
def test_acquire_holder_with_a_wrong_clock_is_judged_by_its_heartbeats(
    tmp_path: Path, seconds_ago: float
) -> None:
    path = held_elsewhere(tmp_path, seconds_ago)
    seconds = count(1)

    def beat() -> None:
        os.utime(path, (time.time() - seconds_ago + next(seconds),) * 2)

    with repeated(beat):
        assert "last sign of life 0 s ago" in rejected(tmp_path, expiry_seconds=30.0)
    with lease.acquire(tmp_path, expiry_seconds=0.6):
        assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem gives EIO")
def test_acquire_unreadable_lease_is_replaced(tmp_path: Path) -> None:
    path = held_elsewhere(tmp_path, seconds_ago=3_600.0)
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with lease.acquire(tmp_path, expiry_seconds=0.3) as ours:
        assert ours.number == int(path.stem) + 1


def test_create_without_hard_links_is_exclusive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    store = open_store(tmp_path)
    assert store.create("lease/00000001.json", b"a", b"b")
    assert not store.create("lease/00000001.json", b"other")
    assert store.get("lease/00000001.json") == b"ab"
    (tmp_path / "lease" / "00000001.json").write_bytes(b"{}\n")
    with lease.acquire(tmp_path) as ours:
        assert ours.number == 2
        rejected(tmp_path)


def test_acquire_removed_leases_do_not_lower_the_number(tmp_path: Path) -> None:
    store = replace(open_store(tmp_path), lease_number=7)
    write_checkpoint(store, "0" * 12, b"of the seventh driver")
    with lease.acquire(tmp_path) as ours:
        assert ours.number == 8


def test_lease_lost_check_detects_a_later_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_QUESTIONS", 0.0)
    assert not lease.lease_lost(open_store(tmp_path)), "nobody's lease is passed over"
    with lease.acquire(tmp_path) as ours:
        store = replace(open_store(tmp_path), lease_number=ours.number)
        assert not lease.lease_lost_if_due(store)
        assert store.create(layout.lease_path(ours.number + 1), lease.to_json(ours.owner))
        assert lease.lease_lost_if_due(store)


def test_acquire_by_many_threads_succeeds_once(tmp_path: Path) -> None:
    for number in range(20):
        held_elsewhere(tmp_path, seconds_ago=3_600.0)
        with ExitStack() as held, ThreadPoolExecutor(8) as threads:
            start = threading.Barrier(8)

            def take(start: threading.Barrier = start, held: ExitStack = held) -> bool:
                start.wait()
                try:
                    held.enter_context(lease.acquire(tmp_path, expiry_seconds=0.3))
                except LeaseHeld:
                    return False
                return True

            winners = [threads.submit(take) for _ in range(8)]
            assert sum(each.result() for each in winners) == 1, f"round {number}"


def test_acquire_keeps_a_heartbeat_and_detects_a_lost_lease(tmp_path: Path) -> None:
    with lease.acquire(tmp_path, expiry_seconds=0.3) as ours:
        (path,) = (tmp_path / "lease").iterdir()
        os.utime(path, (0, 0))
        wait_until(lambda: path.stat().st_mtime > 0)
        path.with_name("00000099.json").write_bytes(lease.to_json(ours.owner))
        assert ours.lost.wait(60.0)
        assert ours.is_lost


def test_acquire_late_create_beside_a_higher_number_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # This driver listed the leases before two others held and released the store.
    with lease.acquire(tmp_path) as first:
        pass
    with lease.acquire(tmp_path):
        pass
    with lease.acquire(tmp_path):
        answers = iter([{first.number: 0}])
        real = Directory.stamps
        # Its file was removed. The worst case is that the driver reads it as released.
        (tmp_path / layout.lease_path(first.number)).write_bytes(b"{}\n")
        monkeypatch.setattr(Directory, "stamps", lambda self: next(answers, None) or real(self))
        rejected(tmp_path)
