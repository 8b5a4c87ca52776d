"""The set of cuts that may be the best: its error rate, and laws that hold for every surface."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis import surfaces
from analysis.surfaces.best_cut import may_be_best

NUM_CUTS = 10
# Two standard errors over 2,000 cells, in each of which a best cut is left out with a chance of 5 %.
CHANCE = 2 * np.sqrt(0.05 * 0.95 / 2_000)

SPREADS = {"equal": np.full(NUM_CUTS, 0.01), "unequal": np.geomspace(0.002, 0.05, NUM_CUTS)}


def cells(
    num_seeds: int, spread: np.ndarray, gap: float, *, num_test: int = 0, num: int = 2_000
) -> xr.DataArray:
    """Return errors, dims (cell, seed, frozen), whose cut 5 is `gap` better than all equal others.

    Each seed shifts all its cuts. `num_test`: number of test images that errors are rounded to.
    """
    random = np.random.default_rng(num_seeds)
    shape = (num, num_seeds, NUM_CUTS)
    errors = 0.3 + spread * random.standard_normal(shape)
    errors += 0.02 * random.standard_normal((num, num_seeds, 1))
    errors[..., 5] -= gap
    if num_test:
        errors = np.rint(errors * num_test) / num_test
    frozen = np.arange(NUM_CUTS)
    return xr.DataArray(errors, {"frozen": frozen}, ["cell", "seed", "frozen"], name="test_error")


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("num_test", [0, 179])
def test_best_cut_set_misses_the_best_in_at_most_5_percent(
    num_seeds: int, spread: str, num_test: int
) -> None:
    found = surfaces.best_cut(cells(num_seeds, SPREADS[spread], 0.0, num_test=num_test))
    # All cuts are equally good, so each is a best cut: the hardest case.
    left_out = 1 - found["in_set"].mean("cell")
    assert float(left_out.mean()) <= 0.05 + CHANCE / 2
    assert float(left_out.max()) <= 0.05 + 1.5 * CHANCE  # the worst of ten such rates


@pytest.mark.parametrize(("num_seeds", "most"), [(3, 9.0), (5, 5.0), (10, 1.1)])
def test_best_cut_3_points_better_is_found_with_more_seeds(num_seeds: int, most: float) -> None:
    errors = cells(num_seeds, SPREADS["equal"], 0.03)
    found = surfaces.best_cut(errors)
    assert found["best"].dims == ("cell",) and found["best"].attrs["units"] == "layers"
    assert (found["best"] == errors.mean("seed").idxmin("frozen")).all()
    assert float(found["in_set"].sum("frozen").mean()) <= most
    assert float(found["in_set"].sel(frozen=5).mean()) >= 0.999
    assert float((found["best"] == 5).mean()) >= 0.95


errors = st.integers(2, 6).flatmap(
    lambda cuts: st.integers(1, 4).flatmap(
        lambda seeds: hnp.arrays(
            float, (seeds, cuts), elements=st.integers(0, 200).map(lambda k: k / 200)
        )
    )
)


@settings(max_examples=200, deadline=None)
@given(values=errors, data=st.data())
def test_may_be_best_ignores_order_and_shifts_of_seeds(
    values: np.ndarray, data: st.DataObject
) -> None:
    kept = may_be_best(values, resolution=1 / 200)
    assert kept[values.mean(axis=0).argmin()]
    if len(values) == 1:
        assert kept.all()
    # Neither the order of cuts nor of seeds, nor a shift of a whole seed, changes it.
    order = data.draw(st.permutations(range(values.shape[1])))
    assert (may_be_best(values[::-1][:, order], resolution=1 / 200) == kept[order]).all()
    shifts = np.arange(len(values))[:, None]
    moved = may_be_best(np.round(values + shifts, 6), resolution=1 / 200)
    assert (moved == kept).all()


def surface(values: list[list[float]]) -> xr.DataArray:
    """`values`: (seeds, cuts)."""
    frozen = np.arange(len(values[0])) * 3
    return xr.DataArray(values, {"frozen": frozen}, ["seed", "frozen"], name="test_error")


NAN = float("nan")


def test_best_cut_one_seed_keeps_every_cut() -> None:
    found = surfaces.best_cut(surface([[0.5, 0.1, 0.9]]))
    assert found["in_set"].values.tolist() == [True, True, True]
    assert (float(found["best"]), float(found["low"]), float(found["high"])) == (3, 0, 6)
    assert int(found["num_seeds"]) == 1


def test_best_cut_missing_values_are_not_filled_in() -> None:
    far = [
        [0.50, 0.10, NAN, 0.9],
        [0.51, 0.12, NAN, 0.8],
        [0.52, 0.11, NAN, NAN],
        [0.5, 0.1, NAN, 0.9],
    ]
    found = surfaces.best_cut(surface(far))
    # A cut without values is in no set; a seed that lacks a cut is in no comparison.
    assert found["in_set"].values.tolist() == [False, True, False, False]
    assert (int(found["num_seeds"]), int(found["num_cuts"])) == (3, 3)
    without = surfaces.best_cut(surface([far[0], far[1], far[3]]))
    assert without["in_set"].equals(found["in_set"])
    no_whole_seed = surfaces.best_cut(surface([[0.1, NAN], [NAN, 0.5]]))
    assert np.isnan(no_whole_seed["best"]) and no_whole_seed["in_set"].all()
    nothing = surfaces.best_cut(surface([[NAN, NAN]]))
    assert np.isnan(nothing["low"]) and not nothing["in_set"].any() and nothing["num_cuts"] == 0


def test_best_cut_few_test_images_decide_nothing() -> None:
    # Of 20 test images both seeds get one more right: the spread reads as zero.
    values = [[0.30, 0.35, 0.40], [0.40, 0.45, 0.35]]
    assert surfaces.best_cut(surface(values))["in_set"].all()
    finer = surfaces.best_cut(surface(values), resolution=1e-6)
    assert finer["in_set"].values.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (surface([[0.1, 0.2]]).isel(seed=0), {}, "no dimension 'seed'"),
        (surface([[0.1, 0.2]]).isel(frozen=0), {}, "no dimension 'frozen'"),
        (surface([[0.1, 0.2]]), {"level": 1.0}, "level=1.0"),
    ],
)
def test_best_cut_wrong_input_raises(
    given: xr.DataArray, options: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        surfaces.best_cut(given, **options)
