"""Double descent on a curve, decided: none, weak, strong, or inconclusive.

Pure functions on one curve or a (seeds × x) matrix: first minimum, later peak, later descent. Owns
the thresholds and the words of the verdict. Refuses to smooth, to fill gaps, and to read a peak out of
noise; reads no files.

*What is decided.* Let m be the curve without noise. There is double descent when m rises from a
minimum to a later peak and falls again after it, both by a height that matters. **weak**: it falls
below the peak. **strong**: below the first minimum. **none**: shown that no such peak of a height
that matters is there; a curve that ends at its highest since the minimum is "none so far".
**inconclusive**: the seeds cannot tell; or no second descent could be seen, since no point of the
curve interpolates, or every one does (Liu & Flanigan 2023: no peak says nothing when the train error
never got under ε). A peak that is shown stays a peak whatever the train error says.

*Direction.* Along the epochs x is the epoch or step, judged in log scale. Along the freezing x is the
number of trained parameters, ascending, from head only to nothing frozen; `judge_freezing` sorts by
it, so that a curve handed over in order of the frozen count is not read the wrong way round.

*Noise.* The maximum of a noisy flat curve lies 4 standard deviations up over 50 points. So (1) epochs
are averaged in windows that are fixed beforehand: quarters of a decade at 10^(k/4), whatever the data;
(2) minimum, peak and later minimum are located on the *other* seeds and measured on the one held out,
one height per seed; (3) each height has a t-interval over seeds, and both the rise and the fall must
clear zero. The held-out heights share the seeds that located them; by simulation that costs nothing
up to three seeds, but at ten the nominal 5 % become 11 % on a curve that rises to a long plateau. A
verdict therefore asks for `SEARCH` standard errors at least; the intervals stay nominal.

*One seed.* It says nothing of the noise between replicates (its own jitter is autocorrelated and
leaves out the images drawn, the flips and the initial values), so the status is inconclusive;
`face_value` is what the curve would be if there were no noise.

How often each verdict comes, by simulation: `tests/power/table.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from analysis.descent.intervals import LEVEL, Interval, mean_interval, t_quantile
from analysis.descent.places import extent, locate, nearest, present, rise_is_smaller
from analysis.descent.windows import WINDOWS_PER_DECADE, check_axis, epoch_windows, window_means

NONE: Final = "none"
WEAK: Final = "weak"
STRONG: Final = "strong"
INCONCLUSIVE: Final = "inconclusive"

# Interpolation: train error ≤ ε. Nakkiran et al. 2019 use 0.1 for effective model complexity.
EPSILON: Final = 0.1

# The height that matters, where none is given: a fiftieth of the curve's own range, one millimetre
# in a figure five centimetres high. Relative, so that the unit of y does not change the verdict.
MIN_SHARE: Final = 0.02

# Along the epochs the first minimum comes after a first descent: training starts at chance, and until
# the error has fallen by a tenth of the curve's range, its wiggles there are no minimum. Along the
# freezing the first descent may be small or lie outside the axis, so none is asked for. Added when
# six curves of small networks on digits came out inconclusive for such wiggles; the tenth is reasoned.
FIRST_DESCENT: Final = 0.1

# What the search for the peak costs at four seeds and more, up to 30 windows: standard errors that
# hold the false peaks of every no-peak shape in `tests/power` under 5 %. Below four seeds
# Student's t is wider than this, taken at SEARCH_LEVEL one-sided instead of 2.5 %.
SEARCH: Final = 3.75
SEARCH_LEVEL: Final = 0.98


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on one curve, and what it rests on. Heights in y's unit, places in x's.

    - `rise`: peak over first minimum; `fall`: peak over later minimum; `gain`: first minimum over
      later minimum (above 0: strong); `end_rise`: last point over the lowest before. None with one
      seed, or with fewer than three points.
    - `height`: the smaller of rise and fall, one number per seed, (seeds,): which of the two is
      smaller was decided on the other seeds.
    - `first_minimum`, `peak`, `later_minimum`: places on the mean over seeds, for drawing; `peaks`:
      (seeds,) the place that the other seeds gave.
    - `p_value`: one-sided, of "no double descent": the larger of the rise's and the fall's, so scaled
      that a height which just clears what a verdict asks for has 1 − (1 + level) / 2; 1 with one seed.
    - `min_height`: the height that matters. `interpolates`: "nothing", "some", "everything" (of the
      curve), "unknown" without train errors.
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
    p_value: float
    height: np.ndarray
    first_minimum: float
    peak: float
    later_minimum: float
    peaks: np.ndarray
    min_height: float
    interpolates: str
    reasons: tuple[str, ...]
    used: np.ndarray
    x: np.ndarray
    mean: np.ndarray

    @property
    def wording(self) -> str:
        """The status in words: "none so far" for a curve that is highest at its end."""
        return "none so far" if self.so_far else self.status


def judge_epochs(
    epochs: np.ndarray,
    values: np.ndarray,
    *,
    train_errors: np.ndarray | None = None,
    epsilon: float = EPSILON,
    min_height: float | None = None,
    at: tuple[float, float, float] | None = None,
    level: float = LEVEL,
    search: float = SEARCH,
    per_decade: int = WINDOWS_PER_DECADE,
    first_descent: float = FIRST_DESCENT,
) -> Judgement:
    """Is there double descent along the epochs (or steps)?

    `epochs`: (points,), ascending; `values`, `train_errors`: (points,) or (seeds, points), NaN where
    a seed has none: such a seed is left out, and said. `min_height`: in the unit of `values`; None
    is MIN_SHARE of the mean curve's range. `at`: epochs of first minimum, peak and later minimum,
    where they were named before looking; then nothing is searched. `search`: standard errors that a
    height must clear where its place was searched, at the least. `first_descent`: how far the curve
    must have fallen before its first minimum, as a share of its range. Raises ValueError on axes that
    do not fit.
    """
    x, y, train = present(epochs, values, train_errors)
    windows = epoch_windows(x, per_decade)
    y = window_means(y, windows)
    train = None if train is None else window_means(train, windows)
    return judge(
        windows.centres,
        y,
        axis="epochs",
        train_errors=train,
        epsilon=epsilon,
        min_height=min_height,
        at=at,
        level=level,
        search=search,
        first_descent=first_descent,
    )


def judge_freezing(
    trained_parameters: np.ndarray,
    values: np.ndarray,
    *,
    train_errors: np.ndarray | None = None,
    epsilon: float = EPSILON,
    min_height: float | None = None,
    at: tuple[float, float, float] | None = None,
    level: float = LEVEL,
    search: float = SEARCH,
) -> Judgement:
    """Is there double descent along the freezing, read from head only to nothing frozen?

    `trained_parameters`: (points,), in any order, no two alike: the curve is sorted by it, ascending.
    Everything else as in `judge_epochs`; points are not averaged.
    """
    x, y, train = present(trained_parameters, values, train_errors)
    order = np.argsort(x, kind="stable")
    check_axis("trained_parameters", x[order])
    y, train = y[:, order], None if train is None else train[:, order]
    return judge(
        x[order],
        y,
        axis="trained parameters",
        train_errors=train,
        epsilon=epsilon,
        min_height=min_height,
        at=at,
        level=level,
        search=search,
    )


def judge(
    x: np.ndarray,
    y: np.ndarray,
    *,
    axis: str,
    train_errors: np.ndarray | None = None,
    epsilon: float = EPSILON,
    min_height: float | None = None,
    at: tuple[float, float, float] | None = None,
    level: float = LEVEL,
    search: float = SEARCH,
    first_descent: float = 0.0,
) -> Judgement:
    """As `judge_epochs`, on curves that are averaged already: `y`, `train_errors` (seeds, windows).

    `axis` is the name of `x` in the result.
    """
    if min_height is not None and not min_height > 0:
        raise ValueError(f"min_height={min_height!r}: must be above 0")
    used = ~np.isnan(y).any(axis=1)
    if not used.any():
        raise ValueError("values: no seed has a curve without a gap")
    reasons = []
    if not used.all():
        reasons.append(f"{np.sum(~used)} of {used.size} seeds have gaps and are left out")
    interpolates = extent(train_errors, epsilon)
    y = y[used]
    num = len(y)
    mean = y.mean(axis=0)
    span = float(np.ptp(mean))
    # Below the last digits of the numbers there is only rounding.
    flat = span <= 1e-9 * float(np.abs(mean).max())
    matters = min_height if min_height is not None else (math.inf if flat else MIN_SHARE * span)
    if x.size < 3:
        places, face = np.zeros(3, dtype=int), INCONCLUSIVE
        reasons.append(f"{x.size} points: a peak between two minima needs three")
    else:
        places = np.array(nearest(x, at)) if at else locate(mean, first_descent)
        face = _face_value(mean, places, matters)
    rise = fall = gain = end_rise = None
    height, peaks = np.full(num, np.nan), np.full(num, np.nan)
    status, so_far, p_value = INCONCLUSIVE, False, 1.0
    if num == 1:
        reasons.append("one seed: noise between replicates is unknown")
    elif x.size >= 3:
        others = (y.sum(axis=0) - y) / (num - 1)
        triples = np.tile(places, (num, 1)) if at else locate(others, first_descent)
        low, top, later = (np.take_along_axis(y, triples[:, [c]], 1)[:, 0] for c in range(3))
        rises, falls = top - low, top - later
        rise, fall = mean_interval(rises, level=level), mean_interval(falls, level=level)
        gain = mean_interval(low - later, level=level)
        seeds = np.arange(num)
        last_rises = y[:, -1] - y[seeds, others[:, :-1].argmin(axis=1)]
        end_rise = mean_interval(last_rises, level=level)
        height = np.where(rise_is_smaller(others, triples), rises, falls)
        peaks = x[triples[:, 1]]
        price = 1.0 if at else search_price(num, level, search)
        guard = price * t_quantile(0.5 + level / 2, num - 1)
        p_value = max(_p_above(rise, price), _p_above(fall, price))
        status = _status(rise, fall, gain, matters, guard)
        if status == INCONCLUSIVE:
            reasons.append(
                f"between {num} seeds the noise is too large to show or to exclude a peak of "
                f"{matters:.3g}"
            )
        so_far = status == NONE and _shown(end_rise, matters, guard)
        if so_far:
            reasons.append("the curve is highest, after its minimum, at its end")
    if interpolates in ("nothing", "everything"):
        whole = "no point" if interpolates == "nothing" else "every point"
        seen = f"{whole} of the curve interpolates (train error ≤ {epsilon:g})"
        if status == NONE:
            status, so_far = INCONCLUSIVE, False
            reasons.append(f"{seen}: a second descent could not be seen")
        else:
            reasons.append(seen)
    return Judgement(
        status=status,
        so_far=so_far,
        face_value=face,
        axis=axis,
        rise=rise,
        fall=fall,
        gain=gain,
        end_rise=end_rise,
        p_value=p_value,
        height=height,
        first_minimum=float(x[places[0]]),
        peak=float(x[places[1]]),
        later_minimum=float(x[places[2]]),
        peaks=peaks,
        min_height=matters,
        interpolates=interpolates,
        reasons=tuple(reasons),
        used=used,
        x=x,
        mean=mean,
    )


def search_guard(num_seeds: int, level: float = LEVEL, search: float = SEARCH) -> float:
    """Standard errors that a height over this many seeds must clear, where its place was searched."""
    df = num_seeds - 1
    return max(t_quantile(0.5 + level / 2, df), t_quantile(SEARCH_LEVEL, df), search)


def search_price(num_seeds: int, level: float = LEVEL, search: float = SEARCH) -> float:
    """`search_guard` in units of what a height at a place named beforehand must clear; at least 1."""
    if num_seeds < 2:
        return 1.0
    return search_guard(num_seeds, level, search) / t_quantile(0.5 + level / 2, num_seeds - 1)


def _p_above(height: Interval, price: float) -> float:
    return height.p_beyond(price) / 2 if height.estimate > 0 else 1.0


def _face_value(mean: np.ndarray, places: np.ndarray, matters: float) -> str:
    low, top, later = mean[places]
    if min(top - low, top - later) < matters:
        return NONE
    return STRONG if low - later >= matters else WEAK


def _status(rise: Interval, fall: Interval, gain: Interval, matters: float, guard: float) -> str:
    if _shown(rise, matters, guard) and _shown(fall, matters, guard):
        return STRONG if _shown(gain, matters, guard) else WEAK
    # Either one too small is enough: there is no peak that matters.
    return NONE if min(rise.high, fall.high) < matters else INCONCLUSIVE


def _shown(height: Interval, matters: float, guard: float) -> bool:
    return height.estimate >= matters and height.estimate > guard * height.standard_error
