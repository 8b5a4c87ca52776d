"""Surfaces against the rows themselves, read another way; what is absent stays absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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

ARMS = ("transfer", "scratch", "random frozen")


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
    """The table of the store, by no code of analysis."""
    table = pyarrow.dataset.dataset(f"{root}/rows", format="ipc").to_table().to_pandas()
    return table.astype(dict.fromkeys(table.select_dtypes("category").columns, object))


def at(run: Run) -> dict[str, object]:
    """Where a Run's cell lies."""
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
        ("train_loss_flipped", ("transfer", "scratch", "random frozen")),
        ("step", "same task"),
        ("wall_seconds", "source"),
        ("test_loss", "reinitialised"),
    ],
)
def test_every_cell_holds_its_rows_and_no_other_cell_anything(
    study: load.Study, rows: pd.DataFrame, value: str, arm: str | tuple[str, ...]
) -> None:
    surface = surfaces.over_epochs(study, value, arm=arm)
    last = surfaces.at_epoch(study, value, arm=arm)
    early = surfaces.at_epoch(study, value, arm=arm, epoch=7)
    assert surface.dims == (*grid.DIMENSIONS, "epoch")
    assert last.dims == early.dims == grid.DIMENSIONS
    names = (arm,) if isinstance(arm, str) else arm
    arm_of = study.cells["arm"]
    num_values = 0
    by_run = dict(iter(rows.groupby("run_id")))
    for run in study.wanted:
        if arm_of[run.id] not in names:
            continue
        own = by_run[run.id].sort_values("epoch")
        cell = surface.sel(at(run))
        assert np.array_equal(cell["epoch"], own["epoch"])
        assert np.array_equal(cell, own[value].astype(float), equal_nan=True)
        assert np.array_equal(last.sel(at(run)), own[value].iloc[-1], equal_nan=True)
        assert np.array_equal(early.sel(at(run)), own[value].iloc[7], equal_nan=True)
        assert float(cell["parameters_trained"]) == own["parameters_trained"].iloc[0]
        num_values += int(own[value].notna().sum())
    assert int(surface.notnull().sum()) == num_values


def test_controls_stand_beside_the_transfer(study: load.Study) -> None:
    surface = surfaces.at_epoch(study, arm=ARMS)
    assert list(surface["source_task"].values) == ["none", "far", "near"]
    none = surface.sel(source_task="none", source_size=0)
    assert none.notnull().all()
    assert surface.sel(source_task="none", source_size=[500, 5_000]).isnull().all()
    assert surface.attrs["absent"] == []  # what nobody asked for is not absent


def test_runs_of_one_cell_must_be_told_apart(tmp_path: Path) -> None:
    recipe = Recipe(num_epochs=3)

    def run(part: str) -> Run:
        return Run(task="target", part=part, size=250, model="m", width=8, recipe=recipe, seed=0)

    synthetic.write(tmp_path, [run("all"), run("a")])
    study = load.open_study(tmp_path)
    with pytest.raises(ValueError, match=r"2 Runs share their cells.*part = 'all', 'a'"):
        surfaces.over_epochs(study, arm="scratch")
    assert surfaces.over_epochs(study, arm="scratch", part="a").notnull().all()


