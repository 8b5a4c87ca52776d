"""Surfaces compared with the stored rows, which the tests read without the analysis."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis import load, surfaces
from analysis.surfaces import derived, grid
from study.run import Recipe, Run, coordinates
from tests import synthetic

# A study, its missing Runs and its diverged Runs.
Holes = tuple[load.Study, list[Run], list[Run]]
ARMS = ("reinitialised", "scratch", "random frozen")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("surfaces")
    wanted = synthetic.runs(
        num_epochs=60,
        source_sizes=(500, 5_000),
        sizes=(250, 1_000, 4_000),
        frozen=(0, 4, 9),
        seeds=(0, 1),
        controls=True,
    )
    synthetic.write(root, wanted)
    return root


@pytest.fixture(scope="module")
def study(root: Path) -> load.Study:
    return load.open_study(root)


@pytest.fixture(scope="module")
def rows(root: Path) -> pd.DataFrame:
    """Read the rows without the analysis."""
    table = pyarrow.dataset.dataset(f"{root}/rows", format="ipc").to_table().to_pandas()
    return table.astype(dict.fromkeys(table.select_dtypes("category").columns, object))


def at(run: Run) -> dict[str, object]:
    """Return the coordinates of a Run's cell."""
    source = run.source
    later = {name: value for name, value in coordinates(run).items() if name in grid.DIMENSIONS}
    return later | {
        "model": run.model,
        "width": run.width or 0,
        "source_task": source.task if source else run.start or "none",
        "source_size": source.size if source else 0,
        "source_label_noise": source.label_noise if source else 0.0,
        "task": run.task,
        "size": run.size,
        "label_noise": run.label_noise,
        "recipe": run.recipe.id,
        "frozen": run.frozen,
        "seed": run.seed,
    }


@pytest.mark.parametrize(
    ("value", "arm"),
    [
        ("test_error", "transfer"),
        ("train_loss_flipped", ARMS),
        ("step", "same task"),
        ("wall_seconds", "source"),
    ],
)
def test_surfaces_cells_contain_the_rows_of_their_runs(
    study: load.Study, rows: pd.DataFrame, value: str, arm: str | tuple[str, ...]
) -> None:
    surface = surfaces.over_epochs(study, value, arm=arm)
    last = surfaces.at_epoch(study, value, arm=arm)
    early = surfaces.at_epoch(study, value, arm=arm, epoch=7)
    assert surface.dims == (*grid.DIMENSIONS, "epoch")
    assert last.dims == early.dims == grid.DIMENSIONS
    names = [arm] if isinstance(arm, str) else arm
    runs = [run for run in study.wanted if study.cells.loc[run.id, "arm"] in names]
    for run in runs:
        own, cell = rows[rows["run_id"] == run.id].sort_values("epoch"), surface.sel(at(run))
        values = own[value].astype(float)
        assert np.array_equal(cell["epoch"], own["epoch"])
        assert np.array_equal(cell, values, equal_nan=True)
        assert np.array_equal(last.sel(at(run)), values.iloc[-1], equal_nan=True)
        assert np.array_equal(early.sel(at(run)), values.iloc[7], equal_nan=True)
        assert float(cell["parameters_trained"]) == own["parameters_trained"].iloc[0]
    of_runs = rows["run_id"].isin([run.id for run in runs])
    assert int(surface.notnull().sum()) == rows.loc[of_runs, value].notna().sum()


def test_at_epoch_arms_without_a_source_have_one_cell(study: load.Study) -> None:
    surface = surfaces.at_epoch(study, arm=("transfer", "scratch", "random frozen"))
    assert list(surface["source_task"].values) == ["none", "far", "near"]
    none = surface.sel(source_task="none")
    assert none.sel(source_size=0).notnull().all()
    assert none.sel(source_size=[500, 5_000]).isnull().all()
    assert surface.attrs["absent"] == []  # cells that are in no search space are not absent


