"""The conditions of a claim, and the one rule by which numbers become an answer.

Owns the words "holds", "does not hold", "cannot tell", and what would tell. A condition **holds** when
its interval lies above zero (or above what it is held against) and its estimate reaches the height that
matters; it **does not hold** when the interval's upper end lies below that height: shown to be smaller
than what matters, an opposite effect included; else the seeds **cannot tell**. A claim holds when all
its conditions do, and does not hold when one of them does not: each condition at its full level, since
all must be met (intersection-union test).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from analysis.descent import NONE, STRONG, WEAK, Judgement, search_guard
from analysis.descent.intervals import Interval, mean_interval, t_quantile

HOLDS: Final = "holds"
DOES_NOT_HOLD: Final = "does not hold"
CANNOT_TELL: Final = "cannot tell"
NOT_APPLICABLE: Final = "not applicable"

# More seeds than this no study trains: then another design is needed, not more seeds.
MAX_SEEDS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that must be true for a claim to hold; `interval` in `unit`, None if not a number.

    `matters`: the smallest effect that matters, which an upper end must lie below for "does not hold".
    `tell`: where the answer is "cannot tell", what would tell.
    """

    what: str
    answer: str
    interval: Interval | None = None
    unit: str = ""
    matters: float | None = None
    tell: str = ""


def condition(
    what: str,
    values: np.ndarray,
    *,
    unit: str,
    matters: float,
    above: float = 0.0,
    resolution: float = 0.0,
    at_most: float = -math.inf,
) -> Condition:
    """A condition on a mean over seeds: `values` (seeds,), one number per seed, at least one.

    `at_most`: an upper bound that comes from elsewhere, where it is larger than the interval's own.
    """
    interval = mean_interval(values, resolution=resolution)
    interval = replace(interval, high=max(interval.high, at_most))
    if interval.df >= 1 and interval.low > above and interval.estimate >= matters:
        answer = HOLDS
    elif interval.df >= 1 and interval.high < matters:
        answer = DOES_NOT_HOLD
    else:
        answer = CANNOT_TELL
    tell = "" if answer != CANNOT_TELL else more_seeds(interval, matters, above=above)
    return Condition(
        what=what, answer=answer, interval=interval, unit=unit, matters=matters, tell=tell
    )


def peak_condition(what: str, judged: Judgement) -> Condition:
    """The condition that a curve has a peak of double descent: `descent`'s bounds, the same rule."""
    interval = judged.height
    if judged.status in (WEAK, STRONG):
        answer = HOLDS
    elif judged.status == NONE and not judged.so_far:
        answer = DOES_NOT_HOLD
    else:
        answer = CANNOT_TELL
    tell = ""
    if answer == CANNOT_TELL and interval is not None and judged.status != NONE:
        tell = more_seeds(interval, judged.min_height, guard=True)
    return Condition(
        what=f"{what}: {judged.wording}",
        answer=answer,
        interval=interval,
        unit="error",
        matters=judged.min_height,
        tell=tell,
    )


def more_seeds(
    interval: Interval, matters: float, *, above: float = 0.0, guard: bool = False
) -> str:
    """How many seeds would decide, if the estimate and the spread stay as they are.

    `guard`: the lower end carries the price of a search.
    """
    num = interval.num
    if num < 2:
        return "more seeds would tell: three at the least"

    def widths(seeds: int) -> tuple[float, float]:
        plain = t_quantile(0.5 + interval.level / 2, seeds - 1)
        below = search_guard(seeds, interval.level) if guard else plain
        return below / math.sqrt(seeds), plain / math.sqrt(seeds)

    now = widths(num)
    for seeds in range(num + 1, MAX_SEEDS + 1):
        then = widths(seeds)
        low = interval.estimate - (interval.estimate - interval.low) * then[0] / now[0]
        high = interval.estimate + (interval.high - interval.estimate) * then[1] / now[1]
        if (low > above and interval.estimate >= matters) or high < matters:
            return f"about {seeds} seeds would tell, if estimate and spread stay as they are"
    return f"not even {MAX_SEEDS} seeds would tell, if estimate and spread stay as they are"


def bounded(one: Condition, *, understated: bool, overstated: bool) -> Condition:
    """The condition where numbers are only bounds: a censored number decides nothing in the direction
    in which the true one lies."""
    undecided = (one.answer == DOES_NOT_HOLD and understated) or (
        one.answer == HOLDS and overstated
    )
    return replace(one, answer=CANNOT_TELL) if undecided else one


def conclude(conditions: Sequence[Condition]) -> str:
    """The answer of a claim whose conditions must all be met; "cannot tell" without any."""
    answers = {one.answer for one in conditions}
    if DOES_NOT_HOLD in answers:
        return DOES_NOT_HOLD
    return HOLDS if answers == {HOLDS} else CANNOT_TELL
