"""SIGINT and SIGTERM to a driver, with Ray and without: a checkpoint, status 3, how to go on."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from study.store.unfinished import list_unfinished
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
