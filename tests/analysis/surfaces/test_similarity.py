"""Surfaces of similarity: on the grid of a surface of errors, with the reasons for missing values."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from analysis import load
from analysis.plots.points import draw_capacity
from analysis.surfaces import at_epoch
from analysis.surfaces.derived import effective_capacity
from analysis.surfaces.similarity import (
    UNREADABLE,
    capacity_and_similarity,
    read,
    similarity_surfaces,
)
from study.run import Run
from study.store import Store, open_store, similarity
from study.store.layout import similarity_path
from tests import synthetic
from tests.analysis.surfaces.test_surfaces import at
from tests.stored import a_similarity

pytestmark = pytest.mark.slow


def value_of(source_size: int, frozen: int) -> float:
    return source_size / 10_000 + frozen


@pytest.fixture
def studied(tmp_path: Path) -> tuple[Store, list[Run]]:
    """Return a synthetic study in which similarity grows with the source's size and the cut."""
    runs = synthetic.runs(
        num_epochs=20, sizes=(250, 1_000), frozen=(0, 4, 9), seeds=(0, 1), label_noises=(0.0,)
    )
    synthetic.write(tmp_path, runs)
    store, cells = open_store(tmp_path), [run for run in runs if run.source is not None]
    for run in cells:
        assert run.source is not None
        table = a_similarity(run, value=value_of(run.source.size, run.frozen))
        similarity.publish(store, run, table)
    return store, cells


def test_similarity_surfaces_are_on_the_grid_of_the_errors(
    studied: tuple[Store, list[Run]],
) -> None:
    study = load.open_study(studied[0].root)
    both, error = similarity_surfaces(study), at_epoch(study)
    surface = both["logme"].sel(place="cut", drop=True)
    assert both["logme"].dims == ("place", *error.dims) and surface.dims == error.dims
    xr.testing.assert_equal(xr.Dataset(surface.coords), xr.Dataset(error.coords))
    for run in studied[1]:
        assert run.source is not None
        assert surface.sel(at(run)).item() == value_of(run.source.size, run.frozen)
    for name in ("logme", "linear_cka"):
        assert (both[name].sel(place="head") == surface + 1).all()
    assert both["linear_cka_debiased"].isnull().all()
    everything = similarity_surfaces(study, arm=None)["logme"].sel(place="cut")
    assert everything.sel(task="near", source_task="none").isnull().all()


def test_similarity_surfaces_list_unreadable_runs(
    studied: tuple[Store, list[Run]],
) -> None:
    store, cells = studied
    missing, torn = (store.local_path(similarity_path(run.id)) for run in cells[:2])
    assert missing is not None and torn is not None
    missing.unlink()
    torn.write_bytes(torn.read_bytes()[:50])
    study = load.open_study(store.root)
    with pytest.raises(load.Incomplete, match="2 of 48"):
        similarity_surfaces(study)
    surface = similarity_surfaces(study, partial=True)["logme"].sel(place="cut")
    assert set(surface.attrs["absent"]) == {cells[0].id, cells[1].id}
    assert int(surface.isnull().sum()) == 2
    why = read(study).attrs[UNREADABLE]
    assert why[cells[0].id] == "not measured" and "Arrow" in why[cells[1].id]
    study.cells.loc[cells[2].id, "start_digest"] = "b" * 64
    assert "other weights" in read(study).attrs[UNREADABLE][cells[2].id]


def test_capacity_and_similarity_pairs_values_of_the_same_cell(
    studied: tuple[Store, list[Run]],
) -> None:
    study = load.open_study(studied[0].root)
    capacity = effective_capacity(study)
    surface = similarity_surfaces(study)["logme"].sel(place="cut", drop=True)
    surface.attrs["long_name"] += " at the cut"
    pairs = capacity_and_similarity(capacity, surface)
    assert len(pairs) == capacity["capacity"].size == 48 // 2
    assert set(pairs["similarity_size"]) == {1_000} and pairs.attrs["num_left_out"] == 0
    for _, line in pairs.iterrows():
        assert line["logme"] == value_of(line["source_size"], line["frozen"])
        cell = {name: line[name] for name in capacity["capacity"].dims}
        assert capacity["capacity"].sel(cell).item() == line["capacity"]
    with pytest.raises(ValueError, match="250, 1000"):
        capacity_and_similarity(capacity, surface, size=7)
    with pytest.raises(ValueError, match="same grid"):
        capacity_and_similarity(capacity, surface.sel(seed=[0]))
    beyond = pairs["capacity"] == 1_000
    axes = Figure().add_subplot()
    drawn = draw_capacity(axes, pairs.assign(censored=beyond))
    assert drawn["text"].str.endswith(" or more").tolist() == beyond.tolist()
    arrows = [text for text in axes.texts if isinstance(text, Annotation)]
    low, high = axes.get_ylim()
    assert len(arrows) == beyond.sum() > 0
    assert all(low < arrow.xy[1] < high for arrow in arrows)
    assert axes.get_xlabel() == "LogME at the cut (nats per image)"
