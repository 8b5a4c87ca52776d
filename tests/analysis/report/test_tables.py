"""The tables and slices of a report: names of lines, counts, best cuts and warnings."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import load, surfaces
from analysis.report import overview, slices, tables
from study.grid import union, with_starts
from study.run import Recipe, Run
from study.store import open_store
from study.store.studies import write_study
from tests import synthetic
from tests.synthetic import small


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> load.Study:
    root = tmp_path_factory.mktemp("tables")
    synthetic.write(root, small(seeds=(0, 1, 2), controls=True))
    return load.open_study(root)


def test_by_frozen_cell_has_mean_error_seeds_and_interpolation(tmp_path: Path) -> None:
    runs = small(source_tasks=("near",), sizes=(250,), seeds=(0, 1, 2))
    cells = [run for run in runs if run.source]
    lost = [run for run in cells if (run.frozen == 4 and run.seed > 0) or run.frozen == 9]
    synthetic.write(tmp_path, runs, absent=lost)
    study = load.open_study(tmp_path, partial=True)
    (part,) = slices.slices(study)
    table = tables.by_frozen(tables.final_errors(study, 1.0), part)
    (texts,) = table.to_numpy().tolist()
    names = [name.split(" (")[0] for name in table.columns]
    assert names == ["head only", "4 layers frozen", "nothing frozen"]
    # A line breaks only at plain spaces: between the mean and the rest.
    assert texts[0] == "absent"
    assert re.fullmatch(r"0\.\d{3} \(1\xa0of\xa03\)\xa0•", texts[1])
    assert re.fullmatch(r"0\.\d{3} ±\xa00\.\d{3}\xa0•", texts[2])


def test_slices_lines_have_different_names(study: load.Study) -> None:
    (part,) = slices.slices(study)
    labels = ["near", "far", "same task", "no source", "near, new above"]
    assert [line.label for line in part.lines] == labels
    assert [line.is_control for line in part.lines] == [False, False, True, True, True]
    end = slices.at_the_end(study, part.lines)
    assert end["test_error"].notnull().all() and end["wanted"].all()


def test_coverage_counts_every_wanted_run(study: load.Study) -> None:
    counts = tables.coverage(study).loc["all"]
    assert counts["wanted"] == counts["done"] == len(study.wanted)


def test_best_cuts_equal_the_surface(study: load.Study, tmp_path: Path) -> None:
    table = tables.best_cuts(slices.summarise_slices(study, slices.slices(study), 0.1))
    final = surfaces.at_epoch(study, arm="transfer", squeeze=True)
    found = surfaces.best_cut(final, resolution=1 / synthetic.NUM_TEST)
    lines = table.set_index(["source", "size"])
    for (source, size), line in lines.loc[["near", "far"]].iterrows():
        cell = found.sel(source_task=source, size=size)
        inside = cell["cut"].values[cell["in_set"].values][::-1]
        assert line["best"] == cell["best"] and line["cuts"] == "; ".join(inside)
        assert line["best_cut"] == cell["cut"].sel(frozen=float(cell["best"]))
    # A Run without a source has one line for each size.
    assert lines.loc["no source"].index.tolist() == [250, 1_000]
    synthetic.write(tmp_path, small(frozen=(4,), source_tasks=("near",)))
    one_cut = load.open_study(tmp_path)
    assert tables.best_cuts(slices.summarise_slices(one_cut, slices.slices(one_cut), 0.1)).empty


def test_slices_arm_with_fewer_cuts_keeps_parameter_counts(tmp_path: Path) -> None:
    transfer = small()
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


def test_slices_source_of_matched_steps_has_its_own_name(tmp_path: Path) -> None:
    epochs = small(source_tasks=("near",))
    in_steps = Recipe(num_steps=100)
    steps = [
        replace(run, start=replace(run.source, recipe=in_steps))
        for run in epochs
        if run.source is not None
    ]
    synthetic.write(tmp_path, union(epochs, with_starts(steps)))
    (part,) = slices.slices(load.open_study(tmp_path))
    assert [line.label for line in part.lines] == ["near", "near, matched steps"]


def test_warnings_one_seed_has_no_spread(tmp_path: Path) -> None:
    synthetic.write(tmp_path, small(seeds=(0,)))
    (warning,) = overview.warnings(load.open_study(tmp_path))
    assert "1 seed: no spread" in warning


@pytest.mark.parametrize(("trainer", "is_warned_of"), [(1, False), (2, True)])
def test_warnings_name_two_trainers_but_not_two_code_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainer: int, is_warned_of: bool
) -> None:
    runs = small(source_tasks=("near",))
    synthetic.write(tmp_path, runs[:4], name="first")
    plain = synthetic.provenance

    def newer(run: Run, *args: object) -> object:
        made_by = plain(run, *args)  # type: ignore[arg-type]
        return replace(made_by, code_version="0.2.0", trainer=trainer)

    monkeypatch.setattr(synthetic, "provenance", newer)
    synthetic.write(tmp_path, runs[4:], name="second")
    write_study(open_store(tmp_path), "both", runs)
    study = load.open_study(tmp_path, "both")
    warned = any("2 versions of the code" in warning for warning in overview.warnings(study))
    assert warned == is_warned_of
    found = tables.provenance(study)
    assert sum(found["trainer"].values()) == len(runs)
    assert found["code version"] == {"0.2.0": len(runs) - 4, "0.1.0+synthetic": 4}
    assert found["packages"] == {"timm 0.0, torch 0.0": len(runs)}
