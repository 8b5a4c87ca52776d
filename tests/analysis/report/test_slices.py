"""Lines drawn together: each with a name of its own, and one count of trained parameters a cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis import load
from analysis.report import slices
from study.grid import union, with_starts
from study.run import Recipe
from tests import synthetic


def test_an_arm_that_lacks_cuts_leaves_one_count_of_parameters_a_cut(tmp_path: Path) -> None:
    transfer = synthetic.small(num_epochs=12)
    head_only = [
        replace(run, start=None, recipe=replace(run.recipe, calibration="images"))
        for run in transfer
        if run.source is not None and run.source.task == "near" and run.frozen == 9
    ]
    synthetic.write(tmp_path, union(transfer, head_only))
    (part,) = slices.slices(load.open_study(tmp_path))
    end = slices.at_the_end(load.open_study(tmp_path), part.lines)
    assert end.sizes["source"] == 3
    assert end["parameters_trained"].dims == ("frozen",)
    assert np.isfinite(end["parameters_trained"]).all()
    found = slices.freezing_peaks(end, 0.1)
    assert found["at"].dims == ("source", "source_size", "size")


def test_a_source_of_matched_steps_has_a_name_of_its_own(tmp_path: Path) -> None:
    epochs = synthetic.small(num_epochs=12, source_tasks=("near",))
    in_steps = Recipe(num_steps=100)
    steps = [
        replace(run, start=replace(run.source, recipe=in_steps))
        for run in epochs
        if run.source is not None
    ]
    synthetic.write(tmp_path, union(epochs, with_starts(steps)))
    (part,) = slices.slices(load.open_study(tmp_path))
    assert [line.label for line in part.lines] == ["near", "near, matched steps"]
