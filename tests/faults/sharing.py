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
from typing import Final

from study.launching.lease import RELEASED, SECONDS_BETWEEN_QUESTIONS
from study.store import finished_ids, layout
from study.store.processes import this_process
from tests.faults import drivers, studies
from tests.faults.drivers import Driver
from tests.faults.harness import Harness, Outcome, Scenario, Skipped

USERS = (21001, 21002)
GROUP = 21000


def shared_users(harness: Harness, rng: random.Random) -> Outcome:
    """Two users with umask 002 in a folder with sticky bits; one file of the first is unreadable."""
    if os.getuid():
        raise Skipped("becoming two users needs root")
    how = [
        {
            "user": user,
            "group": GROUP,
            "extra_groups": [],
            "umask": 0o002,
            "start_new_session": True,
        }
        for user in USERS
    ]
    tried = subprocess.run([sys.executable, "-c", "import torch"], **how[0], capture_output=True)
    if tried.returncode:
        raise Skipped("another user cannot run this Python")
    scenario = harness.scenario()
    with tempfile.TemporaryDirectory(prefix="freezewise-shared-") as place:
        scenario.variables |= {"HOME": place, "TMPDIR": place, "MPLCONFIGDIR": place}
        scenario.folder, scenario.root = Path(place), f"{place}/store"
        for folder in ("", "rows", "lease", "studies", "unfinished", "weights", "predictions"):
            path = Path(scenario.root, folder)
            path.mkdir()
            os.chown(path, -1, GROUP)
            path.chmod(0o3775)
        Path(place).chmod(0o1777)
        scenario.fill()
        texts = {f"{scenario.space}.py": studies.TEXTS[scenario.space], "journal": ""}
        for name, text in texts.items():
            Path(place, name).write_text(text)
            Path(place, name).chmod(0o666)
        scenario.journal.path = Path(place, "journal")
        (source,) = scenario.sources
        first = scenario.run("--inline", "--only", "frozen=0", how=how[0])
        scenario.expect(first.wait() == 0, f"first user: {first.said()}")
        cell = rng.choice(sorted(finished_ids(scenario.store) - {source}))
        unreadable = Path(scenario.root, layout.rows_path(cell))
        unreadable.chmod(0o600)
        second = scenario.run("--inline", how=how[1])
        scenario.expect(second.wait() == 1, f"second user: {second.status()}: {second.said()}")
        scenario.expect(finished_ids(scenario.store) == scenario.runs.keys(), second.said())
        verify = scenario.start("verify", "--all", how=how[1])
        scenario.expect(verify.wait() == 1, f"verify: {verify.said()}")
        for driver in (second, verify):
            scenario.expect(f"{cell}.arrow cannot be read" in driver.said(), driver.said())
            scenario.expect_no_traceback(driver)
        unreadable.chmod(0o664)
        scenario.finish("--inline", how=how[1])
        scenario.expect(scenario.start("tidy", how=how[1]).wait() == 0, scenario.started[-1].said())
        return scenario.judge("two users, one store", 1)


def lease_unremovable(harness: Harness, rng: random.Random) -> Outcome:
    """An old lease that cannot be removed locks nobody out."""
    return _with_leases(
        harness,
        "lease that cannot be removed",
        lambda folder: (
            (folder / "00000001.json" / "x").mkdir(parents=True),
            (folder / "00000002.json").write_bytes(RELEASED),
        ),
    )


def lease_last_number(harness: Harness, rng: random.Random) -> Outcome:
    """The highest number of eight digits, and names that look like numbers."""
    return _with_leases(
        harness,
        "lease with the last number",
        lambda folder: [
            (folder / f"{name}.json").write_bytes(RELEASED) for name in ("99999999", "000000123")
        ],
    )


def lease_nested(harness: Harness, rng: random.Random) -> Outcome:
    """Leases that are no leases: deeply nested, with a NUL, a process that never lived."""
    process = vars(this_process()) | {"pid": "\0"}
    owner = json.dumps({"process": process, "since": "x", "token": "x"})
    contents = ("[" * 100_000, owner, owner.replace('"\\u0000"', "[]"))
    return _with_leases(
        harness,
        "lease that is nested",
        lambda folder: (folder / "00000001.json").write_text(rng.choice(contents)),
    )


def _with_leases(harness: Harness, fault: str, make: Callable[[Path], object]) -> Outcome:
    scenario = harness.scenario()
    folder = Path(scenario.root, layout.LEASE)
    folder.mkdir()
    make(folder)
    driver = scenario.run()
    status = driver.wait(60)  # seconds without progress; an unreadable lease is watched for 20 s
    scenario.expect(status == 0, f"status {status}: {driver.said()}")
    scenario.expect_no_traceback(driver)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    scenario.finish()
    return scenario.judge(fault, 1)