def test_select_and_squeeze(study: load.Study) -> None:
    surface = surfaces.over_epochs(
        study, source_task="near", source_size=5_000, size=[250, 4_000], label_noise=0.2
    )
    assert list(surface["size"].values) == [250, 4_000]
    assert surface.sizes["source_task"] == surface.sizes["model"] == 1
    squeezed = surfaces.over_epochs(
        study,
        source_task="near",
        source_size=5_000,
        size=[250, 4_000],
        label_noise=0.2,
        squeeze=True,
    )
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
def test_a_wrong_name_is_answered_with_the_choices(
    study: load.Study, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        surfaces.over_epochs(study, **options)  # type: ignore[arg-type]


def test_no_epoch_is_interpolated(study: load.Study) -> None:
    with pytest.raises(ValueError, match=r"epoch=7.5: Run .* nearest are 7, 8"):
        surfaces.at_epoch(study, epoch=7.5)
    with pytest.raises(ValueError, match="'first': choose 'last' or a number"):
        surfaces.at_epoch(study, epoch="first")


def test_an_array_that_cannot_be_held_is_refused(
    study: load.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="select fewer cells"):
        surfaces.over_epochs(study)


# Absent and diverged cells.


@pytest.fixture
def holes(tmp_path: Path) -> tuple[load.Study, list[Run], list[Run]]:
    wanted = synthetic.runs(
        num_epochs=12, source_sizes=(500,), sizes=(250,), frozen=(0, 9), label_noises=(0.2,)
    )
    cells = [run for run in wanted if run.source]
    absent, diverged = cells[:2], cells[4:6]
    synthetic.write(tmp_path, wanted, absent=absent[:1], failed=absent[1:], diverged=diverged)
    return load.open_study(tmp_path, partial=True), absent, diverged


def test_an_absent_cell_is_nan_listed_and_needs_a_word(
    holes: tuple[load.Study, list[Run], list[Run]],
) -> None:
    study, absent, _ = holes
    surface = surfaces.over_epochs(study)
    for run in absent:
        assert surface.sel(at(run)).isnull().all()
    assert surface.attrs["absent"] == [run.id for run in absent]
    with pytest.raises(load.Incomplete, match="2 of 12 Runs have no rows"):
        surfaces.over_epochs(study, partial=False)
    # What was not asked for may be absent.
    surfaces.over_epochs(study, partial=False, seed=[1, 2])
    strict = replace(study, partial=False)
    with pytest.raises(load.Incomplete) as caught:
        surfaces.at_epoch(strict)
    assert caught.value.runs == tuple(absent)
    assert surfaces.at_epoch(strict, partial=True).attrs["absent"] == [r.id for r in absent]


def test_a_diverged_run_ends_where_its_rows_end(
    holes: tuple[load.Study, list[Run], list[Run]],
) -> None:
    study, _, diverged = holes
    surface, last = surfaces.over_epochs(study), surfaces.at_epoch(study)
    early = surfaces.at_epoch(study, epoch=1)
    late = surfaces.at_epoch(study, epoch=11)
    for run in diverged:
        assert surface.sel(at(run)).notnull().sum() == 3  # a quarter of 13
        assert last.sel(at(run)).isnull() and late.sel(at(run)).isnull()
        assert early.sel(at(run)).notnull()
    assert surface.attrs["diverged"] == [run.id for run in diverged]


def test_means_say_how_many_seeds_they_stand_on(
    holes: tuple[load.Study, list[Run], list[Run]],
) -> None:
    surface = surfaces.at_epoch(holes[0])
    over = surfaces.over_seeds(surface)
    values = surface.values  # seed is the last dimension
    assert np.array_equal(over["count"], (~np.isnan(values)).sum(axis=-1))
    assert set(over["count"].values.ravel()) == {1, 3}
    assert np.allclose(over["mean"], np.nanmean(values, axis=-1))
    whole = over["count"].values == 3
    error = np.std(values[whole], axis=-1, ddof=1) / np.sqrt(3)
    assert np.allclose(over["standard_error"].values[whole], error)
    assert np.isnan(over["standard_error"].values[~whole]).all()
    assert over["mean"].attrs["units"] == "fraction"
    assert over["mean"].dims == surface.dims[:-1] and "seed" not in over.coords


def test_means_over_seeds_of_any_array() -> None:
    nan, inf = np.nan, np.inf
    surface = xr.DataArray(
        [[1.0, 2.0, nan, nan, inf], [3.0, nan, nan, 5.0, inf]], dims=("seed", "x")
    )
    over = surfaces.over_seeds(surface)
    assert np.array_equal(over["mean"], [2, 2, nan, 5, inf], equal_nan=True)
    assert np.array_equal(over["count"], [2, 1, 0, 1, 2])
    assert np.allclose(over["standard_error"], [1, nan, nan, nan, nan], equal_nan=True)
    without = surfaces.over_seeds(surface.transpose("x", "seed"))
    assert np.array_equal(without["mean"], over["mean"], equal_nan=True)
    with pytest.raises(ValueError, match="no dimension 'seed'"):
        surfaces.over_seeds(surface.isel(seed=0))


# Evaluations at different epochs.


def test_evaluations_are_not_mixed_silently(tmp_path: Path) -> None:
    recipe = Recipe(num_steps=400, evaluation="log_spaced", num_evaluations=20)
    wanted = synthetic.runs(
        recipe=recipe,
        source_sizes=(500,),
        sizes=(250, 1_000),
        frozen=(0,),
        seeds=(0,),
        num_epochs=3,
    )
    synthetic.write(tmp_path, wanted)
    study = load.open_study(tmp_path)
    with pytest.raises(
        ValueError, match=r"different epochs \(2 lists of them\).*evaluations='common'"
    ):
        surfaces.over_epochs(study)
    by_step = surfaces.over_epochs(study, x="step")  # 400 steps, in both sizes
    assert by_step.notnull().all()

    common = surfaces.over_epochs(study, evaluations="common")
    union = surfaces.over_epochs(study, evaluations="union")
    assert common.notnull().all() and set(common["epoch"].values) >= {0.0}
    assert common.sizes["epoch"] < by_step.sizes["step"] < union.sizes["epoch"]
    for size in (250, 1_000):
        alone = surfaces.over_epochs(study, size=size)
        within = union.sel(size=[size]).dropna("epoch")
        assert np.array_equal(within["epoch"], alone["epoch"])
        assert np.array_equal(within, alone)
        assert np.array_equal(alone.sel(epoch=common["epoch"]), common.sel(size=[size]))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sets(st.integers(0, 30), min_size=1), min_size=1, max_size=4))
