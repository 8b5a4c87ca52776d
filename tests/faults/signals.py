"""Kill drivers at random steps and exact instants, and send them signals in every phase."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from study.store.layout import study_path
from study.store.unfinished import list_unfinished
from study.training.steps import total_steps
from tests.faults import drivers
from tests.faults.drivers import Driver
from tests.faults.harness import CHECKPOINT_SECONDS, NEVER_DUE, Harness, Outcome, Scenario

# HUP: the connection is lost. USR1, USR2: Slurm's warnings. XCPU: a limit of CPU time.
WARNINGS: Final = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP)
USUAL: Final = (signal.SIGINT, signal.SIGTERM)


def stopped(
    harness: Harness,
    rng: random.Random,
    *,
    numbers: Sequence[signal.Signals] = USUAL,
    on_ray: bool = False,
) -> Outcome:
    """Send each signal to another driver of one study; on Ray, only one of them."""
    space = "slow_source" if on_ray or numbers != USUAL else "tiny"
    scenario = harness.scenario(space, checkpoint_seconds=NEVER_DUE)
    caused = 0
    for number in rng.sample(numbers, 1 if on_ray else len(numbers)):
        driver = scenario.run(on_ray=on_ray)
        scenario.wait_for("step", driver)
        time.sleep(rng.uniform(0, 0.5))
        caused += end_politely(scenario, driver, number)
    scenario.finish()
    expect_nothing_redone(scenario)
    return scenario.judge(caused)


def end_politely(scenario: Scenario, driver: Driver, number: signal.Signals) -> int:
    """Send the signal, and check its guarantees; return 1 if the driver stopped for it."""
    if not driver.send(number):
        return 0
    if driver.wait() == 0:
        return 0  # the study was finished first
    scenario.expect_end(driver, 3)
    hint = f"study run {scenario.space}.py"
    scenario.expect(hint in driver.last_line(), f"{number.name}, last line: {driver.said()}")
    expect_checkpoints(scenario)
    return 1


def expect_checkpoints(scenario: Scenario) -> None:
    """Expect a checkpoint of each unfinished Run, and a released lease, so that nobody waits for it."""
    for run_id, found in list_unfinished(scenario.store).items():
        scenario.expect("checkpoint" in found.files, f"{run_id} has no checkpoint")
    leases = sorted((Path(scenario.root) / "lease").glob("*.json"))
    # Without a lease, the signal came before the driver took one.
    is_free = not leases or leases[-1].read_text().strip() == "{}"
    scenario.expect(is_free, f"not released: {leases[-1:]}")


def expect_nothing_redone(scenario: Scenario) -> None:
    """Expect each driver to continue at the step where a signal stopped the last one."""
    reached: dict[str, int] = {}
    for each in scenario.journal.tries():
        before = reached.get(each.run_id, 0)
        problem = f"{each.run_id} went on at {each.first_step}, not {before}"
        scenario.expect(each.first_step == before, problem)
        reached[each.run_id] = each.last_step


def second_ctrl_c(harness: Harness, rng: random.Random) -> Outcome:
    """End a driver at once by a second Ctrl-C, without a checkpoint."""
    scenario = harness.scenario(checkpoint_seconds=CHECKPOINT_SECONDS / 2)
    caused = 0
    # The system often merges two signals, or the driver stops before the second: try again.
    while not caused:
        driver = scenario.run()
        scenario.wait_for("saved", driver)
        if driver.status() is not None:
            break
        begun = scenario.count("save")
        _two_at_once(driver.pid, rng)
        if driver.wait() == 0:
            break
        scenario.expect_end(driver, 3)
        scenario.expect("study run" in driver.last_line(), f"last line: {driver.said()}")
        caused += scenario.count("save") == begun
    scenario.finish()
    return scenario.judge(caused)


def _two_at_once(pid: int, rng: random.Random) -> None:
    # A stopped process cannot stop for the first signal before the second comes.
    for number in (signal.SIGSTOP, signal.SIGINT, signal.SIGCONT):
        os.kill(pid, number)
    time.sleep(rng.uniform(0.0005, 0.008))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def hangup(harness: Harness, rng: random.Random) -> Outcome:
    """Close the driver's terminal, as if an ssh connection is lost: its output fails from then on."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    master, slave = os.openpty()
    os.set_blocking(master, False)
    popen = dict.fromkeys(("stdin", "stdout", "stderr"), slave) | {
        "start_new_session": True,
        "preexec_fn": lambda: (
            signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the harness may run under nohup
            fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        ),
    }
    driver = scenario.run(popen=popen)
    os.close(slave)

    def has_stepped() -> bool:
        with suppress(BlockingIOError):
            os.read(master, 1 << 16)  # a full terminal would block the driver
        return scenario.count("step") > 0

    driver.wait_until(has_stepped, "a step")
    os.close(master)
    scenario.expect_end(driver, 3)
    scenario.expect(list_unfinished(scenario.store), "no Run is unfinished")
    expect_checkpoints(scenario)
    scenario.finish()
    expect_nothing_redone(scenario)
    return scenario.judge()


