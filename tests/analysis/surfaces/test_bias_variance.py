"""Bias and variance of class probabilities: known truths, and a small study from training to table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis import load, surfaces
from analysis.load import export
from analysis.surfaces.bias_variance import decompose
from study.store import Damaged, Store, labels_of, probabilities_of, read_predictions, read_rows
from study.store.artifacts import predictions_table, publish_predictions
from study.store.rows import publish_rows
from study.tasks.prepared_file import load as load_task
from tests.studies import inline, outcomes, small

NUM_IMAGES, NUM_CLASSES = 40, 4


def test_decompose_planted_bias_and_variance_is_unbiased() -> None:
    """Three seeds spread around a known mean; rounding to 8 bits adds a known, small part."""
    random = np.random.default_rng(0)
    labels = random.integers(0, NUM_CLASSES, NUM_IMAGES)
    centre = 0.2 + 0.6 * random.dirichlet(np.ones(NUM_CLASSES), NUM_IMAGES)
    sd = 0.03
    bias2 = ((centre - np.eye(NUM_CLASSES)[labels]) ** 2).sum(axis=1).mean()
    variance = NUM_CLASSES * sd**2
    found: dict[bool, list[tuple[float, ...]]] = {False: [], True: []}
    for _ in range(1_000):
        exact = centre + sd * random.standard_normal((3, NUM_IMAGES, NUM_CLASSES))
        for in_8_bits, kept in ((False, exact), (True, np.round(255 * exact) / 255)):
            one = decompose(list(kept), labels)
            found[in_8_bits].append((one.risk, one.bias2, one.variance))
    for in_8_bits, values in found.items():
        rounding = in_8_bits * NUM_CLASSES / 255**2 / 12
        expected = np.array([bias2 + variance + rounding, bias2, variance + rounding])
        error = np.std(values, axis=0) / np.sqrt(len(values))
        assert (np.abs(np.mean(values, axis=0) - expected) < 4 * error).all()
        # Dividing by N instead of N - 1 would miss by a third of the variance.
        assert (4 * error < variance / 4).all()


@st.composite
def probabilities(draw: st.DrawFn) -> np.ndarray:
    """Arrays (seeds, images, classes)."""
    shape = (draw(st.integers(2, 5)), draw(st.integers(1, 4)), draw(st.integers(2, 5)))
    return draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 1, width=32)))


@settings(max_examples=100, deadline=None)
@given(kept=probabilities(), data=st.data())
def test_decompose_equals_half_the_mean_squared_distance_of_pairs(
    kept: np.ndarray, data: st.DataObject
) -> None:
    num, images, classes = kept.shape
    labels = np.array(
        data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    )
    one = decompose(list(kept), labels)
    exact = kept.astype(float)
    pairs = [((exact[i] - exact[j]) ** 2).sum(1).mean() for i in range(num) for j in range(i)]
    assert one.variance == pytest.approx(np.mean(pairs) / 2, abs=1e-9)
    own = ((exact - np.eye(classes)[labels]) ** 2).sum(-1).mean()
    assert one.risk == pytest.approx(own) == pytest.approx(one.bias2 + one.variance)
    of_mean = ((exact.mean(0) - np.eye(classes)[labels]) ** 2).sum(-1).mean()
    assert one.bias2 == pytest.approx(of_mean - one.variance / num, abs=1e-9)


def test_decompose_one_seed_raises() -> None:
    with pytest.raises(ValueError, match="a variance needs two"):
        decompose([np.ones((2, 2))], np.zeros(2, int))


def test_bias_variance_of_a_trained_study_matches_its_stored_probabilities(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = small(seed=range(3), target_size=50)
    inline(store, runs, keep_predictions=True)
    labels_only = outcomes(store)
    with pytest.raises(ValueError, match='KEEP_PREDICTIONS = "probabilities"'):
        surfaces.bias_variance(load.open_study(store.root, "tiny"))
    inline(store, runs, keep_predictions="probabilities")
    assert {i: each[0] for i, each in outcomes(store).items()} == {
        i: each[0] for i, each in labels_only.items()
    }
    study = load.open_study(store.root, "tiny")
    found = surfaces.bias_variance(study)
    labels = load_task("digits-high", store).test_labels
    cells = [run for run in runs if run.source is not None]
    for frozen in (0, 9):
        tables = [read_predictions(store, run.id) for run in cells if run.frozen == frozen]
        here = found.sel(frozen=frozen).squeeze()
        expected = decompose([probabilities_of(table) for table in tables], labels)
        for name, value in vars(expected).items():
            assert float(here[name]) == pytest.approx(value)
        assert int(here["num_seeds"]) == 3
        for table in tables:
            kept, own = probabilities_of(table), labels_of(table)[-1]
            assert (kept[np.arange(len(own)), own] == kept.max(axis=1)).all()
            assert np.allclose(kept.sum(axis=1), 1, atol=5 / 510)
    disagree = surfaces.disagreement(study)
    assert float(disagree["error"].max()) > 0  # the same files give the labels

    table = found.to_dataframe().reset_index()
    table.to_parquet(tmp_path / "tiny.bias_variance.parquet")
    monkeypatch.setattr(export, "FOLDER", tmp_path)
    bundled = export.kept_bias_variance("tiny")
    assert bundled is not None
    pd.testing.assert_frame_equal(bundled, table)

    # One cell with the probabilities of another Run.
    first, second = (read_predictions(store, run.id) for run in cells[:2])
    columns = (first[name].to_pylist() for name in ("epoch", "step"))
    wrong = predictions_table(
        *columns, labels_of(first), (255 - 255 * probabilities_of(second)).astype(np.uint8)
    )
    ended = read_rows(store, cells[0].id)
    fingerprint = str(ended.provenance.task_fingerprint)
    digest = publish_predictions(store, cells[0].id, wrong, fingerprint)
    changed = replace(ended.provenance, predictions_digest=digest)
    publish_rows(store, cells[0], ended.table, changed, replace=True)
    with pytest.raises(Damaged, match="probabilities do not give their labels"):
        surfaces.bias_variance(load.open_study(store.root, "tiny"))
