"""Find the best frozen count, and those that do not differ from it significantly over the seeds.

Gerace et al. 2023 (arXiv 2303.01429): the best cut depends on the amount of data and on how related the
tasks are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr
from scipy import special

LEVEL: Final = 0.95


def best_cut(
    surface: xr.DataArray, *, level: float = LEVEL, resolution: float | None = None
) -> xr.Dataset:
    """Return the frozen count with the lowest mean over seeds, and the set of those that may be best.

    A cut is left out if another is better by a paired one-sided t-test over the seeds, at
    (1 − level) ÷ (number of other cuts). So the true best is left out with a probability of at most
    1 − level, for any spreads (Bonferroni; this is the set of multiple comparisons with the best, Hsu
    1984, without equal spreads). Each cell is tested separately. With one seed the set is all measured
    cuts.

    Args:
        surface: an error or a loss, dims "frozen", "seed" and any others; see `at_epoch`.
        resolution: step of the grid that values are rounded to (1 ÷ test images). Rounding has a standard
            deviation of resolution ÷ √12, even if seeds agree. None: the smallest distance between two
            different values.

    Returns:
        best: the frozen count with the lowest mean; the smallest of equal ones. NaN if no seed has all
            measured cuts.
        in_set: over "frozen" too; measured, and not significantly worse than another cut.
        low, high: the fewest and the most frozen layers in the set.
        num_seeds: seeds that have every measured cut; only these are compared.
        num_cuts: cuts measured in any seed. Other cuts are in no set, but might be the best.
    """
    for dim in ("frozen", "seed"):
        if dim not in surface.dims:
            raise ValueError(f"surface: it has no dimension {dim!r}, but {list(surface.dims)}")
    if not 0.5 < level < 1:
        raise ValueError(f"level={level!r}: must be between 0.5 and 1")
    surface = surface.sortby("frozen").transpose(..., "seed", "frozen")
    values, counts = surface.values, surface["frozen"].values.astype(float)
    step = smallest_step(values) if resolution is None else resolution
    shape = values.shape[:-2]
    in_set = np.zeros((*shape, counts.size), bool)
    best, low, high = (np.full(shape, np.nan) for _ in range(3))
    num_seeds, num_cuts = np.zeros(shape, int), np.zeros(shape, int)
    for cell in np.ndindex(shape):
        measured = np.isfinite(values[cell]).any(axis=0)
        whole = np.isfinite(values[cell][:, measured]).all(axis=1)
        num_cuts[cell] = measured.sum()
        if not measured.any():
            continue
        in_set[cell] = measured
        num_seeds[cell] = whole.sum()
        if whole.any():
            errors = values[cell][whole][:, measured]
            in_set[(*cell, measured)] = may_be_best(errors, level=level, resolution=step)
            best[cell] = counts[measured][errors.mean(axis=0).argmin()]
        low[cell], high[cell] = counts[in_set[cell]][[0, -1]]
    over = surface.isel(seed=0, frozen=0, drop=True)
    named = {
        "best": (best, "layers", "frozen count with the lowest mean"),
        "low": (low, "layers", "fewest frozen layers that may be best"),
        "high": (high, "layers", "most frozen layers that may be best"),
        "num_seeds": (num_seeds, "seeds", "seeds that have every measured cut"),
        "num_cuts": (num_cuts, "", "cuts that were measured"),
    }
    cuts = xr.Dataset({name: over.copy(data=data) for name, (data, *_) in named.items()})
    cuts["in_set"] = surface.isel(seed=0, drop=True).copy(data=in_set)
    cuts["in_set"].attrs = {
        "units": "",
        "long_name": "measured, and not shown to be worse than the best",
    }
    for name, (_, unit, meaning) in named.items():
        cuts[name].attrs = {"units": unit, "long_name": meaning}
    return cuts.assign_attrs({"level": level, "value": str(surface.name or "")})


def may_be_best(errors: np.ndarray, *, level: float = LEVEL, resolution: float = 0.0) -> np.ndarray:
    """Return which cuts may be the best: (cuts,) bool. `errors`: (seeds, cuts), finite."""
    num, cuts = errors.shape
    if num < 2 or cuts < 2:
        return np.ones(cuts, bool)
    # By how much the first is worse than the second, seed by seed: (seeds, cuts, cuts).
    worse = errors[:, :, None] - errors[:, None, :]
    mean = worse.mean(axis=0)
    spread = np.maximum(worse.std(axis=0, ddof=1), resolution / np.sqrt(12.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean > 0, mean / spread * np.sqrt(num), 0.0)
    limit = special.stdtrit(num - 1, 1 - (1 - level) / (cuts - 1))
    kept: np.ndarray = (t <= limit).all(axis=1)
    return kept


def held_out_errors(errors: np.ndarray) -> np.ndarray:
    """Return each seed's error at the choice with the lowest mean over the *other* seeds: (seeds,).

    The lowest mean of all seeds is too low an estimate, since noise decides among equal choices.
    `errors`: (seeds, choices), finite, two seeds or more.
    """
    others = (errors.sum(axis=0) - errors) / (len(errors) - 1)
    chosen: np.ndarray = errors[np.arange(len(errors)), others.argmin(axis=1)]
    return chosen


def smallest_step(values: np.ndarray) -> float:
    """Return the smallest distance between two different values; 0 if all are equal."""
    known = np.unique(values[np.isfinite(values)])
    gaps = np.diff(known)
    # Equal fractions may differ in their last digit.
    gaps = gaps[gaps > 1e-9 * np.abs(known).max(initial=0.0)]
    return float(gaps.min()) if gaps.size else 0.0
