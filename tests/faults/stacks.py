"""Seeds that are trained as one network: killed, joined by further seeds, and rows of one lost."""

from __future__ import annotations

import random
from collections.abc import Iterable

from study.store import rows_path
from tests.faults import studies
from tests.faults.harness import Harness, Outcome, Scenario


def killed(harness: Harness, rng: random.Random, *, times: int = 2) -> Outcome:
    """Kill the driver at random steps."""
    scenario = harness.scenario("stacked")
    caused = _kill(scenario, rng, times)
    scenario.finish()
    return _judged(scenario, "driver killed while seeds are trained together", caused)


def extended(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the driver of a study with fewer seeds, then train all seeds."""
    scenario = harness.scenario("stacked")
    path = scenario.folder / "stacked.py"
    whole = path.read_text()
    path.write_text(whole.replace(studies.SEEDS, "seed=(1,)"))
    caused = _kill(scenario, rng, 1)
    path.write_text(whole)
    scenario.finish()
    return _judged(scenario, "seeds added to seeds in training", caused)


def one_lost(harness: Harness, rng: random.Random) -> Outcome:
    """Delete the rows of one source and of one cell of a finished study."""
    scenario = harness.scenario("stacked")
    scenario.finish()
    cells = scenario.runs.keys() - scenario.sources
    lost = [rng.choice(sorted(scenario.sources)), rng.choice(sorted(cells))]
    for run_id in lost:
        scenario.store.remove(rows_path(run_id))
    scenario.finish()
    return _judged(scenario, "rows of one of the seeds lost", len(lost), lost)


def _kill(scenario: Scenario, rng: random.Random, times: int) -> int:
    caused = 0
    for _ in range(times):
        wanted = scenario.count("step") + rng.randint(20, 120)
        driver = scenario.run()
        scenario.wait_until(
            lambda wanted=wanted: scenario.count("step") >= wanted, driver, "a step"
        )
        caused += driver.kill()
    return caused


def _judged(scenario: Scenario, fault: str, times: int, redone: Iterable[str] = ()) -> Outcome:
    # The journal takes a checkpoint for done once one seed's is written; the next waits for all of them.
    return scenario.judge(fault, times, may_be_redone=redone, may_be_late=True)
