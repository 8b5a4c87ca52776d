"""One Run through the store: published once, resumed from a kill, and honest about what it used."""

import dataclasses
import gc
import weakref
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from study.launching import lease
from study.launching import train_run as execute_module
from study.launching.train_run import DEFAULT_OPTIONS, Interrupted, attempt, execute
from study.run import Recipe, Run
from study.store import (
    Damaged,
    Store,
    finished_ids,
    layout,
    open_store,
    read_head,
    read_rows,
    read_weights,
    rows_path,
    weights_path,
)
from study.store.artifacts import publish_weights
from study.store.layout import unfinished_path
from study.store.rows import publish_rows
from study.store.schema import Row, rows_of
from study.store.unfinished import list_unfinished, read_checkpoint
from study.training import loop

SOURCE = Run(
    task="digits-low",
    size=100,
    model="resnet18",
    width=4,
    recipe=Recipe(num_epochs=4, learning_rate=1e-2, batch_size=40),
    seed=1,
)
CELL = dataclasses.replace(SOURCE, task="digits-high", start=SOURCE, frozen=3, label_noise=0.2)


def timeless(store: Store, run: Run) -> list[object]:
    rows = rows_of(read_rows(store, run.id).table)
    return [dataclasses.replace(row, wall_seconds=0) for row in rows]


def weights_digest(store: Store, run: Run) -> str:
    digest = read_head(store, run.id).provenance.weights_digest
    assert digest is not None
    return digest


def test_a_source_and_its_cell(store: Store) -> None:
    heard: list[float] = []
    assert execute(SOURCE, store, keep_weights=True) == "finished"
    assert execute(CELL, store, on_row=lambda row: heard.append(row.epoch)) == "finished"
    assert heard == [0, 1, 2, 3, 4]
    assert finished_ids(store) == {SOURCE.id, CELL.id}
    assert list_unfinished(store) == {}
    cell = read_rows(store, CELL.id)
    assert cell.run == CELL
    assert cell.provenance.start_digest == weights_digest(store, SOURCE)
    assert cell.provenance.weights_digest is None
    assert cell.table["start"][0].as_py() == SOURCE.id
    assert cell.table["parameters_frozen"][0].as_py() > 0
    assert set(cell.table["outcome"].to_pylist()) == {"finished"}


def test_what_is_there_is_not_trained_again(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True)
    before = store.get(rows_path(SOURCE.id))
    heard: list[object] = []
    assert execute(SOURCE, store, keep_weights=True, on_row=heard.append) == "finished"
    assert heard == []
    assert store.get(rows_path(SOURCE.id)) == before


@pytest.mark.slow
def test_weights_that_are_wanted_later_are_made_later(store: Store) -> None:
    execute(SOURCE, store)
    rows = timeless(store, SOURCE)
    with pytest.raises(ValueError, match="without keeping weights"):
        execute(CELL, store)
    execute(SOURCE, store, keep_weights=True)
    assert timeless(store, SOURCE) == rows
    assert execute(CELL, store) == "finished"


