"""Compacted rows are read like the rows files; these count if both differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet
import pytest

from analysis import load
from study.cli.main import main
from study.run import Run
from study.store import Damaged, Store, compacted, compaction, layout, open_store, rows_path
from study.store.compacted import read_manifest, read_provenances
from study.store.compaction import compact
from study.store.rows import publish_rows
from study.store.studies import write_study
from tests import s3_server, synthetic
from tests.stored import a_provenance, a_run, a_table

RUNS = [a_run(seed) for seed in range(6)]


@pytest.fixture
def full(store: Store) -> Store:
    for run in RUNS:
        publish_rows(store, run, a_table(run), replace(a_provenance(), weights_digest=None))
    write_study(store, "mine", RUNS)
    compact(store)
    return store


def files(store: Store) -> list[str]:
    return sorted(store.relative(entry.path) for entry in store.listed(layout.COMPACTED))


def retrain(store: Store, run: Run) -> None:
    made_by = replace(a_provenance(), weights_digest=None, num_resumes=7)
    publish_rows(store, run, a_table(run, [3.0, 0.5]), made_by, replace=True)


def flip(store: Store, path: str) -> None:
    content = bytearray(store.get(path))
    content[len(content) // 2] ^= 1
    store.put(path, bytes(content))


def opened(store: Store) -> load.Study:
    return load.open_study(store.root, partial=True)


def is_same(one: load.Study, other: load.Study) -> bool:
    tables = (study.read().to_pandas() for study in (one, other))
    return one.cells.equals(other.cells) and next(tables).equals(next(tables))


def without_copy(store: Store, read: Callable[[Store], load.Study]) -> load.Study:
    folder = Path(store.base, layout.COMPACTED)
    aside = folder.rename(folder.with_name("aside"))
    study = read(store)
    study.read()
    aside.rename(folder)
    return study


def test_open_study_compacted_rows_equal_the_rows_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = synthetic.small(num_epochs=30, controls=True)
    diverged = runs[5:6]
    synthetic.write(tmp_path, runs, absent=runs[-2:], diverged=diverged)
    store = open_store(tmp_path)
    before = opened(store)
    values = before.read().to_pandas()
    monkeypatch.setattr(compaction, "ROWS_A_GROUP", 100)  # three Runs
    assert compact(store) is not None
    study = opened(store)
    assert study.rows.copied == frozenset(study.runs.index)  # type: ignore[union-attr]
    assert study.cells.equals(before.cells)
    assert study.read().to_pandas().equals(values)
    some = study.read(["train_loss"], seed=1).to_pandas()
    assert some.equals(before.read(["train_loss"], seed=1).to_pandas())
    [path] = (path for path in files(store) if path.endswith("parquet"))
    table = pyarrow.parquet.read_table(tmp_path / path)
    assert table["test_error"].to_pylist() == values["test_error"].to_list()


def quarantine(store: Store, run: Run) -> None:
    store.quarantine(rows_path(run.id))


def damage(store: Store, run: Run) -> None:
    flip(store, rows_path(run.id))


@pytest.mark.parametrize("change", [retrain, quarantine, damage])
def test_rows_file_that_changed_overrides_its_compacted_copy(
    full: Store, change: Callable[[Store, Run], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = RUNS[2]
    change(full, run)
    publish_rows(full, a_run(9), a_table(a_run(9)), a_provenance())
    write_study(full, "mine", [*RUNS, a_run(9)])
    assert is_same(opened(full), without_copy(full, opened))
    read = read_provenances(full, [each.id for each in RUNS])
    assert isinstance(read.get(run.id), Damaged) == (change is damage)
    is_found = main(["verify", "--all", "--root", full.root]) == 1
    said = capsys.readouterr().out
    assert is_found == (f"{rows_path(run.id)} is damaged" in said) == (change is damage)
    assert ("1 of its Runs have another rows file" in said) == (change is retrain)
    assert (", 1 have none" in said) == (change is quarantine)
    assert main(["compact", "--root", full.root]) == int(change is damage)
    assert (run.id in read_manifest(full).line_of) == (change is retrain)
    assert main(["verify", "--all", "--root", full.root]) == int(change is damage)
    assert "another rows file" not in capsys.readouterr().out
    assert is_same(opened(full), without_copy(full, opened))


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
@pytest.mark.parametrize("how", [flip, Store.remove])
def test_compacted_file_damaged_or_missing_is_replaced_by_the_rows_files(
    full: Store,
    suffix: str,
    how: Callable[[Store, str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = opened(full)
    values = study.read().to_pandas()
    [path] = (path for path in files(full) if path.endswith(suffix))
    how(full, path)
    again = opened(full)
    assert again.cells.equals(study.cells)
    assert again.read().to_pandas().equals(values)
    is_named = f"{path} is damaged" in capsys.readouterr().err
    assert is_named == (how is flip or suffix == "parquet")
    assert main(["verify", "--all", "--repair", "--root", full.root]) == 0
    said = capsys.readouterr().out
    assert (f"{path} is damaged" in said) == (how is flip)
    assert ("1 of its files are missing" in said) == (how is not flip and suffix == "parquet")
    compact(full)
    again = opened(full)
    assert again.rows.copied == {run.id for run in RUNS}  # type: ignore[union-attr]
    assert again.read().to_pandas().equals(values)


def test_reader_that_opened_before_a_compaction_reads_on(full: Store) -> None:
    study = opened(full)
    values = study.read(["test_loss"]).to_pandas()
    retrain(full, RUNS[0])
    compact(full)
    assert study.read(["test_loss"]).to_pandas().equals(values)


def test_compact_small_parts_are_merged_and_surplus_is_removed(full: Store) -> None:
    first = files(full)
    assert compact(full) is None
    new = [a_run(seed) for seed in range(10, 18)]
    for run in new[:3]:
        publish_rows(full, run, a_table(run), a_provenance())
    assert compact(full, at_least=4) is None
    assert compact(full).num_new == 3  # type: ignore[union-attr]
    assert set(first) < set(files(full)), "a larger part stays"
    full.put(f"{layout.COMPACTED}/0123456789ab.parquet", b"left by a killed driver")
    for run in new[3:]:
        publish_rows(full, run, a_table(run), a_provenance())
    assert compact(full).num_runs == 14  # type: ignore[union-attr]
    assert len(files(full)) == 2


@pytest.mark.parametrize("method", ["put_file", "put", "remove"])
def test_compact_interrupted_anywhere_leaves_a_readable_store(
    full: Store, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(10, 18):
        publish_rows(full, a_run(seed), a_table(a_run(seed)), a_provenance())
    before = without_copy(full, opened)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Store, method, killed)
        compact(full)
    assert is_same(opened(full), before)
    compact(full)
    assert is_same(opened(full), before)
    assert len(files(full)) == 2


def test_run_of_a_later_format_is_not_compacted_over(
    full: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as later:
        later.setattr(compaction, "NAME", f"{compacted.NAME}9")
        full.remove(layout.manifest_path())
        compact(full)
    written = full.get(layout.manifest_path())
    assert is_same(opened(full), without_copy(full, opened))
    assert "was written by freezewise" in capsys.readouterr().err
    assert main(["compact", "--root", full.root]) == 2
    assert full.get(layout.manifest_path()) == written


@pytest.mark.s3
def test_bucket_only_new_and_changed_objects_are_read(
    bucket: Store, proxy: s3_server.Proxy
) -> None:
    for run in RUNS:
        publish_rows(bucket, run, a_table(run), replace(a_provenance(), weights_digest=None))
    write_study(bucket, "mine", RUNS)
    compact(bucket)
    values = opened(bucket).read().to_pandas()

    def read_objects(of: Callable[[], object]) -> list[str]:
        proxy.requests.clear()
        of()
        assert len(proxy.requests) <= 30
        return [each for each in proxy.requests if each.startswith("GET") and "/rows/" in each]

    ids = [run.id for run in RUNS]
    for read in (lambda: opened(bucket).read(), lambda: read_provenances(bucket, ids)):
        assert read_objects(read) == []
    assert opened(bucket).read().to_pandas().equals(values)
    retrain(bucket, RUNS[3])
    publish_rows(bucket, a_run(9), a_table(a_run(9)), a_provenance())
    ids.append(a_run(9).id)
    assert len(read_objects(lambda: read_provenances(bucket, ids, most=1))) == 1
    assert len(read_objects(lambda: read_provenances(bucket, ids))) == 2
    assert len(opened(bucket).read()) == len(values) - 1
    [path] = (path for path in files(bucket) if path.endswith("parquet"))
    flip(bucket, path)
    assert len(opened(bucket).read()) == len(values) - 1
