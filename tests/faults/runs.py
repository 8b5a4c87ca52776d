"""Runs that fail, diverge or are many, a root with the name of the study, and changed code."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
from contextlib import suppress
from pathlib import Path

from study.launching.queue import MAX_TRIES
from study.store import finished_ids, read_failures, read_head, read_rows
from study.store.provenance import TRAINER
from study.store.schema import DIVERGED
from tests.faults.drivers import PROJECT
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


def changed(harness: Harness, rng: random.Random) -> Outcome:
    scenario = harness.scenario()
    (source,) = scenario.sources
    copy = scenario.folder / "code"
    for package in ("study", "search_spaces", "analysis"):
        shutil.copytree(
            PROJECT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    driver = scenario.run(
        fresh=True,
        project=copy,
        die_at=rf"os.rename /unfinished/(?!{source})[0-9a-f]+/\d+/began\.json$",
    )
    scenario.expect(driver.wait() == -9, f"the first launch: {driver.said()}")
    with (copy / "study" / "training" / "loop.py").open("a") as module:
        module.write("\n# A remark.\n")
    _raise_trainer(copy)
    last = scenario.finish(fresh=True, project=copy)
    told = scenario.say("status")
    scenario.expect("2 versions of the code" in told, f"`study status` does not say so: {told}")
    report = Path(scenario.folder, last.last_line())
    scenario.expect(report.is_file(), f"no report: {last.said()}")
    made_by = [read_head(scenario.store, run_id).provenance for run_id in scenario.runs]
    trainers = {each.trainer for each in made_by}
    scenario.expect(trainers == {TRAINER, TRAINER + 1}, f"trainers in the rows: {trainers}")
    versions = {each.code_version for each in made_by}
    scenario.expect(len(versions) == 2, f"versions in the rows: {versions}")
    if report.is_file():
        page = report.read_text()
        scenario.expect(all(version in page for version in versions), "the report does not say so")
    return scenario.judge("code changed between launches", 1)


def _raise_trainer(project: Path) -> None:
    module = project / "study" / "store" / "provenance.py"
    text = module.read_text()
    raised = text.replace(f"\nTRAINER: Final = {TRAINER}", f"\nTRAINER: Final = {TRAINER + 1}")
    assert raised != text
    module.write_text(raised)


def all_diverged(harness: Harness, rng: random.Random) -> Outcome:
    """Every Run of a study diverges before its second row: that is a result, and there is a report."""
    scenario = harness.scenario("all_diverged")
    last = scenario.finish(fresh=True)
    page = Path(scenario.folder, last.last_line())
    scenario.expect(page.is_file() and "diverged" in page.read_text(), f"no page: {last.said()}")
    return scenario.judge("all Runs diverge", 1)


def root_named_as_study(harness: Harness, rng: random.Random) -> Outcome:
    """The root is a folder of the working directory with the study's name."""
    scenario = harness.scenario()
    scenario.root = str(scenario.folder / scenario.space)
    scenario.fill()
    last = scenario.finish(fresh=True)
    page = Path(scenario.folder, last.last_line())
    scenario.expect(page.is_file(), f"no page: {last.said()}")
    for words in (["export", f"{scenario.space}.py", "x.parquet"], ["report", scenario.space]):
        driver = scenario.start(*words, fresh=True)
        scenario.expect(driver.wait() == 0, f"{words}: {driver.said()}")
    return scenario.judge("root named like the study", 1)


def memory_held(harness: Harness, rng: random.Random) -> Outcome:
    """A driver that trains 20 Runs keeps none of the finished ones in memory."""
    scenario = harness.scenario("many")
    scenario.finish()
    held = [event.step for event in scenario.journal.events() if event.kind == "live"]
    scenario.expect(len(held) == 20 and max(held, default=99) <= 1, f"trainings held: {held}")
    return scenario.judge("20 Runs of one driver", 1)
