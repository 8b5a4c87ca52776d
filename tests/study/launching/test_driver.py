"""Whole studies, inline and on Ray: enlarged, damaged, killed; compared with an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from study.grid import union
from study.launching.driver import run_study
from study.launching.options import LaunchOptions
from study.planning.spaces import space_of
from study.run import Recipe, Run
from study.store import (
    Failure,
    Store,
    finished_ids,
    open_store,
    read_failures,
    read_rows,
    read_study,
)
from study.store.layout import unfinished_path
from study.store.provenance import now
from study.store.schema import ABSENT, DONE, START_FAILED
from study.store.unfinished import list_unfinished, trained_by, write_failure
from study.training import loop
from tests.processes import start_python
from tests.studies import inline, outcomes, small, write_space

# Long enough to be killed half-way: a few seconds per Run without frozen layers.
LONG = {
    "source_size": 200,
    "target_size": [100, 200],
    "label_noise": 0.2,
    "width": 2,
    "recipe": Recipe(
        num_steps=300,
        batch_size=16,
        learning_rate=1e-3,
        evaluation="log_spaced",
        num_evaluations=12,
    ),
}


def rows_files(store: Store) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in Path(store.root, "rows").iterdir()}


def test_run_study_only_trains_a_part_and_stores_the_whole_study(store: Store) -> None:
    runs = small()
    (wanted,) = (run for run in runs if run.frozen == 9 and run.size == 30)
    assert wanted.source is not None
    part = inline(store, runs, only="frozen=9,size=30")
    assert dict(part.states) == {wanted.source.id: DONE, wanted.id: DONE}
    assert finished_ids(store) == {wanted.source.id, wanted.id}
    assert read_study(store, "tiny") == runs
    before = rows_files(store)
    assert inline(store, runs).counts() == {DONE: 5}
    assert {run_id: rows_files(store)[run_id] for run_id in before} == before


def test_run_study_again_trains_nothing_and_a_larger_grid_only_new_runs(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inline(store, small()).counts() == {DONE: 5}
    before = rows_files(store)
    capsys.readouterr()
    assert inline(store, small()).counts() == {DONE: 5}
    # One phase, and then neither torch nor a worker is started.
    assert capsys.readouterr().err == "study: comparing the study with the store\n"
    larger = union(small(), small(target_size=60), small(seed=1, target_size=30))
    assert inline(store, larger).counts() == {DONE: 10}
    after = rows_files(store)
    assert len(after) == 10
    assert {run_id: after[run_id] for run_id in before} == before


def test_run_study_only_prepares_no_task_of_other_runs(store: Store) -> None:
    baselines = {"source_task": None, "source_size": None, "frozen": 0, "target_size": 30}
    runs = union(*(small(**baselines, target_task=f"digits-{half}") for half in ("low", "high")))
    assert inline(store, runs, only="task=digits-low").counts() == {DONE: 1}
    assert inline(store, runs).counts() == {DONE: 2}


# Torn and flipped objects: tests/faults/damage.py.
@pytest.mark.slow
@pytest.mark.parametrize("can_be_moved", [True, False])
def test_run_study_unreadable_rows_are_quarantined_and_trained_again(
    store: Store, capsys: pytest.CaptureFixture[str], can_be_moved: bool
) -> None:
    store = replace(store, waits=(0.0,) * 5)
    inline(store, small())
    undisturbed = outcomes(store)
    path = sorted(Path(store.root, "rows").iterdir())[0]
    path.unlink()
    path.symlink_to("/proc/self/mem")
    if not can_be_moved:
        Path(store.root, "damaged").mkdir()
        Path(store.root, "damaged", "rows").write_text("no folder")
    assert inline(store, small()).counts() == {DONE: 5}
    printed = capsys.readouterr().err
    assert f"{path.name} is damaged: cannot read (3 tries): Input/output error" in printed
    assert ("cannot be moved and stays" in printed) != can_be_moved
    assert not can_be_moved or len(store.quarantined()) == 1
    assert outcomes(store) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("is_missing", [True, False])
def test_run_study_missing_or_unreadable_weights_are_trained_again_if_needed(
    store: Store, is_missing: bool
) -> None:
    inline(store, small())
    weights = next(Path(store.root, "weights").iterdir())
    whole = weights.read_bytes()
    weights.unlink()
    if not is_missing:
        weights.symlink_to("/proc/self/mem")
    assert inline(store, small()).counts() == {DONE: 5}
    assert not is_missing or not weights.exists(), "no Run needs them"
    assert inline(store, small(target_size=[30, 50, 60])).counts() == {DONE: 7}
    assert weights.read_bytes() == whole


def test_run_study_diverged_source_fails_its_cells_and_is_not_repeated(store: Store) -> None:
    wild = Recipe(optimizer="sgd", learning_rate=1e30, num_epochs=2, batch_size=16)
    runs = small(source_recipe=wild)
    found = inline(store, runs)
    assert found.counts() == {DONE: 1, START_FAILED: 4}
    assert "diverged" in found.causes[runs[-1].id]
    before = rows_files(store)
    assert inline(store, runs).counts() == {DONE: 1, START_FAILED: 4}
    assert rows_files(store) == before


def test_run_study_beside_another_driver_raises(store: Store) -> None:
    from study.launching.lease import LeaseHeld, acquire

    with acquire(store.root), pytest.raises(LeaseHeld):
        inline(store, small())
    assert inline(store, small()).counts() == {DONE: 5}


def _seeds(together: int) -> list[Run]:
    """Return the Runs of as many seeds as are trained together."""
    recipe = Recipe(num_epochs=2, batch_size=16, learning_rate=1e-3, seeds_together=together)
    return small(seed=[*range(together)], recipe=recipe)


@pytest.mark.parametrize("together", [1, 2])
def test_inline_study_stops_once_the_gpu_is_unusable(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    together: int,
) -> None:
    # This machine has no GPU: the Run, and every later call to the GPU, fails.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("study.launching.driver.gpus", lambda: ())
    found = run_study(space_of(_seeds(together), "tiny"), store, None, LaunchOptions())
    assert found.counts() == {ABSENT: 5 * together}
    assert [each.tries for each in read_failures(store).values()] == [1] * together
    assert capsys.readouterr().err.count("no further Run is started") == 1


@pytest.mark.parametrize("together", [1, 2])
def test_reason_why_steps_are_not_captured_is_stored_and_shown_once(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    together: int,
) -> None:
    monkeypatch.setattr(loop, "not_captured_on", lambda *_, **__: "made up")
    assert inline(store, _seeds(together)).counts() == {DONE: 5 * together}
    heads = [read_rows(store, run_id).provenance for run_id in finished_ids(store)]
    assert [each.not_captured for each in heads] == ["made up"] * 5 * together
    assert capsys.readouterr().err.count("as a CUDA graph, and are slower: made up") == 1


# On Ray.


@pytest.fixture(scope="module")
def undisturbed(
    prepared_digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, ...]]:
    """The outcomes of the study LONG, run inline."""
    root = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(prepared_digits, root)
    store = open_store(root)
    assert inline(store, small(**LONG)).counts() == {DONE: 5}
    return outcomes(store)


class Driver:
    """`study run` on Ray, in another process and in the folder of its store."""

    def __init__(self, store: Store) -> None:
        self.store, self.folder = store, Path(store.root).parent
        write_space(self.folder / "long.py", **LONG)

    def start(self) -> subprocess.Popen[str]:
        flags = ("--root", self.store.root, "--checkpoint-seconds", "0.2")
        return start_python("-m", "study", "run", "long.py", *flags, folder=self.folder)

    def wait_for(self, condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
        """Wait for a condition while the driver runs."""
        while not condition():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)

    def workers(self) -> set[int]:
        """Return the processes that train unfinished Runs."""
        return {
            process.pid for process in trained_by(self.store, list_unfinished(self.store)).values()
        }


@pytest.mark.slow
@pytest.mark.ray
def test_study_run_killed_driver_killed_worker_and_failing_run_spare_the_others(
    store: Store, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    driver = Driver(store)
    source = next(i for i, (_, weights, *_) in undisturbed.items() if weights)
    hopeless = max(i for i in undisturbed if i != source)
    for lease_number in (1, 2):  # of the first driver, and of the second
        obstacle = Path(store.root, unfinished_path(hopeless, "checkpoint", lease_number))
        obstacle.mkdir(parents=True)
        (obstacle / "in the way").touch()
    earlier = Failure(tries=2, error="of an earlier launch", final=False, at=now())
    write_failure(store, hopeless, earlier)

    process = driver.start()
    driver.wait_for(lambda: finished_ids(store) and driver.workers(), process)
    process.kill()
    process.communicate()
    assert finished_ids(store)
    killed = driver.workers()

    process = driver.start()
    driver.wait_for(lambda: driver.workers() - killed, process)
    os.kill((driver.workers() - killed).pop(), signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert f"failed: {hopeless}" in err
    assert "4 tries" in err
    assert len(err.splitlines()) < 20, "the output is short"
    assert (driver.folder / out.splitlines()[-1]).is_file(), "the report of the others"
    assert outcomes(store) == {i: r for i, r in undisturbed.items() if i != hopeless}
    assert set(list_unfinished(store)) == {hopeless}
