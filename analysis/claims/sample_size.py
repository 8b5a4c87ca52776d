"""Compute how many seeds a claim needs, from the spread of a pilot's seeds.

Only primary contrasts are considered: a claim with several conditions can need more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from scipy import special

from analysis.claims.primary import DOUBLING, SLOWER
from analysis.claims.verdict import Answer
from analysis.descent import search_guard
from analysis.descent.intervals import LEVEL, t_quantile

POWER: Final = 0.8
# 0.8 is the confidence of the spread's upper limit. Few seeds often agree by chance.
SURE: Final = 0.8
MOST: Final = 1_000

# The effects that a study is planned for, in the unit of the claim's primary contrast.
NAMED: Final = {
    "C1": 0.05,
    "C2": 2 * SLOWER,
    "C3": 2 * DOUBLING,
    "C4": 0.05,
    "C4b": 0.05,
    "C5a": 0.02,
    "C5b": 0.02,
}
# The place of the peak is searched, so its height must exceed more than a t-interval.
SEARCHED: Final = ("C1", "C4", "C4b")


@dataclass(frozen=True, kw_only=True)
class Need:
    """The number of seeds that a claim needs to show `effect`, in `unit`, with probability POWER.

    `seeds`: None if more than MOST are needed. `spread`: standard deviation over the pilot's `num_pilot`
    seeds; `at_most`: upper limit of `spread`, from which `seeds` is computed. `seeds`, `spread`, `at_most`
    are None if the pilot has fewer than two seeds, or no cell that can show the claim.
    """

    claim: str
    effect: float
    unit: str
    spread: float | None
    at_most: float | None
    num_pilot: int
    seeds: int | None


def power(num_seeds: int, effect: float, spread: float, *, searched: bool) -> float:
    """Return the probability that the interval over `num_seeds` seeds shows the effect.

    Raises:
        ValueError: for fewer than two seeds, or a spread that is not above 0.
    """
    if num_seeds < 2:
        raise ValueError(f"num_seeds={num_seeds}: must be 2 or more")
    if not spread > 0:
        raise ValueError(f"spread={spread!r}: must be above 0")
    df = num_seeds - 1
    least = search_guard(num_seeds) if searched else t_quantile(0.5 + LEVEL / 2, df)
    centre = effect / spread * math.sqrt(num_seeds)
    below = float(special.nctdtr(df, centre, least))
    # scipy returns NaN if the effect is many times the spread.
    return 1.0 - below if math.isfinite(below) else float(centre > least)


def seeds_needed(effect: float, spread: float, *, searched: bool) -> int | None:
    """Return the smallest number of seeds (at least two) whose power is POWER; None if above MOST."""
    if not spread > 0:
        return 2
    low, high = 2, MOST
    if power(high, effect, spread, searched=searched) < POWER:
        return None
    while low < high:  # the power grows with the seeds
        middle = (low + high) // 2
        if power(middle, effect, spread, searched=searched) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def upper_limit(spread: float, num_seeds: int) -> float:
    """Return an upper limit of the standard deviation, with confidence SURE."""
    # With the pilot's own value, most studies would be too small (Browne 1995).
    df = num_seeds - 1
    return spread * math.sqrt(df / float(special.chdtri(df, SURE)))


def needs(answers: Mapping[str, Answer]) -> list[Need]:
    """Return a Need for each claim of a pilot study, from the spread of its primary contrast."""
    found = []
    for claim, one in answers.items():
        interval, effect = one.effect, NAMED[claim]
        spread = at_most = None
        if interval is not None and interval.num >= 2:
            spread = interval.standard_error * math.sqrt(interval.num)
            at_most = upper_limit(spread, interval.num)
        found.append(
            Need(
                claim=claim,
                effect=effect,
                unit=one.unit,
                spread=spread,
                at_most=at_most,
                num_pilot=interval.num if interval is not None else 0,
                seeds=None
                if at_most is None
                else seeds_needed(effect, at_most, searched=claim in SEARCHED),
            )
        )
    return found


def needs_text(found: Sequence[Need]) -> str:
    """Return a line of text for each claim."""
    lines = []
    for need in found:
        at = f"at an effect of {need.effect:.3g} {need.unit}".rstrip()
        if need.spread is None:
            lines.append(f"{need.claim:<4} not known: no two seeds of the pilot show its contrast")
        elif need.seeds is None:
            lines.append(f"{need.claim:<4} more than {MOST} seeds for {POWER:.0%} power {at}")
        else:
            lines.append(
                f"{need.claim:<4} {need.seeds} seeds for {POWER:.0%} power {at} "
                f"(spread {need.spread:.2g} over {need.num_pilot} seeds, planned with {need.at_most:.2g})"
            )
    return "\n".join(lines)
