"""Time the networks of a study on this machine, and estimate the total cost of its Runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from study.networks.build import build
from study.networks.initial_values import initialise
from study.planning.cost import (
    Cost,
    Memory,
    cost_of,
    evaluation_parts,
    feature_parts,
    features_key,
    has_gpu,
    layers_of,
    training_parts,
    work_of,
)
from study.planning.durations import (
    TYPICAL,
    TYPICAL_GPU,
    Measured,
    Pace,
    Parts,
    Work,
    assumed_rates,
    makespan,
)
from study.run import Run
from study.tasks import TaskInfo
from study.training.cuda_graphs import NUM_WARM, Steps, capture_on
from study.training.cut import cut, set_evaluation, set_training
from study.training.features import WORTH_SECONDS_PER_GIB
from study.training.inputs import EVALUATION_BATCH_SIZE
from study.training.preprocessing import layout, precision, set_precision
from study.training.stacked import joined, widened

MAX_NETWORKS: Final = 4
MAX_CUTS: Final = 4  # per network
SECONDS_EACH: Final = 0.2

# Largest measured step or batch on the CPU: about a second at 20 GFLOP/s.
MAX_FLOPS: Final = 2e10


def measured_pace(
    runs: Sequence[Run], works: Mapping[str, Work], infos: Mapping[str, TaskInfo], device: str
) -> Pace:
    """Measure the prices of these Runs' parts here, on "cuda" or on one thread of the "cpu".

    Measures the networks and cuts that will take the most time. On the CPU it uses the thread's own time:
    other processes may not run when the study is trained.
    """
    typical = TYPICAL if device == "cpu" else TYPICAL_GPU
    before, threads = Pace(typical), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = [
            each
            for run in _examples(runs, works, before)
            for each in _measured(run, works[run.id], infos[run.task], device)
        ]
    finally:
        torch.set_num_threads(threads)
    return before.with_more(measured)


def _examples(runs: Sequence[Run], works: Mapping[str, Work], pace: Pace) -> list[Run]:
    """Return a Run for each of the networks and cuts that cost most in total at typical prices."""
    cost: dict[str, dict[str, float]] = {}
    example: dict[tuple[str, str], Run] = {}
    for run in runs:
        work = works[run.id]
        by_cut = cost.setdefault(work.network, {})
        seconds = pace.seconds(work.network, work.cut, work.whole())
        by_cut[work.cut] = by_cut.get(work.cut, 0.0) + seconds
        example.setdefault((work.network, work.cut), run)
    dearest = sorted(cost, key=lambda network: -sum(cost[network].values()))[:MAX_NETWORKS]
    return [
        example[network, cut]
        for network in dearest
        for cut in sorted(cost[network], key=lambda cut: -cost[network][cut])[:MAX_CUTS]
    ]


def _measured(run: Run, work: Work, info: TaskInfo, device: str) -> list[Measured]:
    layers = build(run.model, run.width, info.num_classes, info.image_shape)
    initialise(layers, run.model, run.seed)
    layers.to(device)
    if layout(run.recipe, torch.device(device)) == torch.channels_last:
        layers.to(memory_format=torch.channels_last)
    parts = cut(layers, run)
    frozen, trained = layers_of(run, info)
    per_image = sum(layer.flops for layer in (*frozen, *trained))
    most = EVALUATION_BATCH_SIZE if device != "cpu" else max(2, int(MAX_FLOPS / per_image))
    images = torch.rand(min(EVALUATION_BATCH_SIZE, most), *info.image_shape, device=device)
    batch = max(2, min(run.recipe.batch_size, run.size, most // 3))
    together, suffix = run.recipe.seeds_together, parts.suffix
    if together > 1:
        suffix = widened(suffix, together)
    labels = torch.zeros(batch * together, dtype=torch.int64, device=device)
    on_device = torch.device(device)
    capture = capture_on(on_device)
    optimiser = torch.optim.Adam(
        suffix.parameters(), lr=1e-4, fused=True, capturable=capture is not None
    )
    set_precision(run.recipe)

    def timed(work_parts: Parts, action: Callable[[], object], num_runs: int = 1) -> Measured:
        with precision(run.recipe, on_device):
            seconds = _seconds(action, device)
        return Measured(work.network, work.cut, np.array(work_parts), seconds / num_runs)

    measured = []
    with torch.no_grad():
        features = parts.prefix(images)
        if frozen:
            measured.append(timed(feature_parts(frozen, len(images)), lambda: parts.prefix(images)))

    if together > 1:
        features = joined([features] * together)

    def compute(positions: Tensor) -> None:
        logits = suffix(features[positions])
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    steps, positions = Steps(batch, capture), torch.arange(batch, device=device)
    set_training(parts, run.recipe.frozen_batchnorm)
    suffix.train()
    if capture is not None:
        with precision(run.recipe, on_device):
            for _ in range(NUM_WARM + 1):  # only replays are timed
                steps.take(compute, positions)
    measured.append(
        timed(training_parts(trained, batch), lambda: steps.take(compute, positions), together)
    )
    set_evaluation(parts)
    suffix.eval()
    with torch.no_grad():
        measured.append(
            timed(evaluation_parts(trained, len(images), 1), lambda: suffix(features), together)
        )
    return measured


def _seconds(action: Callable[[], object], device: str) -> float:
    clock = time.perf_counter if device != "cpu" else time.thread_time
    # The first call warms up.
    action()
    _wait(device)
    began, num = clock(), 0
    while num < 2 or clock() - began < SECONDS_EACH:
        action()
        num += 1
        _wait(device)
    return (clock() - began) / num


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


# Start of Ray, and of the workers, which load torch, before the first Run begins.
SECONDS_TO_START: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class Price:
    """The total cost of Runs.

    - `flops`: if each Run computes the features of its frozen layers, as on a GPU; `shared_flops`: if
      features are computed once for all Runs of a start and cut, as on the CPUs of one machine, whose
      disk then has at most `features_bytes` of them.
    - `machine`: this one, as "2 cores" or "1 GPU"; `wall_seconds`: the time of `study run` on it, by the
      measurement just made; `one_seconds`: the time on one core or GPU.
    - `elsewhere`: seconds on one GPU, by kind, if this machine has none; assumed, not measured.
    - `largest`: memory of the Run that needs most; `base_bytes`: of a process with its libraries before a
      Run, as this one has it; `machine_bytes`: of this machine.
    - `num_unmeasured`: Runs that need more memory than this machine has; typical prices are used for them.
    """

    flops: int
    shared_flops: int
    features_bytes: int
    machine: str
    wall_seconds: float
    one_seconds: float
    elsewhere: Mapping[str, float]
    largest: Memory | None
    base_bytes: int
    machine_bytes: int
    num_unmeasured: int


def price(runs: Sequence[Run], infos: Mapping[str, TaskInfo]) -> Price:
    """Return the price of these Runs, each start before its dependants; measures for a few seconds."""
    costs = {run.id: cost_of(run, infos[run.task]) for run in runs}
    passes = _passes(runs, costs)
    flops = sum(cost.flops for cost in costs.values())
    own = sum(cost.flops - cost.pass_flops for cost in costs.values())
    on_gpus = has_gpu()
    works = {run.id: work_of(run, infos[run.task], shares_features=not on_gpus) for run in runs}
    import psutil  # not before torch: a missing torch is named first

    base_bytes, machine_bytes = psutil.Process().memory_info().rss, psutil.virtual_memory().total
    # A network that does not fit is not built.
    fitting = [
        run for run in runs if on_gpus or base_bytes + costs[run.id].memory.total < machine_bytes
    ]
    pace = measured_pace(fitting, works, infos, "cuda" if on_gpus else "cpu")
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
        base_bytes=base_bytes,
        machine_bytes=machine_bytes,
        num_unmeasured=len(runs) - len(fitting),
    )


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _passes(runs: Sequence[Run], costs: Mapping[str, Cost]) -> list[tuple[Cost, Run]]:
    dearest: dict[tuple[object, ...], Run] = {}
    for run in runs:
        key = features_key(run)
        # The largest set counts: it contains the images of the smaller ones.
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
