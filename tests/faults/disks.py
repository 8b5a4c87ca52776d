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
from tests.faults.places import Outcome, Place, Skipped, Workshop

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


def full(shop: Workshop, rng: random.Random) -> Outcome:
    """Full while a cell writes, for as long as the store waits: nothing fails."""
    disk = shop.folder / "full"
    with small_disk(disk):
        place, driver, ballast = _full_at_a_cell(shop, disk, rng)
        place.wait_until(lambda: "trying again" in driver.err.read_text(), driver, "a refusal")
        ballast.unlink()
        status = driver.wait()
        place.expect(status == 0, f"status {status}: {driver.said()}")
        place.expect(FULL in driver.said(), f"the cause is not told: {driver.said()}")
        place.expect_no_traceback(driver)
        return place.judge("full disk, soon cleared", 1)


def full_for_long(shop: Workshop, rng: random.Random) -> Outcome:
    """Until a Run is given up, with room for small notes or for none; the others go on once there is."""
    disk = shop.folder / "full-for-long"
    with small_disk(disk):
        place, driver, ballast = _full_at_a_cell(shop, disk, rng)

        def is_given_up() -> bool:
            final = any(failure.final for failure in read_failures(place.store).values())
            # Where not even that can be noted: the next one cannot write what it writes first.
            said = driver.err.read_text()
            return final or "similarity/" in said or "began.json" in said

        place.wait_until(is_given_up, driver, "a Run is given up")
        ballast.unlink()
        status = driver.wait()
        place.expect(status == 1, f"status {status}: {driver.said()}")
        told = driver.said() + place.say("status")
        place.expect(FULL in told, f"the cause is not told: {told}")
        place.expect(
            bool(finished_ids(place.store) - place.sources), f"none of the others went on: {told}"
        )
        place.expect_no_traceback(driver)
        place.say("retry")
        place.finish()
        return place.judge("full disk until a Run is given up", 1)


def _full_at_a_cell(shop: Workshop, disk: Path, rng: random.Random) -> tuple[Place, Driver, Path]:
    """A study whose source is done and whose first cell meets a full disk, by this driver."""
    place = shop.place(root=str(disk / "store"))
    place.run(die_at=_first_cell(place)).wait()
    driver = place.run()
    place.wait_until(lambda: place.count("step", _cell_of(place)) > 0, driver, "a step")
    ballast = disk / "ballast"
    _fill(ballast, leave=rng.choice([0, 16_384]))
    return place, driver, ballast


def file_limit(shop: Workshop, rng: random.Random) -> Outcome:
    """No file may be longer than some kilobytes: notes can be written, weights cannot. Needs no root."""
    place = shop.place()
    driver = place.run(limits={resource.RLIMIT_FSIZE: rng.randrange(20_000, 60_000)})
    status = driver.wait()
    place.expect(status == 1, f"status {status}: {driver.said()}")
    place.expect("File too large" in driver.said(), f"the cause is not told: {driver.said()}")
    place.expect_no_traceback(driver)
    failures = read_failures(place.store)
    (source,) = place.sources
    place.expect(
        source in failures and failures[source].tries == 4, f"not tried 4 times: {failures}"
    )
    place.expect("File too large" in place.say("status"), "`study status` does not tell the cause")
    place.say("retry")
    place.finish()
    return place.judge("files beyond a limit", 1)


def read_only(shop: Workshop, rng: random.Random) -> Outcome:
    """Of a sudden; the driver ends by itself, and says why."""
    disk = shop.folder / "read_only"
    with small_disk(disk):
        place = shop.place(root=str(disk / "store"))
        driver = place.run()
        place.wait_until(lambda: place.count("saved") > 0, driver, "a checkpoint")
        time.sleep(rng.uniform(0, 0.5))
        # Refused as long as a file is being written.
        until = time.monotonic() + 30
        while _mount("-o", "remount,ro", str(disk)) and time.monotonic() < until:
            time.sleep(0.001)
        caused = int(not os.access(disk, os.W_OK))
        was_running = driver.status() is None
        status = driver.wait(120)
        place.expect(not was_running or status in (1, 3), f"status {status}: {driver.said()}")
        place.expect(
            "Read-only file system" in driver.said(), f"the cause is not told: {driver.said()}"
        )
        place.expect_no_traceback(driver)
        again = place.run()
        place.expect(again.wait() in (1, 2), f"on a read-only store: {again.status()}")
        place.expect("ead-only" in again.said() or "not writable" in again.said(), again.said())
        place.expect_no_traceback(again)
        place.say("status")
        _mount("-o", "remount,rw", str(disk))
        if read_failures(place.store):
            place.say("retry")
        place.finish()
        return place.judge("store becomes read-only", caused)


def _first_cell(place: Place) -> str:
    (source,) = place.sources
    return rf"os.rename /unfinished/(?!{source})[0-9a-f]+/\d+/began\.json$"


def _cell_of(place: Place) -> str | None:
    cells = [e.run_id for e in place.journal.events() if e.run_id not in place.sources]
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
