"""What excludes a peak: upper bounds on its height, from all three points that could make it.

A peak that matters needs three points: a rise and a fall between them. It is excluded when for *every*
three points the upper end of the rise's or of the fall's t-interval over seeds lies below what matters.
All must be excluded, so no correction for their number is due: false in 5 % at most, 2.5 for the rise
and 2.5 for the fall, whatever the curve. The bound is the height under which this still works.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from analysis.descent.intervals import standard_errors, t_quantile

# Two or three seeds hardly know the spread of a difference, and the worst of all pairs is the bound. So
# each pair's variance is averaged with the mean one of all pairs, which counts as two more degrees of
# freedom: at three seeds a long flat curve is then excluded ten times as often, and where the seeds
# spread three times as much at the peak a true one in 5 %. Not with two seeds or four points: 7 to 8 %.
BORROWED: Final = 2


def upper_bounds(
    y: np.ndarray, may_begin: np.ndarray, near: np.ndarray, level: float, resolution: float
) -> tuple[float, float]:
    """Upper bounds on the height of a peak where one counts, and on how far the end has risen."""
    num, points = y.shape
    apart = y[:, None, :] - y[:, :, None]  # (seeds, from, to)
    index = np.arange(points)
    is_before = index[:, None] < index[None, :]
    own = num * standard_errors(apart, resolution) ** 2
    borrowed = BORROWED if num > 2 and points > 4 else 0
    df = num - 1 + borrowed
    variance = ((num - 1) * own + borrowed * own[is_before].mean()) / df
    upper = apart.mean(axis=0) + t_quantile(0.5 + level / 2, df) * np.sqrt(variance / num)
    # A peak is the highest between its two minima: none lies beyond a point that is shown to be higher.
    is_higher = upper < 0  # (from, to): the first is shown to be the higher one
    last_higher = np.where(is_before & is_higher, index[:, None], -1).max(axis=0)
    next_higher = np.where(is_before.T & is_higher, index[:, None], points).min(axis=0)
    may_rise = is_before & may_begin[:, None] & (index[:, None] > last_higher)
    rises = np.where(may_rise, upper, -np.inf).max(axis=0)
    falls = np.where(is_before.T & (index[:, None] < next_higher), upper, -np.inf).max(axis=0)
    inner = near & (index > 0) & (index < index[-1])
    peaks = np.minimum(rises, falls)[inner]
    # Where every point has a higher neighbour, a peak is excluded at any height.
    ends = upper[:-1, -1][may_begin[:-1]]
    return float(peaks.max(initial=-np.inf)), float(ends.max(initial=-np.inf))
