"""Decide the paper's claims from a study: each *holds*, *does not hold*, or *cannot tell*."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.claims.contrasts import measure
from analysis.claims.one_source import c1, c2, c3, c4
from analysis.claims.two_sources import c5a, c5b
from analysis.claims.verdict import Decision, Verdict
from analysis.claims.verdicts import Verdicts
from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.arms import TRANSFER

__all__ = ["Decision", "Verdict", "Verdicts", "c1", "c2", "c3", "c4", "c5a", "c5b", "claims"]


def claims(
    study: Study,
    *,
    more_related: str | None = None,
    less_related: str | None = None,
    similarity: Mapping[str, float] | None = None,
    epsilon: float = EPSILON,
    arm: str = TRANSFER,
    **select: Any,
) -> Verdicts:
    """Read the rows once and return all six verdicts by claim; for the arguments see `c5a`.

    >>> found = claims(study)
    >>> found["C4"].answer
    <Decision.HOLDS: 'holds'>
    >>> found.to_dataframe().to_csv("verdicts.csv", index=False)
    """
    measures = measure(study, epsilon=epsilon, **select)
    sources: dict[str, Any] = {
        "more_related": more_related,
        "less_related": less_related,
        "similarity": similarity,
    }
    return Verdicts(
        [
            *(decide(measures, arm=arm) for decide in (c1, c2, c3, c4)),
            c5a(measures, arm=arm, **sources),
            c5b(measures, arm=arm, **sources),
        ]
    )
