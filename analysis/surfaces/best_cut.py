"""Which frozen count is best, and which cannot be told apart from the best over these seeds.

Owns the rule by which a cut is left out of that set; on any surface over "frozen" and "seed". Fills in no
absent cut and no absent seed, and leaves no cut out by one seed. That the best cut depends on the amount
of data and on how related the tasks are is what Gerace et al. 2023 (arXiv 2303.01429) found.
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
    """The frozen count with the lowest mean over seeds, and the set of those that may be the best.

    `surface`: an error or a loss, dims "frozen", "seed" and any others, as `at_epoch` gives it.

    - `best`: the frozen count with the lowest mean; of equal ones that with the fewest frozen layers.
    - `in_set`, over "frozen" too: measured, and not told apart from the best. `low`, `high`: the fewest
      and the most frozen layers in the set.
    - `num_seeds`: seeds that have every measured cut: only these are compared. `num_cuts`: cuts that
      were measured in any seed; others are in no set, and may be the best for all that is known.

    A cut is left out where another is better by a paired one-sided t-test over the seeds, at
    (1 − level) ÷ (number of other cuts). So the truly best is left out with a chance of at most 1 − level,
    whatever the spreads: it would take one of those tests to err (Bonferroni; the set is that of multiple
    comparisons with the best, Hsu 1984, without its equal spreads). Of each cell by itself.

    With one seed the set is all measured cuts; without a seed that has them all, `best` is NaN as well.

    `resolution`: the values are read off a grid this wide (1 ÷ test images), so that seeds which agree
    still hide a spread of resolution ÷ √12. None: the least distance between two different values.
    """
    for dim in ("frozen", "seed"):
        if dim not in surface.dims:
            raise ValueError(f"surface: it has no dimension {dim!r}, but {list(surface.dims)}")
    if not 0.5 < level < 1:
        raise ValueError(f"level={level!r}: must lie between 0.5 and 1")
    surface = surface.sortby("frozen").transpose(..., "seed", "frozen")
    values, counts = surface.values, surface["frozen"].values.astype(float)
    step = _step(values) if resolution is None else resolution
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
    cuts["in_set"].attrs = {"units": "", "long_name": "measured, and not told apart from the best"}
    for name, (_, unit, meaning) in named.items():
        cuts[name].attrs = {"units": unit, "long_name": meaning}
    return cuts.assign_attrs({"level": level, "value": str(surface.name or "")})


def may_be_best(errors: np.ndarray, *, level: float = LEVEL, resolution: float = 0.0) -> np.ndarray:
    """Which cuts cannot be told apart from the best: (cuts,) bool, of `errors` (seeds, cuts), finite."""
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


def _step(values: np.ndarray) -> float:
    known = np.unique(values[np.isfinite(values)])
    gaps = np.diff(known)
    # Equal fractions may differ in their last digit.
    gaps = gaps[gaps > 1e-9 * np.abs(known).max(initial=0.0)]
    return float(gaps.min()) if gaps.size else 0.0