def test_over_epochs_two_runs_in_one_cell_raise(tmp_path: Path) -> None:
    recipe = Recipe(num_epochs=3)

    def run(part: str) -> Run:
        return Run(task="target", part=part, size=250, model="m", width=8, recipe=recipe, seed=0)

    synthetic.write(tmp_path, [run("all"), run("a")])
    study = load.open_study(tmp_path)
    with pytest.raises(ValueError, match=r"2 Runs share their cells.*part = 'all', 'a'"):
        surfaces.over_epochs(study, arm="scratch")
    assert surfaces.over_epochs(study, arm="scratch", part="a").notnull().all()


def test_over_epochs_selects_and_squeezes(study: load.Study) -> None:
    one: dict[str, Any] = {"source_task": "near", "source_size": 5_000, "label_noise": 0.2}
    surface = surfaces.over_epochs(study, size=[250, 4_000], **one)
    assert list(surface["size"].values) == [250, 4_000]
    assert surface.sizes["source_task"] == surface.sizes["model"] == 1
    squeezed = surfaces.over_epochs(study, size=[250, 4_000], squeeze=True, **one)
    assert squeezed.dims == ("size", "frozen", "seed", "epoch")
    assert np.array_equal(squeezed, surface.squeeze())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 251}, "size=251: choose from 250, 1000, 4000"),
        ({"source_task": "none"}, "source_task='none': choose from 'far', 'near'"),
        ({"arm": "control"}, "arm='control': choose from 'random frozen', 'reinitialised'"),
        ({"values": "accuracy"}, "'accuracy': choose one of epoch, step, train_loss"),
        ({"x": "time"}, "x='time': choose epoch or step"),
        ({"evaluations": "any"}, "evaluations='any': choose one of same, common, union"),
        ({"depth": 3}, "select 'depth': choose from task, part"),
    ],
)
def test_over_epochs_wrong_name_lists_the_choices(
    study: load.Study, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        surfaces.over_epochs(study, **options)  # type: ignore[arg-type]


def test_at_epoch_that_was_not_evaluated_raises(study: load.Study) -> None:
    with pytest.raises(ValueError, match=r"epoch=7.5: Run .* nearest are 7, 8"):
        surfaces.at_epoch(study, epoch=7.5)
    with pytest.raises(ValueError, match="'first': choose 'last' or a number"):
        surfaces.at_epoch(study, epoch="first")


def test_over_epochs_too_large_array_raises(
    study: load.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="select fewer cells"):
        surfaces.over_epochs(study)


@pytest.fixture
def holes(tmp_path: Path) -> Holes:
    wanted = synthetic.small(sizes=(250,), frozen=(0, 9), seeds=(0, 1, 2))
    cells = [run for run in wanted if run.source]
    absent, diverged = cells[:2], cells[4:6]
    synthetic.write(tmp_path, wanted, absent=absent[:1], failed=absent[1:], diverged=diverged)
    return load.open_study(tmp_path, partial=True), absent, diverged


def test_surfaces_missing_run_is_nan_and_needs_partial(holes: Holes) -> None:
    study, absent, _ = holes
    surface = surfaces.over_epochs(study)
    for run in absent:
        assert surface.sel(at(run)).isnull().all()
    assert surface.attrs["absent"] == [run.id for run in absent]
    with pytest.raises(load.Incomplete, match="2 of 12 Runs have no rows"):
        surfaces.over_epochs(study, partial=False)
    # Only selected cells must be present.
    surfaces.over_epochs(study, partial=False, seed=[1, 2])
    strict = replace(study, partial=False)
    with pytest.raises(load.Incomplete) as caught:
        surfaces.at_epoch(strict)
    assert caught.value.runs == tuple(absent)
    assert surfaces.at_epoch(strict, partial=True).attrs["absent"] == [r.id for r in absent]


def test_surfaces_diverged_run_is_nan_after_its_last_row(holes: Holes) -> None:
    study, _, diverged = holes
    surface = surfaces.over_epochs(study)
    early, late, last = (surfaces.at_epoch(study, epoch=epoch) for epoch in (1, 11, "last"))
    for run in diverged:
        assert surface.sel(at(run)).notnull().sum() == 3  # a quarter of 13
        assert early.sel(at(run)).notnull()
        assert late.sel(at(run)).isnull() and last.sel(at(run)).isnull()
    assert surface.attrs["diverged"] == [run.id for run in diverged]


def test_over_seeds_counts_only_known_values() -> None:
    nan, inf = np.nan, np.inf
    surface = xr.DataArray(
        [[1.0, 2.0, nan, nan, inf], [3.0, nan, nan, 5.0, inf]], dims=("seed", "x")
    )
    surface.attrs["units"] = "fraction"
    over = surfaces.over_seeds(surface)
    assert over["mean"].attrs["units"] == "fraction" and over["mean"].dims == ("x",)
    assert np.array_equal(over["mean"], [2, 2, nan, 5, inf], equal_nan=True)
    assert np.array_equal(over["count"], [2, 1, 0, 1, 2])
    assert np.allclose(over["standard_error"], [1, nan, nan, nan, nan], equal_nan=True)
    without = surfaces.over_seeds(surface.transpose("x", "seed"))
    assert np.array_equal(without["mean"], over["mean"], equal_nan=True)
    with pytest.raises(ValueError, match="no dimension 'seed'"):
        surfaces.over_seeds(surface.isel(seed=0))


def test_over_epochs_different_evaluations_need_a_choice(tmp_path: Path) -> None:
    recipe = Recipe(num_steps=400, evaluation="log_spaced", num_evaluations=20)
    one: dict[str, Any] = {"source_sizes": (500,), "frozen": (0,), "seeds": (0,), "num_epochs": 3}
    synthetic.write(tmp_path, synthetic.runs(recipe=recipe, sizes=(250, 1_000), **one))
    study = load.open_study(tmp_path)
    message = r"different epochs \(2 lists of them\).*evaluations='common'"
    with pytest.raises(ValueError, match=message):
        surfaces.over_epochs(study)
    by_step = surfaces.over_epochs(study, x="step")  # 400 steps, in both sizes
    assert by_step.notnull().all()

    common = surfaces.over_epochs(study, evaluations="common")
    union = surfaces.over_epochs(study, evaluations="union")
    assert common.notnull().all() and set(common["epoch"].values) >= {0.0}
    assert common.sizes["epoch"] < by_step.sizes["step"] < union.sizes["epoch"]
    for size in (250, 1_000):
        alone = surfaces.over_epochs(study, size=size)
        xr.testing.assert_equal(union.sel(size=[size]).dropna("epoch"), alone)
        assert np.array_equal(alone.sel(epoch=common["epoch"]), common.sel(size=[size]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=4))
def test_positions_put_each_row_at_its_epoch(evaluated: list[set[int]]) -> None:
    own = [np.array(sorted(epochs), float) for epochs in evaluated]
    for points in (np.unique(np.concatenate(own)), own[0]):
        for epochs in own:
            of_run, into = grid.positions(epochs, points)
            line = np.full(len(points), np.nan)
            line[into] = epochs[of_run]
            expected = [point if point in set(epochs) else np.nan for point in points]
            assert np.array_equal(line, expected, equal_nan=True)


def test_along_parameters_ascends_from_head_only(study: load.Study) -> None:
    surface = surfaces.at_epoch(study)
    trained = surfaces.along(surface, "parameters_trained")
    assert "frozen" not in trained.dims
    assert (np.diff(trained["parameters_trained"]) > 0).all()
    assert list(trained["frozen"].values) == [9, 4, 0]
    assert np.array_equal(trained.values, surface.isel(frozen=[2, 1, 0]).values)
    share = surfaces.along(surface, "share_trained")["share_trained"]
    assert share[-1] == 1.0 and 0 < share[0] < 0.01
    with pytest.raises(ValueError, match=r"choose one of .*frozen, .*parameters_trained"):
        surfaces.along(surface, "depth")


def test_along_array_is_sorted_by_its_values(study: load.Study) -> None:
    surface = surfaces.at_epoch(study)
    rank = xr.DataArray([20.0, 5.0, 9.0], {"frozen": [0, 4, 9]}, ["frozen"], name="effective_rank")
    moved = surfaces.along(surface, rank)
    assert moved.dims == tuple("effective_rank" if d == "frozen" else d for d in surface.dims)
    assert list(moved["effective_rank"].values) == [5, 9, 20]
    assert np.array_equal(moved.values, surface.sel(frozen=[4, 9, 0]).values)
    with pytest.raises(ValueError, match="absent at some"):
        surfaces.along(surface, rank.where(rank["frozen"] > 0))
    with pytest.raises(ValueError, match="no dimension 'frozen'"):
        surfaces.along(surface, rank.isel(frozen=0))


def test_along_several_networks_need_a_selection(tmp_path: Path) -> None:
    wanted = synthetic.runs(
        num_epochs=2, widths=(4, 8), source_sizes=(500,), sizes=(250,), frozen=(0, 9), seeds=(0,)
    )
    synthetic.write(tmp_path, wanted)
    surface = surfaces.at_epoch(load.open_study(tmp_path))
    with pytest.raises(ValueError, match="several of 'width', select one"):
        surfaces.along(surface, "parameters_trained")
    narrow = surfaces.along(surface.sel(width=[4]), "parameters_trained")
    scalar = surfaces.along(surface.sel(width=4), "parameters_trained")
    assert np.array_equal(narrow["parameters_trained"], scalar["parameters_trained"])


@pytest.mark.parametrize("x", ["epoch", "step"])
def test_first_interpolation_equals_the_first_row_below_epsilon(
    study: load.Study, rows: pd.DataFrame, x: str
) -> None:
    surface = derived.first_interpolation(study, epsilon=0.05, x=x)
    reached = rows[rows["train_error"] <= 0.05].groupby("run_id")[x].min()
    cells = [run for run in study.wanted if study.cells.loc[run.id, "arm"] == "transfer"]
    expected = [float(reached.get(run.id, np.inf)) for run in cells]
    assert [float(surface.sel(at(run))) for run in cells] == expected
    assert np.inf in expected and min(expected) < np.inf


def test_first_interpolation_diverged_run_is_unknown(holes: Holes) -> None:
    study, absent, diverged = holes
    first = derived.first_interpolation(study, epsilon=1e-9)
    for run in (*absent, *diverged):
        assert first.sel(at(run)).isnull()
    assert int(np.isinf(first).sum()) == first.size - len(absent) - len(diverged)


def test_effective_capacity_equals_the_planted_one(study: load.Study) -> None:
    found = derived.effective_capacity(study, epsilon=0.01, source_size=500, label_noise=0.2)
    assert found["capacity"].dims == tuple(d for d in grid.DIMENSIONS if d != "size")
    by_frozen = found.squeeze().isel(seed=0, source_task=0)
    # Planted: 8,000 with nothing frozen, 1,033 at four layers, 80 with the head alone.
    assert list(by_frozen["capacity"].values) == [4_000, 1_000, 0]
    assert list(by_frozen["censored"].values) == [True, False, False]
    assert by_frozen["monotone"].all()


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("first", "capacity", "censored", "monotone"),
    [
        ([3, 5, INF], 20, False, True),
        ([3, 5, 9], 40, True, True),
        ([3, INF, 9], 40, True, False),
        ([INF, INF, INF], 0, False, True),
        ([NAN, 5, INF], 20, False, True),
        # A missing size next to the largest fitted one leaves the capacity unknown.
        ([3, 5, NAN], NAN, None, None),
        ([NAN, NAN, NAN], NAN, None, None),
        ([3, NAN, INF], NAN, None, None),
        ([INF, INF, NAN], NAN, None, None),
    ],
)
def test_capacity_of_is_the_largest_size_with_an_interpolation(
    first: list[float], capacity: float, censored: bool | None, monotone: bool | None
) -> None:
    surface = xr.DataArray([first], dims=("frozen", "size"), coords={"size": [10, 20, 40]})
    found = derived.capacity_of(surface)
    assert np.array_equal(found["capacity"], [capacity], equal_nan=True)
    if capacity == capacity:
        assert (found["censored"].item(), found["monotone"].item()) == (censored, monotone)


def test_computed_surface_applies_the_function_to_each_run(study: load.Study) -> None:
    best = surfaces.computed_surface(study, "best", ["test_error"], np.min, unit="fraction")
    assert np.array_equal(best, surfaces.over_epochs(study).min("epoch"))
    assert best.attrs["units"] == "fraction"
