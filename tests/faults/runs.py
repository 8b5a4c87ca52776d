"""Runs that fail, diverge, are many or are trained together; changed code."""

from __future__ import annotations

import random
import resource
import shutil
from collections import defaultdict

from study.launching.queue import MAX_TRIES
from study.store import finished_ids, read_failures, read_head, read_rows, rows_path
from study.store.provenance import TRAINER
from study.store.schema import DIVERGED
from tests.faults import drivers, studies
from tests.faults.drivers import PROJECT
from tests.faults.harness import Harness, Outcome, Scenario
from tests.faults.signals import first_cell, kill_at_random_step

# Enough for the small Runs: only one large tensor does not fit.
ROOM_BYTES = 1000 * 2**20


def out_of_memory(harness: Harness, rng: random.Random) -> Outcome:
    """One Run needs more memory than its process may have; another diverges, which is no failure."""
    scenario = harness.scenario("with_bugs")
    driver = scenario.run(limits={resource.RLIMIT_DATA: ROOM_BYTES})
    (big,) = (run_id for run_id, run in scenario.runs.items() if run.width == 256)
    (wild,) = (run_id for run_id, run in scenario.runs.items() if run.recipe.learning_rate == 1e30)
    scenario.expect_end(driver, 1)
    expect_given_up(scenario, big, driver.said(), "memory")
    outcomes = set(read_rows(scenario.store, wild).table["outcome"].to_pylist())
    scenario.expect(outcomes == {DIVERGED}, f"outcomes of the diverging Run: {outcomes}")
    num_steps = scenario.count("step")
    scenario.expect_end(scenario.run(), 1)
    scenario.expect(scenario.count("step") == num_steps, "trained again without `study retry`")
    scenario.say("retry")
    scenario.finish()
    return scenario.judge()


def worker_always_lost(harness: Harness, rng: random.Random) -> Outcome:
    """Kill every worker that begins one of the Runs, as the kernel does when memory is short."""
    scenario = harness.scenario()
    cursed = rng.choice(scenario.cells)
    driver = scenario.run(on_ray=True)
    killed: set[int] = set()

    def is_over() -> bool:
        begun = {
            e.pid for e in scenario.journal.events() if (e.kind, e.run_id) == ("begin", cursed)
        }
        for pid in begun - killed:
            drivers.kill(pid)
        killed.update(begun)
        return driver.status() is not None

    driver.wait_until(is_over, "the end")
    scenario.expect_end(driver, 1)
    scenario.expect(len(killed) <= MAX_TRIES, f"{len(killed)} tries")
    expect_given_up(scenario, cursed, driver.said(), "lost")
    scenario.say("retry")
    scenario.finish()
    return scenario.judge(len(killed))


def expect_given_up(scenario: Scenario, run_id: str, said: str, cause: str) -> None:
    """Expect that the store, the driver and `study status` name a failed Run, and others go on."""
    failure = read_failures(scenario.store).get(run_id)
    is_noted = failure is not None and failure.final and failure.tries == MAX_TRIES
    scenario.expect(is_noted and cause in failure.error.lower(), f"failure of {run_id}: {failure}")
    scenario.expect(run_id in said, f"{run_id} is not named: {said}")
    status = scenario.say("status")
    scenario.expect(run_id in status and cause in status.lower(), f"`study status`: {status}")
    others = scenario.runs.keys() - {run_id}
    scenario.expect(finished_ids(scenario.store) == others, "the other Runs did not finish")


