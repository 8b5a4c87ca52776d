"""Curves with and without double descent, made up, and what `analysis.descent` says of them.

Owns the shapes, the jitters and the height that matters (0.01, one point of error): they were written
down before the rules were run on them. One threshold was set by simulation: `descent.SEARCH`, on bare
windows (white and AR jitter, flat, falling, U-shaped and plateau curves, 4 to 30 windows); the others by
reasoning. Prints nothing: the tables are `tables`'s.

Curves over 1 … 4,000 epochs, evaluated at 150 log-spaced epochs or at each of the 4,000; every seed has
its own level. Jitter of standard deviation σ per evaluation is *white*; *AR* (first order, 0.9 from one
evaluation to the next); *slow* (Ornstein-Uhlenbeck in log epoch, correlation length half a decade:
windows do not average it away); or *uneven* (white, three times σ in the decade around the peak).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from scipy.signal import lfilter

from analysis.descent import (
    INCONCLUSIVE,
    NONE,
    STRONG,
    WEAK,
    Judgement,
    judge_epochs,
    judge_freezing,
)
from analysis.descent.intervals import Interval, t_quantile

MIN_HEIGHT: Final = 0.01
WORDS: Final = (NONE, WEAK, STRONG, INCONCLUSIVE)
LEVEL_SD: Final = 0.02

Shape = Callable[[np.ndarray], np.ndarray]

# Curves without double descent over u in [0, 1], the place on the log axis. "rise, plateau" is the
# least favourable: its rise is certain, so that only the noise of the fall stands in the way.
NO_PEAK: Final[dict[str, Shape]] = {
    "flat": lambda u: 0.3 + 0 * u,
    "fall": lambda u: 0.7 - 0.5 * u,
    "fall, plateau": lambda u: 0.2 + np.maximum(0.0, 0.5 * (1 - u / 0.4)),
    "U": lambda u: 0.2 + 0.8 * (u - 0.4) ** 2,
    "slow rise": lambda u: 0.2 + 0.5 * np.maximum(0.0, 0.3 - u) + 0.03 * u,
    "rise, plateau": lambda u: 0.2 + np.abs(np.minimum(u, 0.4) - 0.3),
    "flat, fall": lambda u: 0.6 - np.maximum(0.0, u - 0.7),
}


# Places of start, first minimum, peak, later minimum and end: along the epochs, and along the freezing.
ALONG_EPOCHS: Final = (0.0, 0.35, 0.55, 0.85, 1.0)
ALONG_FREEZING: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


def peaked(height: float, gain: float, knots: tuple[float, ...] = ALONG_EPOCHS) -> Shape:
    """Falls to 0.2, peaks `height` above it, and ends `gain` below it (negative: above)."""
    values = [0.7, 0.2, 0.2 + height, 0.2 - gain, 0.2 - gain]
    return lambda u: np.interp(u, knots, values)


def jitter(
    random: np.random.Generator, kind: str, sd: float, shape: tuple[int, ...], u: np.ndarray
) -> np.ndarray:
    """Noise of shape (…, points) on the places `u`; `sd` is the standard deviation of one value."""
    white = random.standard_normal(shape)
    if kind == "AR":
        start = white[..., :1] * 0.9
        moved, _ = lfilter([np.sqrt(1 - 0.9**2)], [1.0, -0.9], white, axis=-1, zi=start)
        return sd * moved
    if kind == "slow":
        memory = np.exp(-np.diff(u) * np.log10(4_000) / 0.5)
        for place in range(1, u.size):
            kept = memory[place - 1]
            white[..., place] *= np.sqrt(1 - kept**2)
            white[..., place] += kept * white[..., place - 1]
        return sd * white
    if kind == "uneven":
        white *= 1 + 2 * (np.abs(u - 0.55) < 0.14)
    return sd * white


def epochs_of(num_points: int) -> np.ndarray:
    """The evaluated epochs: all 4,000, or `num_points` log-spaced ones."""
    if num_points == 4_000:
        return np.arange(1.0, 4_001.0)
    return np.unique(np.geomspace(1, 4_000, num_points))


def verdicts(
    shape: Shape,
    *,
    kind: str,
    sd: float,
    num_seeds: int,
    num_points: int,
    num: int,
    seed: int = 0,
) -> dict[str, float]:
    """Share of `num` simulations with each status: along 4,000 epochs, or, with fewer than 50
    points, along that many frozen counts."""
    random = np.random.default_rng([seed, num_seeds, num_points, round(sd * 1e6), len(kind)])
    epochs = epochs_of(num_points)
    freezing = num_points < 50
    u = np.linspace(0, 1, num_points) if freezing else np.log10(epochs) / np.log10(4_000)
    counts = dict.fromkeys(WORDS, 0)
    for _ in range(num):
        curves = shape(u) + jitter(random, kind, sd, (num_seeds, u.size), u)
        curves += LEVEL_SD * random.standard_normal((num_seeds, 1))
        counts[_judge(freezing, epochs, u, curves).status] += 1
    return {word: count / num for word, count in counts.items()}


def _judge(freezing: bool, epochs: np.ndarray, u: np.ndarray, curves: np.ndarray) -> Judgement:
    if freezing:
        return judge_freezing(1 + u, curves, min_height=MIN_HEIGHT)
    return judge_epochs(epochs, curves, min_height=MIN_HEIGHT)


def height_coverage(num_seeds: int, kind: str, num: int, sd: float = 0.02) -> float:
    """Share of simulations in which the interval of the rise holds the rise between the true curve's
    windows at the located places (their mean over seeds): a weak peak of 0.1, 150 epochs."""
    random = np.random.default_rng([2, num_seeds])
    epochs = epochs_of(150)
    u = np.log10(epochs) / np.log10(4_000)
    true = peaked(0.1, -0.05)(u)
    exact = judge_epochs(epochs, np.tile(true, (2, 1)), min_height=MIN_HEIGHT).rise
    assert exact is not None
    num_held = 0
    for _ in range(num):
        curves = true + jitter(random, kind, sd, (num_seeds, u.size), u)
        rise = judge_epochs(epochs, curves, min_height=MIN_HEIGHT).rise
        assert rise is not None
        num_held += holds(rise, exact.estimate)
    return num_held / num


def holds(interval: Interval, truth: float) -> bool:
    """Whether the truth lies within the interval."""
    return interval.low <= truth <= interval.high


def pooled_holds(cells: np.ndarray, truth: float) -> bool:
    """Whether the last cell's 95 % interval holds the truth, its spread pooled over all cells.

    `cells`: (cells, seeds). `analysis` refuses to pool, and this shows why: cells that do not spread
    alike are covered too seldom.
    """
    sd = np.sqrt(cells.var(axis=1, ddof=1).mean())
    half = t_quantile(0.975, cells.shape[0] * (cells.shape[1] - 1)) * sd / np.sqrt(cells.shape[1])
    return bool(abs(cells[-1].mean() - truth) <= half)
