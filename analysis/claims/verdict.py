"""Turn the conditions of a claim into an answer, and the answers of all arms into a verdict.

A condition **holds** if its interval lies above zero (or above its reference) and its estimate reaches the
height that matters. It **does not hold** if the interval's upper end lies below that height. Otherwise the
seeds **cannot tell**. A claim holds if all its conditions hold, and does not hold if one does not. Each
condition is tested at its full level, since all must be met (intersection-union test)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
import pandas as pd

from analysis.claims.contrasts import Contrast, Measures, of_arm, one_image
from analysis.claims.primary import ERROR, PRIMARY, RIVALS, STATEMENT
from analysis.descent import NONE, STRONG, WEAK, Judgement, search_guard
from analysis.descent.intervals import Interval, mean_interval, t_quantile
from study.deprecation import warn_deprecated


class Decision(StrEnum):
    """The words of a verdict. They equal plain strings and are stored in files: do not change them."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    CANNOT_TELL = "cannot tell"
    NOT_APPLICABLE = "not applicable"


HOLDS: Final = Decision.HOLDS
DOES_NOT_HOLD: Final = Decision.DOES_NOT_HOLD
CANNOT_TELL: Final = Decision.CANNOT_TELL
NOT_APPLICABLE: Final = Decision.NOT_APPLICABLE

# Of ten classes, chance is an error of 0.9.
MAX_ERROR: Final = 0.9

# More seeds than this no study trains: then another design is needed, not more seeds.
MAX_SEEDS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that must be true for a claim to hold; `interval` in `unit`, None if not a number.

    `matters`: the smallest effect that matters, which an upper end must lie below for "does not hold".
    `tell`: where the answer is "cannot tell", what would tell.
    """

    what: str
    answer: Decision
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
    grid: float = 0.0,
    at_most: float = -math.inf,
    unfinished: str = "",
) -> Condition:
    """A condition on a mean over seeds: `values` (seeds,), one number per seed, at least one.

    `grid`: the largest error by rounding that all seeds share: it widens the interval, and does not
    average out. `at_most`: an upper bound that comes from elsewhere, if it is above the interval's own.
    `unfinished`: why the values may still grow; then nothing is excluded for good.
    """
    interval = widened(mean_interval(values, resolution=resolution), grid)
    interval = replace(interval, high=max(interval.high, at_most))
    if interval.df >= 1 and interval.low > above and interval.estimate >= matters:
        answer = HOLDS
    elif interval.df >= 1 and interval.high < matters:
        answer = CANNOT_TELL if unfinished else DOES_NOT_HOLD
    else:
        answer = CANNOT_TELL
    tell = ""
    if answer == CANNOT_TELL and interval.df >= 1 and interval.high < matters:
        tell = f"excluded so far: {unfinished}"
    elif answer == CANNOT_TELL:
        tell = more_seeds(interval, matters, above=above, grid=grid)
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
    if answer == CANNOT_TELL and judged.status == NONE:
        tell = f"excluded so far: {judged.unfinished}"
    elif answer == CANNOT_TELL and interval is not None:
        tell = more_seeds(interval, judged.min_height, guard=True)
    return Condition(
        what=f"{what}: {judged.wording}",
        answer=answer,
        interval=interval,
        unit="error",
        matters=judged.min_height,
        tell=tell,
    )


def widened(interval: Interval, grid: float) -> Interval:
    return replace(interval, low=interval.low - grid, high=interval.high + grid)


def more_seeds(
    interval: Interval,
    matters: float,
    *,
    above: float = 0.0,
    guard: bool = False,
    grid: float = 0.0,
) -> str:
    """How many seeds would decide, if the estimate and the spread stay as they are.

    `guard`: the lower end carries the price of a search. `grid`: as in `condition`.
    """
    num = interval.num
    if num < 2:
        return "more seeds would tell: three at the least"
    if abs(interval.estimate - matters) <= interval.standard_error:
        return "more seeds may not tell: the estimate is within one standard error of what matters"

    def widths(seeds: int) -> tuple[float, float]:
        plain = t_quantile(0.5 + interval.level / 2, seeds - 1)
        below = search_guard(seeds, interval.level) if guard else plain
        return below / math.sqrt(seeds), plain / math.sqrt(seeds)

    now = widths(num)
    for seeds in range(num + 1, MAX_SEEDS + 1):
        then = widths(seeds)
        below = interval.estimate - interval.low - grid
        beyond = interval.high - interval.estimate - grid
        low = interval.estimate - grid - below * then[0] / now[0]
        high = interval.estimate + grid + beyond * then[1] / now[1]
        if (low > above and interval.estimate >= matters) or high < matters:
            return f"about {seeds} seeds would tell, if estimate and spread stay as they are"
    return "a finer grid would tell" if grid else "more seeds alone would not tell"


def bounded(one: Condition, *, understated: bool, overstated: bool) -> Condition:
    """The condition where numbers are only bounds: a censored number decides nothing in the direction
    in which the true one lies."""
    undecided = (one.answer == DOES_NOT_HOLD and understated) or (
        one.answer == HOLDS and overstated
    )
    return replace(one, answer=CANNOT_TELL) if undecided else one


def conclude(conditions: Sequence[Condition]) -> Decision:
    """The answer of a claim whose conditions must all be met; "cannot tell" without any."""
    answers = {one.answer for one in conditions}
    if DOES_NOT_HOLD in answers:
        return DOES_NOT_HOLD
    return HOLDS if answers == {HOLDS} else CANNOT_TELL


@dataclass(frozen=True, kw_only=True)
class AtEpsilon:
    """The answer at one ε, where a verdict depends on it; `effect` in test error."""

    epsilon: float
    answer: Decision
    effect: Interval | None
    what: str
    tell: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of one arm: `effect` in `unit` is the primary contrast's, `compared` says between
    what, `run_ids` which Runs it rests on, `missing` and `reasons` are sentences, `by_epsilon` the same
    at other thresholds of interpolation."""

    answer: Decision
    compared: str
    unit: str = ""
    effect: Interval | None = None
    conditions: tuple[Condition, ...] = ()
    run_ids: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    by_epsilon: tuple[AtEpsilon, ...] = ()

    @property
    def decisive(self) -> tuple[Condition, ...]:
        """The conditions that kept the claim from holding."""
        if self.answer == HOLDS:
            return ()
        return tuple(one for one in self.conditions if one.answer == self.answer)