def test_a_row_stands_at_its_epoch_or_nowhere(evaluated: list[set[int]]) -> None:
    own = [np.array(sorted(epochs), float) for epochs in evaluated]
    for points in (np.unique(np.concatenate(own)), own[0]):
        for epochs in own:
            of_run, into = grid.positions(epochs, points)
            line = np.full(len(points), np.nan)
            line[into] = epochs[of_run]
            expected = [point if point in set(epochs) else np.nan for point in points]
            assert np.array_equal(line, expected, equal_nan=True)


# Axes of capacity, and derived surfaces.


def test_the_axis_of_capacity_ascends_from_the_head_alone(study: load.Study) -> None:
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


def test_any_value_of_each_frozen_count_can_be_the_axis(study: load.Study) -> None:
    surface = surfaces.at_epoch(study)
    rank = surface.isel({dim: [0] for dim in surface.dims if dim not in ("frozen", "seed")}) * 0
    rank = (rank + xr.DataArray([20.0, 5.0, 9.0], dims="frozen")).rename("effective_rank")
    assert list(rank["frozen"].values) == [0, 4, 9]
    moved = surfaces.along(surface, rank)
    assert moved.dims == tuple("effective_rank" if d == "frozen" else d for d in surface.dims)
    assert list(moved["effective_rank"].values) == [5, 9, 20]
    assert list(moved["frozen"].values) == [4, 9, 0]
    assert np.array_equal(moved.values, surface.sel(frozen=[4, 9, 0]).values)
    with pytest.raises(ValueError, match="absent at some"):
        surfaces.along(surface, rank.where(rank["frozen"] > 0))
    with pytest.raises(ValueError, match="no dimension 'frozen'"):
        surfaces.along(surface, rank.isel(frozen=0))


def test_several_networks_have_no_one_axis_of_capacity(tmp_path: Path) -> None:
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


def test_first_interpolation(study: load.Study, rows: pd.DataFrame) -> None:
    surface = derived.first_interpolation(study, epsilon=0.05)
    steps = derived.first_interpolation(study, epsilon=0.05, x="step")
    found = set()
    by_run = dict(iter(rows.groupby("run_id")))
    for run in study.wanted:
        if study.cells.loc[run.id, "arm"] != "transfer":
            continue
        own = by_run[run.id].sort_values("epoch")
        reached = own[own["train_error"] <= 0.05]
        expected = reached["epoch"].iloc[0] if len(reached) else np.inf
        assert float(surface.sel(at(run))) == expected
        expected = reached["step"].iloc[0] if len(reached) else np.inf
        assert float(steps.sel(at(run))) == expected
        found.add(bool(len(reached)))
    assert found == {True, False}


def test_a_run_that_diverged_before_is_not_one_that_never_came_there(
    holes: tuple[load.Study, list[Run], list[Run]],
) -> None:
    study, absent, diverged = holes
    first = derived.first_interpolation(study, epsilon=1e-9)
    for run in (*absent, *diverged):
        assert first.sel(at(run)).isnull()
    assert int(np.isinf(first).sum()) == first.size - len(absent) - len(diverged)


def test_effective_capacity(study: load.Study) -> None:
    found = derived.effective_capacity(study, epsilon=0.01, source_size=500, label_noise=0.2)
    assert found["capacity"].dims == tuple(d for d in grid.DIMENSIONS if d != "size")
    by_frozen = found.squeeze().isel(seed=0, source_task=0)
    # Planted: 8,000 with nothing frozen, 1,033 at four layers, 80 with the head alone.
    assert list(by_frozen["capacity"].values) == [4_000, 1_000, 0]
    assert list(by_frozen["censored"].values) == [True, False, False]
    assert by_frozen["monotone"].all()


def test_an_absent_size_leaves_the_capacity_open() -> None:
    def capacity(first: list[float]) -> tuple[float, bool, bool]:
        surface = xr.DataArray([first], dims=("frozen", "size"), coords={"size": [10, 20, 40]})
        found = derived.capacity_of(surface)
        return tuple(found[name].item() for name in ("capacity", "censored", "monotone"))

    nan, inf = np.nan, np.inf
    assert capacity([3, 5, inf]) == (20, False, True)
    assert capacity([3, 5, 9]) == (40, True, True)
    assert capacity([3, inf, 9]) == (40, True, False)
    assert capacity([inf, inf, inf]) == (0, False, True)
    assert capacity([nan, 5, inf]) == (20, False, True)
    for open_end in ([3, 5, nan], [nan, nan, nan], [3, nan, inf], [inf, inf, nan]):
        assert np.isnan(capacity(open_end)[0])


def test_a_number_of_ones_own_from_each_run(study: load.Study) -> None:
    best = surfaces.computed_surface(study, "best", ["test_error"], np.min, unit="fraction")
    assert np.array_equal(best, surfaces.over_epochs(study).min("epoch"))
    assert best.attrs["units"] == "fraction"
