"""Predict durations: the time of one Run, and of many Runs on several workers.

Must stay importable without torch."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from study.run import Run

Vector = NDArray[np.float64]


class Parts(NamedTuple):
    """The amount of each part of some work, or the cost of one unit of each, in seconds.

    - `runs`: beginnings and ends of a Run: reading, building the network, publishing.
    - `step_calls`, `evaluation_calls`: modules called, forward and back or forward alone, with few images.
    - `…_flops`: operations on images, multiply-adds as two; `…_bytes`: of the values between them.
    - `feature_…`: of frozen layers.
    """

    runs: float = 0.0
    step_calls: float = 0.0
    step_flops: float = 0.0
    step_bytes: float = 0.0
    evaluation_calls: float = 0.0
    evaluation_flops: float = 0.0
    evaluation_bytes: float = 0.0
    feature_flops: float = 0.0
    feature_bytes: float = 0.0


# Seconds per unit on one core, from steps of ResNets, DenseNets and ViTs of several widths and from the
# Runs of the quickstart, in which a call costs more than in a repeated step. Only the ratios matter:
# the first measurement sets the scale.
TYPICAL: Final = Parts(
    runs=0.15,
    step_calls=5e-4,
    step_flops=1e-11,
    step_bytes=3e-10,
    evaluation_calls=2e-4,
    evaluation_flops=3e-11,
    evaluation_bytes=2e-10,
    feature_flops=2e-11,
    feature_bytes=4e-10,
)

# The same on a GPU, where a call is a few kernel launches. Assumed, not measured.
TYPICAL_GPU: Final = Parts(
    runs=1.0,
    step_calls=3e-5,
    step_flops=2e-13,
    step_bytes=2e-12,
    evaluation_calls=1e-5,
    evaluation_flops=2e-13,
    evaluation_bytes=1e-12,
    feature_flops=2e-13,
    feature_bytes=1e-12,
)

# Relative deviation of a part's price from the typical one, on the network's scale, and its correlation
# with that of other parts counted in the same unit.
SPREAD: Final = 0.6
IN_COMMON: Final = 0.85
# Relative deviation of a measured time from what its parts explain.
NOISE: Final = 0.15


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a Run.

    - `network`: prices are fitted per network; `cut`: remaining differences are fitted per cut.
    - `once`, `per_step`, `per_evaluation`: the parts of each; `evaluated`: ascending steps with an
      evaluation, including 0 and the last step.
    - `features`: parts computed once for all Runs that share them, by key.
    """

    network: str
    cut: str
    once: Parts
    per_step: Parts
    per_evaluation: Parts
    evaluated: tuple[int, ...]
    features: tuple[tuple[Hashable, Parts], ...] = ()

    @property
    def num_steps(self) -> int:
        """Return the optimiser steps of the whole Run."""
        return self.evaluated[-1]

    def until(self, step: int, features_paid: Collection[Hashable] = ()) -> Vector:
        """Return all parts up to this step, with the features that are not paid yet."""
        num_evaluations = int(np.searchsorted(self.evaluated, step, side="right"))
        parts = self._once + step * self._per_step + num_evaluations * self._per_evaluation
        for key, of_pass in self._features:
            if key not in features_paid:
                parts = parts + of_pass
        return parts

    def whole(self, features_paid: Collection[Hashable] = ()) -> Vector:
        """Return all parts of the whole Run."""
        return self.until(self.num_steps, features_paid)

    @cached_property
    def _features(self) -> tuple[tuple[Hashable, Vector], ...]:
        return tuple((key, np.array(parts)) for key, parts in self.features)

    @cached_property
    def _once(self) -> Vector:
        return np.array(self.once)

    @cached_property
    def _per_step(self) -> Vector:
        return np.array(self.per_step)

    @cached_property
    def _per_evaluation(self) -> Vector:
        return np.array(self.per_evaluation)


@dataclass(frozen=True, eq=False)
class Measured:
    """A measured time of some work; `blur`: its error in seconds, whatever its length.

    `cut`: "" if the measurement is not about a cut.
    """

    network: str
    cut: str
    parts: Vector
    seconds: float
    blur: float = 0.0

    @property
    def noise(self) -> float:
        """Return the relative error of the time, compared with its parts."""
        return NOISE + self.blur / self.seconds


