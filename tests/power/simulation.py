"""How often each verdict comes, by simulation: the evidence for the rules of `descent` and `intervals`.

Run by `python -m analysis.power` (everything below, some minutes on one core), or with one of the words
`false`, `seen`, `freezing`, `coverage`. The shapes, the jitters and the height that matters (0.01, one
point of error) were written down before the rules were run on them. One threshold was set by
simulation: `descent.SEARCH`, on bare windows (white and AR jitter, flat, falling, U-shaped and
plateau curves, 4 to 30 windows); the others by reasoning.

Curves over 1 … 4,000 epochs, evaluated at 150 log-spaced epochs or at each of the 4,000; every seed has
its own level. Jitter of standard deviation σ per evaluation is
*white*; *AR* (first order, 0.9 from one evaluation to the next); *slow* (Ornstein-Uhlenbeck in log
epoch, correlation length half a decade: windows do not average it away); or *uneven* (white, three
times σ in the decade around the peak).

*No peak is there.* Worst of seven shapes: per cent weak or strong; in brackets how often inconclusive
comes, mean over the shapes. 1,000 simulations a shape (500 at 4,000 points), so ± 0.7.

| jitter | σ | points | 2 seeds | 3 seeds | 5 seeds | 10 seeds |
|---|---|---|---|---|---|---|
| white | 0.005 | 150 | 0.0 (24) | 0.0 (0) | 0.0 (0) | 0.0 (0) |
| white | 0.005 | 4000 | 0.0 (15) | 0.0 (1) | 0.0 (0) | 0.0 (0) |
| white | 0.02 | 150 | 0.3 (65) | 2.5 (39) | 1.4 (19) | 0.3 (6) |
| white | 0.02 | 4000 | 0.4 (66) | 0.8 (30) | 0.0 (8) | 0.0 (2) |
| white | 0.05 | 150 | 2.0 (87) | 3.9 (73) | 3.7 (50) | 1.5 (34) |
| white | 0.05 | 4000 | 3.6 (85) | 2.8 (72) | 2.0 (49) | 0.4 (26) |
| AR | 0.005 | 150 | 0.4 (48) | 0.3 (18) | 0.1 (3) | 0.0 (0) |
| AR | 0.005 | 4000 | 0.0 (37) | 0.0 (8) | 0.0 (0) | 0.0 (0) |
| AR | 0.02 | 150 | 1.4 (86) | 3.7 (70) | 2.8 (47) | 1.2 (32) |
| AR | 0.02 | 4000 | 1.0 (80) | 2.2 (61) | 2.8 (34) | 0.4 (18) |
| AR | 0.05 | 150 | 1.1 (92) | 2.8 (86) | 2.4 (75) | 1.2 (60) |
| AR | 0.05 | 4000 | 2.2 (90) | 3.6 (83) | 1.6 (70) | 2.4 (50) |
| slow | 0.005 | 150 | 0.2 (46) | 0.4 (15) | 0.0 (3) | 0.0 (0) |
| slow | 0.02 | 150 | 1.1 (84) | 2.8 (65) | 2.2 (45) | 1.1 (26) |
| slow | 0.05 | 150 | 1.0 (91) | 2.0 (86) | 1.6 (70) | 0.7 (55) |
| uneven | 0.005 | 150 | 0.0 (47) | 0.4 (20) | 0.0 (5) | 0.0 (0) |
| uneven | 0.005 | 4000 | 0.0 (32) | 0.0 (4) | 0.0 (0) | 0.0 (0) |
| uneven | 0.02 | 150 | 2.3 (84) | 4.0 (70) | 3.3 (48) | 0.6 (34) |
| uneven | 0.02 | 4000 | 1.2 (76) | 1.8 (54) | 1.8 (28) | 0.4 (14) |
| uneven | 0.05 | 150 | 1.7 (90) | 3.4 (86) | 2.7 (74) | 1.4 (60) |
| uneven | 0.05 | 4000 | 1.6 (89) | 3.2 (83) | 2.6 (67) | 1.2 (46) |

*A peak is there*, 150 points, 500 simulations: none / weak / strong / inconclusive in per cent. The true
end lies half the height above the first minimum (weak) or under it (strong); so the weak peak of 0.02
falls by 0.01, and by less than that once averaged in windows: "none" is not wrong there. Elsewhere
"none" is a miss: up to 11 % where the jitter is as large as the peak. Slow jitter comes out as AR does.

| jitter | σ | height | truth | 2 seeds | 3 seeds | 5 seeds | 10 seeds |
|---|---|---|---|---|---|---|---|
| white | 0.005 | 0.02 | weak | 13 / 4 / 0 / 83 | 16 / 13 / 0 / 71 | 31 / 8 / 0 / 62 | 49 / 2 / 0 / 49 |
| white | 0.005 | 0.02 | strong | 0 / 15 / 22 / 63 | 0 / 1 / 97 / 2 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| white | 0.005 | 0.05 | weak | 0 / 61 / 0 / 39 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 |
| white | 0.005 | 0.05 | strong | 0 / 9 / 76 / 14 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| white | 0.005 | 0.1 | weak | 0 / 95 / 0 / 5 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 |
| white | 0.005 | 0.1 | strong | 0 / 0 / 99 / 1 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| white | 0.02 | 0.02 | weak | 13 / 1 / 0 / 87 | 14 / 4 / 0 / 82 | 19 / 13 / 0 / 68 | 23 / 25 / 0 / 53 |
| white | 0.02 | 0.02 | strong | 4 / 2 / 1 / 93 | 4 / 14 / 7 / 75 | 3 / 22 / 20 / 54 | 1 / 17 / 59 / 24 |
| white | 0.02 | 0.05 | weak | 0 / 6 / 0 / 94 | 0 / 53 / 0 / 47 | 0 / 85 / 0 / 15 | 0 / 100 / 0 / 0 |
| white | 0.02 | 0.05 | strong | 0 / 9 / 8 / 83 | 0 / 10 / 76 / 14 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| white | 0.02 | 0.1 | weak | 0 / 22 / 0 / 78 | 0 / 95 / 0 / 5 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 |
| white | 0.02 | 0.1 | strong | 0 / 18 / 31 / 51 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| AR | 0.005 | 0.02 | weak | 11 / 1 / 0 / 87 | 12 / 10 / 0 / 77 | 18 / 17 / 0 / 65 | 22 / 20 / 0 / 58 |
| AR | 0.005 | 0.02 | strong | 3 / 3 / 1 / 92 | 1 / 23 / 24 / 52 | 0 / 18 / 62 / 20 | 0 / 7 / 89 / 4 |
| AR | 0.005 | 0.05 | weak | 0 / 15 / 0 / 85 | 0 / 77 / 0 / 23 | 0 / 99 / 0 / 1 | 0 / 100 / 0 / 0 |
| AR | 0.005 | 0.05 | strong | 0 / 13 / 16 / 71 | 0 / 3 / 97 / 0 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| AR | 0.005 | 0.1 | weak | 0 / 42 / 0 / 58 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 | 0 / 100 / 0 / 0 |
| AR | 0.005 | 0.1 | strong | 0 / 16 / 56 / 28 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| AR | 0.02 | 0.02 | weak | 12 / 1 / 0 / 87 | 17 / 1 / 0 / 83 | 21 / 1 / 0 / 78 | 23 / 1 / 0 / 76 |
| AR | 0.02 | 0.02 | strong | 8 / 1 / 0 / 91 | 11 / 2 / 0 / 87 | 9 / 5 / 0 / 85 | 11 / 9 / 0 / 80 |
| AR | 0.02 | 0.05 | weak | 6 / 0 / 0 / 94 | 5 / 7 / 0 / 88 | 4 / 15 / 0 / 81 | 2 / 25 / 0 / 73 |
| AR | 0.02 | 0.05 | strong | 2 / 1 / 1 / 96 | 0 / 14 / 7 / 78 | 0 / 29 / 19 / 52 | 0 / 22 / 60 / 18 |
| AR | 0.02 | 0.1 | weak | 1 / 4 / 0 / 96 | 0 / 26 / 0 / 73 | 0 / 63 / 0 / 37 | 0 / 93 / 0 / 7 |
| AR | 0.02 | 0.1 | strong | 0 / 4 / 6 / 90 | 0 / 22 / 46 / 32 | 0 / 5 / 91 / 3 | 0 / 0 / 100 / 0 |

*Along the freezing*, white jitter, no windows, 1,000 simulations; an even number of points straddles the
peak, so that about three quarters of its height are left.

| points | σ | truth | 2 seeds | 3 seeds | 5 seeds | 10 seeds |
|---|---|---|---|---|---|---|
| 5 | 0.005 | fall | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 |
| 5 | 0.005 | rise, plateau | 17 / 0 / 0 / 82 | 38 / 0 / 0 / 61 | 68 / 0 / 0 / 32 | 96 / 0 / 0 / 4 |
| 5 | 0.005 | weak, 0.05 | 0 / 13 / 0 / 87 | 0 / 80 / 0 / 20 | 0 / 99 / 0 / 1 | 0 / 100 / 0 / 0 |
| 5 | 0.005 | strong, 0.05 | 0 / 22 / 13 / 65 | 0 / 21 / 79 / 0 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| 5 | 0.01 | fall | 86 / 0 / 0 / 14 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 |
| 5 | 0.01 | rise, plateau | 10 / 1 / 0 / 90 | 18 / 3 / 0 / 79 | 31 / 2 / 0 / 67 | 46 / 0 / 0 / 54 |
| 5 | 0.01 | weak, 0.05 | 1 / 4 / 0 / 95 | 0 / 31 / 0 / 68 | 0 / 65 / 0 / 35 | 0 / 92 / 0 / 8 |
| 5 | 0.01 | strong, 0.05 | 0 / 8 / 4 / 88 | 0 / 48 / 28 / 24 | 0 / 38 / 61 / 0 | 0 / 9 / 91 / 0 |
| 10 | 0.005 | fall | 80 / 0 / 0 / 20 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 |
| 10 | 0.005 | rise, plateau | 20 / 0 / 0 / 80 | 38 / 1 / 0 / 61 | 69 / 0 / 0 / 30 | 94 / 0 / 0 / 6 |
| 10 | 0.005 | weak, 0.05 | 1 / 7 / 0 / 92 | 0 / 56 / 0 / 44 | 0 / 93 / 0 / 7 | 0 / 100 / 0 / 0 |
| 10 | 0.005 | strong, 0.05 | 0 / 4 / 13 / 84 | 0 / 0 / 66 / 33 | 0 / 0 / 96 / 4 | 0 / 0 / 100 / 0 |
| 10 | 0.01 | fall | 48 / 0 / 0 / 52 | 99 / 0 / 0 / 1 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 |
| 10 | 0.01 | rise, plateau | 10 / 1 / 0 / 89 | 18 / 4 / 0 / 78 | 34 / 3 / 0 / 63 | 54 / 1 / 0 / 45 |
| 10 | 0.01 | weak, 0.05 | 4 / 1 / 0 / 95 | 2 / 12 / 0 / 86 | 1 / 33 / 0 / 66 | 0 / 68 / 0 / 32 |
| 10 | 0.01 | strong, 0.05 | 3 / 2 / 3 / 93 | 1 / 6 / 22 / 71 | 0 / 2 / 45 / 53 | 0 / 0 / 77 / 23 |
| 14 | 0.005 | fall | 66 / 0 / 0 / 34 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 |
| 14 | 0.005 | rise, plateau | 18 / 1 / 0 / 82 | 41 / 1 / 0 / 58 | 69 / 1 / 0 / 31 | 92 / 0 / 0 / 8 |
| 14 | 0.005 | weak, 0.05 | 0 / 10 / 0 / 90 | 0 / 67 / 0 / 33 | 0 / 96 / 0 / 4 | 0 / 100 / 0 / 0 |
| 14 | 0.005 | strong, 0.05 | 0 / 10 / 17 / 73 | 0 / 1 / 88 / 11 | 0 / 0 / 100 / 0 | 0 / 0 / 100 / 0 |
| 14 | 0.01 | fall | 36 / 0 / 0 / 64 | 90 / 0 / 0 / 10 | 100 / 0 / 0 / 0 | 100 / 0 / 0 / 0 |
| 14 | 0.01 | rise, plateau | 11 / 1 / 0 / 88 | 18 / 3 / 0 / 79 | 33 / 3 / 0 / 65 | 54 / 2 / 0 / 44 |
| 14 | 0.01 | weak, 0.05 | 3 / 2 / 0 / 95 | 1 / 17 / 0 / 82 | 1 / 40 / 0 / 59 | 0 / 74 / 0 / 26 |
| 14 | 0.01 | strong, 0.05 | 1 / 4 / 3 / 92 | 0 / 13 / 27 / 60 | 0 / 5 / 72 / 24 | 0 / 0 / 98 / 2 |
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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
from analysis.descent.intervals import Interval, mean_interval, pooled_spread

MIN_HEIGHT: Final = 0.01
NUM_SEEDS: Final = (2, 3, 5, 10)
JITTERS: Final = ("white", "AR", "slow", "uneven")
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


def false_peaks(num: int = 1_000) -> Iterator[str]:
    """No peak is there: the worst shape's share of weak or strong, and the mean share of
    inconclusive, in per cent, for each number of seeds."""
    yield "| jitter | σ | points | " + " | ".join(f"{n} seeds" for n in NUM_SEEDS) + " |"
    yield "|---" * (3 + len(NUM_SEEDS)) + "|"
    for kind in JITTERS:
        for sd in (0.005, 0.02, 0.05):
            for num_points in (150,) if kind == "slow" else (150, 4_000):
                cells = []
                for num_seeds in NUM_SEEDS:
                    shares = [
                        verdicts(
                            shape,
                            kind=kind,
                            sd=sd,
                            num_seeds=num_seeds,
                            num_points=num_points,
                            num=num if num_points < 4_000 else num // 2,
                        )
                        for shape in NO_PEAK.values()
                    ]
                    worst = max(share[WEAK] + share[STRONG] for share in shares)
                    open_ = np.mean([share[INCONCLUSIVE] for share in shares])
                    cells.append(f"{100 * worst:.1f} ({100 * open_:.0f})")
                yield f"| {kind} | {sd:g} | {num_points} | " + " | ".join(cells) + " |"


def seen_peaks(num: int = 500) -> Iterator[str]:
    """A peak is there: shares of none / weak / strong / inconclusive in per cent."""
    yield "| jitter | σ | height | truth | " + " | ".join(f"{n} seeds" for n in NUM_SEEDS) + " |"
    yield "|---" * (4 + len(NUM_SEEDS)) + "|"
    for kind in ("white", "AR", "slow"):
        for sd in (0.005, 0.02):
            for height in (0.02, 0.05, 0.1):
                for truth, gain in ((WEAK, -height / 2), (STRONG, height / 2)):
                    cells = _cells(peaked(height, gain), kind, sd, 150, num)
                    yield f"| {kind} | {sd:g} | {height:g} | {truth} | {cells} |"


def freezing_peaks(num: int = 1_000) -> Iterator[str]:
    """Along 5, 10 and 14 frozen counts, white jitter: none / weak / strong / inconclusive."""
    yield "| points | σ | truth | " + " | ".join(f"{n} seeds" for n in NUM_SEEDS) + " |"
    yield "|---" * (3 + len(NUM_SEEDS)) + "|"
    shapes = {
        "fall": NO_PEAK["fall"],
        "rise, plateau": NO_PEAK["rise, plateau"],
        "weak, 0.05": peaked(0.05, -0.025, ALONG_FREEZING),
        "strong, 0.05": peaked(0.05, 0.025, ALONG_FREEZING),
    }
    for num_points in (5, 10, 14):
        for sd in (0.005, 0.01):
            for truth, shape in shapes.items():
                cells = _cells(shape, "white", sd, num_points, num)
                yield f"| {num_points} | {sd:g} | {truth} | {cells} |"


def _cells(shape: Shape, kind: str, sd: float, num_points: int, num: int) -> str:
    cells = []
    for num_seeds in NUM_SEEDS:
        share = verdicts(
            shape, kind=kind, sd=sd, num_seeds=num_seeds, num_points=num_points, num=num
        )
        cells.append(" / ".join(f"{100 * share[word]:.0f}" for word in WORDS))
    return " | ".join(cells)


def coverage(num: int = 20_000) -> Iterator[str]:
    """How often a nominal 95 % interval holds the truth, in per cent."""
    yield "| values | " + " | ".join(f"{n} seeds" for n in NUM_SEEDS) + " |"
    yield "|---" * (1 + len(NUM_SEEDS)) + "|"
    random = np.random.default_rng(1)
    sds = np.array([0.5, 0.7, 0.8, 1.0, 1.5, 2.0])

    def pooled(num_seeds: int, sd: np.ndarray) -> bool:
        cells = sd[:, None] * random.standard_normal((6, num_seeds))
        return _holds(mean_interval(cells[-1], spread=pooled_spread(list(cells))), 0.0)

    draws: dict[str, Callable[[int], bool]] = {
        "normal": lambda n: _holds(mean_interval(random.standard_normal(n)), 0.0),
        "skewed": lambda n: _holds(mean_interval(random.standard_exponential(n) - 1), 0.0),
        "pooled": lambda n: pooled(n, np.ones(6)),
        "unequal": lambda n: pooled(n, sds),
    }
    for name, draw in draws.items():
        cells = [f"{100 * np.mean([draw(n) for _ in range(num)]):.1f}" for n in NUM_SEEDS]
        yield f"| {name} | " + " | ".join(cells) + " |"
    for kind in ("white", "AR"):
        cells = [f"{100 * height_coverage(n, kind, num // 10):.1f}" for n in NUM_SEEDS]
        yield f"| cross-fitted, {kind} jitter | " + " | ".join(cells) + " |"


def height_coverage(num_seeds: int, kind: str, num: int, sd: float = 0.02) -> float:
    """Share of simulations in which the interval of the rise holds the rise between the true curve's
    windows at the located places (their mean over seeds): a weak peak of 0.1, 150 epochs."""
    random = np.random.default_rng([2, num_seeds])
    epochs = epochs_of(150)
    u = np.log10(epochs) / np.log10(4_000)
    true = peaked(0.1, -0.05)(u)
    exact = judge_epochs(epochs, np.tile(true, (2, 1)), min_height=MIN_HEIGHT).rise
    assert exact is not None
    held = 0
    for _ in range(num):
        curves = true + jitter(random, kind, sd, (num_seeds, u.size), u)
        rise = judge_epochs(epochs, curves, min_height=MIN_HEIGHT).rise
        assert rise is not None
        held += _holds(rise, exact.estimate)
    return held / num


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


TABLES: Final[dict[str, Callable[[], Iterator[str]]]] = {
    "false": false_peaks,
    "seen": seen_peaks,
    "freezing": freezing_peaks,
    "coverage": coverage,
}


def main(words: list[str]) -> None:
    """Prints the named tables, all without a name. Raises ValueError for a name that is none."""
    unknown = [word for word in words if word not in TABLES]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no table: choose from {', '.join(TABLES)}")
    for word in words or TABLES:
        print(f"\n{word}: {TABLES[word].__doc__}\n")
        for line in TABLES[word]():
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