def hangup_nohup(harness: Harness, rng: random.Random) -> Outcome:
    """Send SIGHUP to a driver that `nohup` started: it goes on."""
    scenario = harness.scenario()
    driver = scenario.run(popen={"before": ["nohup"]})
    scenario.wait_for("step", driver)
    caused = driver.send(signal.SIGHUP)
    scenario.expect_end(driver, 0)
    scenario.finish()
    return scenario.judge(int(caused))


def start_and_end_of_ray(harness: Harness, rng: random.Random) -> Outcome:
    """Send SIGINT while Ray starts, where a library may swallow it, and SIGTERM while Ray shuts down."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    driver = scenario.run(on_ray=True)
    driver.wait_until(lambda: "starting Ray" in driver.said(), "the start of Ray")
    time.sleep(rng.uniform(0, 2))
    caused = end_politely(scenario, driver, signal.SIGINT)
    if not caused:
        scenario.expect(False, f"SIGINT is lost while Ray starts: {driver.said()}")
        return scenario.judge()
    driver = scenario.run(on_ray=True)
    scenario.wait_for("step", driver)
    log = Path(f"/proc/{processes_named(scenario, 'raylet')[0]}/fd/1").readlink()
    caused += driver.send(signal.SIGTERM)
    # Ray's library sends this signal to its raylet while it shuts down.
    driver.wait_until(lambda: "received SIGTERM" in log.read_text(), "the shutdown")
    scenario.expect(driver.send(signal.SIGTERM), "the driver ended before its raylet")
    scenario.expect_end(driver, 0, 3)
    scenario.finish()
    return scenario.judge(caused)


def processes_named(scenario: Scenario, name: str) -> list[int]:
    """Return the scenario's processes whose program has this name."""
    pids = drivers.processes_of(scenario.folder)
    return [p for p in pids if Path(f"/proc/{p}/comm").read_text().strip() == name]


def report(harness: Harness, rng: random.Random) -> Outcome:
    """Send SIGTERM to `study report`: its analysis ends too, and publishes no page later."""
    scenario = harness.scenario()
    scenario.finish()
    driver = scenario.start("report", scenario.space_path.name, fresh=True)
    reports = scenario.folder / "reports"
    driver.wait_until(lambda: list(reports.glob("*/.*.tmp")), "a draft")
    caused = driver.send(signal.SIGTERM)
    scenario.expect_end(driver, 3, says="to go on: study report")
    left = drivers.processes_of(scenario.folder)
    scenario.expect(not left, f"processes go on: {left}")
    files = [path for path in reports.rglob("*") if path.is_file()]
    scenario.expect(not files, f"files: {files}")
    return scenario.judge(int(caused))


# Python's audited event on a path at which the process dies. A published object is written to a temporary
# file, flushed and renamed, and its folder is flushed.
INSTANTS: Final = {
    "open": "before its first byte is written",
    "write": "while it is written",
    "os.rename": "written, not yet under its name",
    "folder": "under its name, the folder not flushed",
}
# In the order in which a study publishes them.
OBJECTS: Final = {
    "study": r"/studies/.*\.json",
    "began": r"/unfinished/[0-9a-f]{12}/\d{8}/began\.json",
    "checkpoint": r"/unfinished/[0-9a-f]{12}/\d{8}/checkpoint",
    "weights": r"/weights/[0-9a-f-]+\.safetensors",
    "rows": r"/rows/[0-9a-f]{12}\.arrow",
    "predictions": r"/predictions/[0-9a-f-]+\.arrow",
}