def test_a_start_must_be_there_and_sound(store: Store) -> None:
    with pytest.raises(ValueError, match="not trained yet"):
        execute(CELL, store)
    execute(SOURCE, store, keep_weights=True)
    path = store.local_path(weights_path(SOURCE.id, weights_digest(store, SOURCE)))
    assert path is not None
    torn = bytearray(path.read_bytes())
    torn[len(torn) // 2] ^= 1
    path.write_bytes(torn)
    with pytest.raises(Damaged, match="digest"):
        execute(CELL, store)


def test_interrupted_and_gone_on_with(store: Store, tmp_path: Path) -> None:
    execute(SOURCE, store, keep_weights=True)
    undisturbed = timeless(store, SOURCE)
    digest = weights_digest(store, SOURCE)
    again = open_store(tmp_path / "again")
    again.put("tasks/digits-low.arrow", store.get("tasks/digits-low.arrow"))
    for steps in (1, 4, 2):  # stopped three times, each time some steps further on
        asked = iter([False] * steps + [True])
        with pytest.raises(Interrupted):
            execute(SOURCE, again, keep_weights=True, should_stop=asked.__next__)
        assert finished_ids(again) == frozenset()
        assert "checkpoint" in list_unfinished(again)[SOURCE.id].files
    assert execute(SOURCE, again, keep_weights=True) == "finished"
    assert timeless(again, SOURCE) == undisturbed
    assert weights_digest(again, SOURCE) == digest
    assert read_head(again, SOURCE.id).provenance.num_resumes == 3
    assert list_unfinished(again) == {}


def test_a_driver_goes_on_from_what_others_left_and_what_a_late_one_writes_lies_beside(
    store: Store,
) -> None:
    def interrupted(by: Store, steps: int) -> None:
        asked = iter([False] * steps + [True])
        with pytest.raises(Interrupted):
            execute(SOURCE, by, should_stop=asked.__next__)

    earlier_release = store  # knew no numbers
    first, second = (dataclasses.replace(store, lease_number=number) for number in (1, 2))
    interrupted(earlier_release, 2)
    plain = unfinished_path(SOURCE.id, "checkpoint")
    of_the_first = unfinished_path(SOURCE.id, "checkpoint", 1)
    of_the_second = unfinished_path(SOURCE.id, "checkpoint", 2)
    interrupted(first, 3)
    assert not store.exists(plain), "a later one is there"
    late = store.get(of_the_first)
    interrupted(second, 4)
    newest = read_checkpoint(store, SOURCE.id)
    assert not store.exists(of_the_first)
    store.put(of_the_first, late)  # by a trial of the first driver, which has slept until now
    assert read_checkpoint(store, SOURCE.id) == newest
    assert list_unfinished(store)[SOURCE.id].paths["checkpoint"] == of_the_second
    assert execute(SOURCE, second) == "finished"
    assert read_head(store, SOURCE.id).provenance.num_resumes == 3
    assert list_unfinished(store) == {}
    assert not Path(store.base, "unfinished", SOURCE.id).exists()


def test_a_trial_whose_driver_was_passed_over_ends_and_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_QUESTIONS", 0.0)
    ours = dataclasses.replace(store, lease_number=1)
    steps = 0

    def take_over(row: object) -> None:
        nonlocal steps
        steps += 1
        store.put(layout.lease_path(1 if steps < 3 else 2), b"{}")

    with pytest.raises(Interrupted, match="taken over"):
        execute(SOURCE, ours, on_row=take_over)
    assert steps == 3
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_QUESTIONS", 1e9)  # not asked before the end
    with pytest.raises(Interrupted, match="taken over"):
        execute(SOURCE, ours)
    ended = attempt(SOURCE, ours, DEFAULT_OPTIONS, keep_weights=True, keep_predictions=False)
    assert ended.outcome == "interrupted"
    assert finished_ids(store) == frozenset()
    assert read_checkpoint(store, SOURCE.id) is None
    assert execute(SOURCE, dataclasses.replace(store, lease_number=2)) == "finished"


def test_rows_that_another_driver_published_meanwhile_stay_with_what_is_beside_them(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    other = dataclasses.replace(SOURCE, seed=2)
    execute(other, store, keep_weights=True)
    table, first = read_rows(store, other.id).table, read_head(store, other.id).provenance
    column = pa.array([SOURCE.id] * len(table)).dictionary_encode()
    index = table.schema.get_field_index("run_id")
    table = table.set_column(
        index, table.schema.field(index), column.cast(table.schema.types[index])
    )
    payload = read_weights(store, other.id, first.weights_digest or "")

    def overtake(row: object) -> None:
        if not finished_ids(store) >= {SOURCE.id}:
            publish_weights(store, SOURCE.id, payload)
            assert publish_rows(store, SOURCE, table, first)

    assert execute(SOURCE, store, keep_weights=True, on_row=overtake) == "finished"
    assert "another driver has published its rows first" in caplog.text
    assert read_head(store, SOURCE.id).provenance == first
    (kept,) = (entry.path for entry in store.listed("weights") if SOURCE.id in entry.path)
    assert str(first.weights_digest)[:12] in kept
    assert list_unfinished(store) == {}


def test_a_damaged_checkpoint_is_set_aside_and_the_run_begins_anew(store: Store) -> None:
    with pytest.raises(Interrupted):
        execute(SOURCE, store, should_stop=lambda: True)
    path = store.local_path(unfinished_path(SOURCE.id, "checkpoint"))
    assert path is not None
    path.write_bytes(path.read_bytes()[:-100])
    assert execute(SOURCE, store) == "finished"
    assert read_head(store, SOURCE.id).provenance.num_resumes == 0
    assert list(Path(store.root, "damaged").rglob("checkpoint*"))


@pytest.mark.slow
def test_a_checkpoint_from_another_starts_bits_is_not_gone_on_with(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True)
    with pytest.raises(Interrupted):
        execute(CELL, store, should_stop=lambda: True)
    head = read_rows(store, SOURCE.id)
    other = dataclasses.replace(SOURCE, seed=2)
    execute(other, store, keep_weights=True)
    digest = weights_digest(store, other)
    payload = read_weights(store, other.id, digest)
    assert publish_weights(store, SOURCE.id, payload) == digest
    made_by = dataclasses.replace(head.provenance, weights_digest=digest)
    assert publish_rows(store, SOURCE, head.table, made_by, replace=True)
    assert execute(CELL, store) == "finished"
    made = read_head(store, CELL.id).provenance
    assert made.num_resumes == 0
    assert made.start_digest == digest


def test_divergence_is_data(store: Store) -> None:
    recipe = dataclasses.replace(SOURCE.recipe, optimizer="sgd", learning_rate=1e30)
    wild = dataclasses.replace(SOURCE, recipe=recipe)
    assert execute(wild, store, keep_weights=True) == "diverged"
    assert execute(wild, store, keep_weights=True) == "diverged"
    ended = read_rows(store, wild.id)
    assert ended.provenance.diverged_step is not None
    assert ended.provenance.weights_digest is None
    assert set(ended.table["outcome"].to_pylist()) == {"diverged"}
    with pytest.raises(ValueError, match="diverged"):
        execute(dataclasses.replace(CELL, recipe=recipe, start=wild), store)


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize("outcome", ["finished", "diverged", "interrupted", "try again"])
def test_training_after_any_outcome_is_freed_without_garbage_collection(
    store: Store, monkeypatch: pytest.MonkeyPatch, outcome: str, captured: bool
) -> None:
    execute(SOURCE, store, keep_weights=True)
    made: list[weakref.ref[loop.Training]] = []
    make = execute_module.Training

    def recording(*args: Any, **kwargs: Any) -> loop.Training:
        training = make(*args, **kwargs)
        made.append(weakref.ref(training))
        return training

    def on_row(row: Row) -> None:
        if outcome == "try again" and row.epoch == 2:
            raise RuntimeError("made up")

    monkeypatch.setattr(execute_module, "Training", recording)
    if captured:  # a CUDA graph keeps no reference to Python objects either
        monkeypatch.setattr(loop, "capture_on", lambda *_, **__: lambda step: lambda: None)
    recipe = dataclasses.replace(CELL.recipe, optimizer="sgd", learning_rate=1e30)
    run = dataclasses.replace(CELL, recipe=recipe) if outcome == "diverged" else CELL
    num_asked = 0

    def should_stop() -> bool:
        nonlocal num_asked
        num_asked += 1
        return outcome == "interrupted" and num_asked > 6

    gc.collect()
    gc.disable()
    try:
        ended = attempt(
            run,
            store,
            DEFAULT_OPTIONS,
            keep_weights=True,
            keep_predictions=True,
            on_row=on_row,
            should_stop=should_stop,
        )
        assert ended.outcome == outcome
        assert [training() for training in made] == [None]
    finally:
        gc.enable()
