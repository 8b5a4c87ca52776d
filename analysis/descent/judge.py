"""Decide whether a curve shows double descent: none, weak, strong, or inconclusive.

The input is one curve or a (seeds × x) matrix.

*What is decided.* Let m be the curve without noise. It shows double descent if it rises from a minimum
to a later peak and falls again, both by at least the height that matters.

**weak**: m falls below the peak. **strong**: m also falls below the first minimum.
**none**: a peak of a height that matters is excluded.
**none so far**: no peak, but the curve is not finished: it ends just at the edge of interpolation, or its
last point is shown to be above the lowest point of the last half decade.
**inconclusive**: the seeds cannot decide; or no point interpolates, or all do, so that a second descent
could not be seen. A missing peak is no evidence if the train error never fell below ε (Liu & Flanigan
2023).

*Where a peak counts.* If train errors are given, a peak counts only near the edge of interpolation (see
`edges`). A peak shown elsewhere is reported as a bump before or beyond the edge, with its train error.

*Higher points elsewhere.* The search for the minima of a peak ends at a point that is shown to be higher,
and is higher by the height that matters. If such a point may be far from the edge, between the minima,
the status is inconclusive. If a bump far from the edge is shown to be higher by that height, the status is
none.

*Direction.* Along the epochs, x is the epoch or step, judged in log scale. Along the freezing, x is the
number of trained parameters, ascending, from head only to nothing frozen.

*Noise: how a peak is shown.* Over 50 points, the maximum of a noisy flat curve is 4 standard deviations
high. Therefore:

(1) Epochs are averaged in fixed windows: quarters of a decade at 10^(k/4), whatever the data.
(2) Minimum, peak and later minimum are located on the *other* seeds and measured on the held-out seed.
This gives one height per seed: its rise or its fall, whichever is smaller on the other seeds.
(3) The t-interval of the heights over seeds must be above zero.

The held-out heights share the seeds that located them. By simulation, this is harmless up to three seeds.
At ten seeds the nominal 5 % become 11 % on a curve that rises to a long plateau. So heights must exceed
at least `SEARCH` standard errors.

*Noise: how a peak is excluded.* Held-out heights are too low if the place found is not the true one, so
they cannot exclude a peak; `upper_bounds` does.
A peak that matters needs three points, with a rise and a fall between them. It is excluded if, for *every*
three points, the upper end of the rise's or the fall's t-interval over seeds is below the height that
matters. Since all triples must be excluded, no correction for their number is needed. The error rate is at
most 5 % for any curve: 2.5 % for the rise and 2.5 % for the fall. The bound is the smallest height that is
excluded in this way.

*One seed.* One seed does not show the noise between replicates: images drawn, label flips, initial values.
The status is inconclusive; `face_value` is the status that the curve would have without noise.

*Weak or strong.* The gain (first minimum minus later minimum) is measured twice: between windows, and
between sixteenths of a decade in these windows. One measurement must show the gain. A curve that falls
until its end is lower there than in its last window.

*Reported without changing the status.* A level stretch that reaches far beyond the edge is a plateau. A
rise after the later minimum is a final ascent. If seeds interpolate at different places, their peaks are
smeared in the mean. A sentence states if aligning them makes the peak higher by the height that matters.

*Heights are those of the windows.* A window flattens a narrow peak: one of 8 points that is a third of a
decade wide has a height of 5.6 in its windows.

How often each verdict occurs, by simulation: `tests/power/table.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from analysis.descent.curves import (
    PARTS_PER_DECADE,
    after_descent,
    check_axis,
    epoch_windows,
    locate,
    nearest,
    present,
    rise_is_smaller,
    window_means,
)
from analysis.descent.edges import (
    EPOCHS,
    EVERYTHING,
    NEAR_DECADES,
    NOTHING,
    PARAMETERS,
    edge_of,
    extent,
    mean_train,
    near_edge,
    own_edges,
)
from analysis.descent.intervals import LEVEL, Interval, mean_interval, standard_errors, t_quantile

# 2 more degrees of freedom: each pair's variance is averaged with the mean variance of all pairs. Two or
# three seeds estimate the spread of a difference poorly, and the worst of all pairs is the bound.
# At three seeds, a peak on a long flat curve is excluded ten times as often. If the spread is three times
# as large at the peak, a true peak is excluded in 5 %. Not used with two seeds or four points: 7 to 8 %.
BORROWED: Final = 2


def ends_search(y: np.ndarray, matters: float, level: float, resolution: float) -> np.ndarray:
    """Return which points end the search for the minima of a peak: (peak, point) bool.

    A point ends the search if the seeds show that it is higher than the peak, and if it is higher by
    `matters` in the mean over seeds.
    """
    # A difference smaller than `matters` must not decide between two heights of a peak.
    apart = y[:, None, :] - y[:, :, None]  # (seeds, peak, point)
    mean = apart.mean(axis=0)
    margin = t_quantile(0.5 + level / 2, len(y) - 1) * standard_errors(apart, resolution)
    return np.asarray((mean >= matters) & (mean > margin))


def upper_bounds(
    y: np.ndarray,
    may_begin: np.ndarray,
    near: np.ndarray,
    matters: float,
    late: int,
    level: float,
    resolution: float,
) -> tuple[float, float]:
    """Return two upper bounds: on the height of a peak in `near`, on the rise from `late` to the end."""
    num, points = y.shape
    apart = y[:, None, :] - y[:, :, None]  # (seeds, from, to)
    index = np.arange(points)
    is_before = index[:, None] < index[None, :]
    own = num * standard_errors(apart, resolution) ** 2
    borrowed = BORROWED if num > 2 and points > 4 else 0
    df = num - 1 + borrowed
    variance = ((num - 1) * own + borrowed * own[is_before].mean()) / df
    upper = apart.mean(axis=0) + t_quantile(0.5 + level / 2, df) * np.sqrt(variance / num)
    # The search for the minima of a peak ends at a point that is shown to be higher by `matters`.
    is_higher = upper <= -matters  # (from, to): True if "from" is shown to be higher than "to"
    last_higher = np.where(is_before & is_higher, index[:, None], -1).max(axis=0)
    next_higher = np.where(is_before.T & is_higher, index[:, None], points).min(axis=0)
    may_rise = is_before & may_begin[:, None] & (index[:, None] > last_higher)
    rises = np.where(may_rise, upper, -np.inf).max(axis=0)
    falls = np.where(is_before.T & (index[:, None] < next_higher), upper, -np.inf).max(axis=0)
    inner = near & (index > 0) & (index < index[-1])
    peaks = np.minimum(rises, falls)[inner]
    # If every point has a higher neighbor, a peak is excluded at any height.
    return float(peaks.max(initial=-np.inf)), float(upper[late, -1])


NONE: Final = "none"
WEAK: Final = "weak"
STRONG: Final = "strong"
INCONCLUSIVE: Final = "inconclusive"

# Interpolation: train error ≤ ε. Nakkiran et al. 2019 use 0.1 for effective model complexity.
EPSILON: Final = 0.1

# 2 % of the curve's range is one millimetre in a figure five centimetres high. It is a share of the range,
# so the unit of y does not change the verdict. Used if no `min_height` is given.
MIN_SHARE: Final = 0.02

# 0.1 of the curve's range: along the epochs, the first minimum must be this far below the top. Training
# starts at chance, and wiggles before the first descent are no minimum. Along the freezing, no descent is
# required, since it may be small or outside the axis. Added when such wiggles made six curves of small
# networks on digits inconclusive; the value was not fitted to data.
FIRST_DESCENT: Final = 0.1

# 3.75 standard errors keep false peaks below 5 % for every no-peak shape in `tests/power`, at four or more
# seeds and up to 30 windows. Below four seeds Student's t exceeds this: at 98 % (one-sided), not 97.5 %.
SEARCH: Final = 3.75
SEARCH_LEVEL: Final = 0.98

WINDOWED: Final = (
    "heights are means in windows of a quarter of a decade of epochs: a peak narrower than a window or "
    "two is higher than they say (8 points, a third of a decade wide: 5.6)"
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Options of the decision.

    - `epsilon`: train error at which a curve interpolates.
    - `min_height`: the height that matters, in the unit of the values; None: MIN_SHARE of the mean
      curve's range.
    - `at`: first minimum, peak and later minimum on the axis, if they were named before any result was
      read; then there is no search.
    - `level`: coverage of the intervals. `search`: the minimum number of standard errors that a height
      must exceed if its place was searched. `resolution`: see `mean_interval`.
    """

    epsilon: float = EPSILON
    min_height: float | None = None
    at: tuple[float, float, float] | None = None
    level: float = LEVEL
    search: float = SEARCH
    resolution: float = 0.0

    def __post_init__(self) -> None:
        if self.min_height is not None and not self.min_height > 0:
            raise ValueError(f"min_height={self.min_height!r}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on one curve, and its evidence. Heights are in y's unit, places in x's.

    - `rise`: peak over first minimum; `fall`: peak over later minimum; `gain`: first minimum over
      later minimum (above 0: strong); `end_rise`: last point over the lowest of the half decade before it.
      None with one seed, or with fewer than three points.
    - `heights`: the peak's height in each seed used, (seeds,): the rise or the fall, whichever is smaller
      on the other seeds. `height`: their mean. A peak is shown if `height.low`, which includes the cost of
      the search, is above 0 and the estimate reaches `min_height`. It is excluded if its upper bound,
      `at_most`, is below `min_height`.
    - `located_heights`: (seeds,), heights at the places found on all seeds. Their mean tends to be too
      high, since these places maximise it.
    - `first_minimum`, `peak`, `later_minimum`: places on the mean over seeds, for drawing.
    - `min_height`: the height that matters. `interpolates`: how much of the curve interpolates, see
      `edges.extent`. `near`: (points,) bool, where a peak counts.
    - `unfinished`: why a peak may still appear, as text, or "".
    - `bump`: a shown peak outside `near`, as text, or "". If this peak is shown to be higher, by
      `min_height`, than any peak that counts, the status is none.
    - `plateau`: a level stretch that reaches more than half a decade beyond the edge, as text, or "".
    - `ascent`: a shown rise from the later minimum to the end, as text, or "".
    - `reasons`: sentences. `used`: (all seeds,) bool, False for a seed with a gap in its curve.
    """

    status: str
    so_far: bool
    face_value: str
    axis: str
    rise: Interval | None
    fall: Interval | None
    gain: Interval | None
    end_rise: Interval | None
    height: Interval | None
    at_most: float
    heights: np.ndarray
    located_heights: np.ndarray
    first_minimum: float
    peak: float
    later_minimum: float
    min_height: float
    interpolates: str
    near: np.ndarray
    unfinished: str
    bump: str
    plateau: str
    ascent: str
    reasons: tuple[str, ...]
    used: np.ndarray
    x: np.ndarray
    mean: np.ndarray

    @property
    def wording(self) -> str:
        """The status as text ("none so far" for an unfinished curve), with plateau, ascent and bump."""
        words = "none so far" if self.so_far else self.status
        return "; ".join(text for text in (words, self.plateau, self.ascent, self.bump) if text)


def judge_epochs(
    epochs: np.ndarray, values: np.ndarray, *, train_errors: np.ndarray | None = None, **rule: Any
) -> Judgement:
    """Decide whether there is double descent along the epochs (or steps).

    Args:
        epochs: (points,), ascending. The first descent begins at the value at epoch 0.
        values: (points,) or (seeds, points). A seed with a NaN is left out and counted in `reasons`.
        train_errors: same shape as `values`.
        rule: fields of `Rule`.

    Raises:
        ValueError: if the shapes do not match, or the axis is not ascending.
    """
    x, y, train = present(epochs, values, train_errors)
    windows, parts = epoch_windows(x), epoch_windows(x, PARTS_PER_DECADE)
    return judge(
        windows.centres,
        window_means(y, windows),
        Rule(**rule),
        axis=EPOCHS,
        train_errors=None if train is None else window_means(train, windows),
        start=y[:, 0] if x[0] <= 0 else None,
        parts=window_means(y, parts),
        window_of=np.searchsorted(windows.lows, parts.lows, side="right") - 1,
    )


def judge_freezing(
    trained_parameters: np.ndarray,
    values: np.ndarray,
    *,
    train_errors: np.ndarray | None = None,
    **rule: Any,
) -> Judgement:
    """Decide whether there is double descent along the freezing, from head only to nothing frozen.

    `trained_parameters`: (points,), in any order, all different; the curve is sorted by it, ascending.
    For the other arguments see `judge_epochs`; points are not averaged.
    """
    x, y, train = present(trained_parameters, values, train_errors)
    order = np.argsort(x, kind="stable")
    check_axis("trained_parameters", x[order])
    y, train = y[:, order], None if train is None else train[:, order]
    return judge(x[order], y, Rule(**rule), axis=PARAMETERS, train_errors=train)


def judge(
    x: np.ndarray,
    y: np.ndarray,
    rule: Rule | None = None,
    *,
    axis: str,
    train_errors: np.ndarray | None = None,
    start: np.ndarray | None = None,
    parts: np.ndarray | None = None,
    window_of: np.ndarray | None = None,
) -> Judgement:
    """Decide as in `judge_epochs`, on curves that are already averaged.

    Args:
        x: (windows,), ascending.
        y: (seeds, windows).
        rule: default: `Rule()`.
        axis: name of `x`: "epochs", or any other text for an axis of capacity.
        train_errors: same shape as `y`.
        start: (seeds,), the value before training, NaN if it is not known.
        parts: (seeds, parts), means of parts of the windows; default: the windows themselves.
        window_of: (parts,), the index of each part's window.
    """
    rule = Rule() if rule is None else rule
    epsilon, min_height, at = rule.epsilon, rule.min_height, rule.at
    level, resolution = rule.level, rule.resolution
    first_descent = FIRST_DESCENT if axis == EPOCHS else 0.0
    used = ~np.isnan(y).any(axis=1)
    if not used.any():
        raise ValueError("values: no seed has a curve without a gap")
    reasons = []
    if not used.all():
        reasons.append(f"{np.sum(~used)} of {used.size} seeds have gaps and are left out")
    train = mean_train(train_errors)
    interpolates, edge = extent(train, epsilon), edge_of(train, epsilon)
    near = np.ones(x.size, dtype=bool)
    if train is not None:
        near = near & (edge is not None and near_edge(x, train, edge, axis))
    y = y[used]
    fine = y if parts is None else parts[used]
    window_of = np.arange(x.size) if window_of is None else window_of
    begin = np.full(len(y), np.nan) if start is None else start[used]
    num = len(y)
    mean = y.mean(axis=0)
    span = float(np.ptp(mean))
    # A smaller range is only rounding.
    flat = span <= 1e-9 * float(np.abs(mean).max())
    matters = min_height if min_height is not None else (math.inf if flat else MIN_SHARE * span)
    rise = fall = gain = end_rise = height = None
    heights = located_heights = np.full(num, np.nan)
    at_most = math.inf
    status, so_far, face = INCONCLUSIVE, False, INCONCLUSIVE
    bump = plateau = ascent = unfinished = ""
    places = np.zeros(3, dtype=int)
    if x.size < 3:
        reasons.append(f"{x.size} points: a peak between two minima needs three")
    else:
        top = np.asarray(np.mean(begin))
        where = near if near[1:-1].any() else None
        ends = ends_search(y, matters, level, resolution) if num > 1 else None
        places = np.array(nearest(x, at)) if at else locate(mean, first_descent, top, where, ends)
        if near[1:-1].any():
            face = _face_value(mean, places, matters)
            first, last = _lowest(fine.mean(axis=0)[None], window_of, places[None, [0, 2]])[0]
            falls_on = fine[:, first].mean() - fine[:, last].mean() >= matters
            face = STRONG if face == WEAK and falls_on else face
        else:
            face = NONE
        if not near.all():
            anywhere = locate(mean, first_descent, top)
            is_far = not near[anywhere[1]] and _face_value(mean, anywhere, matters) != NONE
            if is_far:
                assert train is not None
                is_before = train[anywhere[1]] > epsilon
                bump = (
                    f"a bump {'before' if is_before else 'beyond'} the edge of interpolation: train error "
                    f"{train[anywhere[1]]:.2g} at {_place(x[anywhere[1]])} {axis}"
                )
    if num == 1:
        reasons.append("one seed: noise between replicates is unknown")
        if face in (WEAK, STRONG) and mean[-1] - mean[places[2]] >= matters:
            text = _ascent(x, places[2], axis, mean[-1] - mean[places[2]])
            reasons.append(f"at face value {text}")
        if bump:
            reasons.append(f"at face value {bump}")
        bump = ""
    elif x.size >= 3:
        others = (y.sum(axis=0) - y) / (num - 1)
        starts = (begin.sum() - begin) / (num - 1)
        guard = (
            t_quantile(0.5 + level / 2, num - 1) if at else search_guard(num, level, rule.search)
        )

        def interval(values: np.ndarray) -> Interval:
            return mean_interval(values, level=level, resolution=resolution)

        def located(where: np.ndarray | None) -> np.ndarray:
            if at:
                return np.tile(places, (num, 1))
            return locate(others, first_descent, starts, where, ends)

        def held_out(triples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            low, top, later = np.take_along_axis(y, triples, 1).T
            smaller = np.where(rise_is_smaller(others, triples), top - low, top - later)
            return top - low, top - later, smaller

        triples = located(where)
        rises, falls, heights = held_out(triples)
        located_heights = _heights(y, places)
        rise, fall, gain = interval(rises), interval(falls), interval(falls - rises)
        # With this guard each of the two measured gains errs in at most 2 %, so both in less than 5 %.
        low_part = _lowest((fine.sum(axis=0) - fine) / (num - 1), window_of, triples[:, [0, 2]])
        gain_of_parts = interval(-np.diff(np.take_along_axis(fine, low_part, 1))[:, 0])
        if _shown(gain_of_parts, matters, guard) and not _shown(gain, matters, guard):
            gain = gain_of_parts
        late = _half_a_decade_earlier(x)
        last_rises = y[:, -1] - y[np.arange(num), late + others[:, late:-1].argmin(axis=1)]
        end_rise = interval(last_rises)
        may_begin = after_descent(mean, first_descent, top)
        at_most, end_at_most = upper_bounds(y, may_begin, near, matters, late, level, resolution)
        plain = interval(heights)
        height = replace(
            plain,
            low=plain.estimate - guard * plain.standard_error,
            high=max(at_most, plain.estimate),
        )
        if where is not None and _shown(plain, matters, guard):
            status = STRONG if _shown(gain, matters, guard) else WEAK
        elif at_most < matters:
            # A rise below half of `matters` over half a decade excludes a rise by `matters` over a decade.
            status, so_far = NONE, end_rise.low > 0 or end_at_most >= matters / 2
        else:
            reasons.append(
                f"between {num} seeds the noise is too large to show or to exclude a peak of "
                f"{matters:.3g}; one above {at_most:.2g} is excluded"
            )
        if so_far or (status == INCONCLUSIVE and end_rise.low > 0):
            may_rise = "still rises" if end_rise.low > 0 else "may still rise"
            unfinished = (
                f"it {may_rise} at its end: {end_rise.estimate:+.3g} [{end_rise.low:+.3g}, "
                f"{end_rise.high:+.3g}] over the last half decade, so a peak may still come: "
                f"{_more(axis)} would tell"
            )
        if bump:
            far = interval(held_out(located(None))[2])
            bump = bump if _shown(far, matters, guard) else ""
        # Early in training every error is high, so along the epochs an earlier bump is not compared.
        if bump and (axis != EPOCHS or anywhere[1] > places[1]):
            apart = interval(y[:, anywhere[1]] - y[:, places[1]])
            if apart.estimate - guard * apart.standard_error >= matters:
                status, so_far = NONE, False
                bump += f", higher than any peak near the edge by {apart.estimate:.3g}"
        # If a point outside `near` and between the two minima is higher, the peak may be there.
        low, peak, end = locate(mean, first_descent, top, where)
        between = ~near & (np.arange(x.size) > low) & (np.arange(x.size) < end)
        higher = float(np.where(between, mean, -np.inf).max() - mean[peak])
        if status in (WEAK, STRONG) and higher >= matters:
            status = INCONCLUSIVE
            reasons.append(
                f"the curve is higher by {higher:.3g} far from the edge: the seeds cannot tell whether "
                "its peak is near the edge"
            )
        if status in (WEAK, STRONG):
            first, last = _level_stretch(mean, int(places[1]), matters)
            if edge is not None and x[last] > x[max(first, edge)] * 10**NEAR_DECADES:
                plateau = (
                    f"level from {_place(x[first])} to {_place(x[last])} {axis}, then it falls"
                )
                bump = "" if bump and first <= anywhere[1] <= last else bump
            rises_again = interval(y[:, -1] - np.take_along_axis(y, triples[:, [2]], 1)[:, 0])
            if _shown(rises_again, matters, guard):
                ascent = _ascent(x, places[2], axis, rises_again.estimate)
        reasons += [text for text in (plateau, ascent, bump) if text]
        if train_errors is not None and not at:
            reasons += _at_own_edges(x, y, train_errors[used], height, rule, axis, begin, matters)
    if interpolates in (NOTHING, EVERYTHING):
        whole = "no point" if interpolates == NOTHING else "every point"
        seen = f"{whole} of the curve interpolates (train error ≤ {epsilon:g})"
        if status == NONE:
            status, so_far = INCONCLUSIVE, False
        reasons.append(f"{seen}: a second descent could not be seen")
    elif edge is not None and edge == x.size - 1 and status == NONE and not so_far:
        so_far = True
        unfinished = (
            f"it ends where the train error comes under {epsilon:g}, so a peak may still come: "
            f"{_more(axis)} would tell"
        )
    reasons += [unfinished] if unfinished else []
    return Judgement(
        status=status,
        so_far=so_far,
        face_value=face,
        axis=axis,
        rise=rise,
        fall=fall,
        gain=gain,
        end_rise=end_rise,
        height=height,
        at_most=at_most,
        heights=heights,
        located_heights=located_heights,
        first_minimum=float(x[places[0]]),
        peak=float(x[places[1]]),
        later_minimum=float(x[places[2]]),
        min_height=matters,
        interpolates=interpolates,
        near=near,
        unfinished=unfinished,
        bump=bump,
        plateau=plateau,
        ascent=ascent,
        reasons=tuple(reasons),
        used=used,
        x=x,
        mean=mean,
    )


def search_guard(num_seeds: int, level: float = LEVEL, search: float = SEARCH) -> float:
    """Return how many standard errors a height must exceed if its place was searched."""
    df = num_seeds - 1
    return max(t_quantile(0.5 + level / 2, df), t_quantile(SEARCH_LEVEL, df), search)


def _half_a_decade_earlier(x: np.ndarray) -> int:
    """Return the index of the last point at least half a decade before the end; 0 without such a point."""
    earlier = np.flatnonzero(x <= x[-1] * 10**-0.5 * (1 + 1e-9))
    return int(earlier[-1]) if earlier.size else 0


def _level_stretch(mean: np.ndarray, peak: int, matters: float) -> tuple[int, int]:
    """Return the first and the last point around the peak that are at most `matters` below it."""
    below = np.flatnonzero(mean < mean[peak] - matters)
    first = max(below[below < peak], default=-1) + 1
    last = min(below[below > peak], default=mean.size) - 1
    return int(first), int(last)


def _at_own_edges(
    x: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    height: Interval,
    rule: Rule,
    axis: str,
    start: np.ndarray,
    matters: float,
) -> list[str]:
    """Judge the curves with each seed moved to its own edge; return a sentence if the peak is higher."""
    edges = own_edges(train, rule.epsilon)
    if edges is None or edges.min() == edges.max():
        return []
    # Only the points that all moved curves have are kept.
    steps = np.arange(-edges.min(), x.size - edges.max())
    take = edges[:, None] + steps
    own = judge(
        x[int(np.median(edges)) + steps],
        np.take_along_axis(y, take, axis=1),
        replace(rule, min_height=matters),
        axis=axis,
        train_errors=np.take_along_axis(train, take, axis=1),
        start=start,
    )
    if own.status not in (WEAK, STRONG) or own.height is None:
        return []
    if own.height.estimate < height.estimate + matters:
        return []
    return [
        f"the seeds interpolate at different places, from {_place(x[edges.min()])} to "
        f"{_place(x[edges.max()])} {axis}, and their peaks differ in place, too: with each seed "
        f"moved to its own edge, there is {own.status} double descent, {own.height.estimate:.3g} high"
    ]


def _heights(y: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return each seed's rise, or each seed's fall if its mean is smaller, at three places: (seeds,)."""
    low, top, later = y[:, places].T
    rises: np.ndarray = top - low
    return rises if low.mean() >= later.mean() else top - later


def _lowest(curves: np.ndarray, window_of: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return the index of each curve's lowest part within each window: (k, parts), (k, n) → (k, n)."""
    inside = window_of == windows[..., None]  # (k, n, parts)
    return np.asarray(np.where(inside, curves[:, None, :], np.inf).argmin(axis=-1))


def _ascent(x: np.ndarray, later: int, axis: str, rise: float) -> str:
    return f"a final ascent: after {_place(x[later])} {axis} it rises again, by {rise:.3g}"


def _place(x: float) -> str:
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def _face_value(mean: np.ndarray, places: np.ndarray, matters: float) -> str:
    low, top, later = mean[places]
    if min(top - low, top - later) < matters:
        return NONE
    return STRONG if low - later >= matters else WEAK


def _shown(height: Interval, matters: float, guard: float) -> bool:
    return height.estimate >= matters and height.estimate > guard * height.standard_error


def _more(axis: str) -> str:
    return "more epochs" if axis == EPOCHS else "a larger network"
