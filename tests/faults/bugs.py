"""A deterministic bug in one Run: bounded tries, "failed" with its text, `study retry` takes it up."""

from __future__ import annotations

import os
import random
import resource
import signal
from contextlib import suppress

from study.launching.queue import MAX_TRIES
from study.store import finished_ids, read_failures, read_rows
from study.store.schema import DIVERGED
from tests.faults.harness import Harness, Outcome, Scenario

# Enough for the small Runs by far: what runs short is one large tensor, not the interpreter.
ROOM_BYTES = 1000 * 2**20


def out_of_memory(harness: Harness, rng: random.Random) -> Outcome:
    """One Run needs more memory than its process may have. Another diverges: data, no failure."""
    scenario = harness.scenario("with_bugs")
    driver = scenario.run(limits={resource.RLIMIT_DATA: ROOM_BYTES})
    status = driver.wait()
    (big,) = (run_id for run_id, run in scenario.runs.items() if run.width == 256)
    (wild,) = (run_id for run_id, run in scenario.runs.items() if run.recipe.learning_rate == 1e30)
    scenario.expect(status == 1, f"status {status}: {driver.said()}")
    _expect_given_up(scenario, big, driver.said(), "memory")
    scenario.expect(
        finished_ids(scenario.store) == scenario.runs.keys() - {big}, "the others did not go on"
    )
    outcomes = set(read_rows(scenario.store, wild).table["outcome"].to_pylist())
    scenario.expect(outcomes == {DIVERGED}, f"not finite at once: {outcomes}")
    num_steps = scenario.count("step")
    again = scenario.run()
    scenario.expect(
        again.wait() == 1 and scenario.count("step") == num_steps, "tried without being asked"
    )
    scenario.say("retry")
    scenario.finish()
    return scenario.judge("a Run out of memory, one diverging", 1)


def worker_always_lost(harness: Harness, rng: random.Random) -> Outcome:
    """Of one Run, every worker is killed when it begins: as the kernel does when memory is short."""
    scenario = harness.scenario()
    (source,) = scenario.sources
    cursed = rng.choice(sorted(scenario.runs.keys() - {source}))
    driver = scenario.run(on_ray=True)
    killed: set[int] = set()

    def is_over() -> bool:
        for event in scenario.journal.events():
            if event.kind == "begin" and event.run_id == cursed and event.pid not in killed:
                killed.add(event.pid)
                with suppress(ProcessLookupError):
                    os.kill(event.pid, signal.SIGKILL)
        return driver.status() is not None

    scenario.wait_until(is_over, driver, "the end", seconds=300)
    scenario.expect(driver.status() == 1, f"status {driver.status()}: {driver.said()}")
    scenario.expect(len(killed) <= MAX_TRIES, f"{len(killed)} tries")
    _expect_given_up(scenario, cursed, driver.said(), "lost")
    scenario.expect(
        finished_ids(scenario.store) == scenario.runs.keys() - {cursed}, "the others did not go on"
    )
    scenario.say("retry")
    scenario.finish()
    return scenario.judge("a Run whose worker always dies", len(killed))


def _expect_given_up(scenario: Scenario, run_id: str, said: str, word: str) -> None:
    failure = read_failures(scenario.store).get(run_id)
    scenario.expect(
        failure is not None
        and failure.final
        and failure.tries == MAX_TRIES
        and word in failure.error.lower(),
        f"failure noted of {run_id}: {failure}",
    )
    scenario.expect(run_id in said, f"{run_id} is not named: {said}")
    scenario.expect("Traceback" not in said, f"a traceback: {said}")
    told = scenario.say("status")
    scenario.expect(
        run_id in told and word in told.lower(), f"`study status` does not tell: {told}"
    )
