"""Stores and exports of earlier releases are read, and their studies continued."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis import load
from analysis.surfaces import at_epoch
from study import tasks
from study.cli.main import main
from study.cli.status import status_text
from study.launching import driver
from study.launching.driver import run_study
from study.launching.options import LaunchOptions
from study.planning.integrity import check
from study.planning.inventory import summarise_heads
from study.planning.spaces import load_space
from study.store import (
    Store,
    compacted,
    compaction,
    finished_ids,
    open_store,
    read_failure,
    read_predictions,
    read_registrations,
    read_rows,
    read_study,
    read_weights,
    rows_path,
    schema,
    similarity,
    studies,
)
from study.store.compaction import compact
from study.store.layout import study_path
from study.store.provenance import TRAINER
from study.store.schema import DONE
from study.store.unfinished import read_began, read_checkpoint
from tests import stored

FIXTURES = Path(__file__).parents[2] / "fixtures"
SPACE = load_space(FIXTURES / "fixture.py")
SOURCE, UNFROZEN, HEAD_ONLY = "814d0fbf7f54", "2e6707c7d512", "d33e39a814f6"


@pytest.fixture
def old(tmp_path: Path) -> Store:
    shutil.copytree(FIXTURES / "store-0.1.0", tmp_path / "old")
    return open_store(tmp_path / "old")


def files_of(store: Store) -> dict[str, bytes]:
    root = Path(store.base)
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and "lease" not in path.parts
    }


def test_store_0_1_0_has_the_same_run_ids(old: Store) -> None:
    assert [run.id for run in SPACE.runs] == [SOURCE, UNFROZEN, HEAD_ONLY]
    assert tuple(read_study(old, "fixture")) == SPACE.runs
    assert finished_ids(old) == {SOURCE, UNFROZEN, HEAD_ONLY}


def test_store_0_1_0_rows_failures_and_checkpoints_are_read(old: Store) -> None:
    finished = read_rows(old, HEAD_ONLY)
    assert finished.table.schema.equals(schema.ROWS, check_metadata=True)
    assert finished.provenance.code_version == "0.1.0+697665a8"
    assert finished.provenance.trainer == 1
    assert check(old).unsealed == tuple(sorted(map(rows_path, finished_ids(old))))
    assert finished.table["frozen"].to_pylist() == [9] * 4
    failure = read_failure(old, "0123456789ab")
    assert failure is not None and failure.error == "RuntimeError: boom" and failure.final
    assert read_checkpoint(old, "ba9876543210") == b"state"
    measured = similarity.read(old, UNFROZEN)  # of before there was an effective rank
    assert measured.schema.equals(similarity.TABLE)
    assert (measured["effective_rank"].null_count, measured["logme"].null_count) == (2, 0)


def test_study_of_a_later_release_is_not_changed(
    old: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(studies, "release", lambda: "7.0.0")
    old.put(study_path("fixture"), studies.seal({"runs": [], "because": "of it"}))
    before = files_of(old)
    space = str(FIXTURES / "fixture.py")
    assert main(["run", space, "--root", old.root, "--inline"]) == 2
    said = capsys.readouterr().err
    assert "studies/fixture.json was written by freezewise 7.0.0 (" in said
    assert "Traceback" not in said
    assert files_of(old) == before


def test_store_0_1_0_finished_study_trains_nothing(
    old: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def must_not(*_: object) -> None:
        raise AssertionError("something was to be trained")

    before = files_of(old)
    monkeypatch.setattr(driver, "_train", must_not)
    found = run_study(SPACE, old, None, LaunchOptions())
    assert set(found.states.values()) == {DONE}
    # What the study asks for is stored again, in this release's form; nothing else is touched.
    changed = {path for path, content in files_of(old).items() if before.get(path) != content}
    assert changed <= {"studies/fixture.json"}
    assert before.keys() == files_of(old).keys()


def test_store_0_1_0_cells_are_trained_again_for_predictions(old: Store) -> None:
    before = files_of(old)
    found = run_study(replace(SPACE, keep_predictions=True), old, None, LaunchOptions())
    assert set(found.states.values()) == {DONE}
    for run_id in (UNFROZEN, HEAD_ONLY):
        made_by = read_rows(old, run_id).provenance
        assert made_by.predictions_digest is not None
        labels = read_predictions(old, run_id, made_by.predictions_digest)
        assert labels["epoch"].to_pylist() == read_rows(old, run_id).table["epoch"].to_pylist()
    # The source is none of them: it stays as it is, and they start from its weights.
    after = files_of(old)
    kept = [path for path in before if SOURCE in path]
    assert {path: after[path] for path in kept} == {path: before[path] for path in kept}
    assert made_by.start_digest == read_rows(old, SOURCE).provenance.weights_digest


def test_store_0_1_0_damaged_copy_of_its_rows_is_compacted_again(
    old: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before, values = files_of(old), load.open_study(old.root).read().to_pandas()
    assert compact(old) is not None
    [part] = compacted.read_manifest(old).parts
    old.put(part.path, old.get(part.path)[:-9])
    run_study(SPACE, old, None, LaunchOptions())
    assert f"{part.path} is damaged" in capsys.readouterr().err
    assert part.path in str(old.quarantined())
    study = load.open_study(old.root)
    assert len(study.rows.copied) == 3  # type: ignore[union-attr]
    assert study.read().to_pandas().equals(values)
    assert all(files_of(old)[path] == before[path] for path in before if path.startswith("rows/"))


def test_store_0_1_0_larger_grid_starts_from_its_weights(
    old: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "MIN_NEW", 4)
    more = replace(SPACE.runs[1], frozen=5)
    larger = replace(SPACE, runs=(*SPACE.runs, more))
    before = files_of(old)
    found = run_study(larger, old, None, LaunchOptions())
    assert found.states[more.id] == DONE
    # Rows of 0.1.0 are of TRAINER 1, so old and new rows are of one version of the code.
    heads = summarise_heads(found, old)
    assert len(heads.code_versions) == 2 and heads.trainers == {TRAINER: 4}
    assert "versions of the code" not in status_text("fixture", found, heads, old.root)
    assert read_rows(old, more.id).provenance.start_digest is not None
    assert all(files_of(old)[path] == before[path] for path in before if path.startswith("rows/"))
    assert compacted.read_manifest(old).lines.num_rows == 4


def test_store_and_export_0_1_0_give_the_same_surfaces() -> None:
    opened = [load.open_study(FIXTURES / name) for name in ("store-0.1.0", "export-0.1.0.parquet")]
    surfaces = [at_epoch(study, squeeze=True) for study in opened]
    np.testing.assert_array_equal(*surfaces)
    assert all(set(study.runs["trainer"]) == {1} for study in opened)
    table = read_rows(open_store(FIXTURES / "store-0.1.0"), HEAD_ONLY).table
    assert float(surfaces[0].sel(frozen=9)) == table["test_error"][-1].as_py()


# Every kind of object, in the form that it had when rows were of format 3 and leases became numbers.
EVERY_KIND = FIXTURES / "store-every-kind"
IN_FLIGHT = "ba9876543210"


def test_store_0_1_0_every_kind_of_object_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(EVERY_KIND, tmp_path / "store")
    assert main(["verify", "--all", "--root", str(tmp_path / "store")]) == 0
    assert "12 objects" in capsys.readouterr().out
    store = open_store(tmp_path / "store")
    run = stored.a_run()
    assert read_study(store, "every") == [stored.SOURCE, run]
    ended = read_rows(store, run.id)
    assert ended.run == run
    names = schema.schema_of(3).names
    assert ended.table.select(names).equals(stored.a_table().select(names))
    made_by = ended.provenance
    assert made_by.predictions_digest is not None
    predicted = read_predictions(store, run.id, made_by.predictions_digest)
    assert predicted.equals(stored.a_predictions())
    weights = read_rows(store, stored.SOURCE.id).provenance.weights_digest
    assert weights is not None and made_by.start_digest == weights
    assert read_weights(store, stored.SOURCE.id, weights) == b"weights"
    assert similarity.read(store, run.id)["logme"].to_pylist() == [0.5, 0.5]
    (registered,) = read_registrations(store, "every")
    assert (registered.run_ids, registered.digest) == ((run.id,), "f84cecb3e5eb")
    assert read_failure(store, IN_FLIGHT) == stored.a_failure()
    assert read_checkpoint(store, IN_FLIGHT) == b"state of the third driver"
    began = read_began(store, IN_FLIGHT)
    assert began is not None and began.host == "laptop"
    task = tasks.load("tiny", store)
    assert task.fingerprint[:12] == "ccc0dc8d5c9c"
    assert task.info.classes == ("ant", "bee")
