"""The folder of a report: the current one, the given one, or the store's for a Ray job."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from study.cli.main import main
from study.cli.reports import report_place, run_analysis, write_report
from study.run import Run
from study.store import Store, open_store, read_study
from study.store.rows import publish_rows
from study.store.studies import write_study
from tests import s3_server
from tests.stored import a_provenance, a_table
from tests.studies import ONE_RUN, small, write_space

SEEDS = small(**ONE_RUN, seed=range(9))
RUN = SEEDS[0]


@pytest.fixture
def ray_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process as `ray job submit` starts one: in a folder that is not the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    for name in ("STUDY_ROOT", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_report_place_is_the_current_folder_by_default(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    assert report_place(None, "tiny", store) == Path("reports/tiny")
    assert report_place("there", "tiny", store) == Path("there")


def test_report_place_of_a_ray_job_is_below_the_root(tmp_path: Path, ray_job: None) -> None:
    store = open_store(tmp_path / "store")
    assert report_place(None, "tiny", store) == tmp_path / "store" / "reports" / "tiny"
    assert report_place("/shared/out", "tiny", store) == Path("/shared/out")


@pytest.mark.parametrize("flags", [(), ("--root", "here"), ("--root", "/shared", "--out", "here")])
def test_run_in_a_ray_job_rejects_its_own_folder(
    flags: tuple[str, ...], ray_job: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "quickstart", *flags]) == 2
    error = capsys.readouterr().err
    assert "the folder of a Ray job" in error and str(Path.cwd()) in error
    assert not list(Path.cwd().iterdir())


def test_run_analysis_root_is_in_environment_and_not_in_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = tmp_path / "python"
    shown.write_text(
        '#!/bin/sh\nfor word in "$@"; do echo "<$word>"; done; echo "root $STUDY_ROOT"\n'
    )
    shown.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(shown))
    root = "s3://key:secret@bucket/store"
    ended = run_analysis(
        "report", root, "-x.csv", partial=True, question="Why?\n\n→ So.", more_related=None
    )
    assert ended.stdout == (
        "<-P>\n<-m>\n<analysis>\n<report>\n<--partial>\n<--question=Why?\n\n→ So.>\n<-->\n<-x.csv>\n"
        f"root {root}\n"
    )


def publish(store: Store, *runs: Run) -> None:
    made_by = replace(a_provenance(), weights_digest=None)
    for run in runs:
        publish_rows(store, run, a_table(run), made_by)


def test_report_of_a_changed_space_uses_its_runs_and_never_another_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_ROOT", "store")
    store = open_store("store")
    publish(store, *SEEDS[:3])
    for folder, seeds in (("a", (1, 2, 3)), ("b", range(5, 8))):
        Path(folder).mkdir()
        write_space(Path(folder, "tiny.py"), **ONE_RUN, seed=seeds)
    assert main(["report", "a/tiny.py"]) == 2
    assert "has no study 'tiny'; first: study run a/tiny.py" in capfd.readouterr().err
    write_study(store, "tiny", SEEDS[:2])

    # Seed 3 has no rows, and those of seed 0 are of another study.
    assert main(["report", "a/tiny.py"]) == 1
    error = capfd.readouterr().err
    assert "study: a/tiny.py: +2, −1 Runs since the last run" in error
    assert "1 of 3 Runs have no rows to read (1 missing)" in error
    for verb, *more in (["export"], ["publish", "--licence", "mit"]):
        assert main([verb, "a/tiny.py", "x.csv", *more]) == 2
        assert "+2, −1 Runs since the last run; run it first, or" in capfd.readouterr().err
    for verb, *more in (["report"], ["plan"], ["run", "--inline"], ["register"], ["export", "x"]):
        assert main([verb, "b/tiny.py", *more]) == 2
        problem = "has none of its 3 Runs, so it is another study; rename the file"
        assert problem in capfd.readouterr().err
    assert read_study(store, "tiny") == SEEDS[:2]


@pytest.mark.s3
def test_write_report_of_a_ray_job_on_a_bucket_is_in_the_bucket(
    s3_port: int, s3_credentials: None, ray_job: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(s3_server.root(s3_port, uuid.uuid4().hex))
    publish(store, RUN)
    write_study(store, "tiny", [RUN])
    assert write_report("tiny", store, partial=False) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(store.root.partition("?")[0])
    assert "/reports/tiny/index.html" in last
    assert store.get("reports/tiny/index.html").lower().startswith(b"<!doctype html>")
    assert not list(Path.cwd().rglob("index.html"))
