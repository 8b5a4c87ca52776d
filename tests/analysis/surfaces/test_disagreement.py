"""Disagreement and spread of seeds: known truths, and surfaces compared with stored predictions."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis import load, surfaces
from analysis.load import export
from analysis.surfaces.disagreement import finite_set_spread, pair_disagreement
from study.run import Run
from study.seeds import stream
from study.store import Damaged, Store, open_store
from study.store.artifacts import predictions_table, publish_predictions
from study.store.layout import predictions_path
from study.store.rows import publish_rows
from study.store.studies import write_study
from study.tasks import prepared_file
from study.tasks.prepared_file import TaskInfo
from tests import synthetic

NUM_TEST = 60


def prepare(store: Store, shift: int = 0) -> tuple[str, np.ndarray]:
    """Store a task "target" of one-pixel images; return its fingerprint and test labels."""
    info = TaskInfo(
        name="target",
        num_train=20,
        num_test=NUM_TEST,
        classes=tuple("abcdefghij"),
        image_shape=(1, 1, 1),
    )
    images = np.arange(80, dtype=np.uint8).reshape(-1, 1, 1, 1)
    labels = (np.arange(80) ** 2 + shift) % 10
    fingerprint = prepared_file.fingerprint_of(info, images, labels)
    prepared_file.publish(
        store, info, images, labels, fingerprint=fingerprint, definition="{}", origin=""
    )
    return fingerprint, labels[20:]


def predicted_by(run: Run, labels: np.ndarray) -> np.ndarray:
    """Return labels (evaluations, images): errors fall over time and grow with frozen layers."""
    random = stream("predicted", run.id)
    share = np.linspace(0.8, 0.2 + run.frozen / 30, len(synthetic.evaluations(run)[0]))
    wrong = random.random((len(share), labels.size)) < share[:, None]
    return np.where(wrong, random.integers(0, 10, wrong.shape), labels).astype(np.uint16)


def write(root: Path, seeds: int = 5) -> tuple[list[Run], np.ndarray]:
    """Store a study whose cells have predictions, and rows that match them."""
    store = open_store(root)
    fingerprint, labels = prepare(store)
    wanted = synthetic.small(
        num_epochs=6, source_tasks=("near",), frozen=(0, 9), seeds=tuple(range(seeds))
    )
    for run in wanted:
        columns = synthetic.measure(run, synthetic.Truth())
        provenance = synthetic.provenance(run, int(columns["step"][-1]))
        if run.source is not None:
            predicted = predicted_by(run, labels)
            columns["test_error"] = (predicted != labels).mean(axis=1)
            table = predictions_table(columns["epoch"], columns["step"], predicted)
            digest = publish_predictions(store, run.id, table, fingerprint)
            provenance = replace(
                provenance, predictions_digest=digest, task_fingerprint=fingerprint
            )
        publish_rows(store, run, synthetic.table(run, columns), provenance)
    write_study(store, "synthetic", wanted)
    return [run for run in wanted if run.source is not None], labels


def cell(runs: list[Run], labels: np.ndarray, size: int, frozen: int) -> np.ndarray:
    some = [run for run in runs if (run.size, run.frozen) == (size, frozen)]
    return np.stack([predicted_by(run, labels) for run in some])


def test_disagreement_cells_equal_those_of_their_predictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, labels = write(tmp_path)
    study = load.open_study(tmp_path)
    monkeypatch.setattr(import_module("analysis.surfaces.disagreement"), "ROWS_AT_ONCE", 2)
    curves = surfaces.disagreement(study, epoch="all", squeeze=True)
    last = surfaces.disagreement(study, squeeze=True)
    third = surfaces.disagreement(study, epoch=3, squeeze=True)
    assert curves["disagreement"].dims == ("size", "frozen", "epoch") and curves.sizes["epoch"] == 7
    for size in (250, 1_000):
        for frozen in (0, 9):
            given = cell(runs, labels, size, frozen)
            spread = finite_set_spread(given, labels)
            here = curves.sel(size=size, frozen=frozen)
            for name in ("measured", "finite_test_set", "beyond"):
                assert np.allclose(here[name], getattr(spread, name), atol=1e-12)
            assert np.allclose(here["disagreement"], pair_disagreement(given))
    assert last["disagreement"].equals(curves["disagreement"].isel(epoch=-1, drop=True))
    assert third["beyond"].equals(curves["beyond"].sel(epoch=3, drop=True))
    assert (curves["num_seeds"] == 5).all()
    mean = surfaces.over_epochs(study).mean("seed").squeeze(drop=True)
    assert np.allclose(curves["error"], mean.transpose("size", "frozen", "epoch"))


def test_disagreement_missing_predictions_need_partial(tmp_path: Path) -> None:
    runs, labels = write(tmp_path)
    store, study = open_store(tmp_path), load.open_study(tmp_path)
    gone = runs[0]
    store.remove(predictions_path(gone.id, study.cells.loc[gone.id, "predictions_digest"]))
    with pytest.raises(load.Incomplete, match=r"1 of 20 Runs .*not there any more") as refused:
        surfaces.disagreement(study)
    assert refused.value.runs == (gone,)
    found = surfaces.disagreement(study, partial=True)
    assert found["disagreement"].attrs["absent"] == [gone.id]
    here = found.sel(size=gone.size, frozen=gone.frozen).squeeze()
    assert int(here["num_seeds"]) == 4
    rest = cell(runs[1:], labels, gone.size, gone.frozen)[:, -1]
    apart = pair_disagreement(rest)
    assert float(here["disagreement"]) == pytest.approx(float(apart))


def test_disagreement_predictions_must_match_the_rows(tmp_path: Path) -> None:
    runs, _ = write(tmp_path)
    study = load.open_study(tmp_path)
    store = open_store(tmp_path)
    _, labels = prepare(store, shift=1)  # the same images under other labels
    with pytest.raises(ValueError, match="another version than the one that was trained on"):
        surfaces.disagreement(study)
    fingerprint, labels = prepare(store)
    other = predicted_by(runs[1], labels)
    epochs, steps = synthetic.evaluations(runs[0])
    table = predictions_table(epochs, steps, other)
    digest = publish_predictions(store, runs[0].id, table, fingerprint)
    wrong = study.cells.copy()
    wrong.loc[runs[0].id, "predictions_digest"] = digest
    with pytest.raises(Damaged, match="do not give the test error"):
        surfaces.disagreement(replace(study, cells=wrong))
    store.remove("tasks/target.arrow")
    with pytest.raises(ValueError, match="task 'target' is not in"):
        surfaces.disagreement(study)


def test_disagreement_without_predictions_raises(tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.small(sizes=(250,), frozen=(0,)))
    with pytest.raises(ValueError, match="KEEP_PREDICTIONS = True"):
        surfaces.disagreement(load.open_study(tmp_path))
    export.export(open_store(tmp_path), "synthetic", tmp_path / "study.parquet")
    with pytest.raises(ValueError, match="not opened from a store"):
        surfaces.disagreement(load.open_study(tmp_path / "study.parquet"))


@st.composite
def predictions(draw: st.DrawFn) -> np.ndarray:
    """Labels (seeds, evaluations, images) of few classes."""
    shape = (draw(st.integers(2, 8)), draw(st.integers(1, 3)), draw(st.integers(2, 6)))
    return draw(hnp.arrays(np.uint16, shape, elements=st.integers(0, draw(st.integers(1, 4)))))


@settings(max_examples=100, deadline=None)
@given(predicted=predictions())
def test_pair_disagreement_is_the_mean_over_all_pairs(predicted: np.ndarray) -> None:
    pairs = [
        (predicted[i] != predicted[j]).mean(axis=-1)
        for i in range(len(predicted))
        for j in range(i)
    ]
    assert np.allclose(pair_disagreement(predicted), np.mean(pairs, axis=0))


@pytest.mark.parametrize("sd", [0.0, 0.03])
def test_finite_set_spread_separates_test_set_from_seeds(sd: float) -> None:
    """The error of a seed on the distribution has standard deviation `sd`."""
    random = np.random.default_rng(3)
    chances, found = random.uniform(0.1, 0.5, 500), []
    for _ in range(400):
        wrong = random.random((5, 500)) < chances + sd * random.standard_normal((5, 1))
        found.append(finite_set_spread(wrong.astype(int), np.zeros(500, int)))
    expected = float((chances * (1 - chances)).mean() / 500)
    finite = np.mean([one.finite_test_set for one in found])
    assert finite == pytest.approx(expected, rel=0.02)
    beyond = np.mean([one.beyond for one in found])
    assert beyond == pytest.approx(sd**2, rel=0.15, abs=0.15 * expected)
    measured = np.mean([one.measured for one in found])
    assert measured == pytest.approx(expected + sd**2, rel=0.15)


ONES = np.ones((5, 4), int)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: pair_disagreement(ONES[:1]), "disagreement needs two"),
        (lambda: finite_set_spread(ONES[:1], ONES[0]), "a spread needs two"),
        (lambda: finite_set_spread(ONES[:, :1], ONES[0, :1]), "1 test image"),
        (lambda: finite_set_spread(ONES, ONES[0, :3]), "labels: 4 whole numbers are needed"),
        (lambda: pair_disagreement(ONES.astype(float)), "predicted: whole numbers"),
        (lambda: pair_disagreement(ONES[0]), "predicted: whole numbers"),
    ],
)
def test_disagreement_wrong_arrays_raise(ask: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()  # type: ignore[operator]
