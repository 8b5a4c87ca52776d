"""Check curves, average them in windows along the epochs, and locate minimum, peak and later minimum.

Windows are quarters of a decade from 10^(k/4) on, for any data. A window without a point is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

# Values that differ by less than this share of a curve's range count as equal. Sums of the same values
# in another order differ in their last digits. Such differences must not decide where a peak is.
TIE: Final = 1e-9


def present(
    axis: Any, values: Any, train_errors: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Return axis (points,), values and train errors (seeds, points), without points that no seed has.

    Raises:
        ValueError: if shapes do not match, all values are NaN, or a value is infinite.
    """
    x = np.asarray(axis, dtype=np.float64)
    y = _matrix("values", values, x.size)
    keep = ~np.isnan(y).all(axis=0)
    if not keep.any():
        raise ValueError("values: not one value is given")
    train = None
    if train_errors is not None:
        train = _matrix("train_errors", train_errors, x.size)[:, keep]
    return x[keep], y[:, keep], train


def _matrix(name: str, values: Any, num_points: int) -> np.ndarray:
    matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if matrix.ndim != 2 or matrix.shape[1] != num_points:
        raise ValueError(
            f"{name}: shape {matrix.shape}; (seeds, {num_points}) is needed, as the axis is long"
        )
    if np.isinf(matrix).any():
        raise ValueError(f"{name}: holds an infinite value")
    return matrix


def after_descent(
    curves: np.ndarray, first_descent: float, start: np.ndarray | None = None
) -> np.ndarray:
    """Return which points may be the first minimum: (…, points) bool.

    A point may be the first minimum if it is at least `first_descent` times the range below the top: the
    highest value, including `start`: (…), the value before training, NaN if unknown.
    """
    top = curves.max(axis=-1, keepdims=True)
    if start is not None:
        top = np.fmax(top, start[..., None])
    span = top - curves.min(axis=-1, keepdims=True)
    return np.asarray(curves <= top - (first_descent - TIE) * span)


def locate(
    curves: np.ndarray,
    first_descent: float,
    start: np.ndarray | None = None,
    near: np.ndarray | None = None,
    ends: np.ndarray | None = None,
) -> np.ndarray:
    """Return the lowest point before the highest peak, the peak, and the lowest point after it.

    The height of a peak is its height over the higher of the lowest points on its two sides. Moving
    every point by at most δ changes the height by at most 2δ (if `ends` is None). If no point before
    the peak may be the first minimum, the peak itself is used, and its height is at most 0.

    Args:
        curves: (…, points), three points or more.
        first_descent, start: see `after_descent`.
        near: (points,) bool, where the peak may be. If peaks are equally high, the first is returned.
        ends: (points, points) bool; if `ends[j, m]`, the search for the minima of a peak at j ends at m.

    Returns:
        Indices of the three points, (…, 3).
    """
    num = curves.shape[-1]
    ends = np.zeros((num, num), bool) if ends is None else ends
    peaks = np.array([j for j in range(1, num - 1) if near is None or near[j]] or [1])
    at = np.arange(num)
    # The neighbours are always included, so a point with higher neighbours has a negative height.
    is_before, is_after = at < peaks[:, None], at > peaks[:, None]  # (peaks, points)
    first = np.where(is_before & ends[peaks], at, -1).max(axis=1) + 1
    last = np.where(is_after & ends[peaks], at, num).min(axis=1)
    is_before &= at >= np.minimum(first, peaks - 1)[:, None]
    is_after &= at < np.maximum(last, peaks + 2)[:, None]
    each = curves[..., None, :]
    may_begin = after_descent(curves, first_descent, start)[..., None, :]
    lows = np.where(is_before & may_begin, each, np.inf)
    laters = np.where(is_after, each, np.inf)
    tops = curves[..., peaks]
    low = lows.min(axis=-1)
    before = np.where(low < np.inf, lows.argmin(axis=-1), peaks)
    low = np.where(low < np.inf, low, tops)
    heights = np.minimum(tops - low, tops - laters.min(axis=-1))
    tie = TIE * np.ptp(curves, axis=-1)[..., None]
    best = (heights >= heights.max(axis=-1, keepdims=True) - tie).argmax(axis=-1)[..., None]
    places = [before, np.broadcast_to(peaks, before.shape), laters.argmin(axis=-1)]
    return np.concatenate([np.take_along_axis(one, best, axis=-1) for one in places], axis=-1)


