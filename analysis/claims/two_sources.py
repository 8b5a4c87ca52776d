"""Decide the claims on a more and a less related source: C5a and C5b."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from analysis.claims.contrasts import (
    Measures,
    against_terms,
    contrast,
    difference_terms,
    floor_terms,
    of_arm,
    one_image,
)
from analysis.claims.pooled_curves import freezing_curves, freezing_peak
from analysis.claims.primary import ERROR
from analysis.claims.verdict import (
    CANNOT_TELL,
    HOLDS,
    Answer,
    Ask,
    Condition,
    ExploratoryResult,
    Verdict,
    answer_of,
    condition,
    explored,
    not_applicable,
    nothing,
    peak_condition,
    verdict,
)
from analysis.load.arms import MATCHED_STEPS, RANDOM_FROZEN, REINITIALISED, SCRATCH, TRANSFER

AskPair = Callable[[Measures, pd.DataFrame, str, str], Answer]


def c5a(
    measures: Measures,
    *,
    more_related: str | None = None,
    less_related: str | None = None,
    similarity: Mapping[str, float] | None = None,
    arm: str = TRANSFER,
) -> Verdict:
    """Decide C5a: with too many frozen layers, is a less related source better, or on par?

    The effect is the test error of the more related source − the less related, with the most layers
    frozen. The verdict is on the two sources compared, not on relatedness in general. If they are on par
    at every frozen count, no effect of freezing is shown, and the answer is "cannot tell".

    Args:
        more_related, less_related: names of the sources. Without names and `similarity`, the answer is
            "cannot tell"; its reasons contain the answer for either source as the more related.
        similarity: source task → similarity to the target; the most and the least similar are compared.

    Raises:
        ValueError: if the study lacks a named source.
    """
    return _of_pair("C5a", measures, arm, ask_c5a, more_related, less_related, similarity)


def ask_c5a(measures: Measures, lines: pd.DataFrame, more: str, less: str) -> Answer:
    compared = f"test error, {more} − {less}, with the most layers frozen"
    terms = difference_terms(lines, more, less, epsilon=measures.epsilon)
    found, before = contrast(terms["end"]), contrast(terms["low"])
    if found is None:
        return nothing(compared, "no cell has both sources")
    image = one_image(lines)
    at_end = condition(
        f"{less} better or on par",
        found.values,
        unit="error",
        above=-ERROR,
        matters=-ERROR,
        resolution=image,
    )
    better = condition(
        f"{less} better", found.values, unit="error", matters=ERROR, resolution=image
    )
    changed = better
    if better.answer != HOLDS and before is not None:
        changed = condition(
            f"{less} not better with few frozen layers",
            -before.values,
            unit="error",
            matters=0.0,
            resolution=image,
        )
    # If this condition fails, freezing closed no gap, which is no evidence against the claim.
    due = replace(
        changed,
        what=f"{less} better there, or behind with few frozen layers",
        answer=HOLDS if changed.answer == HOLDS else CANNOT_TELL,
    )
    conditions = [at_end, due]
    if better.answer != HOLDS:
        conditions += _floors(measures, lines, more, less)
    reasons = []
    if at_end.answer == HOLDS and due.answer != HOLDS:
        reasons.append(
            "on par with few frozen layers too, as far as the seeds show: no sign of freezing"
        )
    return answer_of(compared, found, conditions, reasons)


def _floors(measures: Measures, lines: pd.DataFrame, more: str, less: str) -> list[Condition]:
    """Return the conditions that both sources are better than a floor (see `floor_terms`)."""
    # Two equally bad sources are no evidence for or against the claim.
    conditions = []
    random_frozen = of_arm(measures.lines, RANDOM_FROZEN)
    for source in (more, less):
        terms, floor = floor_terms(measures, lines, source, random_frozen)
        found = contrast(terms)
        if found is None:
            conditions.append(
                Condition(
                    what=f"{source} better than chance: the number of classes is not known",
                    answer=CANNOT_TELL,
                )
            )
            continue
        under = condition(
            f"{source} better than {floor}",
            found.values,
            unit="error",
            matters=ERROR,
            resolution=one_image(lines),
        )
        if under.answer != HOLDS:
            tell = f"{under.tell}; " if under.tell else ""
            tell += "both sources may be equally bad"
            if floor != RANDOM_FROZEN + " layers":
                tell += ": a random frozen arm would tell"
            under = replace(under, answer=CANNOT_TELL, tell=tell)
        conditions.append(under)
    return conditions


def c5b(
    measures: Measures,
    *,
    more_related: str | None = None,
    less_related: str | None = None,
    similarity: Mapping[str, float] | None = None,
    arm: str = TRANSFER,
) -> Verdict:
    """Decide C5b: is a less related source better near the freezing-wise peak, because of the peak?

    The effect is the test error of the more related source − the less related, at the edge of
    interpolation. It must exceed this difference with the most layers frozen. For the arguments see `c5a`.
    """
    return _of_pair("C5b", measures, arm, ask_c5b, more_related, less_related, similarity)


def ask_c5b(measures: Measures, lines: pd.DataFrame, more: str, less: str) -> Answer:
    compared = f"test error, {more} − {less}, at the edge of interpolation"
    terms = difference_terms(lines, more, less, epsilon=measures.epsilon)
    edge, apart = contrast(terms["edge"]), contrast(terms["edge − end"])
    if edge is None or apart is None:
        return nothing(compared, "no cell has both sources and an edge inside the frozen counts")
    image = one_image(lines)
    noisiest = lines["label_noise"] == lines["label_noise"].max()  # as in C4
    curves = freezing_curves(lines[noisiest & (lines["source_task"] == more)])
    peak = freezing_peak(curves, measures.epsilon, step=image)
    what = f"freezing-wise double descent of {more} near the edge"
    conditions = (
        condition(
            f"{less} better at the edge",
            edge.values,
            unit="error",
            matters=ERROR,
            resolution=image,
        ),
        condition(
            "more so than at the end", apart.values, unit="error", matters=0.0, resolution=image
        ),
        Condition(what=f"{what}: no curve crosses ε", answer=CANNOT_TELL)
        if peak is None
        else peak_condition(what, peak.judgement),
    )
    return answer_of(compared, edge, conditions, [] if peak is None else peak.judgement.reasons)


def _of_pair(
    claim: str,
    measures: Measures,
    arm: str,
    ask: AskPair,
    more: str | None,
    less: str | None,
    similarity: Mapping[str, float] | None,
) -> Verdict:
    names, pair = _sources(measures, arm, more, less, similarity)
    if pair is None:
        return verdict(claim, measures, arm, _both_ways(ask, names), [])
    lines = of_arm(measures.lines, arm)
    terms = difference_terms(lines, *pair, epsilon=measures.epsilon)
    extra: list[ExploratoryResult] = []
    for cut, some in lines.sort_values("frozen").groupby("cut", sort=False):
        alone = difference_terms(some, *pair, epsilon=measures.epsilon)
        what = f"test error, {pair[0]} − {pair[1]}, {cut}"
        extra += explored(what, contrast(alone["end"]), "error")
    if claim == "C5a":
        extra += explored(
            "the same, edge of interpolation − end", contrast(terms["edge − end"]), "error"
        )

    def ask_arm(measures: Measures, some: pd.DataFrame, control: str) -> Answer:
        if control in (arm, REINITIALISED, MATCHED_STEPS):
            return ask(measures, some, *pair)
        if claim == "C5b":
            return not_applicable("two sources", "it has no second source; see C5a")
        compared = f"test error, {pair[0]} with the most layers frozen − {control}"
        own = lines[lines["source_task"] == pair[0]]
        found = contrast(against_terms(measures, own, some, unfrozen=control == SCRATCH))
        if found is None:
            return nothing(compared, "no cell of the same target, size and recipe")
        on_par = condition(
            f"{control} better or on par", found.values, unit="error", above=-ERROR, matters=-ERROR
        )
        return answer_of(compared, found, (on_par,), [])

    return verdict(claim, measures, arm, ask_arm, extra)


def ask_pair(ask: AskPair, measures: Measures, arm: str, more: str | None, less: str | None) -> Ask:
    """Return an `Ask` for the arm of a verdict, as `c5a` and `c5b` use; raise as they do."""
    names, pair = _sources(measures, arm, more, less, None)
    if pair is None:
        return _both_ways(ask, names)
    return lambda measures, lines, _: ask(measures, lines, *pair)


def _sources(
    measures: Measures,
    arm: str,
    more: str | None,
    less: str | None,
    similarity: Mapping[str, float] | None,
) -> tuple[list[str], tuple[str, str] | None]:
    """Return the arm's source tasks, and the more and the less related of two; None if unknown."""
    names = sorted(set(of_arm(measures.lines, arm)["source_task"].unique()) - {"none"})
    return names, _pair(names, more, less, similarity) if names else None


