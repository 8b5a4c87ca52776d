"""The time left of simulated studies, on machines with random prices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from study.grid import grid
from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.planning.durations import TYPICAL, Pace, Parts, Work
from study.run import Recipe, Run

NUM_MODULES = 77  # of a ResNet-18
NUM_TEST = 900


@dataclass(frozen=True)
class Grid:
    """A source for each seed, and cells by target size and cut."""

    source_size: int
    sizes: tuple[int, ...]
    num_epochs: int
    num_evaluations: int
    flops: float  # of the whole network, for one image

    def runs(self) -> list[Run]:
        return grid(
            source_task="digits-low",
            source_size=self.source_size,
            target_task="digits-high",
            target_size=self.sizes,
            model="resnet18",
            width=8,
            frozen=range(10),
            seed=range(4),
            recipe=Recipe(num_epochs=self.num_epochs, batch_size=32),
        )

    def work(self, run: Run) -> Work:
        trained = 1 - run.frozen / 10
        num_steps = run.recipe.num_epochs * -(-run.size // 32)  # type: ignore[operator]
        num_bytes = self.flops / 50
        images, calls = NUM_TEST + run.size, NUM_MODULES * trained
        start = run.source.id if run.source is not None else run.id
        features = (
            (
                (start, run.frozen, which),
                Parts(feature_flops=n * self.flops, feature_bytes=n * num_bytes),
            )
            for which, n in (
                ("test", NUM_TEST * run.frozen / 10),
                (run.size, run.size * run.frozen / 10),
            )
        )
        return Work(
            network="resnet18 width 8",
            cut=f"{run.task} {run.frozen}",
            once=Parts(runs=1),
            per_step=Parts(
                step_calls=calls,
                step_flops=3 * 32 * trained * self.flops,
                step_bytes=32 * trained * num_bytes,
            ),
            per_evaluation=Parts(
                evaluation_calls=calls * -(-images // 256),
                evaluation_flops=images * trained * self.flops,
                evaluation_bytes=images * trained * num_bytes,
            ),
            evaluated=tuple(
                sorted({0, *np.geomspace(1, num_steps, self.num_evaluations).round().astype(int)})
            ),
            features=tuple(features) if run.frozen else (),
        )


GRIDS = {
    "small images, mostly calls": Grid(300, (60, 240), 60, 40, 2e6),
    "large images, mostly operations": Grid(2_000, (500, 1_000, 2_000), 100, 100, 4e7),
    "features dear, trainings cheap": Grid(500, (100, 200), 5, 5, 4e8),
}


class Machine:
    """Simulates the training of a queue's Runs at random prices, which Progress must find out."""

    def __init__(self, works: Mapping[str, Work], num_workers: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        units = [name.rpartition("_")[2] for name in Parts._fields]
        factor = {unit: random.lognormal(0, 0.5) for unit in dict.fromkeys(units)}
        odd = random.lognormal(0, 0.2, len(units))
        scale = random.choice([0.2, 5])
        self.prices = scale * odd * np.array(TYPICAL) * [factor[unit] for unit in units]
        self.works, self.num_workers = works, num_workers
        self.noise = {run_id: random.lognormal(0, 0.1) for run_id in works}
        self.clock = 0.0
        self.whole = sum(float(work.whole() @ self.prices) for work in works.values())

    def done_at(self, work: Work) -> np.ndarray:
        """Return the seconds since the first row, by evaluation."""
        first = work.until(0)
        return np.array([(work.until(step) - first) @ self.prices for step in work.evaluated])

    def train(
        self, queue: RunQueue, progress: Progress, ask_after: float
    ) -> tuple[float, float, float | None, float]:
        """Train all Runs; return the seconds of work, the time and the time left at the first report
        after `ask_after` seconds of work, and the time at the end."""
        paid: set[object] = set()
        done_at: dict[str, np.ndarray] = {}
        busy: dict[str, tuple[float, float]] = {}  # times of the first row and of the end
        worked, asked_at, left = 0.0, 0.0, None
        while not queue.is_over:
            while len(busy) < self.num_workers and (handed := queue.next()):
                (run,) = handed
                progress.starts(run)
                progress.began([run])
                work, noise = self.works[run.id], self.noise[run.id]
                before, seconds = (
                    self.clock + float(parts @ self.prices) * noise
                    for parts in (work.until(0, paid), work.whole(paid))
                )
                paid |= {key for key, _ in work.features}
                busy[run.id] = (before, seconds)
            first = min(at for each in busy.values() for at in each if at > self.clock)
            until = min(first, self.clock + self.whole / self.num_workers / 100)
            worked += (until - self.clock) * len(busy)
            self.clock = until
            for run_id, (began, ends) in list(busy.items()):
                run = queue.runs[run_id]
                if ends <= self.clock:
                    del busy[run_id]
                    queue.finish(run_id)
                    progress.ended(run, finished=True)
                elif began <= self.clock:
                    work = self.works[run_id]
                    if run_id not in done_at:
                        done_at[run_id] = self.done_at(work)
                    done, share = done_at[run_id], (self.clock - began) / (ends - began)
                    progress.on_row(run, int(np.interp(share * done[-1], done, work.evaluated)))
            if not asked_at and worked >= ask_after:
                asked_at, left = self.clock, progress.seconds_left()
        return worked, asked_at, left, self.clock


@pytest.mark.parametrize("num_workers", [2, 8])
@pytest.mark.parametrize(
    "grid", [pytest.param(n, marks=pytest.mark.slow if "large" in n else ()) for n in GRIDS]
)
def test_seconds_left_after_a_tenth_of_the_work_is_within_20_percent(
    grid: str, num_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = GRIDS[grid].runs()
    works = {run.id: GRIDS[grid].work(run) for run in runs}
    costs = {run_id: float(work.whole() @ np.array(TYPICAL)) for run_id, work in works.items()}
    clock = SimpleNamespace()
    monkeypatch.setattr("study.launching.progress.time", clock)
    errors = []
    for seed in range(6):
        whole = float("inf")
        for _ in range(2):  # the first pass measures the seconds of work
            machine = Machine(works, num_workers, seed)
            clock.monotonic = lambda machine=machine: machine.clock
            queue = RunQueue(runs, done=(), cost=costs)
            progress = Progress(queue, works, Pace())
            progress.has_workers(num_workers)
            assert progress.seconds_left() is None, "nothing is measured yet"
            whole, at, left, ended = machine.train(queue, progress, whole / 10)
        assert left is not None
        errors.append(left / (ended - at) - 1)
    assert np.abs(errors).max() < 0.2, np.round(errors, 2)
