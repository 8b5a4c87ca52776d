"""What a verdict on a claim is made of, and the one rule by which numbers become an answer.

Owns the words "holds", "does not hold", "cannot tell", Holm's correction of what is exploratory, and
the putting of one question to each arm. Knows no claim: those are `c1_to_c4` and `c5`. A condition
**holds** when its interval lies above zero (or above what it is held against) and its estimate reaches
the height that matters; it **does not hold** when even the interval's upper end stays under that height;
else the seeds **cannot tell**. A claim holds when all its conditions do, and does not hold when one of
them does not: each condition at its full level, since all must be met (intersection-union test).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import pandas as pd

from analysis.claims.measures import Contrast, Measures, of_arm
from analysis.claims.primary import PRIMARY, RIVALS, STATEMENT
from analysis.descent import search_guard, search_price
from analysis.descent.intervals import Interval, holm, mean_interval

HOLDS: Final = "holds"
DOES_NOT_HOLD: Final = "does not hold"
CANNOT_TELL: Final = "cannot tell"
NOT_APPLICABLE: Final = "not applicable"


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One thing that must be true for a claim to hold; `interval` in `unit`, None if not a number."""

    what: str
    answer: str
    interval: Interval | None = None
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of one arm: `effect` in `unit` is the primary contrast's, `compared` says between
    what, `run_ids` which Runs it rests on, `missing` and `reasons` are sentences."""

    answer: str
    compared: str
    unit: str = ""
    effect: Interval | None = None
    conditions: tuple[Condition, ...] = ()
    run_ids: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def decisive(self) -> tuple[Condition, ...]:
        """The conditions that kept the claim from holding, where they are not the effect's own."""
        if self.answer == HOLDS or (self.conditions and self.conditions[0].answer == self.answer):
            return ()
        return tuple(one for one in self.conditions if one.answer == self.answer)


@dataclass(frozen=True, kw_only=True)
class Control:
    """The same question put to a control arm; `rival`: the other explanation that it tests."""

    arm: str
    rival: str
    answer: Answer


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something looked at besides the primary contrast: exploratory. `p_holm`: two-sided, corrected
    for all the findings of its claim."""

    what: str
    effect: Interval
    unit: str
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a study says on one claim.

    - `claim`: "C1" … "C5b"; `statement`: the claim; `primary`: its primary contrast, as named in the
      code before any result was read; `arm`: the arm it was put to.
    - `answer`, `effect`, `unit`, `compared`, `cells`, `missing`, `reasons`, `conditions`, `decisive`:
      see `Answer`.
    - `controls`: the same question put to the control arms.
    - `exploratory`: everything else, corrected for multiplicity; no evidence for the claim.
    """

    claim: str
    statement: str
    primary: str
    arm: str
    main: Answer
    controls: tuple[Control, ...] = ()
    exploratory: tuple[Finding, ...] = field(default=())

    @property
    def answer(self) -> str:
        return self.main.answer

    @property
    def effect(self) -> Interval | None:
        return self.main.effect

    @property
    def unit(self) -> str:
        return self.main.unit

    @property
    def compared(self) -> str:
        return self.main.compared

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return self.main.conditions

    @property
    def cells(self) -> tuple[str, ...]:
        return self.main.run_ids

    @property
    def decisive(self) -> tuple[Condition, ...]:
        return self.main.decisive

    @property
    def missing(self) -> tuple[str, ...]:
        return self.main.missing

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.main.reasons


def condition(
    what: str,
    values: np.ndarray,
    *,
    unit: str,
    matters: float,
    above: float = 0.0,
    resolution: float = 0.0,
    searched: bool = False,
) -> Condition:
    """A condition on a mean over seeds: `values` (seeds,), one number per seed, at least one.

    `searched`: heights whose places were located on the other seeds (`descent.search_guard`).
    """
    interval = mean_interval(values, resolution=resolution)
    guard = search_guard(interval.num) * interval.standard_error if searched else 0.0
    is_clear = interval.low > above and interval.estimate - above > guard
    if interval.df >= 1 and is_clear and interval.estimate >= matters:
        answer = HOLDS
    elif interval.df >= 1 and interval.high < matters:
        answer = DOES_NOT_HOLD
    else:
        answer = CANNOT_TELL
    return Condition(what=what, answer=answer, interval=interval, unit=unit)


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


# A question put to an arm: the measures, the arm's lines and its name.
Ask = Callable[[Measures, pd.DataFrame, str], Answer]

# Something exploratory: what, effect, unit, two-sided p-value.
Explored = tuple[str, Interval, str, float]


def verdict(
    claim: str, measures: Measures, arm: str, ask: Ask, explored: Sequence[Explored]
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
    for name in ("task", "model", "width", "recipe"):
        if lines[name].nunique() > 1:
            caveats.append(f"averaged over {lines[name].nunique()} values of {name}")
    return Verdict(
        claim=claim,
        statement=STATEMENT[claim],
        primary=PRIMARY[claim],
        arm=arm,
        main=replace(main, reasons=(*main.reasons, *caveats)),
        controls=tuple(
            Control(arm=control, rival=rival, answer=_asked(measures, control, ask))
            for control, rival in RIVALS.items()
            if control != arm
        ),
        exploratory=findings(explored),
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
    missing = []
    if found.dropped:
        missing.append(f"{found.dropped} cells are not complete in the seeds used, and left out")
    if found.left_out:
        seeds = ", ".join(map(str, found.left_out))
        missing.append(f"seeds {seeds} lack cells, and are left out")
    return Answer(
        answer=conclude(conditions),
        compared=f"{compared}; mean over {len(found.groups)} cells, {len(found.seeds)} seeds",
        unit=conditions[0].unit,
        effect=conditions[0].interval,
        conditions=tuple(conditions),
        run_ids=found.run_ids,
        missing=tuple(missing),
        reasons=tuple(reasons),
    )


def nothing(compared: str, why: str) -> Answer:
    """No cell could show it."""
    return Answer(answer=CANNOT_TELL, compared=compared, reasons=(why,))


def not_applicable(compared: str, why: str) -> Answer:
    """The question makes no sense for this arm."""
    return Answer(answer=NOT_APPLICABLE, compared=compared, reasons=(why,))


def explored(
    what: str,
    found: Contrast | None,
    unit: str,
    *,
    resolution: float = 0.0,
    searched: bool = False,
) -> list[Explored]:
    """One exploratory contrast, or none where the cells do not give it; `searched` as in `condition`."""
    if found is None:
        return []
    effect = mean_interval(found.values, resolution=resolution)
    return [(what, effect, unit, effect.p_beyond(search_price(effect.num) if searched else 1.0))]


def findings(given: Sequence[Explored]) -> tuple[Finding, ...]:
    """Exploratory findings from (what, effect, unit, p-value) of one claim, corrected together."""
    adjusted = holm([p for *_, p in given])
    return tuple(
        Finding(what=what, effect=effect, unit=unit, p_holm=float(p))
        for (what, effect, unit, _), p in zip(given, adjusted, strict=True)
    )
