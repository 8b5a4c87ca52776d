"""Locate the edge of interpolation, decide which points are near it, and align curves at it.

The edge is the first point whose mean *train* error over seeds is at most ε. The judged error must never
decide where a peak counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

EPOCHS: Final = "epochs"
PARAMETERS: Final = "trained parameters"

# 0.3 is three times the usual ε. Along the epochs the test error peaks while the last images, including
# mislabeled ones, are memorized: at a label noise of 40 % the train error is then about half the noise.
NEAR_TRAIN_ERROR: Final = 0.3

# 0.002 is two images of 1,000. At any ε, the test error peaks where the training set is just fitted. With
# random features, the train error is still 0.04 at half as many parameters as at the peak.
NEAR_FITTED: Final = 0.002

# 0.5 decades of epochs are two windows. Before a later peak, the network has long interpolated.
NEAR_DECADES: Final = 0.5

# 1.5 is the factor by which ε alone moves an edge (ten networks on MNIST: width 8 at ε = 0.1, 12 at 0.01).
# It applies to fine grids. On coarse ones, one cut beside the edge is near: cuts limit the resolution.
NEAR_FACTOR: Final = 1.5

NOTHING: Final = "nothing"
SOME: Final = "some"
EVERYTHING: Final = "everything"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """Test and train errors of some seeds over one axis.

    `x`: (points,), ascending; `test`, `train`: (seeds, points); `start`: (seeds,), the test error
    before training, NaN if unknown.
    """

    x: np.ndarray
    test: np.ndarray
    train: np.ndarray
    start: np.ndarray


def mean_train(train: np.ndarray | None) -> np.ndarray | None:
    """Return the mean train error over the seeds without gaps, (points,); None if every seed has a gap."""
    if train is None:
        return None
    complete = train[~np.isnan(train).any(axis=1)]
    return complete.mean(axis=0) if len(complete) else None


def extent(train: np.ndarray | None, epsilon: float) -> str:
    """Return how much of a curve interpolates, by its mean train error (points,).

    "nothing", "some", "everything" (the first point interpolates), or "unknown" without train errors.
    """
    if train is None:
        return UNKNOWN
    reached = train <= epsilon
    return EVERYTHING if reached[0] else SOME if reached.any() else NOTHING


def edge_of(train: np.ndarray | None, epsilon: float) -> int | None:
    """Return the index of the first point with mean train error ≤ ε; None for index 0 or no such point."""
    if train is None or extent(train, epsilon) != SOME:
        return None
    return int((train <= epsilon).argmax())


def near_edge(x: np.ndarray, train: np.ndarray, edge: int, axis: str) -> np.ndarray:
    """Return at which points a peak counts: (points,) bool.

    On the axis of epochs, these points end half a decade after the first point that fits the training set.
    On any other axis, they end one cut or a factor of NEAR_FACTOR after this point, whichever is larger.
    """
    log = np.log10(x)
    tiny = 1e-9
    fitted = max(edge, int((train <= train.min() + NEAR_FITTED).argmax()))
    if axis == EPOCHS:
        early = train <= NEAR_TRAIN_ERROR
        early[edge - 1 :] = True
        return np.asarray(early & (log <= log[fitted] + NEAR_DECADES + tiny))
    factor = np.log10(NEAR_FACTOR)
    below = log[edge - 1] - log[edge - 2] if edge > 1 else 0.0
    above = log[fitted + 1] - log[fitted] if fitted + 1 < x.size else 0.0
    return np.asarray(
        (log >= log[edge - 1] - max(below, factor) - tiny)
        & (log <= log[fitted] + max(above, factor) + tiny)
    )


def near_in_words(axis: str, epsilon: float) -> str:
    """Return a phrase that describes the points at which a peak counts (`near_edge`)."""
    fitted = f"the train error is within {NEAR_FITTED:g} of its lowest"
    if axis == EPOCHS:
        return (
            f"from a train error of {NEAR_TRAIN_ERROR:g}, or of ε = {epsilon:g}, until half a decade of "
            f"epochs after {fitted}"
        )
    return (
        f"from one cut, or a factor of {NEAR_FACTOR:g} in trained parameters, before the train error "
        f"comes under ε = {epsilon:g} until as far after {fitted}"
    )


def own_edges(train: np.ndarray, epsilon: float) -> np.ndarray | None:
    """Return each seed's `edge_of`, (seeds,), by its own train error; None if a seed has no edge."""
    found = [edge_of(one, epsilon) for one in train]
    return None if None in found else np.array(found)


def aligned(curves: Sequence[Curve], epsilon: float) -> Curve:
    """Return the mean of several curves, each shifted so that the edges coincide.

    Points are counted from the edge, and x is the geometric mean. All curves must have an edge and the
    same seeds. A single curve is returned unchanged.
    """
    if len(curves) == 1:
        return curves[0]
    edges = []
    for curve in curves:
        edge = edge_of(mean_train(curve.train), epsilon)
        assert edge is not None
        edges.append(edge)
    before = max(edges)
    after = max(curve.x.size - edge for curve, edge in zip(curves, edges, strict=True))
    # A shorter curve is extended by its last point, so all curves have equal weight at every distance.
    steps = np.arange(-before, after)
    taken = [
        np.clip(edge + steps, 0, curve.x.size - 1)
        for curve, edge in zip(curves, edges, strict=True)
    ]
    pairs = list(zip(curves, taken, strict=True))
    return Curve(
        x=10 ** np.mean([np.log10(curve.x[take]) for curve, take in pairs], axis=0),
        test=np.mean([curve.test[:, take] for curve, take in pairs], axis=0),
        train=np.mean([curve.train[:, take] for curve, take in pairs], axis=0),
        start=np.mean([curve.start for curve in curves], axis=0),
    )
