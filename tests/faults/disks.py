"""A full disk, a limit on files, a disk that becomes read-only: of a store on a small disk of its own."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.store import finished_ids, read_failures
from tests.faults.drivers import Driver
from tests.faults.harness import Harness, Outcome, Scenario, Skipped

SMALL_DISK_BYTES = 24 * 2**20
FULL = "No space left"


@contextmanager
def small_disk(place: Path) -> Iterator[None]:
    """A tmpfs mounted there. Raises Skipped where this user may not mount one."""
    place.mkdir(parents=True, exist_ok=True)
    if _mount("-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(place)):
        raise Skipped("mounting a small disk needs root")
    try:
        yield
    finally:
        _mount("-o", "remount,rw", str(place))
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*arguments: str) -> int:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode
    except FileNotFoundError:
        return 1


def full(harness: Harness, rng: random.Random) -> Outcome:
    """Full while a cell writes, for as long as the store waits: nothing fails."""
    disk = harness.folder / "full"
    with small_disk(disk):
        scenario, driver, ballast = _full_at_a_cell(harness, disk, rng)
        scenario.wait_until(lambda: "trying again" in driver.err.read_text(), driver, "a refusal")
        ballast.unlink()
        status = driver.wait()
        scenario.expect(status == 0, f"status {status}: {driver.said()}")
        scenario.expect(FULL in driver.said(), f"the cause is not told: {driver.said()}")
        scenario.expect_no_traceback(driver)
        return scenario.judge("full disk, soon cleared", 1)


def full_for_long(harness: Harness, rng: random.Random) -> Outcome:
    """Until a Run is given up, with room for small notes or for none; the others go on once there is."""
    disk = harness.folder / "full-for-long"
    with small_disk(disk):
        scenario, driver, ballast = _full_at_a_cell(harness, disk, rng)

        def is_given_up() -> bool:
            final = any(failure.final for failure in read_failures(scenario.store).values())
            # Where not even that can be noted: the next one cannot write what it writes first.
            said = driver.err.read_text()
            return final or "similarity/" in said or "began.json" in said

        scenario.wait_until(is_given_up, driver, "a Run is given up")
        ballast.unlink()
        status = driver.wait()
        scenario.expect(status == 1, f"status {status}: {driver.said()}")
        told = driver.said() + scenario.say("status")
        scenario.expect(FULL in told, f"the cause is not told: {told}")
        scenario.expect(
            bool(finished_ids(scenario.store) - scenario.sources),
            f"none of the others went on: {told}",
        )
        scenario.expect_no_traceback(driver)
        scenario.say("retry")
        scenario.finish()
        return scenario.judge("full disk until a Run is given up", 1)


def _full_at_a_cell(
    harness: Harness, disk: Path, rng: random.Random
) -> tuple[Scenario, Driver, Path]:
    """A study whose source is done and whose first cell meets a full disk, by this driver."""
    scenario = harness.scenario(root=str(disk / "store"))
    scenario.run(die_at=_first_cell(scenario)).wait()
    driver = scenario.run()
    scenario.wait_until(lambda: scenario.count("step", _cell_of(scenario)) > 0, driver, "a step")
    ballast = disk / "ballast"
    _fill(ballast, leave=rng.choice([0, 16_384]))
    return scenario, driver, ballast


def file_limit(harness: Harness, rng: random.Random) -> Outcome:
    """No file may be longer than some kilobytes: notes can be written, weights cannot. Needs no root."""
    scenario = harness.scenario()
    driver = scenario.run(limits={resource.RLIMIT_FSIZE: rng.randrange(20_000, 60_000)})
    status = driver.wait()
    scenario.expect(status == 1, f"status {status}: {driver.said()}")
    scenario.expect("File too large" in driver.said(), f"the cause is not told: {driver.said()}")
    scenario.expect_no_traceback(driver)
    failures = read_failures(scenario.store)
    (source,) = scenario.sources
    scenario.expect(
        source in failures and failures[source].tries == 4, f"not tried 4 times: {failures}"
    )
    scenario.expect(
        "File too large" in scenario.say("status"), "`study status` does not tell the cause"
    )
    scenario.say("retry")
    scenario.finish()
    return scenario.judge("files beyond a limit", 1)


def read_only(harness: Harness, rng: random.Random) -> Outcome:
    """Of a sudden; the driver ends by itself, and says why."""
    disk = harness.folder / "read_only"
    with small_disk(disk):
        scenario = harness.scenario(root=str(disk / "store"))
        driver = scenario.run()
        scenario.wait_until(lambda: scenario.count("saved") > 0, driver, "a checkpoint")
        time.sleep(rng.uniform(0, 0.5))
        # Refused as long as a file is being written.
        until = time.monotonic() + 30
        while _mount("-o", "remount,ro", str(disk)) and time.monotonic() < until:
            time.sleep(0.001)
        caused = int(not os.access(disk, os.W_OK))
        was_running = driver.status() is None
        status = driver.wait(120)
        scenario.expect(not was_running or status in (1, 3), f"status {status}: {driver.said()}")
        scenario.expect(
            "Read-only file system" in driver.said(), f"the cause is not told: {driver.said()}"
        )
        scenario.expect_no_traceback(driver)
        again = scenario.run()
        scenario.expect(again.wait() in (1, 2), f"on a read-only store: {again.status()}")
        scenario.expect("ead-only" in again.said() or "not writable" in again.said(), again.said())
        scenario.expect_no_traceback(again)
        scenario.say("status")
        _mount("-o", "remount,rw", str(disk))
        if read_failures(scenario.store):
            scenario.say("retry")
        scenario.finish()
        return scenario.judge("store becomes read-only", caused)


def _first_cell(scenario: Scenario) -> str:
    (source,) = scenario.sources
    return rf"os.rename /unfinished/(?!{source})[0-9a-f]+/\d+/began\.json$"


def _cell_of(scenario: Scenario) -> str | None:
    cells = [e.run_id for e in scenario.journal.events() if e.run_id not in scenario.sources]
    return cells[-1] if cells else "none yet"


def _fill(path: Path, *, leave: int) -> None:
    """Writes until nothing more fits, then gives back `leave` bytes."""
    with path.open("wb", buffering=0) as stream:
        block = bytes(65_536)
        while block:
            try:
                stream.write(block)
            except OSError:
                block = block[: len(block) // 2]
        os.ftruncate(stream.fileno(), max(0, stream.tell() - leave))
