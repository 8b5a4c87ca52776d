"""`schedule`: how long a study takes on several workers, against the best order simulated."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from study.grid import grid
from study.launching.queue import RunQueue
from study.planning.cost import cost_of
from study.run import Recipe, Run
from study.tasks import TaskInfo
from tests.benchmarks.table import Line

GOAL: Final = 1.05
NUM_ORDERS: Final = 100


def schedule(*, quick: bool, folder: Path) -> Iterator[Line]:
    """Ten starts of very different lengths and their cells, as the real queue hands them out."""
    del folder
    wanted = _study()
    infos = {
        name: TaskInfo(
            name=name,
            num_train=50_000,
            num_test=10_000,
            classes=tuple(map(str, range(10))),
            image_shape=(3, 32, 32),
        )
        for name in ("a", "b", "target")
    }
    seconds = {run.id: cost_of(run, infos[run.task]).flops / 1e12 for run in wanted}
    for num_slots in (2, 8, 64):
        yield line(wanted, seconds, num_slots, NUM_ORDERS // 5 if quick else NUM_ORDERS)


def line(
    runs: Sequence[Run], seconds: Mapping[str, float], num_slots: int, num_orders: int
) -> Line:
    best = min(
        makespan(runs, seconds, num_slots, _shuffled(seconds, number))
        for number in range(num_orders)
    )
    least = lower_bound(runs, seconds, num_slots)
    ours = makespan(runs, seconds, num_slots, seconds)
    best = min(best, ours)
    return Line(
        group="schedule",
        case=f"{len(runs)} Runs on {num_slots} workers: makespan ÷ best of {num_orders + 1} orders",
        unit="(floor: by work and longest path)",
        ours=ours / best,
        floor=least / best,
        at_most=GOAL,
    )


def makespan(
    runs: Sequence[Run],
    seconds: Mapping[str, float],
    num_slots: int,
    cost: Mapping[str, float],
) -> float:
    """Seconds until all Runs are done, handed out by the real queue, which believes in `cost`."""
    queue = RunQueue(runs, done=(), cost=cost)
    now, busy = 0.0, list[tuple[float, str]]()
    while True:
        while len(busy) < num_slots and (handed := queue.next()):
            (run,) = handed
            heapq.heappush(busy, (now + seconds[run.id], run.id))
        if not busy:
            assert queue.is_over
            return now
        now, run_id = heapq.heappop(busy)
        queue.finish(run_id)


def lower_bound(runs: Sequence[Run], seconds: Mapping[str, float], num_slots: int) -> float:
    """No order is shorter: all work shared equally, or the longest start with a cell of it."""
    paths = [
        seconds[run.id] + (seconds[run.source.id] if run.source is not None else 0.0)
        for run in runs
    ]
    return max(sum(seconds[run.id] for run in runs) / num_slots, max(paths))


def _shuffled(seconds: Mapping[str, float], number: int) -> dict[str, float]:
    """Costs that make another order of it: each up to four times as much, or as little."""
    rng = random.Random(number)
    return {run_id: cost * 4 ** rng.uniform(-1, 1) for run_id, cost in seconds.items()}


def _study() -> list[Run]:
    return grid(
        source_task=("a", "b"),
        source_size=(2_000, 10_000, 50_000),
        target_task="target",
        target_size=(500, 1_000, 2_000, 4_000),
        model="resnet18",
        width=8,
        label_noise=(0.0, 0.2),
        recipe=Recipe(num_epochs=400, evaluation="log_spaced", num_evaluations=100),
        source_recipe=Recipe(num_epochs=100),
        seed=(0, 1),
    )
