"""Predict durations: the time of one Run, and of many Runs on several workers.

Must stay importable without torch."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from study.run import Run


class Speed(NamedTuple):
    """Seconds per call of a `module`, per `flop` (a multiply-add is two) and per `byte` of activations."""

    module: float
    flop: float
    byte: float
    is_training: bool


class Speeds(NamedTuple):
    """Assumed speeds of a device; `run`: the seconds to begin and end a Run.

    After the first measurement of a `Pace`, only the ratios of speeds matter.
    """

    run: float
    step: Speed
    forward: Speed


# One core: fitted to steps and evaluations of ResNets (width 4 to 64), DenseNets and ViTs at 26 cuts on an
# AVX-512 CPU. The fit is within a factor of 1.5, except for heads and the ResNet-50.
CPU: Final = Speeds(
    run=0.15,
    step=Speed(1.2e-4, 7.5e-12, 4.5e-10, is_training=True),
    forward=Speed(1.5e-5, 5e-12, 2.2e-10, is_training=False),
)

# Assumed, not measured: a call of a module is a few kernel launches.
GPU: Final = Speeds(
    run=1.0,
    step=Speed(3e-5, 2e-13, 2e-12, is_training=True),
    forward=Speed(1e-5, 2e-13, 1e-12, is_training=False),
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work of a Run, in seconds at assumed speeds.

    - `network`, `cut`: a `Pace` has one factor for each (network, cut).
    - `once`, `per_step`, `per_evaluation`: seconds; `evaluated`: ascending steps with an evaluation,
      including 0 and the last step.
    - `features`: pairs of a key and seconds, spent once for all Runs with this key.
    """

    network: str
    cut: str
    once: float
    per_step: float
    per_evaluation: float
    evaluated: tuple[int, ...]
    features: tuple[tuple[Hashable, float], ...] = ()

    @property
    def num_steps(self) -> int:
        """Return the optimiser steps of the whole Run."""
        return self.evaluated[-1]

    def until(self, step: int, features_paid: Collection[Hashable] = ()) -> float:
        """Return the seconds up to this step, including features whose keys are not in `features_paid`."""
        num_evaluations = bisect_right(self.evaluated, step)
        unpaid = sum(seconds for key, seconds in self.features if key not in features_paid)
        return self.once + step * self.per_step + num_evaluations * self.per_evaluation + unpaid

    def whole(self, features_paid: Collection[Hashable] = ()) -> float:
        """Return the seconds of the whole Run."""
        return self.until(self.num_steps, features_paid)


class Pace:
    """The factor from assumed to measured time, for each network and cut.

    A cut without measurements has the factor of its network; a network without measurements has the
    factor of all networks together. `before`: sums of (assumed, measured) seconds by network and cut,
    from earlier launches. The measurements of this launch correct the earlier factors in the same way.
    """

    def __init__(self, before: Mapping[tuple[str, str], tuple[float, float]] | None = None) -> None:
        self._before = _factors(before or {})
        self.sums: dict[tuple[str, str], tuple[float, float]] = {}
        self._now: dict[tuple[str, ...], float] = {}
        self.num_measured = 0

    @property
    def is_known(self) -> bool:
        """Return True if there is any measurement."""
        return bool(self._before or self.num_measured)

    def measured(self, work: Work, assumed: float, seconds: float) -> None:
        """Add a measured time of work that was assumed to take `assumed` seconds."""
        assert assumed > 0, (work, assumed)
        key = (work.network, work.cut)
        before = self.sums.get(key, (0.0, 0.0))
        self.sums[key] = (before[0] + assumed, before[1] + seconds)
        self._now.clear()
        self.num_measured += 1

    def copy(self) -> Pace:
        """Return a copy; new measurements of the copy do not change this Pace."""
        made = Pace()
        made._before, made.sums = self._before, dict(self.sums)
        made.num_measured = self.num_measured
        return made

    def seconds(self, work: Work, assumed: float) -> float:
        """Return the expected seconds of work that is assumed to take `assumed` seconds."""
        if not self._now:
            # From the seconds that earlier launches predict to this launch's measured seconds.
            self._now = _factors(
                {key: (a * _find(self._before, key), s) for key, (a, s) in self.sums.items()}
            )
        key = (work.network, work.cut)
        return assumed * _find(self._before, key) * _find(self._now, key)


def _factors(
    sums: Mapping[tuple[str, str], tuple[float, float]],
) -> dict[tuple[str, ...], float]:
    """Return measured / assumed seconds by (network, cut), by (network,), and for all networks by ()."""
    totals: dict[tuple[str, ...], tuple[float, float]] = {}
    for key, (assumed, seconds) in sums.items():
        for each in (key, key[:1], ()):
            before = totals.get(each, (0.0, 0.0))
            totals[each] = (before[0] + assumed, before[1] + seconds)
    return {key: seconds / assumed for key, (assumed, seconds) in totals.items()}


def _find(factors: Mapping[tuple[str, ...], float], key: tuple[str, str]) -> float:
    return next((factors[each] for each in (key, key[:1], ()) if each in factors), 1.0)


def makespan(
    runs: Mapping[str, Run], left: Mapping[str, float], running: Collection[str], num_workers: int
) -> float:
    """Return the seconds until the workers finish all Runs in `left`; the longest path of Runs is first.

    `runs`: each start before its dependants; `left`: seconds by id; `running`: ids of Runs with a worker.
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


# Operations per second of dense products, by GPU and a Recipe's precision, from NVIDIA's data sheets.
PEAK_RATES: Final[Mapping[str, Mapping[str, float]]] = MappingProxyType(
    {
        "L4": {"float32": 30.3e12, "tf32": 60e12, "bfloat16": 121e12},
        "A100": {"float32": 19.5e12, "tf32": 156e12, "bfloat16": 312e12},
        "H100": {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12},
    }
)

# A plain ResNet-18 trains at 77 of an A100's 312 TFLOP/s in half precision (Jordan 2024, airbench).
ASSUMED_SHARE: Final = 0.25


def assumed_speeds(precision: str) -> dict[str, Speeds]:
    """Return the assumed speeds of training, by kind of GPU."""
    return {
        kind: Speeds(
            run=GPU.run,
            step=GPU.step._replace(flop=1 / (ASSUMED_SHARE * peaks[precision])),
            forward=GPU.forward._replace(flop=1 / (ASSUMED_SHARE * peaks[precision])),
        )
        for kind, peaks in PEAK_RATES.items()
    }
