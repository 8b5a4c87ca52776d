"""The edge of interpolation: where it lies on an axis, what is near it, and curves laid over each other.

Owns the windows in which a peak counts as one of double descent. They look at the *train* error alone,
never at the error that is judged. The edge is the first point whose train error, mean over seeds, is at
most ε; it is known to lie between that point and the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

EPOCHS: Final = "epochs"
PARAMETERS: Final = "trained parameters"

# Along the epochs the test error peaks while the last images are being learnt by heart, the flipped ones
# among them: from a train error of 0.3 (three times the usual ε; with 40 % of the labels flipped the
# peak lies at about half of that noise) until half a decade after the edge, two windows of a quarter:
# what peaks later does so on a network that has long interpolated.
NEAR_TRAIN_ERROR: Final = 0.3
NEAR_DECADES: Final = 0.5

# Along the freezing the cuts are few, so the grid itself says what can be told apart: a peak is near the
# edge when it is no farther from the two cuts between which the edge lies than the next cut on that side;
# or, on a fine grid, than a factor of 1.5, by which ε alone moves an edge (ten networks on MNIST: widths
# 8 at ε = 0.1, 12 at 0.01).
NEAR_FACTOR: Final = 1.5

NOTHING: Final = "nothing"
SOME: Final = "some"
EVERYTHING: Final = "everything"
UNKNOWN: Final = "unknown"


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """Test and train errors of some seeds over one axis: `x` (points,), ascending; `test`, `train`
    (seeds, points); `start` (seeds,): the test error before training, NaN where it is not known."""

    x: np.ndarray
    test: np.ndarray
    train: np.ndarray
    start: np.ndarray


def mean_train(train: np.ndarray | None) -> np.ndarray | None:
    """(points,): the mean over the seeds without a gap; None where there is none."""
    if train is None:
        return None
    complete = train[~np.isnan(train).any(axis=1)]
    return complete.mean(axis=0) if len(complete) else None


def extent(train: np.ndarray | None, epsilon: float) -> str:
    """How much of a curve interpolates, by its mean train error (points,): "nothing", "some",
    "everything" (from the first point on), "unknown" without train errors."""
    if train is None:
        return UNKNOWN
    reached = train <= epsilon
    return EVERYTHING if reached[0] else SOME if reached.any() else NOTHING


def edge_of(train: np.ndarray | None, epsilon: float) -> int | None:
    """The first point with mean train error ≤ ε where it is not the first of all, else None."""
    if train is None or extent(train, epsilon) != SOME:
        return None
    return int((train <= epsilon).argmax())


def near_edge(x: np.ndarray, train: np.ndarray, edge: int, axis: str) -> np.ndarray:
    """Where on the axis a peak counts: (points,) bool; along the epochs by train error and epoch,
    along any other axis by the distance in log x (the reasons stand above)."""
    log = np.log10(x)
    tiny = 1e-9
    if axis == EPOCHS:
        early = train <= NEAR_TRAIN_ERROR
        early[edge - 1 :] = True
        return np.asarray(early & (log <= log[edge] + NEAR_DECADES + tiny))
    factor = np.log10(NEAR_FACTOR)
    below = log[edge - 1] - log[edge - 2] if edge > 1 else 0.0
    above = log[edge + 1] - log[edge] if edge + 1 < x.size else 0.0
    return np.asarray(
        (log >= log[edge - 1] - max(below, factor) - tiny)
        & (log <= log[edge] + max(above, factor) + tiny)
    )


def near_in_words(axis: str, epsilon: float) -> str:
    """The window of `near_edge`, for a reader."""
    if axis == EPOCHS:
        return (
            f"from a train error of {NEAR_TRAIN_ERROR:g} until half a decade of epochs after it came "
            f"under ε = {epsilon:g}"
        )
    return (
        f"at most one cut, or a factor of {NEAR_FACTOR:g} in trained parameters, beside the two cuts "
        f"between which the train error comes under ε = {epsilon:g}"
    )


def aligned(curves: Sequence[Curve], epsilon: float) -> Curve:
    """The mean of several curves, each moved so that its own edge lies where the others' do.

    Points are counted from the edge; a curve that has no more of them on one side stays at its last one,
    so that all curves weigh alike at every distance. x is the geometric mean. All must have an edge,
    and the same seeds. One curve comes back as it is.
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
