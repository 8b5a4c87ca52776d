"""Opening a study: what it wants, what is there, what is damaged; the export tells the same."""

from __future__ import annotations

import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import analysis.__main__
from analysis import load, surfaces
from analysis.load import export
from analysis.load.arms import ARMS, arms
from analysis.load.rows import StoreRows
from analysis.report import write_report
from study.run import Recipe, Run
from study.store import buckets, open_store, read_failures, read_rows
from study.store.rows import publish_rows
from study.store.unfinished import write_failure
from tests import s3_server, synthetic
from tests.faults import damage
from tests.stored import a_bucket_in
from tests.synthetic import small


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    synthetic.write(root, small(controls=True))
    return root


@pytest.fixture
def partial(tmp_path: Path) -> tuple[Path, list[Run]]:
    runs = small()
    cells = [run for run in runs if run.source]
    synthetic.write(
        tmp_path,
        runs,
        absent=cells[:2],
        failed=cells[2:3],
        diverged=cells[3:5],
    )
    return tmp_path, cells


@pytest.mark.slow
def test_no_module_of_analysis_imports_torch_or_ray() -> None:
    names = [
        name
        for _, name, _ in pkgutil.walk_packages(analysis.__path__, "analysis.")
        if not name.endswith("__main__")
    ]
    assert "analysis.surfaces" in names
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(sorted({'torch', 'ray', 'timm', 'torchvision'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"


def test_the_synthetic_table_is_what_the_schema_makes() -> None:
    from study.store import schema

    for run in small(controls=True)[::7]:
        columns = synthetic.measure(run, synthetic.Truth())
        rows = [
            schema.Row(
                **{
                    name: None if isinstance(value, float) and np.isnan(value) else value
                    for name, value in zip(columns, line, strict=True)
                }
            )
            for line in zip(*(values.tolist() for values in columns.values()), strict=True)
        ]
        expected = schema.rows_table(run, synthetic.dimensions(run), rows, schema.FINISHED)
        assert synthetic.table(run, columns).equals(expected)


def test_a_whole_study(whole: Path) -> None:
    study = load.open_study(whole)
    assert study.name == "synthetic"
    assert study.coverage == {"done": len(study.wanted)} | dict.fromkeys(
        ("diverged", "failed", "missing", "damaged", "other start"), 0
    )
    assert list(study.runs.index) == [run.id for run in study.wanted]
    assert set(study.cells["arm"]) == set(ARMS) - {"pretrained", "matched steps"}
    assert (study.runs["last_epoch"] == 12).all()
    assert set(study.runs["code_version"]) == {"0.1.0+synthetic"}


def test_what_is_absent_is_counted_and_needs_a_word(partial: tuple[Path, list[Run]]) -> None:
    root, cells = partial
    with pytest.raises(load.Incomplete, match=r"3 of 28 Runs .*1 failed, 2 missing.*partial=True"):
        load.open_study(root)
    study = load.open_study(root, partial=True)
    assert study.missing == tuple(cells[:2])
    assert study.failed == tuple(cells[2:3])
    assert study.diverged == tuple(cells[3:5])
    assert study.cells.loc[cells[2].id, "why"] == "error: made up"
    assert len(study.runs) == 25


def test_a_run_that_will_be_tried_again_has_not_failed(partial: tuple[Path, list[Run]]) -> None:
    root, cells = partial
    store = open_store(root)
    write_failure(store, cells[2].id, replace(read_failures(store)[cells[2].id], final=False))
    assert load.open_study(root, partial=True).missing == tuple(cells[:3])


def test_rows_that_the_study_does_not_want_are_not_read(tmp_path: Path) -> None:
    synthetic.write(tmp_path, small(), name="large")
    fewer = small(seeds=(0,))
    synthetic.write(tmp_path, fewer, name="fewer")
    assert len(load.open_study(tmp_path, "fewer").runs) == len(fewer)
    with pytest.raises(ValueError, match="name one: fewer, large"):
        load.open_study(tmp_path)
    with pytest.raises(ValueError, match=r"'medium'.* has fewer, large"):
        load.open_study(tmp_path, "medium")


def test_an_empty_place_is_no_study_and_a_study_may_be_empty(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="no study"):
            load.open_study(root)
    runs = small()
    synthetic.write(tmp_path, runs, absent=runs)
    study = load.open_study(tmp_path, partial=True)
    assert study.coverage["missing"] == len(runs)
    assert surfaces.at_epoch(study).isnull().all()
    assert surfaces.over_epochs(study).sizes["epoch"] == 0


@pytest.mark.parametrize(
    "damage", ["cut off", "emptied", "bit flipped", "another Run's", "no Arrow file"]
)
def test_a_damaged_file_is_named_and_no_data(tmp_path: Path, damage: str) -> None:
    runs = small()
    synthetic.write(tmp_path, runs)
    path = tmp_path / "rows" / f"{runs[-1].id}.arrow"
    payload = path.read_bytes()
    path.write_bytes(
        {
            "cut off": payload[: len(payload) // 2],
            "emptied": b"",
            "bit flipped": payload[:-500] + bytes([payload[-500] ^ 1]) + payload[-499:],
            "another Run's": (tmp_path / "rows" / f"{runs[-2].id}.arrow").read_bytes(),
            "no Arrow file": b"no Arrow file" * 100,
        }[damage]
    )
    with pytest.raises(load.Incomplete, match=runs[-1].id):
        load.open_study(tmp_path)
    study = load.open_study(tmp_path, partial=True)
    assert study.cells.loc[runs[-1].id, "state"] == "damaged"
    assert study.missing == (runs[-1],)
    assert int(surfaces.at_epoch(study).isnull().sum()) == 1


def test_cells_from_other_bits_of_their_start_are_not_mixed_in(tmp_path: Path) -> None:
    runs = small()
    synthetic.write(tmp_path, runs)
    source, cell = runs[0], next(run for run in runs if run.source == runs[0])
    store = open_store(tmp_path)
    for run, digests in (
        (source, {"weights_digest": "a" * 64}),
        (cell, {"start_digest": "b" * 64}),
    ):
        finished = read_rows(store, run.id)
        made_by = replace(finished.provenance, **digests)
        assert publish_rows(store, run, finished.table, made_by, replace=True)
    study = load.open_study(tmp_path, partial=True)
    assert study.cells.loc[cell.id, "state"] == "other start"
    assert cell in study.missing
    assert surfaces.at_epoch(study).attrs["absent"] == [cell.id]


def test_a_root_that_is_not_local_gives_the_same(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "client_of", lambda *_: a_bucket_in(whole.parent))
    study = load.open_study(whole)
    moved = replace(study, rows=StoreRows(open_store(f"s3://bucket/{whole.name}")))
    assert surfaces.over_epochs(moved).identical(surfaces.over_epochs(study))


@pytest.mark.s3
@pytest.mark.skipif(
    not s3_server.IS_INSTALLED, reason="needs moto's S3 server: pip install 'moto[server]'"
)
def test_a_bucket_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    runs = small(seeds=(0,), frozen=(0,))
    with s3_server.moto_server() as port:
        query = f"scheme=http&endpoint_override=127.0.0.1:{port}"
        bucket = f"s3://{s3_server.BUCKET}/study?{query}"
        for root in (bucket, tmp_path):
            synthetic.write(root, runs, absent=runs[-1:])
        here, there = (load.open_study(root, partial=True) for root in (tmp_path, bucket))
        pd.testing.assert_frame_equal(here.cells, there.cells)
        for value in ("test_error", "test_loss"):  # the one is kept in memory, the other read
            assert surfaces.over_epochs(there, value).identical(surfaces.over_epochs(here, value))
        export.export(open_store(tmp_path), here.name, tmp_path / "x.parquet")
        open_store(bucket).put("x.parquet", (tmp_path / "x.parquet").read_bytes())
        kept = load.open_study(bucket.replace("?", "/x.parquet?"), partial=True)
        assert surfaces.over_epochs(kept).identical(surfaces.over_epochs(here))
        open_store(bucket).put("x.parquet", b"torn")
        with pytest.raises(ValueError, match=r"x.parquet.*: not a whole Parquet file") as torn:
            load.open_study(bucket.replace("?", "/x.parquet?").replace("://", "://key:SECRET@"))
        assert "SECRET" not in str(torn.value)
        with pytest.raises(FileNotFoundError):
            load.open_study(bucket.replace("?", "/y.parquet?"))


def test_reading_rows(whole: Path) -> None:
    study = load.open_study(whole)
    table = study.read(["epoch", "test_error"], arm="transfer", seed=1, size=[250])
    frame = table.to_pandas()
    expected = study.cells.query("arm == 'transfer' and seed == 1 and size == 250")
    assert list(frame["run_id"].unique()) == list(expected.index)
    assert len(frame) == 13 * len(expected)
    with pytest.raises(ValueError, match="'accuracy': choose one of epoch"):
        study.read(["accuracy"])
    with pytest.raises(ValueError, match="size=300: choose from 250, 500, 1000"):
        study.read(["epoch"], size=300)
    with pytest.raises(ValueError, match="select 'depth': choose from task"):
        study.read(["epoch"], depth=300)


def test_an_added_column(whole: Path) -> None:
    study = load.add_column(
        load.open_study(whole),
        "gap",
        ["test_error", "train_error"],
        lambda test, train: test - train,
        unit="fraction",
    )
    both = surfaces.over_epochs(study, ["test_error", "train_error", "gap"])
    assert np.array_equal(both["gap"], both["test_error"] - both["train_error"])
    assert both["gap"].attrs["units"] == "fraction"
    with pytest.raises(ValueError, match="stored columns"):
        load.add_column(study, "test_loss", ["test_error"], np.abs)
    with pytest.raises(ValueError, match="'error': choose from epoch"):
        load.add_column(study, "new", ["error"], np.abs)


def test_the_arm_of_a_run_that_is_both_source_and_baseline() -> None:
    recipe = Recipe(num_epochs=1)

    def run(task: str, start: Run | None = None, part: str = "all") -> Run:
        return Run(
            task=task, part=part, size=10, model="m", recipe=recipe, seed=0, start=start, frozen=0
        )

    a, b = run("a"), run("b")
    assert arms([a, run("b", a)])[a.id] == "source"
    # Both directions: each is the other's source, and the scratch baseline of its own task.
    there_and_back = arms([a, b, run("b", a), run("a", b)])
    assert there_and_back[a.id] == there_and_back[b.id] == "scratch"
    half = run("a", part="a")
    assert arms([half, run("a", half, part="b")])[half.id] == "source"
    chain = run("c", run("b", a))
    assert arms([a, run("b", a), chain])[run("b", a).id] == "transfer"


# The export.


def test_the_export_tells_what_the_store_tells(
    partial: tuple[Path, list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, cells = partial
    path = root / "rows" / f"{cells[-1].id}.arrow"
    path.write_bytes(path.read_bytes()[:-100])
    monkeypatch.setattr(export, "ROWS_A_GROUP", 40)
    file = root / "exports" / "study.parquet"
    with pytest.raises(ValueError, match=r"there is no folder .*exports; make it first"):
        export.export(open_store(root), "synthetic", file)
    file.parent.mkdir()
    written = export.export(open_store(root), "synthetic", file)
    assert written.num_runs == 24
    assert set(written.damaged) == {cells[-1].id}
    assert set(written.absent) == {run.id for run in (*cells[:3], cells[-1])}
    assert [p.name for p in file.parent.iterdir()] == ["study.parquet"]

    there, here = load.open_study(root, partial=True), load.open_study(file, partial=True)
    assert len(here.rows.groups) > 3  # type: ignore[union-attr]
    assert here.wanted == there.wanted
    pd.testing.assert_frame_equal(here.cells, there.cells)
    for options in ({"size": 250}, {"seed": 1, "frozen": [0, 4]}, {"arm": None, "task": "near"}):
        assert surfaces.over_epochs(here, **options).identical(
            surfaces.over_epochs(there, **options)
        )
    assert here.read(size=1_000).equals(there.read(size=1_000))
    with pytest.raises(load.Incomplete):
        load.open_study(file)
    with pytest.raises(ValueError, match="export of 'synthetic'"):
        load.open_study(file, "other", partial=True)


def test_the_export_is_the_table_of_the_store(whole: Path) -> None:
    file = whole / "study.parquet"
    export.export(open_store(whole), "synthetic", file)
    stored = pyarrow.dataset.dataset(f"{whole}/rows", format="ipc").to_table().to_pandas()
    names = dict.fromkeys(stored.select_dtypes("category").columns, object)
    exported = pd.read_parquet(file)
    frames = [
        frame.astype(names).sort_values(["run_id", "epoch"], ignore_index=True)
        for frame in (exported.drop(columns="arm"), stored)
    ]
    pd.testing.assert_frame_equal(*frames)
    arm_of = load.open_study(whole).cells["arm"]
    assert (exported["arm"].astype(object) == exported["run_id"].astype(object).map(arm_of)).all()
    assert set(exported["arm"]) == set(arm_of) >= {"source", "transfer"}


@pytest.mark.slow
def test_no_changed_byte_of_an_export_changes_a_value(tmp_path: Path) -> None:
    synthetic.write(tmp_path, small(seeds=(0,), sizes=(250,), frozen=(0,)))
    file = tmp_path / "study.parquet"
    export.export(open_store(tmp_path), "synthetic", file)
    payload = file.read_bytes()
    before = surfaces.over_epochs(load.open_study(file))
    for position in range(5, len(payload), len(payload) // 150):
        changed = bytearray(payload)
        changed[position] ^= 0x41
        file.write_bytes(changed)
        try:
            after = surfaces.over_epochs(load.open_study(file))
        except ValueError:
            continue
        assert np.array_equal(after, before), position


def test_a_study_is_told_in_five_lines(whole: Path) -> None:
    study = load.open_study(whole)
    lines = repr(study).splitlines()
    assert [line.split()[0] for line in lines] == [
        "study",
        "targets",
        "sources",
        "networks",
        "seeds",
    ]
    assert f"synthetic: {len(study.cells)} Runs ({len(study.cells)} done)" in lines[0]
    assert max(map(len, lines)) < 200
    assert study._repr_html_().count("<tr>") == 5
    assert "<th" in study._repr_html_()


def test_other_files_are_no_export(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="not one that `study export` wrote"):
        load.open_study(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(ValueError, match="not a whole Parquet file"):
        load.open_study(tmp_path / "text.parquet")
    with pytest.raises(FileNotFoundError):
        load.open_study(tmp_path / "none.parquet")


@pytest.mark.parametrize("name", [*damage.HEADERS, *damage.ROWS])
def test_forged_export_is_rejected_in_one_line(
    name: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original, forged = whole / "whole.parquet", whole / "forged.parquet"
    if not original.exists():
        export.export(open_store(whole), "synthetic", original)
    how = (
        {"header": damage.HEADERS[name]} if name in damage.HEADERS else {"rows": damage.ROWS[name]}
    )
    damage.forge(original, forged, **how)  # type: ignore[arg-type]
    assert analysis.__main__.main(["report", str(forged), "--out", str(whole / "page")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "forged.parquet" in said and said.strip().isprintable()
    assert not (whole / "page").exists()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_task_that_looks_like_a_formula_is_a_text_in_csv_tables(
    suffix: str, tmp_path: Path
) -> None:
    runs = [
        replace(run, task="=1+1")
        for run in small(seeds=(0,), sizes=(250,), frozen=(0,))
        if run.source
    ]
    synthetic.write(tmp_path, runs)
    file = tmp_path / f"all.{suffix}"
    export.export(open_store(tmp_path), "synthetic", file)
    if suffix == "csv":
        assert set(pd.read_csv(file)["task"]) == {"'=1+1"}
        return
    page = write_report(load.open_study(file), tmp_path / "page")
    assert set(load.open_study(file).cells["task"]) == {"=1+1"}
    for table in (page.parent / "tables").glob("*.csv"):
        assert not re.search(r"(^|,)\"?=", table.read_text(), re.MULTILINE), table


def test_directory_named_like_an_export_is_a_store(tmp_path: Path) -> None:
    root = tmp_path / "runs.parquet"
    synthetic.write(root, small(seeds=(0,), sizes=(250,), frozen=(0,)))
    assert load.open_study(root).name == "synthetic"


def test_duckdb_and_polars_read_export_and_store_alike(whole: Path) -> None:
    duckdb, pl = (pytest.importorskip(name) for name in ("duckdb", "polars"))
    file = whole / "other_tools.parquet"
    export.export(open_store(whole), "synthetic", file)
    stored = pyarrow.dataset.dataset(whole / "rows", format="ipc")
    sql = "SELECT frozen, avg(test_error) FROM {} WHERE epoch = 12 GROUP BY 1 ORDER BY 1"
    means = [duckdb.sql(sql.format(f"'{file}'")).fetchall()]
    means.append(duckdb.sql(sql.format("stored")).fetchall())
    for frame in (pl.scan_parquet(file), pl.scan_pyarrow_dataset(stored)):
        last = frame.filter(pl.col("epoch") == 12).group_by("frozen").agg(pl.mean("test_error"))
        means.append(last.sort("frozen").collect().rows())
    assert [frozen for frozen, _ in means[0]] == [0, 4, 9]
    assert np.allclose(means, means[0])
    assert stored.count_rows() == pq.read_metadata(file).num_rows


def test_sources_of_equally_many_steps_are_an_arm_beside_those_of_equally_many_epochs() -> None:
    by_epochs, by_steps = Recipe(num_epochs=9), Recipe(num_steps=90)
    runs = []
    for recipe in (by_epochs, by_steps):
        for size in (20, 200):
            source = Run(task="a", size=size, model="resnet18", width=4, recipe=recipe, seed=0)
            runs += [source, replace(source, task="b", size=30, start=source, recipe=by_epochs)]
    assert list(arms(runs).values()) == ["source", "transfer"] * 2 + ["source", "matched steps"] * 2
    assert list(arms(runs[4:]).values()) == ["source", "transfer"] * 2


def test_layers_cut_inside_are_parts_of_the_axis(tmp_path: Path) -> None:
    recipe = Recipe(num_epochs=2)
    start = Run(task="a", size=40, model="resnet18", width=4, recipe=recipe, seed=0)
    cuts = ((6, 0, 0), (6, 0, 1), (7, 0, 1), (8, 0, 0), (9, 32, 0), (9, 8, 0), (9, 0, 0))
    runs = [start] + [
        replace(start, task="b", start=start, frozen=k, trained_channels=m, frozen_pieces=p)
        for k, m, p in cuts
    ]
    synthetic.write(tmp_path, runs)
    study = load.open_study(tmp_path)
    # Of 32 channels: some are less than a layer, all of them less than the next cut.
    places = [6, 6.5, 7.5, 8, pytest.approx(9 - 32 / 33), pytest.approx(9 - 8 / 33), 9]
    assert study.cells["frozen"].tolist()[1:] == places
    surface = surfaces.at_epoch(study, squeeze=True)
    assert surface["frozen"].values.tolist() == places
    assert surface.notnull().all()
    trained = study.cells["parameters_trained"].tolist()[1:]
    assert trained == sorted(trained, reverse=True)
    along = surfaces.along(surface, "parameters_trained")
    assert along.dims == ("parameters_trained",) and along.sizes["parameters_trained"] == 7
    # The place of a Run without rows follows from other Runs of its network.
    more = [*runs, replace(runs[2], seed=1), replace(runs[3], frozen=2)]
    synthetic.write(tmp_path, more, absent=more[-2:])
    frozen = load.open_study(tmp_path, partial=True).cells["frozen"].tolist()
    assert frozen[-2:] == [6.5, 2.5]
