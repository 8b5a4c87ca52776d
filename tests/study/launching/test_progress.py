"""The progress of a launch: counts, time left, most expensive Run, last error."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.messages import duration
from study.planning.durations import Pace, Work, makespan
from study.run import Recipe, Run


def runs_of(num: int) -> list[Run]:
    recipe = Recipe(num_epochs=10, batch_size=50)
    return [
        Run(task="digits", size=100, model="resnet18", width=4, recipe=recipe, seed=seed)
        for seed in range(num)
    ]


def progress_of(queue: RunQueue) -> Progress:
    """Return the progress of Runs of 20 steps, with a row before and after each epoch."""
    work = Work(
        network="resnet18",
        cut="0",
        once=0.1,
        per_step=35.0,
        per_evaluation=14.0,
        evaluated=tuple(range(0, 21, 2)),
    )
    return Progress(queue, dict.fromkeys(queue.runs, work), Pace())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clock of the progress: `now`, in seconds."""
    clock = SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("study.launching.progress.time", clock)
    return clock


def test_seconds_left_counts_only_work_of_this_launch(
    clock: SimpleNamespace,
) -> None:
    runs = runs_of(3)
    queue = RunQueue(runs, done=(), cost={run.id: 6.0 for run in runs})
    progress = progress_of(queue)
    (taken_up,) = queue.next()
    progress.on_row(taken_up, 10)
    assert progress.seconds_left() is None
    clock.now = 130.0
    progress.on_row(taken_up, 20)
    queue.finish(taken_up.id)
    progress.ended(taken_up, finished=True)
    left = progress.seconds_left()
    assert left == pytest.approx(2 * 2 * 30, rel=0.1), "10 of 20 steps took 30 s, 2 Runs are left"
    assert progress.look().text() == (
        f"1 done, 0 running, 2 waiting, 0 failed, 2 a minute, about {duration(left)} left"
    )
    progress.has_workers(2)
    assert progress.seconds_left() == pytest.approx(left / 2)


def test_seconds_left_before_any_run_has_ended_uses_its_progress(
    clock: SimpleNamespace,
) -> None:
    runs = runs_of(1)
    queue = RunQueue(runs, done=(), cost={run.id: 6.0 for run in runs})
    progress = progress_of(queue)
    (run,) = queue.next()
    progress.on_row(run, 0)
    clock.now += 36.0
    progress.on_row(run, 1)
    assert progress.seconds_left() is None, "a twentieth tells too little"
    clock.now += 324.0
    progress.on_row(run, 10)
    assert progress.seconds_left() == pytest.approx(360, rel=0.15)
    clock.now += 100.0
    assert progress.seconds_left() == pytest.approx(260, rel=0.2), "though nothing was heard since"


def test_seconds_left_runs_that_report_only_their_last_row_are_measured(
    clock: SimpleNamespace,
) -> None:
    runs = runs_of(3000)
    queue = RunQueue(runs, done=(), cost={run.id: 6.0 for run in runs})
    progress = progress_of(queue)
    for _ in range(600):
        (run,) = queue.next()
        progress.starts(run)
        clock.now += 0.05
        progress.on_row(run, 20)
        queue.finish(run.id)
        progress.ended(run, finished=True)
    assert progress.seconds_left() == pytest.approx(2400 * 0.05, rel=0.1)
    assert (
        progress.look()
        .text()
        .startswith("600 done, 0 running, 2400 waiting, 0 failed, 1,200 a minute, about 2 min")
    )


def test_makespan_is_bounded_by_the_longest_chain() -> None:
    recipe = Recipe(num_steps=2)
    source = Run(task="digits", size=100, model="resnet18", width=4, recipe=recipe, seed=0)
    cells = [replace(source, start=source, frozen=frozen) for frozen in range(3)]
    runs = {run.id: run for run in (source, *cells)}
    left = dict.fromkeys(runs, 10.0)
    assert makespan(runs, left, {source.id}, 1) == 40
    assert makespan(runs, left, {source.id}, 2) == 30
    assert makespan(runs, left, (), 8) == 20
    del left[source.id]
    assert makespan(runs, left, (), 2) == 20


def test_snapshot_shows_workers_dearest_run_and_last_error() -> None:
    runs = runs_of(4)
    queue = RunQueue(runs, done=(), cost={run.id: 1.0 + run.seed for run in runs})
    progress = progress_of(queue)
    (dear,), (cheap,) = queue.next(), queue.next()
    progress.starts(dear)
    progress.starts(cheap)
    assert progress.look().text() == (
        "0 done, 2 workers starting, 2 waiting, 0 failed, estimating the time left"
    )
    progress.began([cheap])
    progress.on_row(dear, 7)
    seen = progress.look()
    assert "2 running, 2 waiting" in seen.text()
    assert (
        seen.dearest
        == (
            "digits n=100, resnet18 width 4, frozen 0, seed 3: epoch 4 of 10"  # 7 steps of 20, 2 an epoch
        )
    )
    assert seen.share == pytest.approx(0.35 * 4 / 10)
    progress.failed(cheap, "ValueError: no")
    progress.lost(cheap)
    seen = progress.look()
    assert seen.last_error.startswith("ValueError: no (digits n=100")
    assert "1 running, 1 worker starting, 2 waiting" in seen.text()
