"""The results that come along: today's code finds in their rows what the registered code found."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import analysis.results
from analysis import load
from analysis.claims import claims
from analysis.report import tables

FOLDER = Path(analysis.results.__file__).parent
RELATED = {
    "reduced": {"more_related": "tiny-near-16px", "less_related": "tiny-far-16px"},
}
STUDIES = ("reduced", "reduced_noise", "reduced_sources", "reduced_controls", "reduced_rates")


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_the_verdicts_are_those_of_the_registered_code(name: str) -> None:
    study = load.open(FOLDER / f"{name}.parquet")
    found = tables.verdicts(claims(study, **RELATED.get(name, {})))
    kept = pd.read_csv(FOLDER / f"{name}.verdicts.csv")
    numbers = ["effect", "low", "high"]
    found, kept = (table[table["kind"] == "primary"] for table in (found, kept))
    assert list(found["claim"]) == list(kept["claim"])
    assert list(found["answer"]) == list(kept["answer"])
    pd.testing.assert_frame_equal(
        found[numbers].astype(float).reset_index(drop=True),
        kept[numbers].astype(float).reset_index(drop=True),
        check_exact=False,
        rtol=1e-6,
    )


@pytest.mark.parametrize("name", STUDIES)
def test_each_holds_the_runs_that_its_space_asks_for(name: str) -> None:
    from study.planning.spaces import load_space

    study = load.open(FOLDER / f"{name}.parquet")
    assert [run.id for run in study.wanted] == [run.id for run in load_space(name).runs]
    assert study.coverage["done"] == len(study.wanted)