def while_publishing(harness: Harness, rng: random.Random, *, num_instants: int = 2) -> Outcome:
    """Kill drivers of one store at several random instants of publishing each kind of object."""
    scenario = harness.scenario()
    caused = 0
    for path in OBJECTS.values():
        for instant in sorted(rng.sample(list(INSTANTS), num_instants), key=list(INSTANTS).index):
            if path == OBJECTS["study"]:
                # "write" may kill after the file has its name, and an equal study is not written again.
                Path(scenario.root, study_path(scenario.space)).unlink(missing_ok=True)
            caused += scenario.expect_killed(die_at=_die_at(instant, path, rng))
    scenario.finish()
    return scenario.judge(caused)


def _die_at(instant: str, path: str, rng: random.Random) -> str:
    folder, _, name = path.rpartition("/")
    temporary = rf"open {folder}/\.[^/]*~{name}\.tmp$"
    return {
        "open": temporary,
        "write": f"{temporary} {rng.randrange(10, 3000)}",
        "os.rename": f"os.rename {path}$",
        "folder": f"open {folder}$",
    }[instant]


def first_cell(scenario: Scenario) -> str:
    """Return the instant at which the training of the first cell begins."""
    (source,) = scenario.sources
    return rf"os.rename /unfinished/(?!{source})[0-9a-f]+/\d+/began\.json$"


def after_a_source(harness: Harness, rng: random.Random) -> Outcome:
    """Kill drivers before a source's weights, before its rows, before its cells, before a cell's rows."""
    scenario = harness.scenario()
    (source,) = scenario.sources
    caused = 0
    for instant in (
        rf"os.rename /weights/{source}-[0-9a-f]+\.safetensors$",
        rf"os.rename /rows/{source}\.arrow$",
        first_cell(scenario),
        rf"os.rename /rows/{rng.choice(scenario.cells)}\.arrow$",
    ):
        caused += scenario.expect_killed(die_at=instant)
    scenario.finish()
    return scenario.judge(caused)


def at_random_steps(harness: Harness, rng: random.Random, *, times: int = 3) -> Outcome:
    """Kill the driver after a random number of steps, which does not depend on the machine's speed."""
    scenario = harness.scenario()
    caused = sum(kill_at_random_step(scenario, rng) for _ in range(times))
    scenario.finish()
    return scenario.judge(caused)


def kill_at_random_step(scenario: Scenario, rng: random.Random, at_least: int = 0) -> int:
    """Kill a driver within the next 60 % of the steps; return 1 if it was still running."""
    total = sum(total_steps(run.recipe, run.size) for run in scenario.runs.values())
    wanted = rng.randint(at_least, max(at_least, round(0.6 * (total - scenario.count("step")))))
    driver = scenario.run()
    scenario.wait_for("step", driver, count=wanted)
    time.sleep(rng.uniform(0, 0.1))
    return int(driver.kill())


def first_seconds(harness: Harness, rng: random.Random, *, times: int = 2) -> Outcome:
    """Kill drivers while they import, take the lease, list the store and write their first checkpoint."""
    scenario = harness.scenario()
    caused = 0
    for seconds, fresh in [(6.0, True)] * times + [(0.5, False)] * times:
        driver = scenario.run(fresh=fresh)
        time.sleep(rng.uniform(0, seconds))
        caused += driver.kill()
    scenario.finish()
    return scenario.judge(caused)


def between_checkpoints(harness: Harness, rng: random.Random, *, times: int = 3) -> Outcome:
    """Kill the driver after it has saved steps of its own: a first checkpoint may hold none."""
    scenario = harness.scenario()
    caused = 0
    for _ in range(times):
        driver = scenario.run()

        def has_gained(pid: int = driver.pid) -> bool:
            mine = (each for each in scenario.journal.tries() if each.pid == pid)
            return any(step > each.first_step for each in mine for _, step in each.saved)

        driver.wait_until(has_gained, "a checkpoint of a new step")
        time.sleep(rng.uniform(0, CHECKPOINT_SECONDS))
        caused += driver.kill()
    scenario.finish()
    return scenario.judge(caused)
