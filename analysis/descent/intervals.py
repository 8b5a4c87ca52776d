"""Compute Student's t intervals over few seeds, from one number per seed.

Coverage by simulation: `tests/power/table.md`.
"""

# No bootstrap: a percentile bootstrap of three seeds covers 75 %, not 95 %.
# No spread pooled over cells: seeds differ most near a peak, so intervals would be too narrow there.

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from scipy import special

LEVEL: Final = 0.95


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds with its two-sided interval; `estimate`, `low`, `high` in the unit of the values.

    With one seed, `low` and `high` are infinite, since the spread is unknown.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    df: int
    num: int
    level: float


@lru_cache(maxsize=10_000)
def t_quantile(probability: float, df: int) -> float:
    """Return a quantile of Student's t distribution; infinite if `df` is below 1."""
    return float(special.stdtrit(df, probability)) if df >= 1 else math.inf


def mean_interval(
    values: Sequence[float] | np.ndarray,
    *,
    level: float = LEVEL,
    resolution: float = 0.0,
) -> Interval:
    """Return the t-interval of the mean of independent values. For paired cells, pass the differences.

    Args:
        values: (seeds,), finite, one per seed.
        level: coverage of the interval.
        resolution: step of the grid that values are rounded to (sizes of a study, evaluated epochs,
            whole images). Its standard deviation, resolution/√12, counts even if all values are equal.

    Raises:
        ValueError: if there is no value, or one is not finite.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1 or given.size == 0 or not np.isfinite(given).all():
        raise ValueError(f"values={values!r}: one finite number per seed is needed, at least one")
    if not 0 < level < 1:
        raise ValueError(f"level={level!r}: must be between 0 and 1")
    num, df = given.size, given.size - 1
    estimate, error = float(given.mean()), float(standard_errors(given, resolution))
    half = error * t_quantile(0.5 + level / 2, df) if error else 0.0
    return Interval(
        estimate=estimate,
        low=estimate - half,
        high=estimate + half,
        standard_error=error,
        df=df,
        num=num,
        level=level,
    )


def standard_errors(values: np.ndarray, resolution: float = 0.0) -> np.ndarray:
    """Return standard errors of the mean over seeds: (seeds, …) to (…); infinite with one seed."""
    num = len(values)
    if num < 2:
        return np.full(values.shape[1:], np.inf)
    sd = values.std(axis=0, ddof=1)
    # The mean of equal numbers may differ from these numbers in the last digit.
    sd = np.where(sd < 1e-12 * np.abs(values).max(axis=0), 0.0, sd)
    return np.asarray(np.maximum(sd, resolution / math.sqrt(12.0)) / math.sqrt(num))


def mean_intervals(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return means and half widths of intervals over the seeds of `values`: (seeds, …) to two of (…).

    NaN values are left out. The half width is NaN if fewer than two values are left.
    """
    mean, half = np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    for place in np.ndindex(mean.shape):
        seeds = values[(slice(None), *place)]
        known = seeds[np.isfinite(seeds)]
        if known.size:
            interval = mean_interval(known, level=level)
            mean[place] = interval.estimate
            half[place] = interval.high - interval.estimate if known.size > 1 else np.nan
    return mean, half
