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
from tests.faults.places import Outcome, Place, Workshop

# Enough for the small Runs by far: what runs short is one large tensor, not the interpreter.
ROOM_BYTES = 1000 * 2**20


def out_of_memory(shop: Workshop, rng: random.Random) -> Outcome:
    """One Run needs more memory than its process may have. Another diverges: data, no failure."""
    place = shop.place("with_bugs")
    driver = place.run(limits={resource.RLIMIT_DATA: ROOM_BYTES})
    status = driver.wait()
    (big,) = (run_id for run_id, run in place.runs.items() if run.width == 256)
    (wild,) = (run_id for run_id, run in place.runs.items() if run.recipe.learning_rate == 1e30)
    place.expect(status == 1, f"status {status}: {driver.said()}")
    _expect_given_up(place, big, driver.said(), "memory")
    place.expect(finished_ids(place.store) == place.runs.keys() - {big}, "the others did not go on")
    outcomes = set(read_rows(place.store, wild).table["outcome"].to_pylist())
    place.expect(outcomes == {DIVERGED}, f"not finite at once: {outcomes}")
    num_steps = place.count("step")
    again = place.run()
    place.expect(
        again.wait() == 1 and place.count("step") == num_steps, "tried without being asked"
    )
    place.say("retry")
    place.finish()
    return place.judge("a Run out of memory, one diverging", 1)


def worker_always_lost(shop: Workshop, rng: random.Random) -> Outcome:
    """Of one Run, every worker is killed when it begins: as the kernel does when memory is short."""
    place = shop.place()
    (source,) = place.sources
    cursed = rng.choice(sorted(place.runs.keys() - {source}))
    driver = place.run(on_ray=True)
    killed: set[int] = set()

    def is_over() -> bool:
        for event in place.journal.events():
            if event.kind == "begin" and event.run_id == cursed and event.pid not in killed:
                killed.add(event.pid)
                with suppress(ProcessLookupError):
                    os.kill(event.pid, signal.SIGKILL)
        return driver.status() is not None

    place.wait_until(is_over, driver, "the end", seconds=300)
    place.expect(driver.status() == 1, f"status {driver.status()}: {driver.said()}")
    place.expect(len(killed) <= MAX_TRIES, f"{len(killed)} tries")
    _expect_given_up(place, cursed, driver.said(), "lost")
    place.expect(
        finished_ids(place.store) == place.runs.keys() - {cursed}, "the others did not go on"
    )
    place.say("retry")
    place.finish()
    return place.judge("a Run whose worker always dies", len(killed))


def _expect_given_up(place: Place, run_id: str, said: str, word: str) -> None:
    failure = read_failures(place.store).get(run_id)
    place.expect(
        failure is not None
        and failure.final
        and failure.tries == MAX_TRIES
        and word in failure.error.lower(),
        f"failure noted of {run_id}: {failure}",
    )
    place.expect(run_id in said, f"{run_id} is not named: {said}")
    place.expect("Traceback" not in said, f"a traceback: {said}")
    told = place.say("status")
    place.expect(run_id in told and word in told.lower(), f"`study status` does not tell: {told}")