def _both_ways(ask: AskPair, names: Sequence[str]) -> Ask:
    """Return an `Ask` for two sources of unknown relatedness; its answer is always "cannot tell"."""

    def ask_arm(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
        if len(names) != 2:
            return nothing("two sources", f"{len(names)} sources: name the two to be compared")
        first, second = ask(measures, lines, *names), ask(measures, lines, *reversed(names))
        readings = [
            f"if {name} is the more related: {answer.answer}"
            for name, answer in zip(names, (first, second), strict=True)
        ]
        return replace(
            first,
            answer=CANNOT_TELL,
            conditions=(),
            reasons=("the more related source is not named", *readings, *first.reasons),
        )

    return ask_arm


def _pair(
    names: Sequence[str],
    more: str | None,
    less: str | None,
    similarity: Mapping[str, float] | None,
) -> tuple[str, str] | None:
    choices = ", ".join(names) or "none"
    for field, value in (("more_related", more), ("less_related", less)):
        if value is not None and value not in names:
            raise ValueError(f"{field}={value!r}: the study's sources are {choices}")
    if more is not None and more == less:
        raise ValueError(f"more_related and less_related are both {more!r}")
    if similarity is not None and more is None and less is None:
        known = sorted((similarity[name], name) for name in names if name in similarity)
        if len(known) < 2:
            raise ValueError(f"similarity: of the sources ({choices}), {len(known)} have a value")
        return None if known[0][0] == known[-1][0] else (known[-1][1], known[0][1])
    if len(names) == 2 and (more is None) != (less is None):
        other = next(name for name in names if name not in (more, less))
        more, less = more or other, less or other
    return (more, less) if more is not None and less is not None else None
