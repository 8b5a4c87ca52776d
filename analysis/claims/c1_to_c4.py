"""The claims on one source at a time: C1 to C4.

Each takes the study's `Measures` and puts its question to an arm, and the same question to the control
arms. They say no more than the cells allow: one seed can never tell, cells that could not have shown an
effect are left out by their *train* error (never by the test error that is judged), and a censored
number never decides in the direction in which it is censored.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.claims.answers import (
    CANNOT_TELL,
    DOES_NOT_HOLD,
    HOLDS,
    Answer,
    Condition,
    Explored,
    Verdict,
    answer_of,
    bounded,
    conclude,
    condition,
    explored,
    not_applicable,
    nothing,
    verdict,
)
from analysis.claims.measures import Measures, contrast, of_arm
from analysis.claims.peaks import freezing_curves, height_terms, peak_terms
from analysis.claims.primary import DOUBLING, ERROR, SLOWER
from analysis.claims.terms import capacity_terms, pace_terms
from analysis.descent import NONE, STRONG, WEAK
from analysis.load.arms import TRANSFER


def c1(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """C1: is epoch-wise double descent higher with more target images? Effect in test error.

    Rises to the end are no peak: the height is the smaller of rise and fall. Exploratory: the same at
    each frozen count; at each lower label noise; and the most against the least noise.
    """
    lines = of_arm(measures.lines, arm)
    noises = sorted(lines["label_noise"].unique())
    extra: list[Explored] = []
    most = lines[lines["label_noise"] == lines["label_noise"].max()]
    slices = {f"{frozen} frozen layers": some for frozen, some in most.groupby("frozen")}
    slices |= {
        f"label noise {noise:g}": lines[lines["label_noise"] == noise] for noise in noises[:-1]
    }
    for what, some in slices.items():
        found = contrast(height_terms(measures, some, "size", min_height=ERROR))
        extra += explored(f"the same at {what}", found, "error", searched=True)
    if len(noises) > 1:
        extra += explored(
            f"height of the peak, label noise {noises[-1]:g} − {noises[0]:g}, all sizes",
            contrast(height_terms(measures, lines, "label_noise", min_height=ERROR, matched=True)),
            "error",
            searched=True,
        )
    return verdict("C1", measures, arm, _ask_c1, extra)


def _ask_c1(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    noise = lines["label_noise"].max()
    terms = height_terms(measures, lines[lines["label_noise"] == noise], "size", min_height=ERROR)
    found = contrast(terms)
    compared = (
        f"height of the epoch-wise peak at label noise {noise:g}, larger − smaller target size"
    )
    if found is None:
        return nothing(
            compared, "no cell has two target sizes whose train error crosses ε within the curve"
        )
    used = {(group, seed) for group in found.groups for seed in found.seeds}
    larger = contrast(term for term in terms if term.weight > 0 and (term.group, term.seed) in used)
    assert larger is not None and larger.seeds == found.seeds
    conditions = (
        condition(
            "higher with more images", found.values, unit="error", matters=ERROR, searched=True
        ),
        condition(
            "a peak at the larger size", larger.values, unit="error", matters=ERROR, searched=True
        ),
    )
    reasons = [] if noise > 0 else ["the study has no label noise: only noise 0 is judged"]
    return answer_of(compared, found, conditions, reasons)


def c2(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """C2: does a larger source set make the target's interpolation come later? Effect in log10 of
    epochs (0.3 is twice as late).

    A Run that never interpolates counts with its last epoch, a bound: it decides nothing in the
    direction in which the true epoch lies. Epochs are known to the evaluation only, so that seeds that
    agree still have an interval. Exploratory: the same per target size; the epoch of the peak where
    both source sizes show one.
    """
    lines = of_arm(measures.lines, arm)
    extra: list[Explored] = []
    for size, some in lines.groupby("size"):
        terms, _, spacing = pace_terms(some)
        what, grid = f"the same at target size {size:,}", spacing * np.sqrt(2)
        extra += explored(what, contrast(terms), "log10 epochs", resolution=grid)
    extra += explored(
        "epoch of the peak where both show one, largest source size − smallest",
        contrast(peak_terms(measures, lines, min_height=ERROR)),
        "log10 epochs",
    )
    return verdict("C2", measures, arm, _ask_c2, extra)


def _ask_c2(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    compared = "log10 of the first epoch with train error ≤ ε, largest − smallest source size"
    if (lines["source_size"] == 0).all():
        return not_applicable(compared, "it has no source set")
    terms, censored, spacing = pace_terms(lines)
    found = contrast(terms)
    if found is None:
        return nothing(
            compared, "no cell has two source sizes of which one is interpolated in every seed"
        )
    slower = condition(
        "later with the larger source",
        found.values,
        unit="log10 epochs",
        matters=SLOWER,
        resolution=spacing * np.sqrt(2),
    )
    late = sum(run_id in censored["larger"] for run_id in found.run_ids)
    early = sum(run_id in censored["smaller"] for run_id in found.run_ids)
    reasons = []
    if late:
        reasons.append(f"{late} Runs with the larger source never interpolate: at least as late")
    if early:
        reasons.append(f"{early} Runs with the smaller source never interpolate: at least as late")
    slower = bounded(slower, understated=late > 0, overstated=early > 0)
    return answer_of(compared, found, (slower,), reasons)


def c3(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """C3: does freezing lower the largest target size that is interpolated? Effect in doublings.

    The rule over seeds: a capacity per seed, then the mean of its log2; the grid of sizes hides half
    a step of it, so that seeds that agree still have an interval. Where the largest size is
    interpolated (or the smallest is not) the capacity is only bounded, and the difference understated.
    Exploratory: each step from one frozen count to the next.
    """
    lines = of_arm(measures.lines, arm)
    counts = sorted(lines["frozen"].unique())
    extra: list[Explored] = []
    for fewer, more in pairwise(counts):
        terms, _, step = capacity_terms(lines[lines["frozen"].isin([fewer, more])])
        what, grid = f"capacity, {fewer} − {more} frozen layers", step * np.sqrt(2)
        extra += explored(what, contrast(terms), "doublings", resolution=grid)
    return verdict("C3", measures, arm, _ask_c3, extra)


def _ask_c3(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    compared = "log2 of the largest interpolated target size, fewest − most frozen layers"
    if lines["frozen"].nunique() < 2:
        return not_applicable(compared, "it has one frozen count only")
    terms, bounds, step = capacity_terms(lines)
    found = contrast(terms)
    if found is None:
        return nothing(compared, "no cell has two or more target sizes at two frozen counts")
    more = condition(
        "fewer frozen layers interpolate more",
        found.values,
        unit="doublings",
        matters=DOUBLING,
        resolution=step * np.sqrt(2),
    )
    of_found = [bound for bound in bounds if bound.group in found.groups]
    above = [bound for bound in of_found if bound.above]
    below = [bound for bound in of_found if not bound.above]
    reasons = []
    if above:
        reasons.append(
            f"the largest size is interpolated in {len(above)} capacities: the sizes studied censor "
            "them, they are as large or larger"
        )
    if below:
        reasons.append(
            f"not even the smallest size is interpolated in {len(below)} capacities: they are smaller"
        )
    more = bounded(
        more,
        understated=any(bound.above == bound.fewest for bound in of_found),
        overstated=any(bound.above != bound.fewest for bound in of_found),
    )
    return answer_of(compared, found, (more,), reasons)


def c4(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """C4: is there double descent along the freezing, its peak at the edge of interpolation? Effect:
    the smaller of rise and fall, in test error.

    Exploratory: every other curve.
    """
    curves = freezing_curves(measures, of_arm(measures.lines, arm), min_height=ERROR)
    extra: list[Explored] = []
    for curve in curves[1:]:
        height, p_value = curve.height, min(1.0, 2 * curve.judgement.p_value)
        if height is not None:
            what = f"height of the freezing-wise peak, {curve.name} ({curve.judgement.status})"
            extra.append((what, height, "error", p_value))
    return verdict("C4", measures, arm, _ask_c4, extra)


def _ask_c4(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    compared = "test error over trained parameters, head only to nothing frozen"
    if lines["frozen"].nunique() < 3:
        return not_applicable(compared, "a curve needs three frozen counts")
    curves = freezing_curves(measures, lines, min_height=ERROR)
    if not curves:
        return nothing(compared, "no curve has three frozen counts in one seed")
    curve = curves[0]
    if curve.edge is None:
        whole = {one.judgement.interpolates for one in curves}
        return nothing(
            compared,
            "on no curve does the train error cross ε: "
            + ", on others ".join(f"{word} interpolates" for word in sorted(whole)),
        )
    judged = curve.judgement
    shown = judged.status in (WEAK, STRONG)
    at_edge = np.isin(judged.peaks, judged.x[curve.edge - 1 : curve.edge + 1])
    place = CANNOT_TELL
    if shown and (at_edge.all() or not at_edge.any()):
        place = HOLDS if at_edge.all() else DOES_NOT_HOLD
    conditions = (
        Condition(
            what=f"double descent: {judged.wording}",
            answer=HOLDS if shown else DOES_NOT_HOLD if judged.status == NONE else CANNOT_TELL,
            interval=curve.height,
            unit="error",
        ),
        Condition(
            what="the peak is at the edge of interpolation: in "
            f"{int(at_edge.sum())} of {at_edge.size} seeds",
            answer=place,
        ),
    )
    reasons = [*judged.reasons]
    if len(curves) > 1:
        reasons.append(f"one curve of {len(curves)}, chosen by its train error; the others explore")
    return Answer(
        answer=conclude(conditions),
        compared=f"{compared}: {curve.name}; edge between {curve.frozen[curve.edge - 1]} and "
        f"{curve.frozen[curve.edge]} frozen layers",
        unit="error",
        effect=curve.height,
        conditions=conditions,
        run_ids=curve.run_ids,
        reasons=tuple(reasons),
    )
