"""Find the best frozen count, and the frozen counts that may be best given the spread over seeds.

The best cut depends on the amount of data and on how related the tasks are (Gerace et al. 2023, arXiv
2303.01429).
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
    """Return the frozen count with the lowest mean over seeds, and the set of cuts that may be best.

    A cut is not in the set if another cut is better by a paired one-sided t-test over the seeds, at
    (1 − level) ÷ (number of other cuts). So the set lacks the true best cut with a probability of at most
    1 − level (Bonferroni), even if spreads differ (unlike multiple comparisons with the best, Hsu 1984).
    Each cell is tested separately. With one seed, the set contains all measured cuts.

    Args:
        surface: an error or a loss, dims "frozen", "seed" and any others; see `at_epoch`.
        resolution: the step to which values are rounded (1 ÷ test images); default: the smallest distance
            between two different values. The standard deviation over seeds is taken to be at least that
            of rounding, resolution ÷ √12.

    Returns:
        best: the frozen count with the lowest mean, or the smallest of several. NaN if no seed has all
            measured cuts.
        in_set: whether each cut (dim "frozen") is measured and not significantly worse than another cut.
        low, high: the fewest and the most frozen layers in the set.
        num_seeds: number of seeds that have every measured cut; other seeds are not used.
        num_cuts: number of cuts measured in any seed. Unmeasured cuts are in no set, but might be best.
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
    """Return True for each cut that may be best: bool, (cuts,). `errors`: (seeds, cuts), finite."""
    num, cuts = errors.shape
    if num < 2 or cuts < 2:
        return np.ones(cuts, bool)
    # Each seed's error at the first cut minus its error at the second: (seeds, cuts, cuts).
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

    The lowest mean over all seeds would be biased downwards, since noise decides among equal choices.
    `errors`: (seeds, choices), finite, two seeds or more.
    """
    others = (errors.sum(axis=0) - errors) / (len(errors) - 1)
    chosen: np.ndarray = errors[np.arange(len(errors)), others.argmin(axis=1)]
    return chosen


def smallest_step(values: np.ndarray) -> float:
    """Return the smallest distance between two different values; 0 if all are equal."""
    known = np.unique(values[np.isfinite(values)])
    gaps = np.diff(known)
    # Equal fractions may differ by rounding errors.
    gaps = gaps[gaps > 1e-9 * np.abs(known).max(initial=0.0)]
    return float(gaps.min()) if gaps.size else 0.0
