"""Turn the conditions of a claim into an answer, and the answers of all arms into a verdict.

A condition **holds** if its interval is above zero (or above its reference) and its estimate reaches the
height that matters. It **does not hold** if the interval's upper end is below that height. Otherwise the
answer is **cannot tell**. A claim holds if all conditions hold; it does not hold if a condition does not.
Each condition is tested at its full level, since all must be met (intersection-union test)."""

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
    """The answers of a verdict. They equal plain strings and are stored in files: do not change them."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    CANNOT_TELL = "cannot tell"
    NOT_APPLICABLE = "not applicable"


HOLDS: Final = Decision.HOLDS
DOES_NOT_HOLD: Final = Decision.DOES_NOT_HOLD
CANNOT_TELL: Final = Decision.CANNOT_TELL
NOT_APPLICABLE: Final = Decision.NOT_APPLICABLE

# 0.9 is the error of chance with ten classes.
MAX_ERROR: Final = 0.9

# 500 seeds are more than any study trains. If more are needed, change the design of the study instead.
MAX_SEEDS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition that must be true for a claim to hold; `interval` in `unit`, None if unknown.

    `matters`: the smallest effect that matters; for "does not hold", the upper end must be below it.
    `tell`: for "cannot tell", what would decide the condition.
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
    at_least: float = math.inf,
    at_most: float = -math.inf,
    unfinished: str = "",
) -> Condition:
    """Test a condition on a mean over seeds.

    Args:
        values: (seeds,), one number per seed, at least one.
        matters: the smallest effect that matters, in `unit`.
        above: the reference that the interval's lower end must exceed.
        resolution: see `mean_interval`.
        grid: the largest rounding error that all seeds share. It widens the interval, since it does not
            average out.
        at_least, at_most: bounds that replace the interval's ends if they make it wider.
        unfinished: why the values may still grow; then the answer is never "does not hold".
    """
    interval = widened(mean_interval(values, resolution=resolution), grid)
    low, high = min(interval.low, at_least), max(interval.high, at_most)
    interval = replace(interval, low=low, high=high)
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
    """Return the condition that a curve shows double descent, with the interval of its peak's height."""
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
    """Return how many seeds would decide, as text, if the estimate and the spread stay as they are.

    `guard`: the lower end includes the cost of a search. `grid`: as in `condition`.
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
    return (
        "a finer grid of sizes or epochs would tell" if grid else "more seeds alone would not tell"
    )


def bounded(one: Condition, *, understated: bool, overstated: bool) -> Condition:
    """Return the condition, answered "cannot tell" if censored values could be the reason for its answer.

    `understated`: censoring makes some values too small. `overstated`: it makes some values too large.
    """
    if one.answer == DOES_NOT_HOLD and understated:
        tell = "excluded so far: censored values make it too small"
    elif one.answer == HOLDS and overstated:
        tell = "shown so far: censored values make it too large"
    else:
        return one
    return replace(one, answer=CANNOT_TELL, tell=tell)


def conclude(conditions: Sequence[Condition]) -> Decision:
    """Return the answer of a claim whose conditions must all be met; "cannot tell" if it has none."""
    answers = {one.answer for one in conditions}
    if DOES_NOT_HOLD in answers:
        return DOES_NOT_HOLD
    return HOLDS if answers == {HOLDS} else CANNOT_TELL


@dataclass(frozen=True, kw_only=True)
class AtEpsilon:
    """The answer at one ε, for verdicts that depend on ε; `effect` in test error."""

    epsilon: float
    answer: Decision
    effect: Interval | None
    what: str
    tell: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of one arm.

    `effect`: interval of the primary contrast, in `unit`; `compared`: the contrast as text; `run_ids`: the
    Runs used; `missing`, `reasons`: sentences; `by_epsilon`: answers at several values of ε.
    """

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
    """The answer of a control arm; `rival`: the alternative explanation that it tests."""

    arm: str
    rival: str
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class ExploratoryResult:
    """A result that is not the primary contrast.

    One in twenty such intervals misses the true value by chance.
    """

    what: str
    effect: Interval
    unit: str