class Pace:
    """The prices of the parts, from the measurements so far.

    The prices of a network are not negative, have the least relative error for its measured times, and
    stay near the `typical` ones (on its own scale) if the times do not determine them. The remaining
    error of a cut counts the more, the more times it has.
    """

    def __init__(self, typical: Parts = TYPICAL, measured: Sequence[Measured] = ()) -> None:
        self._typical = typical
        self._measured = list(measured)
        self._prices: dict[str, Vector] = {}  # "": all networks together
        self._ratio: dict[tuple[str, str], float] = {}

    @property
    def num_measured(self) -> int:
        """Return the number of measured times."""
        return len(self._measured)

    def measured(self, measured: Measured) -> None:
        """Add a measurement."""
        assert measured.seconds > 0, measured
        self._measured.append(measured)
        self._prices.clear()

    def with_more(self, measured: Sequence[Measured]) -> Pace:
        """Return a Pace with these measurements too."""
        return Pace(self._typical, [*self._measured, *measured]) if measured else self

    def seconds(self, network: str, cut: str, parts: Vector) -> float:
        """Return the time of this much work."""
        if not self._prices:
            self._fit()
        prices = self._prices.get(network, self._prices[""])
        return float(parts @ prices) * self._ratio.get((network, cut), 1.0)

    def _fit(self) -> None:
        self._prices[""] = _fitted(self._measured, np.array(self._typical))
        by_network: dict[str, list[Measured]] = {}
        for each in self._measured:
            by_network.setdefault(each.network, []).append(each)
        self._ratio.clear()
        for network, those in by_network.items():
            prices = self._prices[network] = _fitted(those, self._prices[""])
            sums: dict[str, Vector] = {}  # weights, and weighted logarithms
            for each in those:
                weight = (NOISE / each.noise) ** 2
                log = float(np.log(each.seconds / (each.parts @ prices)))
                sums[each.cut] = sums.get(each.cut, np.zeros(2)) + weight * np.array([1.0, log])
            for cut, (weight, log) in sums.items():
                if cut:
                    self._ratio[network, cut] = float(np.exp(log / (1 + weight)))


def _stiffness() -> Vector:
    """Return weights that keep the parts' factors near 1, and alike per unit: (parts, parts)."""
    units = np.array([name.rpartition("_")[2] for name in Parts._fields])
    alike = units[:, None] == units[None]
    spread = SPREAD**2 * np.where(np.eye(len(units)), 1.0, IN_COMMON * alike)
    return np.linalg.cholesky(np.linalg.inv(spread)).T


_STIFF: Final = _stiffness()


def _fitted(measured: Sequence[Measured], typical: Vector) -> Vector:
    if not measured:
        return typical
    from scipy.optimize import nnls

    parts = np.array([each.parts for each in measured])
    seconds = np.array([each.seconds for each in measured])
    noise = np.array([each.noise for each in measured])
    # The scale first: the median of the more precise times, because one outlier does not move it.
    sure = noise <= np.median(noise)
    near = typical * float(np.median((seconds / (parts @ typical))[sure]))
    # In units of `near`, all unknowns are about 1.
    rows = np.concatenate([parts * near / (seconds * noise)[:, None], _STIFF])
    wanted = np.concatenate([1 / noise, _STIFF.sum(1)])
    factors, _ = nnls(rows, wanted)
    return factors * near


def makespan(
    runs: Mapping[str, Run], left: Mapping[str, float], running: Collection[str], num_workers: int
) -> float:
    """Return the seconds until workers, which take the longest path of Runs first, finish all of `left`.

    `runs`: each start before its dependants; `left`: seconds by id; `running`: Runs that have a worker.
    """
    path = dict(left)
    waiting: dict[str, list[str]] = {}
    for run_id in reversed(list(runs)):
        source = runs[run_id].source
        if run_id in left and source is not None and source.id in left:
            path[source.id] = max(path[source.id], left[source.id] + path[run_id])
            waiting.setdefault(source.id, []).append(run_id)
    held = {each for those in waiting.values() for each in those}
    busy = [(left[run_id], run_id) for run_id in running if run_id in left]
    ready = [(-path[i], i) for i in left if i not in held and i not in running]
    heapq.heapify(busy)
    heapq.heapify(ready)
    now = 0.0
    while busy or ready:
        while ready and len(busy) < max(num_workers, 1):
            run_id = heapq.heappop(ready)[1]
            heapq.heappush(busy, (now + left[run_id], run_id))
        now, run_id = heapq.heappop(busy)
        for each in waiting.get(run_id, ()):
            heapq.heappush(ready, (-path[each], each))
    return now


# Operations a second of dense products, by the precision of a Recipe, from NVIDIA's data sheets.
PEAK_RATES: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "L4": {"float32": 30.3e12, "tf32": 60e12, "bfloat16": 121e12},
        "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
        "H100": {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12},
    }
)

# A plain ResNet-18 trains at 77 of an A100's 312 TFLOP/s in half precision (Jordan 2024, airbench).
ASSUMED_SHARE: Final = 0.25


def assumed_rates(precision: str) -> dict[str, float]:
    """Return the assumed operations per second of training, by kind of GPU."""
    return {name: ASSUMED_SHARE * peaks[precision] for name, peaks in PEAK_RATES.items()}