def changed_code(harness: Harness, rng: random.Random) -> Outcome:
    """Continue a study with another version of the code: rows, `study status` and report name both."""
    scenario = harness.scenario()
    copy = scenario.folder / "code"
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("study", "search_spaces", "analysis"):
        shutil.copytree(PROJECT / package, copy / package, ignore=ignored)
    scenario.expect_killed(fresh=True, project=copy, die_at=first_cell(scenario))
    module = copy / "study" / "store" / "provenance.py"
    before, after = (f"\nTRAINER: Final = {number}" for number in (TRAINER, TRAINER + 1))
    text = module.read_text()
    assert before in text
    module.write_text(text.replace(before, after))
    with (copy / "study" / "training" / "loop.py").open("a") as loop:
        loop.write("\n# A remark.\n")
    page = scenario.finish_with_page(project=copy)
    status = scenario.say("status")
    scenario.expect("2 versions of the code" in status, f"`study status`: {status}")
    made_by = [read_head(scenario.store, run_id).provenance for run_id in scenario.runs]
    trainers = {each.trainer for each in made_by}
    scenario.expect(trainers == {TRAINER, TRAINER + 1}, f"trainers in the rows: {trainers}")
    versions = {each.code_version for each in made_by}
    scenario.expect(len(versions) == 2, f"versions in the rows: {versions}")
    scenario.expect(all(version in page for version in versions), "the report does not say so")
    return scenario.judge()


def all_diverged(harness: Harness, rng: random.Random) -> Outcome:
    """Every Run of a study diverges before its second row: that is a result, and there is a report."""
    scenario = harness.scenario("all_diverged")
    scenario.expect("diverged" in scenario.finish_with_page(), "the report does not say so")
    return scenario.judge()


def root_named_as_study(harness: Harness, rng: random.Random) -> Outcome:
    """The root is a folder of the working directory with the study's name."""
    scenario = harness.scenario()
    scenario.root = str(scenario.folder / scenario.space)
    scenario.fill()
    scenario.finish_with_page()
    for words in (["export", scenario.space_path.name, "x.parquet"], ["report", scenario.space]):
        scenario.expect_end(scenario.start(*words, fresh=True), 0)
    return scenario.judge()


def memory_held(harness: Harness, rng: random.Random) -> Outcome:
    """A driver that trains 20 Runs keeps none of the finished ones in memory."""
    scenario = harness.scenario("many")
    scenario.finish()
    held = [event.step for event in scenario.journal.events() if event.kind == "live"]
    scenario.expect(len(held) == 20 and max(held, default=99) <= 1, f"trainings held: {held}")
    return scenario.judge()


def stack_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the driver while seeds are trained together."""
    scenario = harness.scenario("stacked")
    caused = sum(kill_at_random_step(scenario, rng, at_least=20) for _ in range(2))
    scenario.finish()
    return _judged(scenario, caused)


def stack_extended(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the driver of a study with fewer seeds, then train all seeds."""
    scenario = harness.scenario("stacked")
    whole = scenario.space_path.read_text()
    scenario.space_path.write_text(whole.replace(studies.SEEDS, "(1,)"))
    driver = scenario.run()
    scenario.wait_for("step", driver, count=rng.randint(20, 120))
    caused = driver.kill()
    scenario.space_path.write_text(whole)
    scenario.finish()
    return _judged(scenario, int(caused))


def stack_one_lost(harness: Harness, rng: random.Random) -> Outcome:
    """Delete the rows of one source and of one cell of a finished study."""
    scenario = harness.scenario("stacked")
    scenario.finish()
    lost = [rng.choice(sorted(scenario.sources)), rng.choice(scenario.cells)]
    for run_id in lost:
        scenario.store.remove(rows_path(run_id))
    scenario.finish()
    return _judged(scenario, len(lost), lost)


def stack_one_diverges(harness: Harness, rng: random.Random) -> Outcome:
    """One seed diverges while others are trained with it; the driver is killed and goes on."""
    scenario = harness.scenario("stacked_wild")
    kill_at_random_step(scenario, rng, at_least=300)
    scenario.finish()
    outcomes = defaultdict(set)
    for run_id in finished_ids(scenario.store):
        is_wild = read_head(scenario.store, run_id).provenance.diverged_step is not None
        outcomes[scenario.runs[run_id].block].add(is_wild)
    return _judged(scenario, sum(len(found) == 2 for found in outcomes.values()))


def _judged(scenario: Scenario, times: int, redone: list[str] | None = None) -> Outcome:
    # The journal counts a checkpoint as saved once that of one seed is; the next waits for all seeds.
    return scenario.judge(times, may_be_redone=redone or (), may_be_late=True)
