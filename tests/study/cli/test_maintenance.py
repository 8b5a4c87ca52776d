"""`study verify` and `study tidy`: what is damaged is named and set aside, what nothing needs removed."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from study.cli.main import main
from study.launching import lease
from study.store import Store, layout, similarity, studies
from study.store.artifacts import publish_predictions, publish_weights
from study.store.rows import publish_rows
from study.store.studies import write_study
from study.store.unfinished import write_checkpoint, write_failure
from tests.stored import (
    SOURCE,
    a_failure,
    a_predictions,
    a_provenance,
    a_run,
    a_similarity,
    a_table,
)

RUN, OTHER = a_run(), a_run(seed=1)


@pytest.fixture(autouse=True)
def _own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))


@pytest.fixture
def full(store: Store) -> Store:
    """A source with weights, a cell with predictions, a Run in flight that failed before."""
    weights = publish_weights(store, SOURCE.id, b"weights")
    publish_rows(store, SOURCE, a_table(SOURCE), replace(a_provenance(), weights_digest=weights))
    predicted = publish_predictions(store, RUN.id, a_predictions(), "f" * 64)
    made_by = replace(a_provenance(), weights_digest=None, predictions_digest=predicted)
    publish_rows(store, RUN, a_table(), made_by)
    similarity.publish(store, RUN, a_similarity(RUN, weights))
    by_a_driver = replace(store, lease_number=1)
    write_checkpoint(by_a_driver, OTHER.id, b"state")
    write_failure(by_a_driver, OTHER.id, a_failure())
    write_study(store, "mine", [SOURCE, RUN, OTHER])
    return store


def files_of(store: Store) -> list[str]:
    root = Path(store.base)
    found = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return sorted(path for path in found if not path.startswith((layout.LEASE, layout.DAMAGED)))


def test_every_object_is_read_and_what_is_damaged_named_and_set_aside(
    full: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files_of(full)
    assert main(["verify", "--all", "--root", full.root]) == 0
    assert f"{len(paths)} objects" in capsys.readouterr().out
    for path in paths:
        good = full.get(path)
        full.put(path, good[: len(good) // 2])
        assert main(["verify", "--all", "--root", full.root]) == 1
        said = capsys.readouterr().out
        assert f"{path} is damaged" in said
        assert "1 damaged" in said
        assert f"study verify --all --repair --root {full.root}." in said
        assert full.exists(path)
        assert main(["verify", "--all", "--repair", "--root", full.root]) == 0
        assert f"moved to damaged/{path}." in capsys.readouterr().out
        assert not full.exists(path)
        full.put(path, good)


def test_of_a_study_its_own_objects_are_read(
    full: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(full, "another", [replace(SOURCE, seed=7)])
    full.put(layout.rows_path(RUN.id), b"")
    full.put("rows/notes.txt", b"mine")
    assert main(["verify", "another", "--root", full.root]) == 0
    assert "1 object," in capsys.readouterr().out
    assert main(["verify", "mine", "--root", full.root]) == 1
    said = capsys.readouterr().out
    assert f"{layout.rows_path(RUN.id)} is damaged: it is empty" in said
    assert "notes.txt" not in said
    main(["verify", "--all", "--root", full.root])
    assert "rows/notes.txt: not an object of a store" in capsys.readouterr().out


def test_what_a_later_release_wrote_is_told_and_left(
    full: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(studies, "release", lambda: "7.0.0")
        full.put("studies/later.json", studies.seal({"runs": [{**RUN.to_dict(), "depth": 7}]}))
    assert main(["verify", "--all", "--repair", "--root", full.root]) == 1
    assert "studies/later.json was written by freezewise 7.0.0" in capsys.readouterr().out
    assert full.exists("studies/later.json")


def test_what_is_needed_stays_and_the_rest_is_told_then_removed(
    full: Store, features_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = files_of(full)
    surplus = [
        layout.weights_path(SOURCE.id, publish_weights(full, SOURCE.id, b"trained twice")),
        layout.weights_path(RUN.id, publish_weights(full, RUN.id, b"nothing starts from it")),
        layout.similarity_path(a_run(seed=9).id),
        layout.unfinished_path(RUN.id, "checkpoint"),
    ]
    similarity.publish(full, a_run(seed=9), a_similarity(a_run(seed=9), "of no study"))
    write_checkpoint(full, RUN.id, b"of a finished Run")
    dead = Path(tempfile.gettempdir()) / "freezewise-tune-99999999-abc"
    used = Path(tempfile.gettempdir()) / f"freezewise-tune-{os.getpid()}-abc"
    recent = Path(tempfile.gettempdir()) / "freezewise-features-abc"
    others = Path(tempfile.gettempdir()) / "freezewise-of-somebody"
    for folder in (dead, used, others):
        (folder / "study").mkdir(parents=True)
    recent.touch()
    main(["verify", "--all", "--root", full.root])
    said = capsys.readouterr().out
    assert "3 are unused" in said
    assert f"study tidy --root {full.root}\n" in said
    assert all(path in said for path in (*surplus[:3], str(dead)))
    assert sorted([*needed, *surplus]) == files_of(full), "it is only told"
    stale, fresh = (features_folder / f"{name}.features" for name in ("stale", "fresh"))
    stale.touch()
    fresh.touch()
    os.utime(stale, (0, 0))
    assert main(["tidy", "--root", full.root]) == 0
    assert str(stale) in capsys.readouterr().out
    assert [stale.exists(), fresh.exists()] == [False, True]
    fresh.unlink()
    assert files_of(full) == needed
    assert [each.exists() for each in (dead, used, recent, others)] == [False, True, True, True]
    os.utime(recent, (0, 0))
    assert main(["tidy", "--root", full.root]) == 0
    assert not recent.exists()


def test_nothing_is_moved_beside_a_driver(full: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with lease.acquire(full.root):
        assert main(["verify", "--all", "--root", full.root]) == 0
        for verb in (["verify", "--all", "--repair"], ["tidy"]):
            assert main([*verb, "--root", full.root]) == 2
            assert "is in use by another driver" in capsys.readouterr().err


def test_where_it_cannot_be_told_what_is_needed_nothing_is_removed(
    full: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_of(full)
    full.put("studies/mine.json", b"{")
    assert main(["tidy", "--root", full.root]) == 1
    assert "studies/mine.json is damaged" in capsys.readouterr().err
    assert files_of(full) == before


@pytest.mark.parametrize("words", [["verify"], ["verify", "mine", "--all"]])
def test_either_a_study_or_all(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "give a SPACE, or --all" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["verify", "--all"], ["tidy"]])
def test_no_store_is_made(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--root", str(tmp_path / "nowhere")]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
