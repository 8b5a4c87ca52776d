"""Decide the paper's claims from a study: each *holds*, *does not hold*, or *cannot tell*."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from analysis.claims.contrasts import measure
from analysis.claims.one_source import (
    ask_c1,
    ask_c2,
    ask_c3,
    ask_c4,
    ask_c4b,
    c1,
    c2,
    c3,
    c4,
    c4b,
    with_part_heads,
)
from analysis.claims.two_sources import ask_c5a, ask_c5b, ask_pair, c5a, c5b
from analysis.claims.verdict import Answer, Decision, Verdict, answer_of_arm
from analysis.claims.verdicts import Verdicts
from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.arms import DEFAULT_ARM
from analysis.load.rows import TableRows

__all__ = ["Decision", "Verdict", "Verdicts", "c1", "c2", "c3", "c4", "c4b", "c5a", "c5b", "claims"]


def claims(
    study: Study,
    *,
    more_related: str | None = None,
    less_related: str | None = None,
    similarity: Mapping[str, float] | None = None,
    epsilon: float = EPSILON,
    arm: str = DEFAULT_ARM,
    **select: Any,
) -> Verdicts:
    """Read the rows once and return the verdicts by claim; for the arguments see `c5a`.

    There are six verdicts. A seventh, C4b, is added if the head of some Runs reads only some features.

    `arm`: default transfer; if a table has no such arm, its only arm. If the study is a table, the first
    printed line names the claims that the table cannot answer.

    >>> found = claims(study)
    >>> found["C4"].answer
    <Decision.HOLDS: 'holds'>
    >>> found.to_dataframe().to_csv("verdicts.csv", index=False)
    """
    arm = study.arm_of(arm)
    try:
        measures = measure(study, epsilon=epsilon, **select)
    except ValueError as error:
        if not isinstance(study.rows, TableRows):
            raise
        raise ValueError(
            f"this table cannot answer the claims: {error}; for double descent along its widths or "
            "parameters use surfaces.judge_along"
        ) from error
    sources: dict[str, Any] = {
        "more_related": more_related,
        "less_related": less_related,
        "similarity": similarity,
    }
    return Verdicts(
        [
            *(decide(measures, arm=arm) for decide in (c1, c2, c3, c4)),
            *([c4b(measures, arm=arm)] if len(measures.part_heads) else []),
            c5a(measures, arm=arm, **sources),
            c5b(measures, arm=arm, **sources),
        ],
        note=_unasked(study, arm) if isinstance(study.rows, TableRows) else "",
    )


def primary_answers(
    study: Study, *, more_related: str | None = None, less_related: str | None = None
) -> dict[str, Answer]:
    """Return the default arm's answers by claim, with the effects of `claims`; C4 at the default ε only.

    This takes a third of the time of `claims`, which adds caveats, controls and exploratory results.
    """
    arm = study.arm_of(DEFAULT_ARM)
    measures = measure(study)
    sources = (measures, arm, more_related, less_related)
    found = {
        "C1": answer_of_arm(measures, arm, ask_c1),
        "C2": answer_of_arm(measures, arm, ask_c2),
        "C3": answer_of_arm(measures, arm, ask_c3),
        "C4": answer_of_arm(measures, arm, partial(ask_c4, epsilons=())),
    }
    if len(measures.part_heads):
        whole = with_part_heads(measures)
        found["C4b"] = answer_of_arm(whole, arm, partial(ask_c4b, epsilons=()))
    found["C5a"] = answer_of_arm(measures, arm, ask_pair(ask_c5a, *sources))
    found["C5b"] = answer_of_arm(measures, arm, ask_pair(ask_c5b, *sources))
    return found


# Fields that must have several values before a claim can be decided, by claim.
_COMPARED: Final = {
    "C1": ("size",),
    "C2": ("source_size",),
    "C3": ("size", "frozen"),
    "C4": ("frozen",),
    "C4b": ("head_inputs",),
    "C5a": ("source_task", "frozen"),
    "C5b": ("source_task", "frozen"),
}


def constant_fields(study: Study, claim: str, arm: str) -> list[str]:
    """Return the fields that the claim compares, but that have fewer than two values in this arm.

    If the list is not empty, the study cannot answer the claim.
    """
    cells = study.cells[study.cells["arm"] == arm]
    return [name for name in _COMPARED[claim] if cells[name].nunique() < 2]


def _unasked(study: Study, arm: str) -> str:
    """Return a line that names the claims a table cannot answer, and why; "" if there are none."""
    constant = {claim: constant_fields(study, claim, arm) for claim in _COMPARED if claim != "C4b"}
    single = {name for names in constant.values() for name in names}
    claims = [claim for claim, names in constant.items() if names]
    if not claims:
        return ""
    named = ", ".join(
        name for name in ("size", "source_size", "frozen", "source_task") if name in single
    )
    return f"This table cannot answer {', '.join(claims)}: it has one value of {named}."