def case_folding(harness: Harness, rng: random.Random) -> Outcome:
    """A study whose name differs only in case, which exFAT and macOS would store in the same file."""
    scenario = harness.scenario()
    scenario.finish()
    before = Path(scenario.root, "studies", f"{scenario.space}.json").read_bytes()
    other = f"{scenario.space.capitalize()}.py"
    shutil.copy(scenario.folder / f"{scenario.space}.py", scenario.folder / other)
    for verb in ("run", "register"):
        flags = ["--inline"] if verb == "run" else []
        driver = scenario.start(verb, other, *flags)
        scenario.expect(driver.wait() == 2, f"{verb}: {driver.status()}: {driver.said()}")
        scenario.expect("differs only in upper and lower case" in driver.said(), driver.said())
    after = Path(scenario.root, "studies", f"{scenario.space}.json").read_bytes()
    scenario.expect(before == after, "the study was replaced")
    return scenario.judge("names that differ in case", 1)


HOLD = (
    "from study.launching import temporary_files as files\n"
    "with files.temporary_folder(files.TUNE_PREFIX) as folder:\n"
    "    print(folder, flush=True)\n"
    "    input()\n"
)


def tidy_other_namespace(harness: Harness, rng: random.Random) -> Outcome:
    """`study tidy` in a container that shares /tmp: numbers of processes mean nothing there."""
    enter = ["unshare", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*enter, "true"], capture_output=True).returncode:
        raise Skipped("a PID namespace needs root")
    scenario = harness.scenario()
    scenario.finish()
    shared = scenario.folder / "shared"
    shared.mkdir()
    scenario.variables |= {"TMPDIR": str(shared)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        env=drivers.environment() | scenario.variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())
    try:
        for is_held in (True, False):
            if not is_held:
                holder.kill()
                holder.wait()
            tidy = scenario.start("tidy", how={"before": enter})
            scenario.expect(tidy.wait() == 0, tidy.said())
            scenario.expect(folder.exists() == is_held, f"in use: {is_held}: {tidy.said()}")
    finally:
        holder.kill()
        holder.wait()
    return scenario.judge("tidy in another namespace", 1)


# The one in which it fell asleep, and the one after which it asks.
MOST_STEPS_AWAKE: Final = 2


def in_a_directory(harness: Harness, rng: random.Random) -> Outcome:
    """One trains, the other is told who does; when the one is killed, the other may at once."""
    scenario = harness.scenario()
    first, second = scenario.run(), scenario.run()
    scenario.wait_until(
        lambda: None not in (first.status(), second.status()), first, "one is refused"
    )
    trains, refused = (second, first) if first.status() == 2 else (first, second)
    # The study may have ended in the meantime, then the second found nothing to do.
    status = refused.wait()
    scenario.expect(status == 2, f"the second one ended with {status}: {refused.said()}")
    scenario.expect(
        f"process {trains.pid}" in refused.said(), f"not told by whom: {refused.said()}"
    )
    scenario.expect_no_traceback(refused)
    time.sleep(rng.uniform(0, 1))
    trains.kill()
    scenario.finish()
    return scenario.judge("two drivers, one directory", 1)


def lease_lost(harness: Harness, rng: random.Random) -> Outcome:
    """One sleeps while another takes over, as one elsewhere may, gets further, and is killed.

    When the first one wakes, it asks and ends within a step or two; what it still writes lies beside what
    the other wrote, which the third one goes on from. The lease of the sleeping one is marked as released:
    here its process would be seen. So it need not expire, but no sleeper is passed over before it may ask.
    """
    scenario = harness.scenario("slow_source")
    (source,) = scenario.sources
    sleeper = scenario.run()
    scenario.wait_until(lambda: scenario.count("saved", source) > 0, sleeper, "a checkpoint")
    asleep = sleeper.send(signal.SIGSTOP)
    asleep_at = time.monotonic()
    (lease,) = (Path(scenario.root) / layout.LEASE).glob("*.json")
    lease.write_bytes(b"{}\n")
    began = list((Path(scenario.root) / "unfinished").glob("*/*/began.json"))
    for note in began:  # or the other one waits for its trial to end
        note.unlink()
    saved = scenario.count("saved", source)
    other = scenario.run()
    scenario.wait_until(
        lambda: scenario.count("saved", source) > saved + 1, other, "two checkpoints"
    )
    caused = int(asleep and other.kill())
    time.sleep(max(0.0, asleep_at + SECONDS_BETWEEN_QUESTIONS - time.monotonic()))
    num_steps = _num_steps(scenario, sleeper)
    os.kill(sleeper.pid, signal.SIGCONT)
    status = sleeper.wait()
    more = _num_steps(scenario, sleeper) - num_steps
    scenario.expect(more <= MOST_STEPS_AWAKE, f"the sleeper trained {more} steps once awake")
    scenario.expect(status != 0, f"the sleeper ended with {status}: {sleeper.said()}")
    scenario.expect("taken over" in sleeper.said(), f"it does not say why: {sleeper.said()}")
    scenario.expect_no_traceback(sleeper)
    scenario.finish()
    return scenario.judge("driver passed over while it slept", caused, overlaps={sleeper.pid})


def _num_steps(scenario: Scenario, driver: Driver) -> int:
    return sum(e.kind == "step" and e.pid == driver.pid for e in scenario.journal.events())
