"""Several users, drivers or containers on one store, and odd files in `lease/`."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from study.launching.lease import RELEASED, SECONDS_BETWEEN_QUESTIONS
from study.store import finished_ids, layout
from study.store.processes import this_process
from tests.faults import drivers, studies
from tests.faults.drivers import Driver
from tests.faults.harness import Harness, Outcome, Scenario, Skipped
from tests.faults.storage import exfat_disk

USERS: Final = (21001, 21002)
GROUP: Final = 21000


def shared_users(harness: Harness, rng: random.Random) -> Outcome:
    """Two users with umask 002 in a folder with sticky bits; one file of the first is unreadable."""
    if os.getuid():
        raise Skipped("becoming two users needs root")
    plain = {"group": GROUP, "extra_groups": [], "umask": 0o002, "start_new_session": True}
    one, two = ({**plain, "user": user} for user in USERS)
    try:
        command = [sys.executable, "-c", "import torch"]
        subprocess.run(command, check=True, capture_output=True, **one)
    except (PermissionError, subprocess.CalledProcessError) as error:
        raise Skipped("another user cannot run this Python") from error
    scenario = harness.scenario()
    with tempfile.TemporaryDirectory(prefix="freezewise-shared-") as place:
        _move(scenario, Path(place))
        scenario.expect_end(scenario.run("--inline", "--only", "frozen=0", popen=one), 0)
        cell = rng.choice(sorted(finished_ids(scenario.store) - scenario.sources))
        unreadable = Path(scenario.root, layout.rows_path(cell))
        unreadable.chmod(0o600)
        says = f"{cell}.arrow cannot be read"
        scenario.expect_end(scenario.run(popen=two), 1, says=says)
        scenario.expect(
            finished_ids(scenario.store) == scenario.runs.keys(), "not all are finished"
        )
        scenario.expect_end(scenario.start("verify", "--all", popen=two), 1, says=says)
        unreadable.chmod(0o664)
        scenario.finish(popen=two)
        scenario.expect_end(scenario.start("tidy", popen=two), 0)
        return scenario.judge()


def _move(scenario: Scenario, place: Path) -> None:
    """Move a scenario to a folder that several users share."""
    scenario.variables |= dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), str(place))
    scenario.folder, scenario.root = place, f"{place}/store"
    for folder in ("", "rows", "lease", "studies", "unfinished", "weights", "predictions"):
        path = Path(scenario.root, folder)
        path.mkdir()
        os.chown(path, -1, GROUP)
        path.chmod(0o3775)
    place.chmod(0o1777)
    scenario.fill()
    scenario.journal.path = place / "journal"
    for path, text in (
        (scenario.space_path, studies.TEXTS[scenario.space]),
        (scenario.journal.path, ""),
    ):
        path.write_text(text)
        path.chmod(0o666)


def unremovable(folder: Path, rng: random.Random) -> None:
    """Make an old lease that cannot be removed."""
    (folder / "00000001.json" / "x").mkdir(parents=True)
    (folder / "00000002.json").write_bytes(RELEASED)


def last_number(folder: Path, rng: random.Random) -> None:
    """Make a lease with the highest number of eight digits, and a name that looks like a number."""
    for name in ("99999999", "000000123"):
        (folder / f"{name}.json").write_bytes(RELEASED)


def nested(folder: Path, rng: random.Random) -> None:
    """Make an invalid lease: deeply nested, with a NUL, or of a process that cannot exist."""
    process = vars(this_process()) | {"pid": "\0"}
    owner = json.dumps({"process": process, "since": "x", "token": "x"})
    contents = ["[" * 100_000, owner, owner.replace('"\\u0000"', "[]")]
    (folder / "00000001.json").write_text(rng.choice(contents))


def odd_lease(
    harness: Harness, rng: random.Random, *, make: Callable[[Path, random.Random], None]
) -> Outcome:
    """Run a study in a store with an odd file in `lease/`."""
    scenario = harness.scenario()
    folder = Path(scenario.root, layout.LEASE)
    folder.mkdir()
    make(folder, rng)
    # Seconds without progress; a driver watches an unreadable lease for 20 s.
    scenario.expect_end(scenario.run(), 0, seconds=60)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    scenario.finish()
    return scenario.judge()


def case_folding(harness: Harness, rng: random.Random) -> Outcome:
    """A study whose name differs only in case, on an exFAT disk, which has one file for both."""
    with exfat_disk(harness) as disk:
        scenario = harness.scenario(root=str(disk / "store"))
        scenario.finish()
        other = f"{scenario.space.capitalize()}.py"
        stored = Path(scenario.root, "studies", f"{scenario.space}.json")
        assert stored.with_stem(scenario.space.capitalize()).exists(), "the disk heeds the case"
        before = stored.read_bytes()
        shutil.copy(scenario.space_path, scenario.folder / other)
        for words in (["run", other, "--inline"], ["register", other]):
            driver = scenario.start(*words)
            scenario.expect_end(driver, 2, says="differs only in upper and lower case")
        scenario.expect(before == stored.read_bytes(), "the study was replaced")
        return scenario.judge()


HOLD: Final = (
    "from study.launching import temporary_files as files\n"
    "with files.temporary_folder(files.TUNE_PREFIX) as folder:\n"
    "    print(folder, flush=True)\n"
    "    input()\n"
)


def tidy_other_namespace(harness: Harness, rng: random.Random) -> Outcome:
    """Run `study tidy` in a container that shares /tmp, where process ids have another meaning."""
    enter = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        raise Skipped("a PID namespace needs root")
    scenario = harness.scenario()
    scenario.finish()
    shared = scenario.folder / "shared"
    shared.mkdir()
    scenario.variables |= {"TMPDIR": str(shared)}
    environment = drivers.environment() | scenario.variables
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", HOLD], env=environment, **pipes)
    assert holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())
    try:
        for is_held in (True, False):
            if not is_held:
                holder.kill()
                holder.wait()
            tidy = scenario.start("tidy", popen={"before": enter})
            scenario.expect_end(tidy, 0)
            scenario.expect(folder.exists() == is_held, f"in use: {is_held}: {tidy.said()}")
    finally:
        holder.kill()
        holder.wait()
    return scenario.judge()


def two_drivers(harness: Harness, rng: random.Random) -> Outcome:
    """One trains, and the other ends and names it; when the first is killed, another may go on at once."""
    scenario = harness.scenario()
    both = scenario.run(), scenario.run()
    both[0].wait_until(
        lambda: any(driver.status() is not None for driver in both), "the end of one"
    )
    trains, rejected = both if both[1].status() == 2 else both[::-1]
    scenario.expect_end(rejected, 2, says=f"process {trains.pid}")
    time.sleep(rng.uniform(0, 1))
    trains.kill()
    scenario.finish()
    return scenario.judge()


# The step in which it fell asleep, and the one after which it checks its lease.
MOST_STEPS_AWAKE: Final = 2


def lease_lost(harness: Harness, rng: random.Random) -> Outcome:
    """One driver sleeps; another takes over, gets further and is killed; then the first one wakes up.

    The first one ends within a step or two, and its files do not replace those of the other, from which
    a third driver continues. Its process can be seen, so its lease is marked as released by hand; but no
    driver is replaced before it may check its lease again.
    """
    scenario = harness.scenario("slow_source")
    (source,) = scenario.sources
    sleeper = scenario.run()
    scenario.wait_for("saved", sleeper, source)
    asleep = sleeper.send(signal.SIGSTOP)
    asleep_at = time.monotonic()
    (lease,) = (Path(scenario.root) / layout.LEASE).glob("*.json")
    lease.write_bytes(RELEASED)
    for note in list((Path(scenario.root) / "unfinished").glob("*/*/began.json")):
        note.unlink()  # else the other driver waits for the end of its trial
    other = scenario.run()
    scenario.wait_for("saved", other, source, count=2)
    caused = int(asleep and other.kill())
    time.sleep(max(0.0, asleep_at + SECONDS_BETWEEN_QUESTIONS - time.monotonic()))
    num_steps = _num_steps(scenario, sleeper)
    os.kill(sleeper.pid, signal.SIGCONT)
    scenario.expect_end(sleeper, 1, 2, 3, says="taken over")
    more = _num_steps(scenario, sleeper) - num_steps
    scenario.expect(more <= MOST_STEPS_AWAKE, f"the sleeper trained {more} steps once awake")
    scenario.finish()
    return scenario.judge(caused, overlaps={sleeper.pid})


def _num_steps(scenario: Scenario, driver: Driver) -> int:
    return sum(e.kind == "step" and e.pid == driver.pid for e in scenario.journal.events())
