"""How fast this machine trains the networks of a study: a few steps, evaluations and passes, timed.

Owns which Runs stand for the others, and how long is measured. What it gives is a `pace.Pace`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from torch import nn

from study.networks.build import build
from study.networks.initial_values import initialise
from study.planning.pace import TYPICAL, TYPICAL_GPU, Measured, Pace, Parts, Work
from study.planning.work import evaluation_parts, feature_parts, layers_of, training_parts
from study.run import Run
from study.tasks import TaskInfo
from study.training.cut import cut, set_evaluation, set_training
from study.training.inputs import EVALUATION_BATCH_SIZE
from study.training.preprocessing import precision, set_precision

MAX_NETWORKS: Final = 4
MAX_CUTS: Final = 4  # of a network
SECONDS_EACH: Final = 0.2

# Of a measured step or batch on the CPU, with which it takes about a second at 20 GFLOP/s.
MAX_FLOPS: Final = 2e10


def measured_pace(
    runs: Sequence[Run], works: Mapping[str, Work], infos: Mapping[str, TaskInfo], device: str
) -> Pace:
    """What the parts of these Runs cost here, on "cuda" or on one thread of the "cpu".

    Measured on the networks, and of those the cuts, on which most of the time will be spent. On the CPU
    the time is the thread's own: what else is at work here now need not be when the study is trained.
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
    """A Run for each of the networks and cuts that cost most together, if they cost what is typical."""
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
    parts = cut(layers, run)
    frozen, trained = layers_of(run, info)
    per_image = sum(layer.flops for layer in (*frozen, *trained))
    most = EVALUATION_BATCH_SIZE if device != "cpu" else max(2, int(MAX_FLOPS / per_image))
    images = torch.rand(min(EVALUATION_BATCH_SIZE, most), *info.image_shape, device=device)
    batch = max(2, min(run.recipe.batch_size, run.size, most // 3))
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    optimiser = torch.optim.Adam(parts.suffix.parameters(), lr=1e-4, fused=True)
    set_precision(run.recipe)

    def timed(work_parts: Parts, action: Callable[[], object]) -> Measured:
        with precision(run.recipe, torch.device(device)):
            seconds = _seconds(action, device)
        return Measured(work.network, work.cut, np.array(work_parts), seconds)

    told = []
    with torch.no_grad():
        features = parts.prefix(images)
        if frozen:
            told.append(timed(feature_parts(frozen, len(images)), lambda: parts.prefix(images)))

    def step() -> None:
        loss = nn.functional.cross_entropy(parts.suffix(features[:batch]), labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    set_training(parts, run.recipe.frozen_batchnorm)
    told.append(timed(training_parts(trained, batch), step))
    set_evaluation(parts)
    with torch.no_grad():
        told.append(
            timed(evaluation_parts(trained, len(images), 1), lambda: parts.suffix(features))
        )
    return told


def _seconds(action: Callable[[], object], device: str) -> float:
    """Of one call, after one that warms up."""
    clock = time.perf_counter if device != "cpu" else time.thread_time
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