@dataclass(frozen=True, kw_only=True)
class Control:
    """The same question put to a control arm; `rival`: the other explanation that it tests."""

    arm: str
    rival: str
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class ExploratoryResult:
    """Something looked at besides the primary contrast: exploratory. Of twenty such intervals one misses
    its truth by chance."""

    what: str
    effect: Interval
    unit: str


@dataclass(frozen=True, kw_only=True)
class Verdict(Answer):
    """What a study says on one claim: the answer of `arm`, and everything beside it.

    - `claim`: "C1" … "C5b"; `statement`: the claim; `primary`: its primary contrast, as named in the
      code before any result was read; `arm`: the arm it was put to.
    - `controls`: the same question put to the control arms.
    - `exploratory`: everything else; no evidence for the claim.
    """

    claim: str
    statement: str
    primary: str
    arm: str
    controls: tuple[Control, ...] = ()
    exploratory: tuple[ExploratoryResult, ...] = ()

    @property
    def main(self) -> Answer:
        """Deprecated: a Verdict is an Answer."""
        warn_deprecated("analysis.claims.Verdict.main", "the Verdict itself")
        return self

    @property
    def cells(self) -> tuple[str, ...]:
        """Deprecated: use `run_ids`."""
        warn_deprecated("analysis.claims.Verdict.cells", "Verdict.run_ids")
        return self.run_ids


# A question put to an arm: the measures, the arm's lines and its name.
Ask = Callable[[Measures, pd.DataFrame, str], Answer]


