"""`runs` and `schedule`: what a study costs beside training."""

from __future__ import annotations

import heapq
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load

from study import tasks
from study.grid import grid
from study.launching.driver import run_study
from study.launching.options import LaunchOptions
from study.launching.queue import RunQueue
from study.planning.cost import cost_of
from study.planning.spaces import space_of
from study.run import Recipe, Run
from study.store import Store, open_store, read_head, read_weights
from study.tasks import TaskInfo
from tests.benchmarks.table import Line
from tests.processes import Watched, environment
from tests.trainings import to_the_end, training_of

MOST_MS: Final = {"no start": 30.0, "from a source": 40.0}
MOST_WORKER_MS: Final = 60.0
MOST_DRIVER_MS: Final = 15.0
MOST_DRIVER_GIB: Final = 1.2
NUM_SLOTS: Final = 2
NUM_BARE: Final = 100
RECIPE: Final = Recipe(num_steps=2, batch_size=32, learning_rate=1e-3)
START: Final = Run(task="digits-low", size=40, model="resnet18", width=4, recipe=RECIPE, seed=0)
THROUGH_RAY: Final = """
from tests.benchmarks.studies import START, tiny_runs
RUNS = [START, *tiny_runs("no start", {num})]
"""


def runs(*, quick: bool, folder: Path) -> Iterator[Line]:
    """Studies of 200 tiny Runs inline, and of 200 and 1,200 through Ray (--quick: a fifth of them)."""
    torch.set_num_threads(1)
    num, bare = 40 if quick else 200, 0.0
    for kind in ("from a source", "no start"):
        all_of_a_run, bare = _inline(_store(folder / kind), kind, num, folder / "features")
        yield Line(
            group="runs",
            case=f"inline, {kind}: a Run beside its training",
            unit="ms of CPU",
            ours=1000 * (all_of_a_run - bare),
            at_most=MOST_MS[kind],
        )
    launches = {each: _through_ray(folder / f"ray {each}", each) for each in (num, 6 * num)}
    yield from ray_lines(launches, bare=bare)


def ray_lines(launches: Mapping[int, Watched], *, bare: float) -> Iterator[Line]:
    """Return the costs of the Runs that only the larger of two launches, by number of Runs, has.

    `bare`: CPU seconds of a Run's training.
    """
    (few, small), (many, large) = sorted(launches.items())
    driver = (large.own_cpu_seconds - small.own_cpu_seconds) / (many - few)
    worker = (sum(large.workers.values()) - sum(small.workers.values())) / (many - few)
    peak = large.own_peak_bytes / 2**30
    for text, unit, ours, most in (
        (
            "a Run beside its training",
            "ms of a worker's CPU",
            1000 * (worker - bare),
            MOST_WORKER_MS,
        ),
        ("a Run, in the driver", "ms of the driver's CPU", 1000 * driver, MOST_DRIVER_MS),
        (f"{many:,} Runs: the driver's peak", "GiB", peak, MOST_DRIVER_GIB),
    ):
        yield Line(group="runs", case=f"through Ray, {text}", unit=unit, ours=ours, at_most=most)


def tiny_runs(kind: str, num: int) -> list[Run]:
    seeds = range(1, 1 + num)
    if kind == "no start":
        return [replace(START, seed=seed) for seed in seeds]
    cell = replace(START, task="digits-high", start=START)
    return [replace(cell, frozen=seed % 10, seed=seed) for seed in seeds]


def _store(folder: Path) -> Store:
    store = open_store(folder)
    for name in ("digits-low", "digits-high"):
        tasks.prepare(tasks.BUILTIN[name], store, None, progress=False)
    return store


def _inline(store: Store, kind: str, num: int, features: Path) -> tuple[float, float]:
    """Return the CPU seconds of a Run in an inline study, and of its training alone."""
    wanted = tiny_runs(kind, num)
    run_study(space_of([START, wanted[0]], "first"), store, None, LaunchOptions())  # warms up
    weights: Any = None
    if kind != "no start":
        digest = read_head(store, START.id).provenance.weights_digest
        assert digest is not None
        weights = load(read_weights(store, START.id, digest))
    trainings = [
        training_of(run, store, weights, shared_features=features)
        for run in wanted[1 : 1 + NUM_BARE]
    ]
    began = time.process_time()
    for training in trainings:
        to_the_end(training)
    bare = (time.process_time() - began) / len(trainings)
    began = time.process_time()
    run_study(space_of([START, *wanted], "inline"), store, None, LaunchOptions())
    return (time.process_time() - began) / (num - 1), bare


def _through_ray(root: Path, num: int) -> Watched:
    """Run a study in a process of its own; return its CPU and memory as seen from outside."""
    _store(root)
    space = root / "tiny.py"
    space.write_text(THROUGH_RAY.format(num=num), encoding="utf-8")
    command = [sys.executable, "-m", "study", "run", str(space), "--root", str(root), "--quiet"]
    process = subprocess.Popen(
        [*command, f"--max-concurrent={NUM_SLOTS}", "--out", str(root / "report")],
        env=environment(),
        cwd=root,
        stdout=subprocess.DEVNULL,
    )
    with Watched(process.pid) as watched:
        status = process.wait()
    if status != 0:
        raise RuntimeError(f"{num} Runs through Ray: exit status {status}")
    return watched


SCHEDULE_AT_MOST: Final = 1.1


def schedule(*, quick: bool, folder: Path) -> Iterator[Line]:
    """Starts of very different lengths and their cells, handed out by the real queue."""
    del quick, folder
    wanted = grid(
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
    info = TaskInfo(
        name="any",
        num_train=50_000,
        num_test=10_000,
        classes=tuple(map(str, range(10))),
        image_shape=(3, 32, 32),
    )
    seconds = {run.id: cost_of(run, info).flops / 1e12 for run in wanted}
    for num_slots in (8, 64):
        least = lower_bound(wanted, seconds, num_slots)
        yield Line(
            group="schedule",
            case=f"{len(wanted)} Runs on {num_slots} workers, against the least possible time",
            unit="times as long",
            ours=makespan(wanted, seconds, num_slots) / least,
            at_most=SCHEDULE_AT_MOST,
        )


def makespan(runs: Sequence[Run], seconds: Mapping[str, float], num_slots: int) -> float:
    """Return the time until all Runs are done, in the order of the queue."""
    queue = RunQueue(runs, done=(), cost=seconds)
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
    """Return the time of all work shared equally, or of the longest start with one of its cells."""
    paths = [
        seconds[run.id] + (0.0 if run.source is None else seconds[run.source.id]) for run in runs
    ]
    return max(sum(seconds[run.id] for run in runs) / num_slots, max(paths))
