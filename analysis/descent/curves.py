"""Check curves, average them in windows along the epochs, and locate minimum, peak and later minimum.

Windows are quarters of a decade at 10^(k/4), whatever the data. A window without a point is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

# Numbers closer than this share of a curve's range are equal: means of equal numbers, added up in
# another order, differ in their last digits, and no place may hang on that.
TIE: Final = 1e-9


def present(
    axis: Any, values: Any, train_errors: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The axis and the matrices, (seeds, points), without the points that no seed has.

    Raises ValueError where shapes do not fit, and for infinite values.
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
    """Which points may be the first minimum, (…, points) bool: those that lie below the highest value
    of the curve, or of what it began at, by this share of its range. `start`: (…), the value before
    the first point (before training), where it is known."""
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
    """Return lowest point before, peak, lowest point after, of the highest peak: (…, 3) indices.

    The height of a peak is the smaller of its heights over the lowest points on its two sides. Moving
    every point by at most δ changes the height found by at most 2δ (if `ends` is None). On a side where
    no point may be a minimum, the peak itself is the minimum, and its height is 0 at most.

    Args:
        curves: (…, points), three points or more.
        first_descent, start: see `after_descent`.
        near: (points,) bool, where the peak may be. Of equal peaks the first counts.
        ends: (points, points) bool; `ends[j, m]`: the minima of a peak at j are sought on this side of m.
    """
    num = curves.shape[-1]
    tie = TIE * np.ptp(curves, axis=-1)
    may_begin = after_descent(curves, first_descent, start)
    ends = np.zeros((num, num), bool) if ends is None else ends
    candidates = [j for j in range(1, num - 1) if near is None or near[j]] or [1]
    best = np.full(curves.shape[:-1], -np.inf)
    found = np.zeros((*curves.shape[:-1], 3), dtype=int)
    for j in candidates:
        # The neighbours stay in reach, so that a point with higher neighbours has a negative height.
        first = min(max(np.flatnonzero(ends[j, :j]), default=-1) + 1, j - 1)
        last = max(min(np.flatnonzero(ends[j, j + 1 :]) + j + 1, default=num), j + 2)
        allowed = np.where(may_begin[..., first:j], curves[..., first:j], np.inf)
        before = np.where(np.isfinite(allowed).any(axis=-1), first + allowed.argmin(axis=-1), j)
        later = j + 1 + curves[..., j + 1 : last].argmin(axis=-1)
        places = np.stack([before, np.full_like(before, j), later], axis=-1)
        low, top, end = np.moveaxis(np.take_along_axis(curves, places, -1), -1, 0)
        height = np.minimum(top - low, top - end)
        better = height > best + np.where(np.isfinite(best), tie, 0.0)
        best = np.where(better, height, best)
        found = np.where(better[..., None], places, found)
    return found


def rise_is_smaller(others: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """Whether the rise of each curve, at its three places, is at most its fall: (seeds,) bool."""
    low, _, later = (np.take_along_axis(others, triples[:, [c]], 1)[:, 0] for c in range(3))
    return np.asarray(low >= later)


def nearest(x: np.ndarray, at: Sequence[float]) -> list[int]:
    """The indices nearest to three places. ValueError unless they are different and ascending."""
    places = [int(np.abs(x - place).argmin()) for place in at]
    if len(places) != 3 or not places[0] < places[1] < places[2]:
        raise ValueError(f"at={tuple(at)!r}: needs three different places on the axis, ascending")
    return places


# A minimum, peak and final descent lie about a decade of epochs apart: four windows resolve them, and
# over 4,000 epochs there are 15, few enough that the search among them stays cheap.
WINDOWS_PER_DECADE: Final = 4


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows on an axis: each averages the points of one stretch of it.

    `centres`, `lows`, `highs` (the first and last point averaged): shape (windows,), in the axis's
    unit; `weights`: (windows, points), rows sum to 1.
    """

    centres: np.ndarray
    lows: np.ndarray
    highs: np.ndarray
    weights: np.ndarray


def epoch_windows(epochs: np.ndarray) -> Windows:
    """Windows at 10^(k/WINDOWS_PER_DECADE), whatever the data; `epochs`: (points,), ascending.

    Points before training (0) are in none. Within a window a point weighs as its stretch of the
    log axis, so that evaluating more often does not change what is averaged. A window without a
    point is left out; one that the axis enters by less than half joins its neighbour.
    """
    check_axis("epochs", epochs)
    inside = epochs > 0
    if not inside.any():
        raise ValueError("epochs: none is above 0, so the log axis is empty")
    log = np.log10(epochs[inside])
    bins = np.floor(log * WINDOWS_PER_DECADE + 1e-9).astype(int)
    first, last = int(bins[0]), int(bins[-1])
    if first < last and (first + 1) - log[0] * WINDOWS_PER_DECADE < 0.5:
        bins[bins == first] = first + 1
    if bins[0] < last and log[-1] * WINDOWS_PER_DECADE - last < 0.5:
        bins[bins == last] = last - 1
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
    """Means of curves (…, points) in the windows: (…, windows), NaN where a point of one is NaN."""
    # Window by window: 0 × NaN is NaN, so one product would spread a gap over all windows.
    means = [curves[..., row > 0] @ row[row > 0] for row in windows.weights]
    return np.stack(means, axis=-1)


def check_axis(name: str, x: np.ndarray) -> None:
    """ValueError unless `x` is a row of different finite numbers, ascending."""
    if x.ndim != 1 or x.size == 0 or not np.isfinite(x).all() or (np.diff(x) <= 0).any():
        raise ValueError(f"{name}: must be one row of different finite numbers, ascending")
