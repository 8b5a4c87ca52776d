"""Rows do not change under the same TRAINER: pinned losses of short Runs."""

from __future__ import annotations

import pytest

from study.store import Store
from study.store.provenance import TRAINER
from tests import loss_traces


def test_losses_under_the_same_trainer_equal_the_pinned_ones(store: Store) -> None:
    pinned = loss_traces.recorded()
    assert pinned["trainer"] == TRAINER, (
        "TRAINER was raised: record its losses by `python -m tests.loss_traces`"
    )
    found, here = loss_traces.traces(store), loss_traces.machine()
    for recording in pinned["recordings"]:
        is_same_cpu = recording["machine"] == here
        changed = loss_traces.changes(found, recording["traces"], exact=is_same_cpu)
        assert not changed, "\n".join(
            [f"TRAINER={TRAINER}: losses have changed. Raise TRAINER if rows may change.", *changed]
        )


@pytest.mark.parametrize(
    ("loss", "exact", "num_changes"),
    [(0.5, True, 0), (0.5 + 1e-12, True, 1), (0.5 + 1e-12, False, 0), (0.5001, False, 1)],
)
def test_changes_loss_beyond_the_tolerance_is_named(
    loss: float, exact: bool, num_changes: int
) -> None:
    pinned = {"vit_tiny source": [[0.5, 0.25]]}
    found = {"vit_tiny source": [[loss, 0.25]]}
    assert len(loss_traces.changes(found, pinned, exact=exact)) == num_changes
    assert loss_traces.changes({"vit_tiny source": []}, pinned, exact=exact)
