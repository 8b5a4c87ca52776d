"""Two drivers of one directory are kept apart; a dead one is passed over, by one successor only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from study.launching import lease
from study.launching.lease import LeaseHeld

HOLDER = """
import sys, time
from study.launching import lease
with lease.acquire(sys.argv[1], expiry_seconds=float(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(root: Path, expiry_seconds: float = 60.0) -> Iterator[subprocess.Popen]:
    """Another process that holds the root."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), str(expiry_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def held_elsewhere(root: Path, seconds_ago: float) -> Path:
    """The file of a driver on another machine, whose last heartbeat was so long ago."""
    with lease.acquire(root) as ours:
        process = replace(ours.owner.process, host="elsewhere", machine="another")
        owner = replace(ours.owner, process=process, token="0")
    (released,) = (root / "lease").iterdir()
    path = released.with_name(f"{int(released.stem) + 1:08d}.json")
    path.write_bytes(lease.to_json(owner))
    os.utime(path, (time.time() - seconds_ago,) * 2)
    return path


def test_the_second_driver_is_told_who_holds_the_store_and_what_to_do(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        with pytest.raises(LeaseHeld) as refused, lease.acquire(tmp_path):
            pass
        text = str(refused.value)
        assert f"{tmp_path} is in use by another driver, process {other.pid} on " in text
        assert " since 20" in text
        assert "Wait until it ends, or stop it, then run this again." in text
        other.communicate()
        with lease.acquire(tmp_path) as ours:
            assert not ours.is_lost


def test_a_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with lease.acquire(tmp_path), pytest.raises(LeaseHeld), lease.acquire(tmp_path):
        pass
    with lease.acquire(tmp_path):
        pass


def test_a_killed_driver_is_passed_over_at_once(tmp_path: Path) -> None:
    with holder(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        # Not waited for: until somebody does, the dead process still has its number.
        for _ in range(1_000):
            if Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                break
            time.sleep(0.01)
        with lease.acquire(tmp_path):
            pass


def test_a_stopped_driver_on_this_machine_is_not_dead(tmp_path: Path) -> None:
    with holder(tmp_path, expiry_seconds=0.05) as other:
        other.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        with pytest.raises(LeaseHeld), lease.acquire(tmp_path, expiry_seconds=0.05):
            pass
        other.send_signal(signal.SIGCONT)


def test_a_driver_elsewhere_expires_with_its_heartbeat(tmp_path: Path) -> None:
    alive = held_elsewhere(tmp_path, seconds_ago=30.0)
    with pytest.raises(LeaseHeld, match=r"on elsewhere .*last sign of life (29|30|31) s ago"):
        lease.acquire(tmp_path).__enter__()
    os.utime(alive, (time.time() - 61.0,) * 2)
    with lease.acquire(tmp_path):
        assert not alive.exists()


def test_one_that_has_not_yet_said_who_it_is_is_waited_for(tmp_path: Path) -> None:
    path = held_elsewhere(tmp_path, seconds_ago=0.0)
    path.write_bytes(b"")
    with pytest.raises(LeaseHeld, match="in use by another driver "):
        lease.acquire(tmp_path).__enter__()
    os.utime(path, (0, 0))
    with lease.acquire(tmp_path):
        pass


def test_of_many_that_take_over_one_wins(tmp_path: Path) -> None:
    for number in range(20):
        held_elsewhere(tmp_path, seconds_ago=3_600.0)
        start, winners, done = threading.Barrier(8), [], ExitStack()

        def take(start=start, winners=winners, done=done) -> None:  # type: ignore[no-untyped-def]
            start.wait()
            with suppress(LeaseHeld):
                winners.append(done.enter_context(lease.acquire(tmp_path)))

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with done:
            assert len(winners) == 1, f"round {number}"


def test_a_driver_that_was_passed_over_knows_it(tmp_path: Path) -> None:
    with lease.acquire(tmp_path, expiry_seconds=0.3) as ours:
        (mine,) = (tmp_path / "lease").iterdir()
        mine.with_name("00000099.json").write_bytes(lease.to_json(ours.owner))
        assert ours.lost.wait(60.0)
        assert ours.is_lost


def test_the_heartbeat_is_seen(tmp_path: Path) -> None:
    with lease.acquire(tmp_path, expiry_seconds=0.3):
        (mine,) = (tmp_path / "lease").iterdir()
        os.utime(mine, (0, 0))
        for _ in range(1_000):
            if mine.stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert mine.stat().st_mtime > 0


def test_a_late_one_does_not_win_beside_a_higher_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looked before two others came and went on; what it then creates was removed as outdated.
    held_elsewhere(tmp_path, seconds_ago=3_600.0)
    seen = lease._highest(tmp_path / "lease")
    with lease.acquire(tmp_path):
        pass
    with lease.acquire(tmp_path):
        answers = iter([seen])
        real = lease._highest
        # The file it looked at is gone, so it must find it released: the worst case.
        (tmp_path / "lease" / f"{seen:08d}.json").write_bytes(b"{}\n")
        monkeypatch.setattr(lease, "_highest", lambda folder: next(answers, None) or real(folder))
        with pytest.raises(LeaseHeld):
            lease.acquire(tmp_path).__enter__()
