"""C4b: both descents on planted curves that begin below the capacity of the head alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import load
from analysis.claims import Decision, claims, primary_answers
from analysis.claims.sample_size import needs
from analysis.claims.verdict import DOES_NOT_HOLD, HOLDS
from study.run import Recipe, Run
from tests import synthetic
from tests.synthetic import Truth

INPUTS = (1, 2, 4, 8, 16, 32)


@pytest.mark.parametrize(
    ("peak", "first", "c4", "c4b"),
    [
        (0.06, 0.2, HOLDS, HOLDS),
        (0.06, -0.2, HOLDS, DOES_NOT_HOLD),  # the error rises from one feature to all
        (0.0, 0.2, DOES_NOT_HOLD, DOES_NOT_HOLD),
    ],
)
def test_c4b_needs_a_peak_and_a_first_descent(
    tmp_path: Path, peak: float, first: float, c4: Decision, c4b: Decision
) -> None:
    recipe = Recipe(num_epochs=60)
    wanted = synthetic.runs(
        num_epochs=60,
        source_tasks=("near",),
        source_sizes=(500,),
        sizes=(1_000,),
        label_noises=(0.2,),
        frozen=(0, 2, 4, 6, 8, 9),
        seeds=range(5),
        recipe=recipe,
    )
    heads = [run for run in wanted if run.frozen == 9]
    wanted += [replace(run, head_inputs=k) for run in heads for k in INPUTS]

    def measured(run: Run) -> synthetic.Columns:
        columns = synthetic.measure(run, Truth(freezing_peak=peak, epoch_peak=0.0))
        bias = first / run.head_inputs if run.head_inputs else 0.0
        error = np.where(columns["epoch"] > 1, columns["test_error"] + bias, columns["test_error"])
        return columns | {"test_error": error.clip(0, 1)}

    synthetic.write(tmp_path, wanted, measured=measured)
    study = load.open_study(tmp_path)
    cuts = study.cells.sort_values("frozen", ascending=False)["cut"].unique().tolist()
    assert cuts[:2] + cuts[5:8] == [
        "head only, 1 feature",
        "head only, 2 features",
        "head only, 32 features",
        "head only",
        "8 layers frozen",
    ]

    with_heads = claims(study)
    assert with_heads["C4b"].answer == c4b
    assert with_heads["C4"].answer == c4
    assert needs(primary_answers(study)) == needs(with_heads)

    synthetic.write(
        tmp_path / "without",
        [run for run in wanted if not run.head_inputs],
        measured=measured,
    )
    without = claims(load.open_study(tmp_path / "without"))
    assert "C4b" not in without
    for name, one in without.items():
        assert one == with_heads[name], name
