"""One Run through the store: published once, resumed after an interruption, with its predictions."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.launching import lease
from study.launching.options import LaunchOptions
from study.launching.train_run import DEFAULT_OPTIONS, Interrupted, attempt, execute
from study.planning import integrity
from study.planning.inventory import take_inventory
from study.run import Run, with_seed
from study.store import (
    Provenance,
    Store,
    finished_ids,
    labels_of,
    layout,
    open_store,
    predictions_path,
    probabilities_of,
    read_head,
    read_predictions,
    read_rows,
    read_weights,
    rows_path,
    weights_path,
)
from study.store.artifacts import predictions_there, publish_weights
from study.store.layout import unfinished_path
from study.store.rows import publish_rows
from study.store.schema import DONE, Row
from study.store.unfinished import list_unfinished, read_checkpoint
from study.tasks.prepared_file import load
from study.training import loop
from study.training.steps import total_steps
from tests.studies import CELL, DIVERGING, SOURCE, interrupt, outcome


def made_by(store: Store, run: Run) -> Provenance:
    return read_head(store, run.id).provenance


def another_root(store: Store, folder: Path) -> Store:
    """Return a store with the same tasks, and nothing else."""
    shutil.copytree(Path(store.root, "tasks"), folder / "tasks")
    return open_store(folder)


def train(
    runs: Sequence[Run],
    store: Store,
    num_steps: int = 1_000,
    on_row: Callable[[Run, Row], None] | None = None,
    options: LaunchOptions = DEFAULT_OPTIONS,
) -> set[str]:
    """Train Runs for this many steps, with weights and predictions; return their outcomes."""
    ids, asked = [run.id for run in runs], count()
    ended = attempt(
        runs,
        store,
        options,
        keep_weights=ids,
        keep_predictions=ids,
        on_row=on_row,
        should_stop=lambda: next(asked) >= num_steps,
    )
    return {each.outcome for each in ended.values()}


def replace_weights(store: Store, run: Run) -> str:
    """Replace the weights of a finished Run by those of another seed; return their digest."""
    other, ended = replace(run, seed=run.seed + 1), read_rows(store, run.id)
    execute(other, store, keep_weights=True)
    digest = str(made_by(store, other).weights_digest)
    publish_weights(store, run.id, read_weights(store, other.id, digest))
    changed = replace(ended.provenance, weights_digest=digest)
    assert publish_rows(store, run, ended.table, changed, replace=True)
    return digest


def test_execute_source_and_cell_publishes_both(store: Store) -> None:
    with pytest.raises(ValueError, match="not trained yet"):
        execute(CELL, store)
    epochs: list[float] = []
    assert execute(SOURCE, store, keep_weights=True) == "finished"
    assert execute(CELL, store, on_row=lambda row: epochs.append(row.epoch)) == "finished"
    assert epochs == [0, 1, 2, 3, 4]
    assert finished_ids(store) == {SOURCE.id, CELL.id}
    assert list_unfinished(store) == {}
    cell = read_rows(store, CELL.id)
    assert cell.run == CELL
    assert cell.provenance.start_digest == made_by(store, SOURCE).weights_digest
    assert cell.provenance.weights_digest is cell.provenance.predictions_digest is None
    assert cell.table["start"][0].as_py() == SOURCE.id
    assert cell.table["parameters_frozen"][0].as_py() > 0
    assert set(cell.table["outcome"].to_pylist()) == {"finished"}

    before = store.get(rows_path(SOURCE.id))
    rows: list[object] = []
    assert execute(SOURCE, store, keep_weights=True, on_row=rows.append) == "finished"
    assert rows == [] and store.get(rows_path(SOURCE.id)) == before


def test_execute_weights_or_predictions_requested_later_leaves_rows_the_same(store: Store) -> None:
    execute(SOURCE, store)
    rows = outcome(store, SOURCE.id)[0]
    assert not predictions_there(store)
    with pytest.raises(FileNotFoundError, match=f"run_id='{SOURCE.id}'.*KEEP_PREDICTIONS = True"):
        read_predictions(store, SOURCE.id)
    with pytest.raises(ValueError, match="without keeping weights"):
        execute(CELL, store)
    execute(SOURCE, store, keep_weights=True, keep_predictions=True)
    assert outcome(store, SOURCE.id)[0] == rows
    assert execute(CELL, store) == "finished"


def test_execute_predictions_give_the_errors_of_the_rows(store: Store) -> None:
    with pytest.raises(FileNotFoundError, match="rows/"):
        read_predictions(store, SOURCE.id)
    execute(SOURCE, store, keep_predictions=True)
    rows, table = read_rows(store, SOURCE.id).table, read_predictions(store, SOURCE.id)
    digest = made_by(store, SOURCE).predictions_digest
    assert digest is not None and table.equals(read_predictions(store, SOURCE.id, digest))
    for name in ("epoch", "step"):
        assert table[name].to_pylist() == rows[name].to_pylist()
    task = load(SOURCE.task, store)
    assert table.schema.metadata[b"task_fingerprint"].decode() == task.fingerprint
    wrong = labels_of(table) != task.test_labels
    assert wrong.mean(axis=1).tolist() == rows["test_error"].to_pylist()
    assert len(np.unique(labels_of(table), axis=0)) > 2


@pytest.mark.slow
def test_execute_missing_predictions_are_made_again_with_the_same_outcome(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True, keep_predictions=True)
    before, ended = outcome(store, SOURCE.id), read_rows(store, SOURCE.id)
    changed = replace(ended.provenance, predictions_digest="0" * 64)
    assert publish_rows(store, SOURCE, ended.table, changed, replace=True)
    found = take_inventory([SOURCE], store, keep_predictions=[SOURCE.id])
    assert found.without_predictions == (SOURCE.id,) and found.states[SOURCE.id] != DONE
    assert take_inventory([SOURCE], store).states[SOURCE.id] == DONE
    rows: list[object] = []
    for _ in range(2):  # the second call has nothing to do
        execute(SOURCE, store, keep_predictions=True, on_row=rows.append)
    assert len(rows) == 5
    assert outcome(store, SOURCE.id) == before
    read_weights(store, SOURCE.id, str(before[1]))
    read_predictions(store, SOURCE.id)
    store.remove(weights_path(SOURCE.id, str(before[1])))
    execute(SOURCE, store, keep_weights=True)
    assert outcome(store, SOURCE.id) == before


# Interrupted and resumed


def test_execute_resumed_three_times_gives_the_undisturbed_outcome(
    store: Store, tmp_path: Path
) -> None:
    execute(SOURCE, store, keep_weights=True, keep_predictions=True)
    again = another_root(store, tmp_path / "again")
    for steps in (1, 4, 2):
        interrupt(SOURCE, again, steps, keep_predictions=True)
        assert finished_ids(again) == frozenset()
        assert "checkpoint" in list_unfinished(again)[SOURCE.id].files
    assert execute(SOURCE, again, keep_weights=True, keep_predictions=True) == "finished"
    assert outcome(again, SOURCE.id) == outcome(store, SOURCE.id)
    assert made_by(again, SOURCE).num_resumes == 3
    assert list_unfinished(again) == {}


def test_execute_checkpoint_without_predictions_is_not_resumed_with_them(store: Store) -> None:
    interrupt(SOURCE, store, 5)
    execute(SOURCE, store, keep_predictions=True)
    assert made_by(store, SOURCE).num_resumes == 0
    assert read_predictions(store, SOURCE.id)["epoch"].to_pylist() == [0, 1, 2, 3, 4]


def test_execute_damaged_checkpoint_is_quarantined_and_the_run_starts_over(store: Store) -> None:
    interrupt(SOURCE, store, 0)
    path = store.local_path(unfinished_path(SOURCE.id, "checkpoint"))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-100])
    assert execute(SOURCE, store) == "finished"
    assert made_by(store, SOURCE).num_resumes == 0
    assert any("checkpoint" in each for each in store.quarantined())


@pytest.mark.slow
def test_execute_checkpoint_from_other_start_weights_is_not_resumed(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True)
    interrupt(CELL, store, 0)
    digest = replace_weights(store, SOURCE)
    assert execute(CELL, store) == "finished"
    assert made_by(store, CELL).num_resumes == 0
    assert made_by(store, CELL).start_digest == digest


# Several drivers


def test_execute_resumes_from_the_checkpoint_of_the_highest_lease(store: Store) -> None:
    first, second = (replace(store, lease_number=number) for number in (1, 2))
    interrupt(SOURCE, store, 2)  # as release 0.1.0: without a lease number
    interrupt(SOURCE, first, 3)
    assert not store.exists(unfinished_path(SOURCE.id, "checkpoint"))
    of_the_first = unfinished_path(SOURCE.id, "checkpoint", 1)
    late = store.get(of_the_first)
    interrupt(SOURCE, second, 4)
    newest = read_checkpoint(store, SOURCE.id)
    assert not store.exists(of_the_first)
    store.put(of_the_first, late)  # by a worker of the first driver, which was suspended until now
    assert read_checkpoint(store, SOURCE.id) == newest
    paths = list_unfinished(store)[SOURCE.id].paths
    assert paths["checkpoint"] == unfinished_path(SOURCE.id, "checkpoint", 2)
    assert execute(SOURCE, second) == "finished"
    assert made_by(store, SOURCE).num_resumes == 3
    assert list_unfinished(store) == {}
    assert not Path(store.base, "unfinished", SOURCE.id).exists()


def test_execute_lease_lost_ends_the_run_without_a_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_QUESTIONS", 0.0)
    ours = replace(store, lease_number=1)
    num_rows = 0

    def take_over(row: object) -> None:
        nonlocal num_rows
        num_rows += 1
        store.put(layout.lease_path(1 if num_rows < 3 else 2), b"{}")

    with pytest.raises(Interrupted, match="taken over"):
        execute(SOURCE, ours, on_row=take_over)
    assert num_rows == 3
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_QUESTIONS", 1e9)  # only checked at the end
    with pytest.raises(Interrupted, match="taken over"):
        execute(SOURCE, ours)
    ended = attempt([SOURCE], ours, DEFAULT_OPTIONS, keep_weights=[SOURCE.id], keep_predictions=())
    assert ended[SOURCE.id].outcome == "interrupted"
    assert finished_ids(store) == frozenset()
    assert read_checkpoint(store, SOURCE.id) is None
    assert execute(SOURCE, replace(store, lease_number=2)) == "finished"


def test_execute_rows_published_meanwhile_stay_with_their_weights(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = another_root(store, tmp_path / "elsewhere")
    execute(SOURCE, elsewhere, keep_weights=True)
    digest = replace_weights(elsewhere, SOURCE)

    def overtake(row: object) -> None:
        for folder in ("rows", "weights"):
            shutil.copytree(
                Path(elsewhere.root, folder), Path(store.root, folder), dirs_exist_ok=True
            )

    assert execute(SOURCE, store, keep_weights=True, on_row=overtake) == "finished"
    assert "another driver has published its rows first" in caplog.text
    assert made_by(store, SOURCE) == made_by(elsewhere, SOURCE)
    (kept,) = (entry.path for entry in store.listed("weights") if SOURCE.id in entry.path)
    assert kept.endswith(weights_path(SOURCE.id, digest))
    assert list_unfinished(store) == {}


# Other ends


def test_execute_diverged_run_has_rows_and_predictions_but_no_weights(store: Store) -> None:
    for keep_predictions in (False, True):
        done = execute(DIVERGING, store, keep_weights=True, keep_predictions=keep_predictions)
        assert done == "diverged"
    ended = read_rows(store, DIVERGING.id)
    assert ended.provenance.diverged_step is not None and ended.provenance.weights_digest is None
    assert set(ended.table["outcome"].to_pylist()) == {"diverged"}
    predicted = read_predictions(store, DIVERGING.id)
    assert predicted["step"].to_pylist() == ended.table["step"].to_pylist()
    options, ids = LaunchOptions(keep_probabilities=True), [DIVERGING.id]
    execute(DIVERGING, store, options, keep_predictions=True)
    assert made_by(store, DIVERGING) == ended.provenance
    found = take_inventory([DIVERGING], store, keep_predictions=ids, keep_probabilities=ids)
    assert found.without_predictions == ()
    with pytest.raises(ValueError, match="diverged"):
        execute(replace(CELL, recipe=DIVERGING.recipe, start=DIVERGING), store)


@pytest.mark.parametrize("captured", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "ends",
    [
        "finished",
        "interrupted",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("diverged", "try again")),
    ],
)
def test_training_after_any_outcome_is_freed_without_garbage_collection(
    store: Store, monkeypatch: pytest.MonkeyPatch, ends: str, captured: bool
) -> None:
    execute(SOURCE, store, keep_weights=True)
    made: list[weakref.ref[loop.Training]] = []
    init = loop.Training.__init__

    def recording(self: loop.Training, *args: Any, **kwargs: Any) -> None:
        made.append(weakref.ref(self))
        init(self, *args, **kwargs)

    def on_row(_: Run, row: Row) -> None:
        if ends == "try again" and row.epoch == 2:
            raise RuntimeError("made up")

    monkeypatch.setattr(loop.Training, "__init__", recording)
    if captured:  # a CUDA graph keeps no reference to Python objects either
        monkeypatch.setattr(loop, "capture_on", lambda *_, **__: lambda step: lambda: None)
    run = replace(CELL, recipe=DIVERGING.recipe) if ends == "diverged" else CELL
    gc.collect()
    gc.disable()
    try:
        num_steps = 6 if ends == "interrupted" else 1_000
        assert train([run], store, num_steps, on_row) == {ends}
        assert [training() for training in made] == [None]
    finally:
        gc.enable()


def _block(of: Run, seeds: Sequence[int]) -> list[Run]:
    """Return the Runs of these seeds; sources and cells are trained in blocks of 4 seeds."""
    recipe = replace(SOURCE.recipe, seeds_together=4)
    source = replace(SOURCE, recipe=recipe)
    run = source if of is SOURCE else replace(of, recipe=recipe, start=source)
    return [with_seed(run, seed) for seed in seeds]


@pytest.mark.slow
def test_block_killed_extended_or_without_some_rows_has_the_bits_of_an_undisturbed_one(
    store: Store, tmp_path: Path
) -> None:
    disturbed = another_root(store, tmp_path / "disturbed")
    for kind in (SOURCE, CELL):
        runs = _block(kind, (0, 1, 3))
        assert train(runs, store) == {"finished"}
        assert train(runs[:2], disturbed, num_steps=4) == {"interrupted"}
        assert all("checkpoint" in list_unfinished(disturbed)[run.id].files for run in runs[:2])
        assert train(runs, disturbed) == {"finished"}
        for again in (runs[1], runs[2]):
            disturbed.remove(rows_path(again.id))
            assert train([again], disturbed) == {"finished"}
        for run in runs:
            assert outcome(disturbed, run.id) == outcome(store, run.id)
            assert made_by(store, run).trained_together == [each.id for each in runs]
        assert [made_by(disturbed, run).num_resumes for run in runs] == [1, 0, 0]
    assert list_unfinished(disturbed) == {}


@pytest.mark.parametrize("seeds", [(), (0, 1)])
def test_execute_probabilities_after_a_kill_at_the_last_step_are_the_same(
    store: Store, tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    runs, options = _block(SOURCE, seeds) or [SOURCE], LaunchOptions(keep_probabilities=True)
    assert train(runs, store) == {"finished"}
    rows: list[Any] = [outcome(store, run.id)[0] for run in runs]
    ids = [run.id for run in runs]
    found = take_inventory(runs, store, keep_predictions=ids, keep_probabilities=ids)
    assert found.without_predictions == tuple(ids)  # labels only
    assert train(runs, store, options=options) == {"finished"}
    disturbed = another_root(store, tmp_path / "disturbed")
    last = total_steps(SOURCE.recipe, SOURCE.size)
    assert train(runs, disturbed, last + 1, options=options) == {"interrupted"}
    assert train(runs, disturbed, options=options) == {"finished"}
    for run, own in zip(runs, rows, strict=True):
        assert outcome(disturbed, run.id) == outcome(store, run.id)
        assert outcome(store, run.id)[0] == own
        assert made_by(disturbed, run).num_resumes == 1
        table = read_predictions(store, run.id)
        labels, kept = labels_of(table)[-1], probabilities_of(table)
        assert kept is not None and kept.shape == (len(labels), 5)
        assert (kept[np.arange(len(labels)), labels] == kept.max(axis=1)).all()
        of_true = kept[np.arange(len(labels)), load(run.task, store).test_labels]
        assert -np.log(of_true).mean() == pytest.approx(own["test_loss"][-1], rel=0.01)
    assert integrity.check(store).damaged == {}
    path = predictions_path(ids[0], str(made_by(store, runs[0]).predictions_digest))
    payload = bytearray(store.get(path))
    payload[len(payload) // 2] ^= 1
    store.put(path, bytes(payload))
    assert integrity.check(store).damaged.keys() == {path}


def test_block_with_a_lost_start_trains_the_other_seeds(store: Store) -> None:
    sources, cells = _block(SOURCE, (0, 1, 3)), _block(CELL, (0, 1, 3))
    assert train(sources, store) == {"finished"}
    digest = made_by(store, sources[1]).weights_digest
    assert digest is not None
    store.remove(weights_path(sources[1].id, digest))
    ended = attempt(cells, store, DEFAULT_OPTIONS, keep_weights=(), keep_predictions=())
    assert [ended[cell.id].outcome for cell in cells] == ["finished", "start lost", "finished"]


def test_a_run_without_a_recipe_for_blocks_is_a_block_of_its_own() -> None:
    assert CELL.block == CELL.id
    first, second, other = _block(CELL, (5, 6, 8))
    assert first.block == second.block == with_seed(first, 4).id != other.block
    assert with_seed(first, 6) == second
    assert second.source is not None and second.source.seed == 6
    shared = [replace(run, start=first.source) for run in (first, second)]
    assert with_seed(shared[1], 7).start == first.source, "not the start of this seed alone"
