"""Whole studies, inline and on a Ray of this machine: killed, damaged, enlarged; more in `test_faults`.

Everything is held against one undisturbed inline study: the same ids, rows (but times) and weights.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from study.grid import grid, union
from study.launching.driver import run_study
from study.launching.on_ray.nodes import num_slots, trial_resources
from study.launching.options import LaunchOptions
from study.planning.inventory import Inventory
from study.planning.spaces import Space, chosen_ids
from study.run import Recipe, Run
from study.store import Failure, Store, finished_ids, open_store, read_rows, read_study
from study.store.layout import unfinished_path
from study.store.provenance import now
from study.store.schema import DONE, START_FAILED
from study.store.unfinished import list_unfinished, trained_by, write_failure
from study.tasks import BUILTIN
from tests.processes import environment

OPTIONS = LaunchOptions(
    address=None,
    gpus_per_trial=0,
    cpus_per_trial=None,
    max_concurrent=None,
    checkpoint_seconds=60.0,
    grace_seconds=20.0,
    resume_hint="run it again",
)

# Long enough to be met half-way: a few seconds a Run in which nothing is frozen.
TEXT = """
from study.grid import grid
from study.run import Recipe

RUNS = grid(
    source_task="digits-low",
    source_size=200,
    target_task="digits-high",
    target_size=[100, 200],
    label_noise=0.2,
    model="resnet18",
    width=2,
    frozen=[0, 9],
    seed=0,
    recipe=Recipe(
        num_steps=300,
        batch_size=16,
        learning_rate=1e-3,
        evaluation="log_spaced",
        num_evaluations=12,
    ),
)
"""


def small(**changed: object) -> list[Run]:
    values: dict[str, object] = {
        "source_task": "digits-low",
        "source_size": 40,
        "target_task": "digits-high",
        "target_size": [30, 50],
        "model": "resnet18",
        "width": 1,
        "frozen": [0, 9],
        "seed": 0,
        "recipe": Recipe(num_epochs=2, batch_size=16, learning_rate=1e-3),
    }
    return grid(**{**values, **changed})  # type: ignore[arg-type]


def inline(store: Store, runs: list[Run], only: str | None = None) -> Inventory:
    space = Space(name="tiny", path=Path("tiny.py"), runs=tuple(runs), tasks=BUILTIN, doc="")
    ids = None if only is None else chosen_ids(only, runs)
    return run_study(space, store, None, OPTIONS, only=ids)


def result(store: Store) -> dict[str, tuple[object, ...]]:
    """Everything of the finished Runs that must not depend on how they came about."""
    found = {}
    for run_id in finished_ids(store):
        run = read_rows(store, run_id)
        made_by = run.provenance
        rows = run.table.drop_columns("wall_seconds").to_pydict()
        found[run_id] = (rows, made_by.weights_digest, made_by.start_digest)
    return found


def rows_files(store: Store) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in Path(store.root, "rows").iterdir()}


# Inline.


def test_a_part_is_trained_with_its_starts_and_the_study_stays_whole(store: Store) -> None:
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


def test_a_second_launch_trains_nothing_and_a_larger_grid_only_what_is_new(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inline(store, small()).counts() == {DONE: 5}
    before = rows_files(store)
    capsys.readouterr()
    assert inline(store, small()).counts() == {DONE: 5}
    # One phase, and neither torch nor a worker after it.
    assert capsys.readouterr().err == "study: comparing the study with the store\n"
    larger = union(small(), small(target_size=60), small(seed=1, target_size=30))
    assert inline(store, larger).counts() == {DONE: 10}
    after = rows_files(store)
    assert len(after) == 10
    assert {run_id: after[run_id] for run_id in before} == before


def test_a_part_of_a_study_needs_no_task_of_the_others(store: Store) -> None:
    baselines = {"source_task": None, "source_size": None, "frozen": 0, "target_size": 30}
    runs = union(*(small(**baselines, target_task=f"digits-{half}") for half in ("low", "high")))
    assert inline(store, runs, only="task=digits-low").counts() == {DONE: 1}
    assert inline(store, runs).counts() == {DONE: 2}


@pytest.mark.slow
def test_damaged_rows_are_named_set_aside_and_made_anew(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    inline(store, small())
    undisturbed = result(store)
    torn, flipped = sorted(Path(store.root, "rows").iterdir())[:2]
    torn.write_bytes(torn.read_bytes()[:1000])
    # One bit of a value: elsewhere, in what pads the format, a flip changes nothing.
    value = read_rows(store, flipped.stem).table["test_loss"][0].as_py()
    content = bytearray(flipped.read_bytes())
    content[content.index(struct.pack("<d", value))] ^= 1
    flipped.write_bytes(content)
    inline(store, small())
    said = capsys.readouterr().err
    assert torn.name in said
    assert flipped.name in said
    assert len(list(Path(store.root, "damaged", "rows").iterdir())) == 2
    assert result(store) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("can_be_moved", [True, False])
def test_rows_that_the_disk_has_lost_are_made_anew_moved_or_not(
    store: Store, capsys: pytest.CaptureFixture[str], can_be_moved: bool
) -> None:
    store = replace(store, waits=(0.0,) * 5)
    inline(store, small())
    undisturbed = result(store)
    lost = sorted(Path(store.root, "rows").iterdir())[0]
    lost.unlink()
    lost.symlink_to("/proc/self/mem")
    if not can_be_moved:
        Path(store.root, "damaged").mkdir()
        Path(store.root, "damaged", "rows").write_text("no folder")
    assert inline(store, small()).counts() == {DONE: 5}
    said = capsys.readouterr().err
    assert f"{lost.name} is damaged: cannot read (3 tries): Input/output error" in said
    assert ("cannot be moved and stays" in said) != can_be_moved
    assert result(store) == undisturbed
    assert not lost.is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "gone", "unreadable"])
def test_weights_that_cannot_be_used_are_made_anew_for_those_that_need_them(
    store: Store, damage: str
) -> None:
    inline(store, small())
    weights = next(Path(store.root, "weights").iterdir())
    whole = weights.read_bytes()
    if damage != "flipped":
        weights.unlink()
    if damage == "unreadable":
        weights.symlink_to("/proc/self/mem")
    elif damage == "flipped":
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert inline(store, small()).counts() == {DONE: 5}
    assert damage == "unreadable" or not weights.exists() or weights.read_bytes() != whole, (
        "nobody needs them"
    )
    assert inline(store, small(target_size=[30, 50, 60])).counts() == {DONE: 7}
    assert weights.read_bytes() == whole


def test_from_a_diverged_source_nothing_starts_and_it_is_not_tried_again(store: Store) -> None:
    wild = Recipe(optimizer="sgd", learning_rate=1e30, num_epochs=2, batch_size=16)
    runs = small(source_recipe=wild)
    found = inline(store, runs)
    assert found.counts() == {DONE: 1, START_FAILED: 4}
    assert "diverged" in found.causes[runs[-1].id]
    before = rows_files(store)
    assert inline(store, runs).counts() == {DONE: 1, START_FAILED: 4}
    assert rows_files(store) == before


def test_a_driver_that_works_keeps_a_second_one_out(store: Store) -> None:
    from study.launching.lease import LeaseHeld, acquire

    with acquire(store.root), pytest.raises(LeaseHeld):
        inline(store, small())
    assert inline(store, small()).counts() == {DONE: 5}


# What a trial claims.


def test_a_trial_claims_a_gpu_where_there_is_one() -> None:
    def claim(cluster: dict[str, float], gpus: float | None = None) -> dict[str, float]:
        return trial_resources(cluster, gpus_per_trial=gpus, cpus_per_trial=None)

    assert claim({"CPU": 4.0}) == {"cpu": 1.0}
    assert claim({"CPU": 16.0, "GPU": 2.0}) == {"cpu": 1.0, "gpu": 1.0}
    assert claim({"CPU": 16.0, "GPU": 2.0}, gpus=0) == {"cpu": 1.0}
    crowded = claim({"CPU": 4.0, "GPU": 2.0}, gpus=0.25)
    assert crowded == {"cpu": 0.5, "gpu": 0.25}
    assert num_slots({"CPU": 4.0, "GPU": 2.0}, crowded) == 8
    assert num_slots({"CPU": 3.0}, {"cpu": 1.0}) == 3
    assert num_slots({"CPU": 3.0}, {"cpu": 1.0, "gpu": 1.0}) == 0
    assert num_slots({"CPU": 10.0}, {"cpu": 0.1}) == 100


# On Ray.


@pytest.fixture(scope="module")
def undisturbed(
    prepared_digits: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[object, ...]]:
    """What the study of TEXT gives inline."""
    root = tmp_path_factory.mktemp("undisturbed") / "store"
    shutil.copytree(prepared_digits, root)
    values: dict[str, object] = {}
    exec(TEXT, values)
    store = open_store(root)
    assert inline(store, values["RUNS"]).counts() == {DONE: 5}  # type: ignore[arg-type]
    return result(store)


class Driver:
    """`study run` on Ray in a process of its own, in a fresh directory beside its store."""

    def __init__(self, store: Store) -> None:
        self.folder = Path(store.root).parent
        self.store = store
        (self.folder / "long.py").write_text(TEXT)

    def start(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "study", "run", "long.py", "--root", self.store.root]
        return subprocess.Popen(
            [*command, "--checkpoint-seconds", "0.2", *flags],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
        """Until it is so, while the driver works."""
        while not what():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)

    def workers(self) -> set[int]:
        """The processes that have begun to train Runs that are not finished."""
        return {process.pid for process in trained_by(self.store).values()}

    def is_cell_in_flight(self) -> bool:
        """Whether the source is done, and a Run that starts from it is in training."""
        return bool(finished_ids(self.store) and self.workers())


@pytest.fixture
def driver(store: Store) -> Driver:
    return Driver(store)


@pytest.mark.slow
@pytest.mark.ray
def test_kill_9_of_driver_and_worker_and_a_hopeless_run_leave_the_others_as_undisturbed(
    driver: Driver, undisturbed: dict[str, tuple[object, ...]]
) -> None:
    source = next(i for i, (_, weights, _) in undisturbed.items() if weights)
    hopeless = max(i for i in undisturbed if i != source)
    for lease_number in (1, 2):  # of the first driver, and of the second
        path = unfinished_path(hopeless, "checkpoint", lease_number)
        obstacle = Path(driver.store.root, path)
        obstacle.mkdir(parents=True)
        (obstacle / "in the way").touch()
    earlier = Failure(tries=2, error="of an earlier launch", final=False, at=now())
    write_failure(driver.store, hopeless, earlier)

    process = driver.start()
    driver.wait_for(driver.is_cell_in_flight, process)
    process.kill()
    process.communicate()
    assert finished_ids(driver.store)
    killed = driver.workers()

    process = driver.start()
    driver.wait_for(lambda: bool(driver.workers() - killed), process)
    os.kill((driver.workers() - killed).pop(), signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 1, err
    assert f"failed: {hopeless}" in err
    assert "4 tries" in err
    assert len(err.splitlines()) < 20, "walls of text"
    assert (driver.folder / out.splitlines()[-1]).is_file(), "the report of the others"
    assert result(driver.store) == {i: r for i, r in undisturbed.items() if i != hopeless}
    assert set(list_unfinished(driver.store)) == {hopeless}
