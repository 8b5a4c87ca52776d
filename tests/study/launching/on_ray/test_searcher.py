"""The searcher: gives Ray Tune a Run for each worker, at the right time."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from study.launching.display import Screen
from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.planning.durations import Pace, Work
from study.run import Recipe
from study.store import Store, finished_ids
from tests.processes import Watched, start_python
from tests.studies import ONE_RUN, small, write_space


class Tune:
    """Calls the searcher of a study of many Runs as Tune does."""

    def __init__(self, store: Store, num_slots: int, **options: Any) -> None:
        from study.launching.on_ray.searcher import RunSearcher

        runs = small(**ONE_RUN, seed=range(20))
        queue = RunQueue(runs, done=(), cost={run.id: 1.0 for run in runs})
        work = Work(
            network="resnet18 width 1",
            cut="0",
            once=0.15,
            per_step=0.04,
            per_evaluation=0.02,
            evaluated=(0, 1, 2),
        )
        progress = Progress(queue, dict.fromkeys(queue.runs, work), Pace())
        request = SimpleNamespace(is_set=False)
        self.watch: Any = SimpleNamespace(begun=set(), request=request, progress=progress)
        given = {"max_concurrent": None, "may_grow": False} | options
        self.searcher = RunSearcher(queue, store, self.watch, (), (), {"cpu": 1.0}, **given)
        self.num_slots, self.num_handed = num_slots, 0
        self.searcher._slots = lambda: self.num_slots  # type: ignore[method-assign]

    def handed(self) -> list[str]:
        """Return the trials that the searcher suggests now."""
        new = []
        while self.searcher.suggest(str(self.num_handed)) is not None:
            new.append(str(self.num_handed))
            self.num_handed += 1
        return new

    def begin(self, *trials: str) -> None:
        self.watch.begun |= set(trials)

    def end(self, trial: str, remark: str = "") -> None:
        outcomes = [(run.id, "finished", "", remark) for run in self.searcher._trials[trial]]
        self.searcher.on_trial_complete(trial, {"outcomes": outcomes})


def test_searcher_free_worker_gets_a_run_while_another_starts(empty: Store) -> None:
    tune = Tune(empty, num_slots=2)
    assert tune.handed() == ["0", "1"]
    tune.begin("0")
    assert tune.handed() == []
    tune.end("0")
    assert tune.handed() == ["2"], "not trial 1, whose worker is starting"
    tune.begin("1", "2")
    assert tune.handed() == []


def test_searcher_prints_the_same_remark_of_several_runs_once(
    empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = Tune(empty, num_slots=2)
    tune.watch.screen = Screen()
    tune.handed()
    tune.begin("0", "1")
    for trial in ("0", "1"):
        tune.end(trial, remark="steps are not captured")
    assert capsys.readouterr().err.count("steps are not captured") == 1


def test_searcher_respects_max_concurrent(empty: Store) -> None:
    tune = Tune(empty, num_slots=8, max_concurrent=3, may_grow=True)
    assert tune.handed() == ["0", "1", "2"]
    tune.begin("0", "1", "2")
    assert tune.handed() == []


def test_searcher_of_a_growing_cluster_lets_as_many_runs_wait_as_run(empty: Store) -> None:
    tune = Tune(empty, num_slots=0, may_grow=True)
    assert tune.handed() == ["0"], "so that a first node comes"
    tune.num_slots = 2
    assert tune.handed() == ["1"]
    tune.begin("0", "1")
    assert tune.handed() == ["2", "3"]
    tune.end("0")
    assert tune.handed() == [], "the worker is for a waiting trial"
    tune.begin("2")
    assert tune.handed() == ["4"]


def test_searcher_of_a_growing_cluster_asks_for_eight_nodes_in_four_rounds(empty: Store) -> None:
    """Each round, an autoscaler adds a node for every waiting trial."""
    tune = Tune(empty, num_slots=0, may_grow=True)
    for num_nodes in (0, 1, 2, 4, 8):
        assert tune.num_slots == num_nodes
        waiting = tune.handed()
        tune.num_slots += len(waiting)
        tune.begin(*waiting)


def test_searcher_pending_trial_is_not_starved(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    tune = Tune(empty, num_slots=2)
    monkeypatch.setattr("study.launching.on_ray.searcher.time.monotonic", lambda: clock)
    assert tune.handed() == ["0", "1"]
    tune.begin("0")
    clock += 3600  # the second slot is taken by somebody else
    tune.end("0")
    assert tune.handed() == []
    tune.begin("1")
    assert tune.handed() == ["2"]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_run_starts_at_most_one_worker_per_slot(store: Store, tmp_path: Path) -> None:
    recipe = Recipe(num_steps=2, batch_size=32, learning_rate=1e-3)
    write_space(tmp_path / "tiny.py", **ONE_RUN, seed=range(40), recipe=recipe)
    flags = ["--root", store.root, "--gpus-per-trial", "0", "--max-concurrent", "2"]
    driver = start_python("-m", "study", "run", "tiny.py", *flags, folder=tmp_path)
    with Watched(driver.pid) as watched:
        _, said = driver.communicate(timeout=900)
    assert driver.returncode == 0, said
    assert len(finished_ids(store)) == 40
    # One that is still starting when all is over is not waited for.
    assert 1 <= len(watched.workers) <= min(2, os.cpu_count() or 1)
