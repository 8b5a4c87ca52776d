"""Locate the edge of interpolation, decide what is near it, and align curves at it.

The edge is the first point whose train error, mean over seeds, is at most ε; it is known to lie between
that point and the one before. Only the *train* error decides where a peak counts, never the error that is
judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

EPOCHS: Final = "epochs"
PARAMETERS: Final = "trained parameters"

# Along the epochs the test error peaks while the last images are memorized, the flipped images among
# them. The train error is then below 0.3: three times the usual ε, and half of a noise of 40 %.
NEAR_TRAIN_ERROR: Final = 0.3

# 0.002 is two images of 1,000. The test error peaks where the training set is just fitted, whatever ε is:
# with random features the train error is 0.04 at half of the parameters of the peak.
NEAR_FITTED: Final = 0.002

# Half a decade of epochs is two windows. A later peak belongs to a network that has long interpolated.
NEAR_DECADES: Final = 0.5

# Along the freezing the cuts limit what can be told apart, so one cut beside the edge is near; on a fine
# grid a factor of 1.5 is: ε alone moves an edge by it (ten networks on MNIST: widths 8 at ε = 0.1, 12 at
# 0.01).
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
    """Return where on the axis a peak counts: (points,) bool.

    It ends after the first point at which the training set is fitted: half a decade of epochs after it,
    or, along any other axis, one cut or a factor of NEAR_FACTOR after it.
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
    """Describe the window of `near_edge`."""
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
