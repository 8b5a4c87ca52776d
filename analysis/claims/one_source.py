"""Decide the claims on one source: C1 to C4b.

One seed never decides. Cells that could not show an effect are excluded by their *train* error, never by
the test error that is judged. A censored value is never evidence in the direction of censoring."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd

from analysis.claims.contrasts import (
    Measures,
    capacity_terms,
    contrast,
    first_descent_terms,
    of_arm,
    one_image,
    pace_terms,
    replicates,
)
from analysis.claims.pooled_curves import (
    OneCurve,
    Pooled,
    freezing_curves,
    freezing_peak,
    height_pair,
)
from analysis.claims.primary import DOUBLING, EPSILONS, ERROR, SLOWER
from analysis.claims.verdict import (
    CANNOT_TELL,
    HOLDS,
    Answer,
    AtEpsilon,
    ExploratoryResult,
    Verdict,
    answer_of,
    bounded,
    conclude,
    condition,
    explored,
    left_out,
    not_applicable,
    nothing,
    peak_condition,
    verdict,
)
from analysis.descent import STRONG, WEAK, WINDOWED
from analysis.descent.edges import EPOCHS, PARAMETERS, near_in_words
from analysis.descent.intervals import mean_interval
from analysis.load.arms import TRANSFER
from study.store.schema import DONE


def c1(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """Decide C1: is epoch-wise double descent higher with more target images? Effect in test error.

    The height of a peak is the smaller of its rise and fall, so a rise to the end is no peak.
    Exploratory: the effect at each frozen count and at each lower label noise, and the height at the
    largest label noise − at the smallest.
    """
    lines = of_arm(measures.lines, arm)
    noises = sorted(lines["label_noise"].unique())
    extra: list[ExploratoryResult] = []
    most = lines[lines["label_noise"] == lines["label_noise"].max()]
    slices = {str(cut): some for cut, some in most.sort_values("frozen").groupby("cut", sort=False)}
    slices |= {
        f"label noise {noise:g}": lines[lines["label_noise"] == noise] for noise in noises[:-1]
    }
    for what, some in slices.items():
        pair = height_pair(measures, some, "size")
        extra += _difference(f"the same with {what}", pair)
    if len(noises) > 1:
        extra += _difference(
            f"height of the peak, label noise {noises[-1]:g} − {noises[0]:g}, all sizes",
            height_pair(measures, lines, "label_noise", matched=True),
        )
    return verdict("C1", measures, arm, ask_c1, extra)


def ask_c1(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    noise = lines["label_noise"].max()
    some = lines[lines["label_noise"] == noise]
    compared = (
        f"height of the epoch-wise peak at label noise {noise:g}, larger − smaller target size"
    )
    pair = height_pair(measures, some, "size")
    if pair is None:
        return nothing(
            compared, "no cell has two target sizes whose train error crosses ε within the curve"
        )
    reasons = [] if noise > 0 else ["the study has no label noise: only noise 0 is judged"]
    answer = decide_c1(*pair, compared, epsilon=measures.epsilon, step=one_image(some))
    return replace(answer, reasons=(*answer.reasons, *reasons))


def decide_c1(
    smaller: Pooled, larger: Pooled, compared: str, *, epsilon: float, step: float
) -> Answer:
    """Decide C1 from the pooled curves at two sizes; `step`: the test error of one image."""
    if larger.judgement.height is None:
        return nothing(compared, *larger.judgement.reasons)
    peak = peak_condition("a peak at the larger size", larger.judgement)
    values = larger.judgement.heights - smaller.judgement.heights
    higher = condition(
        "higher with more images",
        values,
        unit="error",
        matters=ERROR,
        resolution=step,
        at_least=_difference_at_least(smaller, larger),
        at_most=_difference_at_most(smaller, larger),
        unfinished=larger.judgement.unfinished,
    )
    # An unfinished peak at the smaller size is higher than measured, so C1 is undecided.
    unfinished = _still_rises(smaller)
    if higher.answer == HOLDS and unfinished:
        more = "more epochs at the smaller size would tell: its test error still rises at its end"
        higher = replace(higher, answer=CANNOT_TELL, tell=more)
    reasons = [
        f"a peak counts {near_in_words(EPOCHS, epsilon)}",
        WINDOWED,
        *(f"larger size: {reason}" for reason in larger.judgement.reasons),
        *(f"smaller size: {reason}" for reason in smaller.judgement.reasons),
    ]
    conditions = (higher, peak)
    return Answer(
        answer=conclude(conditions),
        compared=f"{compared}; mean over {len(larger.names)} cells, {len(larger.seeds)} seeds",
        unit="error",
        effect=higher.interval,
        conditions=conditions,
        run_ids=(*smaller.run_ids, *larger.run_ids),
        missing=left_out(larger.dropped, larger.left_out),
        reasons=tuple(reasons),
    )


def _difference_at_least(smaller: Pooled, larger: Pooled) -> float:
    """Return a lower bound on the difference of two heights, in addition to that of the interval."""
    # A held-out height is too low if the place found is not the true one. At the smaller size this would
    # be evidence for the claim: 4.1 % false "holds" with equal peaks and twice the noise (3 seeds).
    return mean_interval(larger.judgement.heights - smaller.judgement.located_heights).low


def _difference_at_most(smaller: Pooled, larger: Pooled) -> float:
    """Return an upper bound on the difference of two heights, in addition to that of the interval."""
    # If the larger size's peak is shown, only its place is uncertain: its height is measured at the places
    # found on all seeds. Else only a bound on its height is known; the smaller height's low is subtracted.
    if larger.judgement.status in (WEAK, STRONG):
        return mean_interval(larger.judgement.located_heights - smaller.judgement.heights).high
    shown = smaller.judgement.height if smaller.judgement.status in (WEAK, STRONG) else None
    return larger.judgement.at_most - (shown.low if shown else 0.0)


def _still_rises(one: Pooled) -> bool:
    """Return True if the curve has no peak yet and the seeds show that it rises at its end."""
    end = one.judgement.end_rise
    return end is not None and end.low > 0 and one.judgement.status not in (WEAK, STRONG)


def _difference(what: str, pair: tuple[Pooled, Pooled] | None) -> list[ExploratoryResult]:
    if pair is None or np.isnan(pair[0].judgement.heights + pair[1].judgement.heights).any():
        return []
    effect = mean_interval(pair[1].judgement.heights - pair[0].judgement.heights)
    return [ExploratoryResult(what=what, effect=effect, unit="error")]


def c2(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """Decide C2: does a larger source set delay the target's interpolation?

    The effect is in log10 of epochs (0.3 is twice as late). Log epoch is interpolated between
    evaluations. A Run that never interpolates counts with its last epoch. This is a lower bound, and never
    evidence in the direction of censoring. Exploratory: the effect at each target size.
    """
    lines = of_arm(measures.lines, arm)
    extra: list[ExploratoryResult] = []
    for size, some in lines.groupby("size"):
        terms, _, spacing = pace_terms(some)
        what, grid = f"the same at target size {size:,}", spacing * np.sqrt(2)
        extra += explored(what, contrast(terms), "log10 epochs", resolution=grid)
    return verdict("C2", measures, arm, ask_c2, extra)


def ask_c2(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    compared = (
        "log10 of the epoch at which the train error crosses ε, largest − smallest source size"
    )
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
    if late and not early:
        late_seeds = {
            (term.group, term.seed) for term in terms if set(term.run_ids) & censored["larger"]
        }
        reasons += _at_least(replicates(terms, found), late_seeds, "log10 epochs")
    slower = bounded(slower, understated=late > 0, overstated=early > 0)
    return answer_of(compared, found, (slower,), reasons)


def c3(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """Decide C3: does freezing lower the capacity, the largest target size that the network fits?

    The effect is log2 of the capacity with the fewest frozen layers minus that with the most, a mean over
    seeds: 1 is a factor of two. A capacity is known only as one of the sizes studied. This rounding is the
    same for all seeds, so averaging does not remove it; the interval is widened by half a step for each of
    the two capacities. If the largest size is fitted, or the smallest is not, the capacity is a bound, so
    the difference may be larger. Exploratory: the same for each step from one frozen count to the next.
    """
    lines = of_arm(measures.lines, arm)
    cuts = lines.sort_values("frozen")["cut"].unique()
    extra: list[ExploratoryResult] = []
    for fewer, more in pairwise(cuts):
        terms, _, step = capacity_terms(lines[lines["cut"].isin([fewer, more])])
        what = f"capacity, {fewer} − {more}"
        extra += explored(what, contrast(terms), "doublings", grid=step)
    return verdict("C3", measures, arm, ask_c3, extra)


def ask_c3(measures: Measures, lines: pd.DataFrame, arm: str) -> Answer:
    compared = "log2 of the largest interpolated target size, fewest − most frozen layers"
    if lines["frozen"].nunique() < 2:
        return not_applicable(compared, "it has one frozen count only")
    terms, bounds, step = capacity_terms(lines)
    found = contrast(terms)
    if found is None:
        return nothing(
            compared,
            "no cell has two or more target sizes of which some are interpolated and some are not, at two "
            "frozen counts",
        )
    more = condition(
        "fewer frozen layers interpolate more",
        found.values,
        unit="doublings",
        matters=DOUBLING,
        grid=step,
    )
    of_found = [bound for bound in bounds if bound.group in found.groups]
    above = [bound for bound in of_found if bound.above]
    below = [bound for bound in of_found if not bound.above]
    reasons = []
    if above:
        reasons.append(
            f"{len(above)} capacities are lower bounds: the largest size studied is interpolated"
        )
    if below:
        reasons.append(
            f"{len(below)} capacities are upper bounds: the smallest size studied is not interpolated"
        )
    understated = {(bound.group, bound.seed) for bound in of_found if bound.above == bound.fewest}
    overstated = any(bound.above != bound.fewest for bound in of_found)
    if understated and not overstated:
        reasons += _at_least(replicates(terms, found), understated, "doublings")
    more = bounded(more, understated=bool(understated), overstated=overstated)
    return answer_of(compared, found, (more,), reasons)


def _at_least(
    sums: Mapping[tuple[Hashable, int], float], censored: Collection[object], unit: str
) -> list[str]:
    """Return censored differences as lower bounds: "≥ 2 doublings in 30 of 30 replicates"."""
    bounds = [value for place, value in sums.items() if place in censored]
    if not bounds:
        return []
    return [f"≥ {min(bounds):.3g} {unit} in {len(bounds)} of {len(sums)} replicates"]


def c4(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """Decide C4: is there freezing-wise double descent, its peak near the edge of interpolation?

    All curves at the largest label noise are aligned at their edges and pooled. The effect is the smaller
    of the rise and the fall of the pooled test error. As ε moves the edge, C4 is answered at several ε.
    Exploratory: the pooled curves of each lower label noise, and each curve alone.
    """
    lines = of_arm(measures.lines, arm)
    curves = freezing_curves(lines)
    step = one_image(lines)
    extra: list[ExploratoryResult] = []
    for noise, some in lines[lines["label_noise"] < lines["label_noise"].max()].groupby(
        "label_noise"
    ):
        alike = freezing_peak(freezing_curves(some), measures.epsilon, step=step)
        if alike is not None and alike.judgement.height is not None:
            what = f"the same at label noise {noise:g} ({alike.judgement.wording})"
            extra.append(ExploratoryResult(what=what, effect=alike.judgement.height, unit="error"))
    shown = 0
    for one in curves if len(curves) > 1 else []:
        alone = freezing_peak([one], measures.epsilon, step=step)
        if alone is not None and alone.judgement.height is not None:
            what = f"height of the freezing-wise peak, {one.name} ({alone.judgement.wording})"
            extra.append(ExploratoryResult(what=what, effect=alone.judgement.height, unit="error"))
            shown += alone.judgement.status in (WEAK, STRONG)
    found = verdict("C4", measures, arm, ask_c4, extra)
    if not shown or found.answer == HOLDS:
        return found
    remark = f"judged one by one, {shown} of {len(curves)} curves show one (exploratory)"
    return replace(found, reasons=(remark, *found.reasons))


def ask_c4(
    measures: Measures,
    lines: pd.DataFrame,
    arm: str,
    *,
    epsilons: Sequence[float] = EPSILONS,
    first: str = "head only",
) -> Answer:
    """Answer C4; `first`: the first cut of the curves, in words."""
    # Only the largest noise, as in C1. With clean labels the peak is small or absent (Nakkiran et al.
    # 2019, section 5), and such curves would hide the peak of noisy labels.
    noise = lines["label_noise"].max()
    lines = lines[lines["label_noise"] == noise]
    compared = (
        f"test error over trained parameters, {first} to nothing frozen, label noise {noise:g}"
    )
    if lines["parameters_trained"].isna().all():
        return nothing(compared, "how many parameters were trained is not known")
    if lines["parameters_trained"].nunique() < 3:
        return not_applicable(compared, "a curve needs three frozen counts")
    curves = freezing_curves(lines)
    if not curves:
        return nothing(compared, "no curve has three frozen counts in one seed")
    step = one_image(lines)
    answer = decide_c4(curves, measures.epsilon, step, compared)
    others = {
        epsilon: answer
        if epsilon == measures.epsilon
        else decide_c4(curves, epsilon, step, compared)
        for epsilon in epsilons
    }
    return replace(
        answer,
        by_epsilon=tuple(
            AtEpsilon(
                epsilon=epsilon,
                answer=other.answer,
                effect=other.effect,
                what=other.conditions[0].what if other.conditions else "; ".join(other.reasons),
                tell=other.conditions[0].tell if other.conditions else "",
            )
            for epsilon, other in others.items()
        ),
    )


def c4b(measures: Measures, *, arm: str = TRANSFER) -> Verdict:
    """Decide C4b: does the curve have both descents if it begins below the capacity of the head alone?

    The effect is the height of the peak, as in C4, on curves that begin with the fewest features.
    """
    return verdict("C4b", with_part_heads(measures), arm, ask_c4b, [])


def with_part_heads(measures: Measures) -> Measures:
    """Return the measures with the Runs whose head reads only some features, which only C4b uses."""
    some = measures.part_heads
    is_done = some["state"] == DONE
    return replace(
        measures,
        lines=pd.concat([measures.lines, some[is_done]]),
        absent=pd.concat([measures.absent, some[~is_done]]),
    )


def ask_c4b(
    measures: Measures, lines: pd.DataFrame, arm: str, *, epsilons: Sequence[float] = EPSILONS
) -> Answer:
    lines = lines[lines["label_noise"] == lines["label_noise"].max()]
    terms = first_descent_terms(lines)
    found = contrast(terms)
    if found is None:
        compared = "test error with the fewest features − with all, head only"
        return not_applicable(compared, "no seed has head only, and a head of fewer features")
    answer = ask_c4(measures, lines, arm, epsilons=epsilons, first="the fewest features")
    if not answer.conditions:
        return answer
    first = condition(
        "a first descent, from the fewest features to head only",
        found.values,
        unit="error",
        matters=ERROR,
        resolution=one_image(lines),
    )
    conditions = (*answer.conditions, first)
    return replace(answer, answer=conclude(conditions), conditions=conditions)


def decide_c4(curves: Sequence[OneCurve], epsilon: float, step: float, compared: str) -> Answer:
    """Decide C4 from a study's freezing curves at one ε; `step`: the test error of one image."""
    compared += f"; ε = {epsilon:g}"
    found = freezing_peak(curves, epsilon, step=step)
    if found is None:
        return nothing(compared, f"on no curve does the mean train error cross ε = {epsilon:g}")
    judged = found.judgement
    peak = peak_condition("double descent, its peak near the edge of interpolation", judged)
    reasons = [f"a peak counts {near_in_words(PARAMETERS, epsilon)}", *judged.reasons]
    if judged.near[1:-1].all():
        reasons.append(
            "with so few cuts, all count as near the edge: the peak's place is not tested"
        )
    without = len(curves) - len(found.names) - found.dropped
    if without:
        reasons.append(
            f"{without} curves do not cross ε, and could not have shown a second descent"
        )
    many = (
        f"{len(found.names)} curves, each moved to its own edge"
        if len(found.names) > 1
        else (found.names[0])
    )
    return Answer(
        answer=conclude([peak]),
        compared=f"{compared}; {many}, {len(found.seeds)} seeds",
        unit="error",
        effect=peak.interval,
        conditions=(peak,),
        run_ids=found.run_ids,
        missing=left_out(found.dropped, found.left_out),
        reasons=tuple(reasons),
    )
