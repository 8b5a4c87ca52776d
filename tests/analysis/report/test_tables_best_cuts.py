"""The report's table of best cuts is the surface's, told once for each origin of the weights."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from analysis import load, surfaces
from analysis.report import slices, tables, write_report
from tests import synthetic


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cuts")
    wanted = synthetic.runs(
        num_epochs=20,
        sizes=(250, 4_000),
        label_noises=(0.2,),
        frozen=(0, 4, 9),
        seeds=(0, 1, 2),
        controls=True,
    )
    synthetic.write(root, wanted)
    return root


def test_the_table_holds_the_surface(root: Path) -> None:
    study = load.open_study(root)
    table = tables.best_cuts(slices.summarise_slices(study, slices.slices(study), 0.1))
    final = surfaces.at_epoch(study, arm="transfer", squeeze=True)
    found = surfaces.best_cut(final, resolution=1 / synthetic.NUM_TEST)
    lines = table.set_index(["source", "source_size", "size"])
    for (source, source_size, size), line in lines.loc[["near", "far"]].iterrows():
        cell = found.sel(source_task=source, source_size=source_size, size=size)
        inside = cell["cut"].values[cell["in_set"].values][::-1]
        assert line["best"] == cell["best"] and line["cuts"] == "; ".join(inside)
        assert line["best_cut"] == cell["cut"].sel(frozen=float(cell["best"]))
    # What has no source is one line for each size, not one for each source size.
    assert lines.loc["no source"].index.tolist() == [(0, 250), (0, 4_000)]


@pytest.mark.slow
def test_the_page_shows_the_best_cut(root: Path, tmp_path: Path) -> None:
    page = write_report(load.open_study(root), tmp_path).read_text(encoding="utf-8")
    assert 'id="cuts"' in page and page.count("The best cut") >= 1
    table = pd.read_csv(tmp_path / "tables" / "best_cuts.csv")
    near = table[(table["source"] == "near") & (table["size"] == 250)].iloc[0]
    cuts = near["cuts"].split("; ")
    alike = f" ({len(cuts)} of 3 cuts may be the best, {cuts[0]} to {cuts[-1]})"
    assert f"{near['best_cut']}{alike if len(cuts) > 1 else ''}</td>" in page


def test_a_study_with_one_frozen_count_has_no_best_cut(tmp_path: Path) -> None:
    wanted = synthetic.runs(num_epochs=20, sizes=(250,), frozen=(4,), seeds=(0, 1))
    synthetic.write(tmp_path, wanted)
    study = load.open_study(tmp_path)
    assert tables.best_cuts(slices.summarise_slices(study, slices.slices(study), 0.1)).empty
