"""Windows along the epochs, fixed before any value is looked at.

Owns how a curve over epochs (or steps) is averaged before it is judged: in stretches of the log axis at
10^(k/4), the same for every curve of every study. Refuses to fill a gap: a window averages the points
that were evaluated in it, and one without a point does not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

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


def epoch_windows(epochs: np.ndarray, per_decade: int = WINDOWS_PER_DECADE) -> Windows:
    """Windows at 10^(k/per_decade), fixed whatever the data; shape of `epochs` (points,), ascending.

    Points before training (0) are in none. Within a window a point weighs as its stretch of the
    log axis, so that evaluating more often does not change what is averaged. A window without a
    point is left out; one that the axis enters by less than half joins its neighbour.
    """
    check_axis("epochs", epochs)
    if per_decade < 1:
        raise ValueError(f"per_decade={per_decade!r}: must be 1 or more")
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
