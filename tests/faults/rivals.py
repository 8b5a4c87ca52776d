"""Two drivers on one study at once."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Final

from study.launching.lease import SECONDS_BETWEEN_QUESTIONS
from study.store import layout
from tests.faults.drivers import Driver
from tests.faults.harness import Harness, Outcome, Scenario

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
