"""What Runs cost together: operations, time on this machine and elsewhere, disk, memory.

Owns the sum over Runs, with features of frozen layers counted once where Runs share them.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch

from study.planning.cost import Cost, Memory, cost_of, features_key, has_gpu
from study.planning.gpus import assumed_rates
from study.planning.makespan import makespan
from study.planning.measure import measured_pace
from study.planning.pace import Pace, Work
from study.planning.work import work_of
from study.run import Run
from study.tasks import TaskInfo
from study.training.features import WORTH_SECONDS_PER_GIB

# Of Ray and of the workers that load torch, before the first Run begins.
SECONDS_TO_START: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Price:
    """What Runs cost together.

    - `flops`: where each Run makes the features of its frozen layers, as on a GPU; `shared_flops`: where
      those are made once for all Runs of a start and cut, as on the CPUs of one machine, whose disk then
      has `features_bytes` of them, at most.
    - `machine`: this one, as "2 cores" or "1 GPU"; `wall_seconds`: what `study run` takes on it, by what
      was measured here just now; `one_seconds`: what one core or GPU of it would take.
    - `elsewhere`: seconds on one GPU, by its kind, where there is none here; assumed, not measured.
    - `largest`: memory of the Run that needs most.
    """

    flops: int
    shared_flops: int
    features_bytes: int
    machine: str
    wall_seconds: float
    one_seconds: float
    elsewhere: Mapping[str, float]
    largest: Memory | None


def price(runs: Sequence[Run], infos: Mapping[str, TaskInfo]) -> Price:
    """The price of these Runs, each start before what needs it; measured for a few seconds here."""
    costs = {run.id: cost_of(run, infos[run.task]) for run in runs}
    passes = _passes(runs, costs)
    flops = sum(cost.flops for cost in costs.values())
    own = sum(cost.flops - cost.pass_flops for cost in costs.values())
    on_gpus = has_gpu()
    works = {run.id: work_of(run, infos[run.task], shares_features=not on_gpus) for run in runs}
    pace = measured_pace(runs, works, infos, "cuda" if on_gpus else "cpu")
    seconds = _seconds_by_run(works, pace)
    num = torch.cuda.device_count() if on_gpus else num_cores()
    unit = "GPU" if on_gpus else "core"
    elsewhere: dict[str, float] = {}
    if not on_gpus:
        for run in runs:
            for kind, rate in assumed_rates(run.recipe.precision).items():
                elsewhere[kind] = elsewhere.get(kind, 0.0) + costs[run.id].flops / rate
    by_id = {run.id: run for run in runs}
    return Price(
        flops=flops,
        shared_flops=own + sum(cost.pass_flops for cost, _ in passes),
        features_bytes=sum(
            cost.pass_bytes
            for cost, run in passes
            if _seconds_of_pass(works[run.id], pace) * 2**30
            >= WORTH_SECONDS_PER_GIB * cost.pass_bytes
        )
        if not on_gpus
        else 0,
        machine=f"{num} {unit}" + ("s" if num > 1 else ""),
        wall_seconds=makespan(by_id, seconds, (), num) + (SECONDS_TO_START if runs else 0.0),
        one_seconds=sum(seconds.values()),
        elsewhere=elsewhere,
        largest=max((c.memory for c in costs.values()), key=lambda m: m.total, default=None),
    )


def num_cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _passes(runs: Sequence[Run], costs: Mapping[str, Cost]) -> list[tuple[Cost, Run]]:
    """Of the Runs that share features, the one that computes most: a larger set holds a smaller one."""
    dearest: dict[tuple[object, ...], Run] = {}
    for run in runs:
        key = features_key(run)
        if key not in dearest or costs[dearest[key].id].pass_flops < costs[run.id].pass_flops:
            dearest[key] = run
    return [(costs[run.id], run) for run in dearest.values()]


def _seconds_by_run(works: Mapping[str, Work], pace: Pace) -> dict[str, float]:
    paid: set[Hashable] = set()
    seconds = {}
    for run_id, work in works.items():
        seconds[run_id] = pace.seconds(work.network, work.cut, work.whole(paid))
        paid.update(key for key, _ in work.features)
    return seconds


def _seconds_of_pass(work: Work, pace: Pace) -> float:
    keys = {key for key, _ in work.features}
    return pace.seconds(work.network, work.cut, work.until(0) - work.until(0, keys))
