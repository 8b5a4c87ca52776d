"""All six verdicts of a study: its Runs are measured once, then every claim is put to them.

`primary` names each claim's one primary contrast; everything else that a verdict carries is
exploratory. C1 to C4 live in `c1_to_c4`, C5a and C5b in `c5`. A number per seed is a mean over cells; the
interval is over seeds, so it speaks of these tasks and this test set, not of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.claims.answers import Verdict
from analysis.claims.c1_to_c4 import c1, c2, c3, c4
from analysis.claims.c5 import c5a, c5b
from analysis.claims.measures import measure
from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.arms import TRANSFER


def claims(
    study: Study,
    *,
    more_related: str | None = None,
    less_related: str | None = None,
    similarity: Mapping[str, float] | None = None,
    epsilon: float = EPSILON,
    arm: str = TRANSFER,
    **select: Any,
) -> tuple[Verdict, ...]:
    """All six verdicts, the rows read once; for the arguments see `c5a`."""
    measures = measure(study, epsilon=epsilon, **select)
    sources: dict[str, Any] = {
        "more_related": more_related,
        "less_related": less_related,
        "similarity": similarity,
    }
    return (
        *(decide(measures, arm=arm) for decide in (c1, c2, c3, c4)),
        c5a(measures, arm=arm, **sources),
        c5b(measures, arm=arm, **sources),
    )