@dataclass(frozen=True, kw_only=True)
class Verdict(Answer):
    """A study's verdict on one claim: the answer of `arm`, with controls and exploratory results.

    - `claim`: "C1" … "C5b"; `statement`: the claim; `primary`: its primary contrast, as defined in the
      code before any result was read; `arm`: the arm that the verdict is on.
    - `controls`: the answers of the control arms.
    - `exploratory`: all other results; no evidence for the claim.
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


# A function that answers a claim for one arm; arguments: the measures, the arm's rows, the arm's name.
Ask = Callable[[Measures, pd.DataFrame, str], Answer]


def verdict(
    claim: str, measures: Measures, arm: str, ask: Ask, explored: Sequence[ExploratoryResult]
) -> Verdict:
    """Call `ask` for the arm and for every control arm, and combine the answers with `explored`."""
    main = answer_of_arm(measures, arm, ask)
    if main.answer == NOT_APPLICABLE:
        # "Not applicable" is an answer only for a control; for the claim's own arm it is undecided.
        main = replace(main, answer=CANNOT_TELL)
    lines = of_arm(measures.lines, arm)
    caveats = []
    if lines["seed"].nunique() == 1:
        caveats.append("one seed")
    elif lines["source_seed"].nunique() == 1 and lines["source_size"].max() > 0:
        caveats.append("all cells use one source seed: the spread between sources is not included")
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
            Control(arm=control, rival=rival, answer=answer_of_arm(measures, control, ask))
            for control, rival in RIVALS.items()
            if control != arm
        ),
        exploratory=tuple(explored),
    )


def answer_of_arm(measures: Measures, arm: str, ask: Ask) -> Answer:
    """Call `ask` for one arm, unless no Run of the arm has ended; add the arm's missing Runs."""
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
    """Return an answer that contains `conditions`; its effect is that of the first condition."""
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
    """Return sentences on incomplete cells and seeds."""
    missing = []
    if num_cells:
        missing.append(f"{num_cells} cells are not complete in the seeds used, and left out")
    if seeds:
        missing.append(f"seeds {', '.join(map(str, seeds))} lack cells, and are left out")
    return tuple(missing)


def nothing(compared: str, *why: str) -> Answer:
    """Return the answer if no cell can show the effect."""
    return Answer(answer=CANNOT_TELL, compared=compared, reasons=why)


def not_applicable(compared: str, why: str) -> Answer:
    """Return the answer if the claim does not apply to this arm."""
    return Answer(answer=NOT_APPLICABLE, compared=compared, reasons=(why,))


def explored(
    what: str,
    found: Contrast | None,
    unit: str,
    *,
    resolution: float = 0.0,
    grid: float = 0.0,
) -> list[ExploratoryResult]:
    """Return a list with one exploratory result; empty if `found` is None. `grid`: see `condition`."""
    if found is None:
        return []
    effect = widened(mean_interval(found.values, resolution=resolution), grid)
    return [ExploratoryResult(what=what, effect=effect, unit=unit)]


def looks_like_accuracy(measures: Measures, lines: pd.DataFrame) -> list[str]:
    """Return a warning if test errors rise along the epochs to above MAX_ERROR, as accuracies do."""
    curves = [measures.curves[str(i)].test for i in lines.index if str(i) in measures.curves]
    if not curves:
        return []
    first, last = (float(np.mean([curve[place] for curve in curves])) for place in (0, -1))
    if last <= MAX_ERROR or last <= first:
        return []
    return [f"test error: it rises from {first:.2g} to {last:.2g}. Check that it is no accuracy."]


def few_images(lines: pd.DataFrame) -> list[str]:
    """Return a warning if the test set is small; its images are the same for all seeds."""
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