def rise_is_smaller(others: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """Return True for each curve whose rise is at most its fall: (seeds,). `triples`: see `locate`."""
    low, _, later = (np.take_along_axis(others, triples[:, [c]], 1)[:, 0] for c in range(3))
    return np.asarray(low >= later)


def nearest(x: np.ndarray, at: Sequence[float]) -> list[int]:
    """Return the indices of the points of `x` nearest to the three places `at`.

    Raises:
        ValueError: if the indices are not different and ascending.
    """
    places = [int(np.abs(x - place).argmin()) for place in at]
    if len(places) != 3 or not places[0] < places[1] < places[2]:
        raise ValueError(f"at={tuple(at)!r}: needs three different places on the axis, ascending")
    return places


# 4 windows resolve a minimum, a peak and a final descent about a decade of epochs apart.
# 4,000 epochs have 15 windows, few enough that the search costs little power.
WINDOWS_PER_DECADE: Final = 4
# 16 parts per decade are quarters of windows. If a curve falls linearly in log epoch until its end, its
# last window's mean exceeds the end value by half of the fall in the window, its last part's by an eighth.
PARTS_PER_DECADE: Final = 16


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows on an axis; each averages the points of one interval.

    `centres`, `lows`, `highs`: (windows,), in the axis's unit; `lows` and `highs` are the first and last
    point of each window. `weights`: (windows, points), rows sum to 1.
    """

    centres: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    weights: np.ndarray

    @cached_property
    def pieces(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the indices of each window's points, and their weights."""
        return [(np.flatnonzero(row), row[row > 0]) for row in self.weights]


def epoch_windows(epochs: np.ndarray, per_decade: int = WINDOWS_PER_DECADE) -> Windows:
    """Return windows that begin at 10^(k/per_decade) for any data; `epochs`: (points,), ascending.

    The point before training (epoch 0) is in no window. A window without a point is left out. If the
    axis covers less than half of its first or last window, that window is merged with its neighbour.
    """
    check_axis("epochs", epochs)
    inside = epochs > 0
    if not inside.any():
        raise ValueError("epochs: none is above 0, so the log axis is empty")
    log = np.log10(epochs[inside])
    bins = np.floor(log * per_decade + 1e-9).astype(int)
    first, last = int(bins[0]), int(bins[-1])
    if first < last and (first + 1) - log[0] * per_decade < 0.5:
        bins[bins == first] = first + 1
    if bins[0] < last and log[-1] * per_decade - last < 0.5:
        bins[bins == last] = last - 1
    # Weights are lengths on the log axis, so more frequent evaluation does not change the mean.
    stretch = np.gradient(log) if log.size > 1 else np.ones(1)
    names = np.unique(bins)
    weights = np.zeros((names.size, epochs.size))
    weights[:, inside] = np.where(bins[None, :] == names[:, None], stretch[None, :], 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    members = [epochs[inside][bins == name] for name in names]
    return Windows(
        centres=10 ** (weights[:, inside] @ log),
        lows=np.array([member[0] for member in members]),
        highs=np.array([member[-1] for member in members]),
        weights=weights,
    )


def window_means(curves: np.ndarray, windows: Windows) -> np.ndarray:
    """Return means of curves (…, points): (…, windows), NaN if a point in the window is NaN."""
    # With one matrix product, a NaN in one window would make all means NaN, since 0 × NaN is NaN.
    means = np.empty((*curves.shape[:-1], len(windows.pieces)))
    for place, (inside, weights) in enumerate(windows.pieces):
        means[..., place] = curves[..., inside] @ weights
    return means


def check_axis(name: str, x: np.ndarray) -> None:
    """Raise ValueError unless `x` is one-dimensional, finite and strictly ascending."""
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all() or (np.diff(x) <= 0).any():
        raise ValueError(f"{name}: must be one row of different finite numbers, ascending")
