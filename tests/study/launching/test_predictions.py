"""Predictions through a study: kept where they are asked for, resumed, made anew, and no row changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study.cli.status import plan_text, status_plain, status_text
from study.grid import grid
from study.launching.driver import run_study
from study.launching.options import LaunchOptions
from study.launching.train_run import Interrupted, execute
from study.planning.inventory import Inventory, summarise_heads, take_inventory
from study.planning.plan import make_plan, predictions_bytes
from study.planning.spaces import Space
from study.run import Recipe, Run
from study.store import (
    Store,
    labels_of,
    open_store,
    predictions_path,
    read_head,
    read_predictions,
    read_rows,
    read_weights,
    rows_path,
    weights_path,
)
from study.store.artifacts import predictions_there
from study.store.rows import publish_rows
from study.store.schema import DONE
from study.store.unfinished import list_unfinished
from study.tasks import BUILTIN
from study.tasks.prepared_file import load

SOURCE = Run(
    task="digits-low",
    size=100,
    model="resnet18",
    width=4,
    recipe=Recipe(num_epochs=4, learning_rate=1e-2, batch_size=40),
    seed=1,
)


def digest_of(store: Store, run: Run) -> str:
    digest = read_head(store, run.id).provenance.predictions_digest
    assert digest is not None
    return digest


def timeless(store: Store, run: Run) -> dict[str, list[object]]:
    rows: dict[str, list[object]] = (
        read_rows(store, run.id).table.drop_columns("wall_seconds").to_pydict()
    )
    return rows


def left(store: Store, run: Run) -> tuple[object, ...]:
    """All that must not depend on how the Run came about."""
    made_by = read_head(store, run.id).provenance
    return timeless(store, run), made_by.predictions_digest, made_by.weights_digest


def test_the_errors_are_those_of_the_predictions(store: Store) -> None:
    execute(SOURCE, store, keep_predictions=True)
    rows = read_rows(store, SOURCE.id).table
    table = read_predictions(store, SOURCE.id, digest_of(store, SOURCE))
    for name in ("epoch", "step"):
        assert table[name].to_pylist() == rows[name].to_pylist()
    task = load(SOURCE.task, store)
    assert table.schema.metadata[b"task_fingerprint"].decode() == task.fingerprint
    wrong = labels_of(table) != task.test_labels
    assert wrong.mean(axis=1).tolist() == rows["test_error"].to_pylist()
    assert len(np.unique(labels_of(table), axis=0)) > 2, "it has learnt"


def test_read_predictions_without_digest_reads_those_of_the_rows(store: Store) -> None:
    execute(SOURCE, store, keep_predictions=True)
    found = read_predictions(store, SOURCE.id)
    assert found.equals(read_predictions(store, SOURCE.id, digest_of(store, SOURCE)))


def test_read_predictions_not_kept_raises_with_the_setting(store: Store) -> None:
    with pytest.raises(FileNotFoundError, match=r"rows/"):
        read_predictions(store, SOURCE.id)
    execute(SOURCE, store)
    with pytest.raises(FileNotFoundError, match=f"run_id='{SOURCE.id}'.*KEEP_PREDICTIONS = True"):
        read_predictions(store, SOURCE.id)


def test_a_run_that_is_not_asked_for_them_leaves_what_it_always_has(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True)
    plain = left(store, SOURCE)
    assert plain[1] is None
    assert not predictions_there(store)
    store.remove(rows_path(SOURCE.id))
    execute(SOURCE, store, keep_weights=True, keep_predictions=True)
    asked = left(store, SOURCE)
    assert (asked[0], asked[2]) == (plain[0], plain[2])


def test_interrupted_and_gone_on_with(store: Store, tmp_path: Path) -> None:
    execute(SOURCE, store, keep_predictions=True)
    again = open_store(tmp_path / "again")
    again.put("tasks/digits-low.arrow", store.get("tasks/digits-low.arrow"))
    for steps in (1, 4, 3):
        asked = iter([False] * steps + [True])
        with pytest.raises(Interrupted):
            execute(SOURCE, again, keep_predictions=True, should_stop=asked.__next__)
    assert execute(SOURCE, again, keep_predictions=True) == "finished"
    assert read_head(again, SOURCE.id).provenance.num_resumes == 3
    assert left(again, SOURCE) == left(store, SOURCE)


def test_a_checkpoint_without_them_is_not_gone_on_with_where_they_are_asked_for(
    store: Store,
) -> None:
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        execute(SOURCE, store, should_stop=asked.__next__)
    execute(SOURCE, store, keep_predictions=True)
    assert read_head(store, SOURCE.id).provenance.num_resumes == 0
    table = read_predictions(store, SOURCE.id, digest_of(store, SOURCE))
    assert table["epoch"].to_pylist() == [0, 1, 2, 3, 4]


def _gone(store: Store, digest: str) -> None:
    store.remove(predictions_path(SOURCE.id, digest))


def _of_another_training(store: Store, digest: str) -> None:
    ended = read_rows(store, SOURCE.id)
    made_by = replace(ended.provenance, predictions_digest="0" * 64)
    assert publish_rows(store, SOURCE, ended.table, made_by, replace=True)


def _never_made(store: Store, digest: str) -> None:
    _gone(store, digest)
    ended = read_rows(store, SOURCE.id)
    made_by = replace(ended.provenance, predictions_digest=None)
    assert publish_rows(store, SOURCE, ended.table, made_by, replace=True)


@pytest.mark.slow
@pytest.mark.parametrize("lose", [_gone, _of_another_training, _never_made])
def test_those_that_are_missing_are_made_anew_and_the_weights_stay(
    store: Store, lose: Callable[[Store, str], None]
) -> None:
    execute(SOURCE, store, keep_weights=True, keep_predictions=True)
    before = left(store, SOURCE)
    lose(store, digest_of(store, SOURCE))
    wanted = {"keep_predictions": [SOURCE.id]}
    found = take_inventory([SOURCE], store, **wanted)
    assert found.without_predictions == (SOURCE.id,)
    assert found.states[SOURCE.id] != DONE
    assert take_inventory([SOURCE], store).states[SOURCE.id] == DONE
    heard: list[object] = []
    execute(SOURCE, store, keep_predictions=True, on_row=heard.append)
    assert len(heard) == 5
    assert left(store, SOURCE) == before
    read_weights(store, SOURCE.id, str(before[2]))
    read_predictions(store, SOURCE.id, str(before[1]))
    assert take_inventory([SOURCE], store, **wanted).states[SOURCE.id] == DONE
    execute(SOURCE, store, keep_predictions=True, on_row=heard.append)
    assert len(heard) == 5, "nothing is lacking any more"


@pytest.mark.slow
def test_weights_that_are_made_anew_leave_the_predictions_in_place(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True, keep_predictions=True)
    before = left(store, SOURCE)
    store.remove(weights_path(SOURCE.id, str(before[2])))
    execute(SOURCE, store, keep_weights=True)
    assert left(store, SOURCE) == before


def test_a_run_that_diverged_leaves_those_of_its_rows(store: Store) -> None:
    recipe = replace(SOURCE.recipe, optimizer="sgd", learning_rate=1e30)
    wild = replace(SOURCE, recipe=recipe)
    assert execute(wild, store) == "diverged"
    assert execute(wild, store, keep_predictions=True) == "diverged"
    table = read_predictions(store, wild.id, digest_of(store, wild))
    assert table["step"].to_pylist() == read_rows(store, wild.id).table["step"].to_pylist()


# Whole studies.


RUNS = grid(
    source_task="digits-low",
    source_size=40,
    target_task="digits-high",
    target_size=[30, 50],
    model="resnet18",
    width=1,
    frozen=9,
    seed=0,
    recipe=Recipe(num_epochs=2, batch_size=16, learning_rate=1e-3),
)
THE_SOURCE, *CELLS = RUNS


def the_space(*, keep_predictions: bool) -> Space:
    return Space(
        name="tiny",
        path=Path("tiny.py"),
        runs=tuple(RUNS),
        tasks=BUILTIN,
        doc="",
        keep_predictions=keep_predictions,
    )


def study_of(store: Store, *, keep_predictions: bool) -> Inventory:
    return run_study(the_space(keep_predictions=keep_predictions), store, None, LaunchOptions())


def test_a_study_that_asks_for_them_later_makes_its_cells_anew(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    study_of(store, keep_predictions=False)
    before = {run.id: timeless(store, run) for run in RUNS}
    of_source = store.get(rows_path(THE_SOURCE.id))
    found = study_of(store, keep_predictions=True)
    assert found.counts() == {DONE: 3}
    assert found.without_predictions == ()
    assert {run.id: timeless(store, run) for run in RUNS} == before
    assert predictions_there(store).keys() == {run.id for run in CELLS}
    assert store.get(rows_path(THE_SOURCE.id)) == of_source
    mended = {run.id: store.get(rows_path(run.id)) for run in RUNS}
    capsys.readouterr()

    # Damage is found, named and set aside; what it had held is made anew, and nothing else.
    hurt, sound = CELLS
    path = predictions_path(hurt.id, digest_of(store, hurt))
    store.put(path, store.get(path)[:-200])
    before_damage = digest_of(store, hurt)
    assert study_of(store, keep_predictions=True).counts() == {DONE: 3}
    assert f"{path} is damaged" in capsys.readouterr().err
    assert len(list(Path(store.root, "damaged", "predictions").iterdir())) == 1
    assert digest_of(store, hurt) == before_damage
    assert store.get(rows_path(sound.id)) == mended[sound.id]
    assert study_of(store, keep_predictions=False).counts() == {DONE: 3}
    assert predictions_there(store).keys() == {run.id for run in CELLS}


def test_a_run_that_is_made_anew_goes_on_from_its_checkpoint(store: Store, tmp_path: Path) -> None:
    study_of(store, keep_predictions=False)
    cell = CELLS[-1]
    asked = iter([False] * 5 + [True])
    with pytest.raises(Interrupted):
        execute(cell, store, keep_predictions=True, should_stop=asked.__next__)
    wanted = [run.id for run in CELLS]
    assert take_inventory(RUNS, store, keep_predictions=wanted).states[cell.id] != DONE
    study_of(store, keep_predictions=True)
    assert read_head(store, cell.id).provenance.num_resumes == 1
    assert list_unfinished(store) == {}


def test_plan_and_status_say_what_is_to_be_made_anew(store: Store) -> None:
    study_of(store, keep_predictions=False)
    space = the_space(keep_predictions=True)
    plan = make_plan(space, store, None)
    # 3 evaluations of 179 test images, 2 bytes each, of 2 Runs.
    assert predictions_bytes(space, plan.inventory, plan.infos) == 2 * 3 * 179 * 2
    told = plan_text(plan, None)
    assert "predictions of 2 Runs are kept: 2.1 KiB still to come" in told
    assert "2 finished Runs lack the requested predictions" in told
    heads = summarise_heads(plan.inventory, store)
    assert "2 finished Runs lack the requested predictions" in status_text(
        "tiny", plan.inventory, heads
    )
    plain = status_plain("tiny", plan.inventory, heads)
    assert plain["without_predictions"] == [run.id for run in CELLS]

    study_of(store, keep_predictions=True)
    plan = make_plan(space, store, None)
    assert predictions_bytes(space, plan.inventory, plan.infos) == 0
    assert "no predictions" not in plan_text(plan, None)
    unasked = make_plan(the_space(keep_predictions=False), store, None)
    assert "predictions" not in plan_text(unasked, None)
