"""`kill -9` of a driver without Ray, at random moments and at exact instants."""

from __future__ import annotations

import random
import time
from typing import Final

from study.training.steps import total_steps
from tests.faults.harness import CHECKPOINT_SECONDS, Harness, Outcome

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
