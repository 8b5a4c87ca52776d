"""The code changes between two launches of one study: a comment in a module that decides rows."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from study.store import read_head
from tests.faults.drivers import PROJECT
from tests.faults.places import Outcome, Workshop


def changed(shop: Workshop, rng: random.Random) -> Outcome:
    place = shop.place()
    (source,) = place.sources
    copy = place.folder / "code"
    for package in ("study", "search_spaces", "analysis"):
        shutil.copytree(
            PROJECT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    driver = place.run(
        fresh=True,
        project=copy,
        die_at=rf"os.rename /unfinished/(?!{source})[0-9a-f]+/\d+/began\.json$",
    )
    place.expect(driver.wait() == -9, f"the first launch: {driver.said()}")
    with (copy / "study" / "training" / "loop.py").open("a") as module:
        module.write("\n# A remark.\n")
    last = place.finish(fresh=True, project=copy)
    told = place.say("status")
    place.expect("2 versions of the code" in told, f"`study status` does not say so: {told}")
    report = Path(place.folder, last.last_line())
    place.expect(report.is_file(), f"no report: {last.said()}")
    versions = {read_head(place.store, i).provenance.code_version for i in place.runs}
    place.expect(len(versions) == 2, f"versions in the rows: {versions}")
    if report.is_file():
        page = report.read_text()
        place.expect(all(version in page for version in versions), "the report does not say so")
    return place.judge("code changed between launches", 1)
