"""Curves as (seeds, points): checked, and where on them minimum, peak and later minimum lie.

Owns the search for a peak. Knows neither noise nor the threshold of a verdict: these are `judge`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


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


def extent(train: np.ndarray | None, epsilon: float) -> str:
    """How much of a curve interpolates, by the mean over seeds without a gap: "nothing", "some",
    "everything"; "unknown" without such a seed. `train`: (seeds, points)."""
    if train is None:
        return "unknown"
    complete = train[~np.isnan(train).any(axis=1)]
    if not len(complete):
        return "unknown"
    reached = complete.mean(axis=0) <= epsilon
    return "everything" if reached.all() else "some" if reached.any() else "nothing"


def locate(curves: np.ndarray, first_descent: float) -> np.ndarray:
    """Lowest point before, peak, lowest point after, of the most prominent peak: (…, 3) indices.

    `curves`: (…, points), three or more. The prominence of a point is the smaller of its heights
    over the lowest point before and over the lowest point after; negative where there is no peak.
    Points before the first descent are no minimum; a curve that never descends has none of them.
    """
    fallen = np.maximum.accumulate(curves, axis=-1) - curves
    is_low = fallen >= first_descent * np.ptp(curves, axis=-1, keepdims=True)
    is_low |= ~is_low[..., :-2].any(axis=-1, keepdims=True)
    minima = np.where(is_low, curves, np.inf)
    before = np.minimum.accumulate(minima, axis=-1)[..., :-2]
    after = np.minimum.accumulate(curves[..., ::-1], axis=-1)[..., ::-1][..., 2:]
    middle = curves[..., 1:-1]
    peak = np.minimum(middle - before, middle - after).argmax(axis=-1) + 1
    index = np.arange(curves.shape[-1])
    first = np.where(index < peak[..., None], minima, np.inf).argmin(axis=-1)
    later = np.where(index > peak[..., None], curves, np.inf).argmin(axis=-1)
    return np.stack([first, peak, later], axis=-1)


def rise_is_smaller(others: np.ndarray, triples: np.ndarray) -> np.ndarray:
    """Whether the rise of each curve, at its three places, is at most its fall: (seeds,) bool."""
    low, _, later = (np.take_along_axis(others, triples[:, [c]], 1)[:, 0] for c in range(3))
    return low >= later


def nearest(x: np.ndarray, at: Sequence[float]) -> list[int]:
    """The indices nearest to three places. ValueError unless they are different and ascending."""
    places = [int(np.abs(x - place).argmin()) for place in at]
    if len(places) != 3 or not places[0] < places[1] < places[2]:
        raise ValueError(f"at={tuple(at)!r}: needs three different places on the axis, ascending")
    return places
