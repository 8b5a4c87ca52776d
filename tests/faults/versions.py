"""Change the code between two launches of one study: add a comment and raise TRAINER."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from study.store import read_head
from study.store.provenance import TRAINER
from tests.faults.drivers import PROJECT
from tests.faults.harness import Harness, Outcome


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
