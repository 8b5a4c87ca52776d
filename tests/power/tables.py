"""The tables of `table.md`, line by line: which curves stand in them, and what is counted.

Owns the grid of shapes, jitters and seeds. The simulations themselves are `simulation`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import numpy as np
from scipy import stats

from analysis.descent import INCONCLUSIVE, STRONG, WEAK
from analysis.descent.intervals import mean_interval
from tests.power.cases import all_cases
from tests.power.simulation import (
    ALONG_FREEZING,
    NO_PEAK,
    WORDS,
    Shape,
    height_coverage,
    holds,
    peaked,
    pooled_holds,
    verdicts,
)
from tests.power.studies import ANSWERS, shares

SEEDS_OF_CLAIMS: Final = (3, 5, 10)
NUM_SEEDS: Final = (2, 3, 5, 10)
JITTERS: Final = ("white", "AR", "slow", "uneven")
# Where all 4,000 epochs are evaluated too: there the windows average most, and it takes longest.
FINE: Final = (("white", 0.05), ("AR", 0.02))


def page(num: int) -> Iterator[str]:
    """All tables, each under its heading and what it shows; `num` simulated studies a case, and a quarter
    of that many curves a shape."""
    curves = num // 4
    yield "# How often each verdict comes"
    yield ""
    yield f"Written by `python -m tests.power --simulations {num}`; `cases.py`, `studies.py` and"
    yield "`simulation.py`, beside this file, say which studies, curves and jitters these are. σ is the"
    yield "standard deviation of the jitter of one evaluation, 0.01 the height that matters."
    for heading, lines in {
        f"The claims ({num:,} simulated studies a case)": claims(num),
        f"No peak is there ({curves:,} simulations a shape, {curves // 2:,} at 4,000 points)": no_peak(
            curves
        ),
        f"A peak is there ({curves:,} simulations)": peaks_along_epochs(curves),
        f"Along the freezing ({curves:,} simulations)": peaks_along_freezing(curves),
        f"Intervals ({20 * curves:,} simulations, {2 * curves:,} of the cross-fitted)": coverage(
            curves
        ),
    }.items():
        yield from ("", f"## {heading}", "")
        yield from lines


def claims(num: int) -> Iterator[str]:
    """Every case: holds / does not hold / cannot tell in per cent, what is false in bold."""
    yield "Holds / does not hold / cannot tell, in per cent. **Bold**: false there, 5.0 % are allowed (of"
    yield f"{num:,} up to {100 * allowed(num):.1f} % may be counted by chance). Seeds jitter by 1 point if"
    yield "not said. A study has two cells (C1), three curves (C4), or one pair."
    yield "What is not bold is no error: an effect as large as matters is there, and may be found."
    yield ""
    yield _line(["claim", "what is planted"], [f"{n} seeds" for n in SEEDS_OF_CLAIMS])
    yield "|---" * (2 + len(SEEDS_OF_CLAIMS)) + "|"
    jobs = [(index, n, num) for index in range(len(all_cases())) for n in SEEDS_OF_CLAIMS]
    with ProcessPoolExecutor(max_workers=2) as pool:
        found = pool.map(_shares_of_case, jobs, chunksize=1)
        for case in all_cases():
            cells = []
            for _ in SEEDS_OF_CLAIMS:
                share = next(found)
                words = [
                    f"**{100 * share[word]:.1f}**"
                    if word in case.false
                    else f"{100 * share[word]:.0f}"
                    for word in ANSWERS
                ]
                cells.append(" / ".join(words))
            yield _line([case.claim, case.what], cells)


def _shares_of_case(job: tuple[int, int, int]) -> dict[str, float]:
    index, num_seeds, num = job
    return shares(all_cases()[index].say, num_seeds=num_seeds, num=num)


def allowed(num: int, share: float = 0.05) -> float:
    """The share of false answers that `num` simulations may show where 5 % is the truth, but for one time
    in a thousand."""
    return float(stats.binom.ppf(0.999, num, share)) / num


def allowed_worst(num: int, shapes: int, share: float = 0.05) -> float:
    """Return the mean of the largest of `shapes` shares, each found by `num` simulations of `share`."""
    counts = np.arange(num + 1)
    at_most = stats.binom.cdf(counts, num, share) ** shapes
    return float((1 - at_most).sum()) / num


def no_peak(num: int) -> Iterator[str]:
    worst = allowed_worst(num, len(NO_PEAK))
    yield "The worst of seven shapes: per cent weak or strong; in brackets how often inconclusive comes,"
    yield "mean over the shapes. 5 % are allowed for each shape. The worst is a maximum, so chance raises"
    yield f"it: of seven shapes at exactly 5 %, {num:,} simulations find {100 * worst:.1f} % on average."
    yield ""
    yield from _head("jitter", "σ", "points")
    for kind in JITTERS:
        for sd in (0.005, 0.02, 0.05):
            for num_points in (150, 4_000) if (kind, sd) in FINE else (150,):

                def cell(num_seeds: int, how: dict[str, Any]) -> str:
                    shares = [
                        verdicts(shape, num_seeds=num_seeds, **how) for shape in NO_PEAK.values()
                    ]
                    worst = max(share[WEAK] + share[STRONG] for share in shares)
                    unknown = np.mean([share[INCONCLUSIVE] for share in shares])
                    return f"{100 * worst:.1f} ({100 * unknown:.0f})"

                how = {"kind": kind, "sd": sd, "num_points": num_points}
                how["num"] = num if num_points < 4_000 else num // 2
                yield _line([kind, f"{sd:g}", num_points], [cell(n, how) for n in NUM_SEEDS])


def peaks_along_epochs(num: int) -> Iterator[str]:
    yield "150 points: none / weak / strong / inconclusive in per cent. The true end lies half the height"
    yield "above the first minimum (weak) or under it (strong); so the weak peak of 0.02 falls by 0.01,"
    yield 'and by less than that once averaged in windows: "none" is not wrong there. Elsewhere it is.'
    yield ""
    yield from _head("jitter", "σ", "height", "truth")
    for kind in ("white", "AR", "slow"):
        for sd in (0.005, 0.02):
            for height in (0.02, 0.05, 0.1):
                for truth, gain in ((WEAK, -height / 2), (STRONG, height / 2)):
                    cells = _shares(peaked(height, gain), kind, sd, 150, num)
                    yield _line([kind, f"{sd:g}", f"{height:g}", truth], cells)


def peaks_along_freezing(num: int) -> Iterator[str]:
    yield "White jitter, no windows: none / weak / strong / inconclusive in per cent. An even number of"
    yield "points straddles the peak, so that about three quarters of its height are left."
    yield ""
    yield from _head("points", "σ", "truth")
    shapes = {
        "fall": NO_PEAK["fall"],
        "rise, plateau": NO_PEAK["rise, plateau"],
        "weak, 0.05": peaked(0.05, -0.025, ALONG_FREEZING),
        "strong, 0.05": peaked(0.05, 0.025, ALONG_FREEZING),
    }
    for num_points in (5, 10, 14):
        for sd in (0.005, 0.01):
            for truth, shape in shapes.items():
                cells = _shares(shape, "white", sd, num_points, num)
                yield _line([num_points, f"{sd:g}", truth], cells)


def coverage(num: int) -> Iterator[str]:
    yield 'How often a 95 % interval holds the truth, in per cent. "skewed": values from an exponential;'
    yield '"pooled": the spread taken from six cells of equal variance; "unequal": from six whose'
    yield 'standard deviations run from 0.5 to 2, the one at 2 is judged; "cross-fitted": the rise to a'
    yield "true peak as `descent` locates and measures it, which misses a little where the place found"
    yield "is not quite the true one."
    yield ""
    yield from _head("values")
    random = np.random.default_rng(1)
    sds = np.array([[0.5], [0.7], [0.8], [1.0], [1.5], [2.0]])
    draws: dict[str, Callable[[int], bool]] = {
        "normal": lambda n: holds(mean_interval(random.standard_normal(n)), 0.0),
        "skewed": lambda n: holds(mean_interval(random.standard_exponential(n) - 1), 0.0),
        "pooled": lambda n: pooled_holds(random.standard_normal((6, n)), 0.0),
        "unequal": lambda n: pooled_holds(sds * random.standard_normal((6, n)), 0.0),
    }
    for name, draw in draws.items():
        shares = [np.mean([draw(n) for _ in range(20 * num)]) for n in NUM_SEEDS]
        yield _line([name], [f"{100 * share:.1f}" for share in shares])
    for kind in ("white", "AR"):
        shares = [height_coverage(n, kind, 2 * num) for n in NUM_SEEDS]
        yield _line([f"cross-fitted, {kind} jitter"], [f"{100 * share:.1f}" for share in shares])


def _shares(shape: Shape, kind: str, sd: float, num_points: int, num: int) -> list[str]:
    how: dict[str, Any] = {"kind": kind, "sd": sd, "num_points": num_points, "num": num}
    shares = [verdicts(shape, num_seeds=num_seeds, **how) for num_seeds in NUM_SEEDS]
    return [" / ".join(f"{100 * share[word]:.0f}" for word in WORDS) for share in shares]


def _head(*names: str) -> Iterator[str]:
    yield _line(names, [f"{num_seeds} seeds" for num_seeds in NUM_SEEDS])
    yield "|---" * (len(names) + len(NUM_SEEDS)) + "|"


def _line(names: Sequence[object], cells: Sequence[str]) -> str:
    return "| " + " | ".join([*map(str, names), *cells]) + " |"
