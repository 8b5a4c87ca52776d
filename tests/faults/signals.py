"""Signals to a driver, `kill -9` among them: at random moments, at exact instants, in every phase."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import termios
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from study.store.unfinished import list_unfinished
from study.training.steps import total_steps
from tests.faults import drivers
from tests.faults.drivers import Driver
from tests.faults.harness import CHECKPOINT_SECONDS, NEVER_DUE, Harness, Outcome, Scenario


def inline(harness: Harness, rng: random.Random) -> Outcome:
    scenario = harness.scenario(checkpoint_seconds=NEVER_DUE)
    caused = 0
    for number in rng.sample([signal.SIGINT, signal.SIGTERM], 2):
        caused += _interrupt(scenario, number, rng, on_ray=False)
    scenario.finish()
    expect_nothing_redone(scenario)
    return scenario.judge("SIGINT, SIGTERM to the driver", caused)


def on_ray(harness: Harness, rng: random.Random) -> Outcome:
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    caused = _interrupt(scenario, rng.choice([signal.SIGINT, signal.SIGTERM]), rng, on_ray=True)
    scenario.finish()
    expect_nothing_redone(scenario)
    return scenario.judge("SIGINT, SIGTERM to a driver on Ray", caused)


def _interrupt(
    scenario: Scenario, number: signal.Signals, rng: random.Random, *, on_ray: bool
) -> int:
    num_steps = scenario.count("step")
    driver = scenario.run(on_ray=on_ray)
    scenario.wait_until(lambda: scenario.count("step") > num_steps, driver, "a step")
    time.sleep(rng.uniform(0, 0.5))
    return end_politely(scenario, driver, number)


def end_politely(scenario: Scenario, driver: Driver, number: signal.Signals) -> int:
    """Sends the signal and expects what is promised of it; how often it counted."""
    if not driver.send(number):
        return 0
    status = driver.wait()
    if status == 0:
        return 0  # all was done before the signal counted
    scenario.expect(status == 3, f"{number.name}: status {status}: {driver.said()}")
    hint = f"study run {scenario.space}.py"
    scenario.expect(
        hint in driver.last_line(), f"the last line does not say how to go on: {driver.said()}"
    )
    scenario.expect_no_traceback(driver)
    for run_id, found in list_unfinished(scenario.store).items():
        scenario.expect("checkpoint" in found.files, f"{number.name}: {run_id} has no checkpoint")
    return 1


def expect_nothing_redone(scenario: Scenario) -> None:
    """What a signal ends has written where it stood."""
    reached: dict[str, int] = {}
    for each in scenario.journal.tries():
        before = reached.get(each.run_id, 0)
        scenario.expect(
            each.first_step == before, f"{each.run_id} went on at {each.first_step}, not {before}"
        )
        reached[each.run_id] = each.last_step


def second_ctrl_c(harness: Harness, rng: random.Random) -> Outcome:
    """It ends at once, without a checkpoint; nothing but the time since the last one is lost."""
    # Two in three tries are taken for one, or come too late: many moments, so that some are neither.
    scenario = harness.scenario(checkpoint_seconds=CHECKPOINT_SECONDS / 2)
    caused = 0
    while not caused:
        saved = scenario.count("saved")
        driver = scenario.run()
        scenario.wait_until(
            lambda saved=saved: scenario.count("saved") > saved, driver, "a checkpoint"
        )
        if driver.status() is not None:
            break
        begun = scenario.count("save")
        _two_at_once(driver.pid, rng)
        status = driver.wait()
        if status == 0:
            break  # all was done before the first counted
        scenario.expect(status == 3, f"status {status}: {driver.said()}")
        scenario.expect(
            "study run" in driver.last_line(), f"no word on how to go on: {driver.said()}"
        )
        scenario.expect_no_traceback(driver)
        # Else they were taken for one, or the first was honoured before the second came: once more.
        caused += scenario.count("save") == begun
    scenario.finish()
    return scenario.judge("a second SIGINT", caused)


def _two_at_once(pid: int, rng: random.Random) -> None:
    # Stopped in between, so that the first is less likely to be honoured before the second.
    for number in (signal.SIGSTOP, signal.SIGINT):
        os.kill(pid, number)
    os.kill(pid, signal.SIGCONT)
    time.sleep(rng.uniform(0.0005, 0.008))
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)


def hangup(harness: Harness, rng: random.Random) -> Outcome:
    """The terminal of the driver closes, as if an ssh connection is lost: output fails from then on."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    master, slave = os.openpty()
    os.set_blocking(master, False)
    how = {
        "stdin": slave,
        "stdout": slave,
        "stderr": slave,
        "start_new_session": True,
        "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    }
    driver = scenario.run("--inline", how=how)
    os.close(slave)

    def has_stepped() -> bool:
        with suppress(BlockingIOError):
            os.read(master, 1 << 16)  # a full terminal would block the driver
        return scenario.count("step") > 0

    scenario.wait_until(has_stepped, driver, "a step")
    os.close(master)
    status = driver.wait()
    scenario.expect(status == 3, f"status {status}")
    found = list_unfinished(scenario.store)
    kept = all("checkpoint" in each.files for each in found.values())
    scenario.expect(bool(found) and kept, f"without a checkpoint: {found}")
    _expect_released(scenario)
    scenario.finish()
    expect_nothing_redone(scenario)
    return scenario.judge("terminal closed", 1)


def hangup_nohup(harness: Harness, rng: random.Random) -> Outcome:
    """SIGHUP to a driver that was started by `nohup`, which lets it be ignored: it goes on."""
    scenario = harness.scenario()
    driver = scenario.run("--inline", how={"before": ["nohup"]})
    scenario.wait_until(lambda: scenario.count("step") > 0, driver, "a step")
    caused = driver.send(signal.SIGHUP)
    scenario.expect(driver.wait() == 0, f"status {driver.status()}: {driver.said()}")
    scenario.finish()
    return scenario.judge("SIGHUP to a driver under nohup", int(caused))


def warned(harness: Harness, rng: random.Random) -> Outcome:
    """Slurm's warnings and a limit of CPU time, each to another driver of one study."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    caused = 0
    for number in rng.sample([signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGHUP], 4):
        caused += _interrupt(scenario, number, rng, on_ray=False)
        _expect_released(scenario)
    scenario.finish()
    expect_nothing_redone(scenario)
    return scenario.judge("SIGUSR1, SIGUSR2, SIGXCPU, SIGHUP", caused)


def start_of_ray(harness: Harness, rng: random.Random) -> Outcome:
    """SIGINT while Ray starts, where a library may swallow the exception; then three SIGTERM."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    driver = scenario.run(on_ray=True)
    scenario.wait_until(lambda: "starting Ray" in driver.said(), driver, "the start of Ray")
    time.sleep(rng.uniform(0, 2))
    caused = end_politely(scenario, driver, signal.SIGINT)
    scenario.expect(caused == 1, f"SIGINT is lost while Ray starts: {driver.said()}")
    steps = scenario.count("step")
    driver = scenario.run(on_ray=True)
    scenario.wait_until(lambda: scenario.count("step") > steps, driver, "a step")
    caused += driver.send(signal.SIGTERM)
    for _ in range(2):
        time.sleep(0.2)
        driver.send(signal.SIGTERM)
    scenario.expect(driver.wait() in (0, 3), f"status {driver.status()}: {driver.said()}")
    scenario.expect_no_traceback(driver)
    scenario.finish()
    return scenario.judge("SIGINT while Ray starts, three SIGTERM", caused)


def report(harness: Harness, rng: random.Random) -> Outcome:
    """SIGTERM to `study report`: its analysis ends too, and publishes no page later."""
    scenario = harness.scenario()
    scenario.finish()
    driver = scenario.start("report", f"{scenario.space}.py", fresh=True)
    reports = scenario.folder / "reports"
    scenario.wait_until(lambda: list(reports.glob("*/.*.tmp")), driver, "a draft")
    caused = driver.send(signal.SIGTERM)
    said = driver.wait(), driver.said()
    scenario.expect(said[0] == 3 and "to go on: study report" in said[1], f"{said}")
    left = drivers.processes_of(scenario.folder)
    scenario.expect(not left, f"processes go on: {left}")
    files = [path for path in reports.rglob("*") if path.is_file()]
    scenario.expect(not files, f"files: {files}")
    scenario.expect_no_traceback(driver)
    return scenario.judge("SIGTERM to study report", int(caused))


def _expect_released(scenario: Scenario) -> None:
    """The next driver need not wait for a lease to expire."""
    leases = sorted((Path(scenario.root) / "lease").glob("*.json"))
    scenario.expect(leases[-1].read_text().strip() == "{}", f"not released: {leases[-1]}")


# What Python is about to do to a path when the process dies. A published object is written to a temporary
# file, flushed, renamed, and its folder is flushed.
INSTANTS: Final = {
    "open": "before a byte of it is written",
    "write": "while it is written",
    "os.rename": "written, not yet under its name",
    "folder": "under its name, the folder not flushed",
}
# In the order in which a study first publishes them, so that each is still to come when its turn is.
OBJECTS: Final = {
    "study": r"/studies/.*\.json",
    "began": r"/unfinished/[0-9a-f]{12}/\d{8}/began\.json",
    "checkpoint": r"/unfinished/[0-9a-f]{12}/\d{8}/checkpoint",
    "weights": r"/weights/[0-9a-f-]+\.safetensors",
    "rows": r"/rows/[0-9a-f]{12}\.arrow",
    "predictions": r"/predictions/[0-9a-f-]+\.arrow",  # of a cell, the source's are not kept
}
EVERY_INSTANT: Final = [(instant, kind) for kind in OBJECTS for instant in INSTANTS]


def random_moments(harness: Harness, rng: random.Random, *, times: int = 3) -> Outcome:
    """Moments by steps trained, which are the same on a machine of any pace."""
    scenario = harness.scenario()
    total = sum(total_steps(run.recipe, run.size) for run in scenario.runs.values())
    caused = 0
    for _ in range(times):
        done = scenario.count("step")
        wanted = done + rng.randint(0, max(0, round(0.6 * (total - done))))
        driver = scenario.run()
        scenario.wait_until(
            lambda wanted=wanted: scenario.count("step") >= wanted, driver, "a step"
        )
        time.sleep(rng.uniform(0, 0.1))
        caused += driver.kill()
    scenario.finish()
    return scenario.judge("driver killed at a random moment", caused)


def first_seconds(harness: Harness, rng: random.Random, *, times: int = 2) -> Outcome:
    """Of a command as a user starts it: imports, lease, listing, the first checkpoint."""
    scenario = harness.scenario()
    caused = 0
    for _ in range(times):
        driver = scenario.run(fresh=True)
        time.sleep(rng.uniform(0, 6.0))
        caused += driver.kill()
    for _ in range(times):
        driver = scenario.run()
        time.sleep(rng.uniform(0, 0.5))
        caused += driver.kill()
    scenario.finish()
    return scenario.judge("driver killed in its first seconds", caused)


def between_checkpoints(harness: Harness, rng: random.Random, *, times: int = 3) -> Outcome:
    scenario = harness.scenario()
    caused = 0
    for _ in range(times):
        driver = scenario.run()

        def has_gained(pid: int = driver.pid) -> bool:
            mine = (each for each in scenario.journal.tries() if each.pid == pid)
            return any(step > each.first_step for each in mine for _, step in each.saved)

        # Of a step that a driver without it would train once more: on a slow machine the first is of none.
        scenario.wait_until(has_gained, driver, "a checkpoint of a new step")
        time.sleep(rng.uniform(0, CHECKPOINT_SECONDS))
        caused += driver.kill()
    scenario.finish()
    return scenario.judge("driver killed between two checkpoints", caused)


def while_publishing(
    harness: Harness, rng: random.Random, *, instants: list[tuple[str, str]] | None = None
) -> Outcome:
    """At every instant of publishing every kind of object, one after another on one store."""
    scenario = harness.scenario()
    caused = 0
    for instant, kind in instants or EVERY_INSTANT:
        driver = scenario.run(die_at=die_at(instant, OBJECTS[kind], rng))
        status = driver.wait()
        scenario.expect(status == -9, f"{kind}, {instant}: status {status}: {driver.said()}")
        caused += status == -9
    scenario.finish()
    return scenario.judge("driver killed while publishing", caused)


def die_at(instant: str, path: str, rng: random.Random) -> str:
    """What the tracer is to be told, for the first object whose path fits."""
    folder, _, name = path.rpartition("/")
    temporary = rf"{folder}/\.[^/]*~{name}\.tmp$"
    if instant == "folder":
        return f"open {folder}$"
    if instant == "write":
        return f"open {temporary} {rng.randrange(10, 3000)}"
    if instant == "os.rename":
        return f"os.rename {path}$"
    return f"open {temporary}"


def after_a_source(harness: Harness, rng: random.Random) -> Outcome:
    """Neither published; its weights and not its rows; both and nothing tidied; a cell's rows next."""
    scenario = harness.scenario()
    (source,) = scenario.sources
    cell = rng.choice(sorted(scenario.runs.keys() - scenario.sources))
    caused = 0
    for wish in (
        rf"os.rename /weights/{source}-[0-9a-f]+\.safetensors$",
        rf"os.rename /rows/{source}\.arrow$",
        rf"os.rename /unfinished/(?!{source})[0-9a-f]+/\d+/began\.json$",
        rf"os.rename /rows/{cell}\.arrow$",
    ):
        driver = scenario.run(die_at=wish)
        status = driver.wait()
        scenario.expect(status == -9, f"{wish}: status {status}: {driver.said()}")
        caused += status == -9
    scenario.finish()
    return scenario.judge("driver killed when a source has finished", caused)
