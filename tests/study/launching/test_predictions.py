"""Predictions of whole studies: requested later, damaged, resumed, and shown by plan and status."""

from __future__ import annotations

import pytest

from study.cli.status import plan_text, status_plain, status_text
from study.planning.inventory import summarise_heads, take_inventory
from study.planning.plan import make_plan, predictions_bytes
from study.store import Store, predictions_path, read_head, rows_path
from study.store.artifacts import predictions_there
from study.store.schema import DONE
from study.store.unfinished import list_unfinished
from tests.studies import inline, interrupt, outcomes, small, space_of

RUNS = small(frozen=9)
THE_SOURCE, *CELLS = RUNS


def rows_of(store: Store) -> dict[str, object]:
    return {run_id: values[0] for run_id, values in outcomes(store).items()}


def test_run_study_predictions_requested_later_trains_only_cells_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    inline(store, RUNS)
    before, of_source = rows_of(store), store.get(rows_path(THE_SOURCE.id))
    found = inline(store, RUNS, keep_predictions=True)
    assert found.counts() == {DONE: 3} and found.without_predictions == ()
    assert rows_of(store) == before
    assert predictions_there(store).keys() == {run.id for run in CELLS}
    assert store.get(rows_path(THE_SOURCE.id)) == of_source
    with_predictions = outcomes(store)
    capsys.readouterr()

    hurt, sound = CELLS
    rows_of_sound = store.get(rows_path(sound.id))
    path = predictions_path(hurt.id, str(read_head(store, hurt.id).provenance.predictions_digest))
    store.put(path, store.get(path)[:-200])
    assert inline(store, RUNS, keep_predictions=True).counts() == {DONE: 3}
    assert f"{path} is damaged" in capsys.readouterr().err
    assert len(store.quarantined()) == 1
    assert outcomes(store) == with_predictions
    assert store.get(rows_path(sound.id)) == rows_of_sound
    assert inline(store, RUNS).counts() == {DONE: 3}
    assert predictions_there(store).keys() == {run.id for run in CELLS}


def test_run_study_predictions_requested_later_resumes_from_a_checkpoint(store: Store) -> None:
    inline(store, RUNS)
    cell, wanted = CELLS[-1], [run.id for run in CELLS]
    interrupt(cell, store, 5, keep_predictions=True)
    assert take_inventory(RUNS, store, keep_predictions=wanted).states[cell.id] != DONE
    inline(store, RUNS, keep_predictions=True)
    assert read_head(store, cell.id).provenance.num_resumes == 1
    assert list_unfinished(store) == {}


def test_plan_and_status_count_missing_predictions(store: Store) -> None:
    inline(store, RUNS)
    space = space_of(RUNS, keep_predictions=True)
    plan = make_plan(space, store, None)
    # 2 Runs, 3 evaluations, 179 test images, 2 bytes each.
    assert predictions_bytes(space, plan.inventory, plan.infos) == 2 * 3 * 179 * 2
    larger = space_of(RUNS, keep_predictions="probabilities")
    more = predictions_bytes(larger, plan.inventory, plan.infos)
    assert more == 2 * 179 * (3 * 2 + 5)  # and a byte for each of 5 classes
    shown = plan_text(plan, None)
    assert "predictions of 2 Runs are kept: 2.1 KiB still to come" in shown
    heads = summarise_heads(plan.inventory, store)
    for text in (shown, status_text("tiny", plan.inventory, heads, "store")):
        assert "2 finished Runs lack the requested predictions" in text
    plain = status_plain("tiny", plan.inventory, heads)
    assert plain["without_predictions"] == [run.id for run in CELLS]

    inline(store, RUNS, keep_predictions=True)
    plan = make_plan(space, store, None)
    assert predictions_bytes(space, plan.inventory, plan.infos) == 0
    assert "requested predictions" not in plan_text(plan, None)
    assert "predictions" not in plan_text(make_plan(space_of(RUNS), store, None), None)