def verdict(
    claim: str, measures: Measures, arm: str, ask: Ask, explored: Sequence[ExploratoryResult]
) -> Verdict:
    """Puts the question to the arm and to the control arms beside it."""
    main = _asked(measures, arm, ask)
    if main.answer == NOT_APPLICABLE:
        # Of a control that is an answer; of the arm that the claim is about it is not known.
        main = replace(main, answer=CANNOT_TELL)
    lines = of_arm(measures.lines, arm)
    caveats = []
    if lines["seed"].nunique() == 1:
        caveats.append("one seed")
    elif lines["source_seed"].nunique() == 1 and lines["source_size"].max() > 0:
        caveats.append("the source's seed is fixed: the spread leaves the sources out")
    caveats += few_images(lines) + looks_like_accuracy(measures, lines)
    for name in ("task", "model", "width", "recipe"):
        if lines[name].nunique() > 1:
            caveats.append(f"averaged over {lines[name].nunique()} values of {name}")
    main = replace(main, reasons=(*main.reasons, *caveats))
    return Verdict(
        **vars(main),
        claim=claim,
        statement=STATEMENT[claim],
        primary=PRIMARY[claim],
        arm=arm,
        controls=tuple(
            Control(arm=control, rival=rival, answer=_asked(measures, control, ask))
            for control, rival in RIVALS.items()
            if control != arm
        ),
        exploratory=tuple(explored),
    )


def _asked(measures: Measures, arm: str, ask: Ask) -> Answer:
    lines = of_arm(measures.lines, arm)
    absent = Counter(of_arm(measures.absent, arm)["state"])
    missing = tuple(f"{num} Runs {state}" for state, num in sorted(absent.items()))
    if not (lines["arm"] == arm).any():
        why = "no Run of this arm has ended" if missing else "the study has no such arm"
        return Answer(answer=CANNOT_TELL, compared="", missing=missing, reasons=(why,))
    answer = ask(measures, lines, arm)
    return replace(answer, missing=(*answer.missing, *missing))


def answer_of(
    compared: str,
    found: Contrast,
    conditions: Sequence[Condition],
    reasons: Sequence[str] = (),
) -> Answer:
    """An answer whose effect is its first condition's."""
    return Answer(
        answer=conclude(conditions),
        compared=f"{compared}; mean over {len(found.groups)} cells, {len(found.seeds)} seeds",
        unit=conditions[0].unit,
        effect=conditions[0].interval,
        conditions=tuple(conditions),
        run_ids=found.run_ids,
        missing=left_out(found.dropped, found.left_out),
        reasons=tuple(reasons),
    )


def left_out(num_cells: int, seeds: Sequence[int]) -> tuple[str, ...]:
    """Sentences on cells and seeds that are not complete."""
    missing = []
    if num_cells:
        missing.append(f"{num_cells} cells are not complete in the seeds used, and left out")
    if seeds:
        missing.append(f"seeds {', '.join(map(str, seeds))} lack cells, and are left out")
    return tuple(missing)


def nothing(compared: str, *why: str) -> Answer:
    """No cell could show it."""
    return Answer(answer=CANNOT_TELL, compared=compared, reasons=why)


def not_applicable(compared: str, why: str) -> Answer:
    """The question makes no sense for this arm."""
    return Answer(answer=NOT_APPLICABLE, compared=compared, reasons=(why,))


def explored(
    what: str,
    found: Contrast | None,
    unit: str,
    *,
    resolution: float = 0.0,
    grid: float = 0.0,
) -> list[ExploratoryResult]:
    """One exploratory contrast, or none where the cells do not give it."""
    if found is None:
        return []
    effect = widened(mean_interval(found.values, resolution=resolution), grid)
    return [ExploratoryResult(what=what, effect=effect, unit=unit)]


def looks_like_accuracy(measures: Measures, lines: pd.DataFrame) -> list[str]:
    """Warn if the test errors end above 0.9 and rise along the epochs, as accuracies do."""
    curves = [measures.curves[str(i)].test for i in lines.index if str(i) in measures.curves]
    if not curves:
        return []
    first, last = (float(np.mean([curve[place] for curve in curves])) for place in (0, -1))
    if last <= MAX_ERROR or last <= first:
        return []
    return [f"test error: it rises from {first:.2g} to {last:.2g}. Check that it is no accuracy."]


def few_images(lines: pd.DataFrame) -> list[str]:
    """What a small test set leaves open, beside the seeds: they all share its images."""
    image = one_image(lines)
    if image < ERROR / 10:
        return []
    error = float(lines["test"].mean())
    spread = math.sqrt(max(error * (1 - error), 0.0) * image)
    return [
        f"the test set seems to have about {1 / image:.0f} images (the errors change by "
        f"{image:.2g} at the least): ±1 image is {100 * image:.2g} points, and other test images would "
        f"move an error of {error:.2f} by {100 * spread:.2g} points (standard error), in all seeds "
        "alike: the intervals over seeds leave that out"
    ]
