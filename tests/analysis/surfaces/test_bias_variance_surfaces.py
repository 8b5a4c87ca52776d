"""Surfaces of bias and variance against the stored predictions, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import load, surfaces
from analysis.load import export
from analysis.surfaces import bias_variance
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
    """A task "target" of one-pixel images: its fingerprint and the labels of its test images."""
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
    """Labels (evaluations, images), fewer of them wrong at each evaluation, more with frozen layers."""
    random = stream("predicted", run.id)
    share = np.linspace(0.8, 0.2 + run.frozen / 30, len(synthetic.evaluations(run)[0]))
    wrong = random.random((len(share), labels.size)) < share[:, None]
    return np.where(wrong, random.integers(0, 10, wrong.shape), labels).astype(np.uint16)


def write(root: Path, seeds: int = 5) -> tuple[list[Run], np.ndarray]:
    """A study whose cells have predictions, and rows that fit them."""
    store = open_store(root)
    fingerprint, labels = prepare(store)
    wanted = synthetic.runs(
        num_epochs=6,
        source_tasks=("near",),
        source_sizes=(500,),
        sizes=(250, 1_000),
        label_noises=(0.2,),
        frozen=(0, 9),
        seeds=tuple(range(seeds)),
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


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Run], np.ndarray]:
    root = tmp_path_factory.mktemp("five")
    return root, *write(root)


def cell(runs: list[Run], labels: np.ndarray, size: int, frozen: int) -> np.ndarray:
    some = [run for run in runs if (run.size, run.frozen) == (size, frozen)]
    return np.stack([predicted_by(run, labels) for run in some])


def test_every_cell_holds_the_arithmetic_of_its_own_predictions(
    five: tuple[Path, list[Run], np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, runs, labels = five
    study = load.open_study(root)
    monkeypatch.setattr(bias_variance, "ROWS_AT_ONCE", 2)
    curves = surfaces.bias_variance_surfaces(study, epoch="all", squeeze=True)
    last = surfaces.bias_variance_surfaces(study, squeeze=True)
    third = surfaces.bias_variance_surfaces(study, epoch=3, squeeze=True)
    assert curves["bias"].dims == ("size", "frozen", "epoch") and curves.sizes["epoch"] == 7
    for size in (250, 1_000):
        for frozen in (0, 9):
            given = cell(runs, labels, size, frozen)
            parts = bias_variance.decompose(given, labels)
            spread = bias_variance.finite_set_spread(given, labels)
            here = curves.sel(size=size, frozen=frozen)
            for name in ("error", "bias", "net_variance", "variance"):
                assert np.allclose(here[name], getattr(parts, name), atol=1e-12)
            for name in ("measured", "finite_test_set", "beyond"):
                assert np.allclose(here[name], getattr(spread, name), atol=1e-12)
            assert np.allclose(here["disagreement"], bias_variance.disagreement(given))
    assert last["bias"].equals(curves["bias"].isel(epoch=-1, drop=True))
    assert third["net_variance"].equals(curves["net_variance"].sel(epoch=3, drop=True))
    assert (curves["num_seeds"] == 5).all()
    mean = surfaces.over_epochs(study).mean("seed").squeeze(drop=True)
    assert np.allclose(curves["error"], mean.transpose("size", "frozen", "epoch"))


def test_below_five_seeds_only_what_is_unbiased_is_there(tmp_path: Path) -> None:
    runs, labels = write(tmp_path, seeds=3)
    found = surfaces.bias_variance_surfaces(load.open_study(tmp_path), squeeze=True)
    for name in ("bias", "net_variance", "variance"):
        assert found[name].isnull().all()
    apart = bias_variance.disagreement(cell(runs, labels, 250, 9)[:, -1])
    assert float(found["disagreement"].sel(size=250, frozen=9)) == pytest.approx(float(apart))
    assert found["beyond"].notnull().all() and (found["num_seeds"] == 3).all()


def test_absent_predictions_need_a_word(tmp_path: Path) -> None:
    runs, labels = write(tmp_path)
    store, study = open_store(tmp_path), load.open_study(tmp_path)
    gone = runs[0]
    store.remove(predictions_path(gone.id, study.cells.loc[gone.id, "predictions_digest"]))
    with pytest.raises(load.Incomplete, match=r"1 of 20 Runs .*not there any more") as refused:
        surfaces.bias_variance_surfaces(study)
    assert refused.value.runs == (gone,)
    found = surfaces.bias_variance_surfaces(study, partial=True)
    assert found["bias"].attrs["absent"] == [gone.id]
    here = found.sel(size=gone.size, frozen=gone.frozen).squeeze()
    assert int(here["num_seeds"]) == 4 and np.isnan(here["bias"])
    rest = cell(runs[1:], labels, gone.size, gone.frozen)[:, -1]
    apart = bias_variance.disagreement(rest)
    assert float(here["disagreement"]) == pytest.approx(float(apart))


def test_predictions_that_do_not_fit_the_rows_are_refused(tmp_path: Path) -> None:
    runs, _ = write(tmp_path)
    study = load.open_study(tmp_path)
    store = open_store(tmp_path)
    _, labels = prepare(store, shift=1)  # the same images under other labels
    with pytest.raises(ValueError, match="another version than was trained on"):
        surfaces.bias_variance_surfaces(study)
    fingerprint, labels = prepare(store)
    other = predicted_by(runs[1], labels)
    epochs, steps = synthetic.evaluations(runs[0])
    table = predictions_table(epochs, steps, other)
    digest = publish_predictions(store, runs[0].id, table, fingerprint)
    wrong = study.cells.copy()
    wrong.loc[runs[0].id, "predictions_digest"] = digest
    with pytest.raises(Damaged, match="do not give the test error"):
        surfaces.bias_variance_surfaces(replace(study, cells=wrong))
    store.remove("tasks/target.arrow")
    with pytest.raises(ValueError, match="task 'target' is not in"):
        surfaces.bias_variance_surfaces(study)


def test_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    wanted = synthetic.runs(num_epochs=4, sizes=(250,), frozen=(0,), seeds=(0, 1))
    synthetic.write(tmp_path, wanted)
    with pytest.raises(ValueError, match="KEEP_PREDICTIONS = True"):
        surfaces.bias_variance_surfaces(load.open_study(tmp_path))
    export.export(open_store(tmp_path), "synthetic", tmp_path / "study.parquet")
    with pytest.raises(ValueError, match="not opened from a store"):
        surfaces.bias_variance_surfaces(load.open_study(tmp_path / "study.parquet"))
