"""C2 beside the arm whose sources were trained for equally many steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from analysis import load
from analysis.claims import Verdicts, c2
from analysis.claims.contrasts import measure
from analysis.claims.verdict import HOLDS
from analysis.load.arms import MATCHED_STEPS
from study.run import Recipe, Run
from tests import synthetic
from tests.synthetic import Truth


def with_matched_steps(runs: list[Run]) -> list[Run]:
    again = Recipe(num_steps=200)
    matched = [
        replace(run, start=replace(run.source, recipe=again))
        for run in runs
        if run.source is not None
    ]
    return list(dict.fromkeys([*runs, *(run.source for run in matched if run.source), *matched]))


def test_c2_is_read_side_by_side_with_sources_of_equally_many_steps(tmp_path: Path) -> None:
    runs = with_matched_steps(
        synthetic.runs(
            num_epochs=60,
            source_tasks=("near",),
            sizes=(250, 1_000),
            label_noises=(0.0,),
            frozen=(0, 2),
        )
    )
    synthetic.write(tmp_path, runs, truth=Truth(slowdown=1.0))
    measures = measure(load.open_study(tmp_path))
    assert set(measures.lines["arm"]) == {"transfer", MATCHED_STEPS}
    verdict = c2(measures)
    assert verdict.answer == HOLDS
    beside = next(one.answer for one in verdict.controls if one.arm == MATCHED_STEPS)
    assert beside.effect is not None and beside.effect.num == 3
    text = str(Verdicts([verdict]))
    assert "beside it, sources of equally many steps: holds" in text
