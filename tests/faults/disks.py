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

from .drivers import Driver
from .places import Outcome, Place, Skipped, Workshop

SMALL_DISK_BYTES = 24 * 2**20


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
    """Full while cells publish, with room for small notes only; then there is room again."""
    disk = shop.folder / "full"
    with small_disk(disk):
        place = shop.place(root=str(disk / "store"))
        driver = place.run(die_at=_first_cell(place))
        driver.wait()
        ballast = disk / "ballast"
        driver = place.run()
        place.wait_until(lambda: place.count("step", _cell_of(place)) > 0, driver, "a step")
        _fill(ballast, leave=rng.choice([0, 16_384]))
        place.wait_until(lambda: _says(driver, place), driver, "a failure")
        ballast.unlink()
        status = driver.wait()
        failed = set(place.store.failures())
        said = driver.said() + _causes(place)
        place.expect("No space left" in said, f"the cause is not told: {said}")
        place.expect(status in (0, 1, 3), f"status {status}: {driver.said()}")
        place.expect(bool(place.store.finished() - place.sources), "none of the others went on")
        place.expect_no_traceback(driver)
        if failed:
            place.say("retry")
        place.finish()
        return place.judge("full disk while publishing", 1)


def file_limit(shop: Workshop, rng: random.Random) -> Outcome:
    """No file may be longer than some kilobytes: notes can be written, weights cannot. Needs no root."""
    place = shop.place()
    driver = place.run(limits={resource.RLIMIT_FSIZE: rng.randrange(20_000, 60_000)})
    status = driver.wait()
    place.expect(status == 1, f"status {status}: {driver.said()}")
    place.expect("File too large" in driver.said(), f"the cause is not told: {driver.said()}")
    place.expect_no_traceback(driver)
    failures = place.store.failures()
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
        if place.store.failures():
            place.say("retry")
        place.finish()
        return place.judge("store becomes read-only", 1)


def _first_cell(place: Place) -> str:
    (source,) = place.sources
    return rf"os.rename /unfinished/(?!{source})[0-9a-f]+/began\.json$"


def _cell_of(place: Place) -> str | None:
    cells = [e.run_id for e in place.journal.events() if e.run_id not in place.sources]
    return cells[-1] if cells else "none yet"


def _says(driver: Driver, place: Place) -> bool:
    return "cannot be noted" in driver.err.read_text() or bool(place.store.failures())


def _causes(place: Place) -> str:
    return " ".join(failure.error for failure in place.store.failures().values())


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
