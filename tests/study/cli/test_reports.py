"""Where a report goes: here, where the user says, or, of a Ray job, into the store."""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from study.cli.main import main
from study.cli.reports import report_place, run_analysis, write_report
from study.run import Recipe, Run
from study.store import open_store, read_study
from study.store.rows import publish_rows
from study.store.studies import write_study
from tests import s3_server
from tests.stored import a_provenance, a_table

RUN = Run(
    task="digits-low", size=40, model="resnet18", width=1, seed=0, recipe=Recipe(num_epochs=3)
)


@pytest.fixture
def ray_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process as `ray job submit` starts one: in a folder that is not the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")


def test_a_report_lies_where_the_command_is_given_or_where_the_user_says(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    assert report_place(None, "tiny", store) == Path("reports/tiny")
    assert report_place("there", "tiny", store) == Path("there")


def test_a_ray_job_leaves_its_report_below_the_root(tmp_path: Path, ray_job: None) -> None:
    store = open_store(tmp_path / "store")
    assert report_place(None, "tiny", store) == tmp_path / "store" / "reports" / "tiny"
    assert report_place("/shared/out", "tiny", store) == Path("/shared/out")


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


SPACE = """
from study.grid import grid
from study.run import Recipe
RUNS = grid(target_task="digits-low", target_size=40, model="resnet18", width=1, frozen=0,
            recipe=Recipe(num_epochs=3), seed={seed})
"""


def test_report_of_a_changed_space_uses_its_runs_and_never_another_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STUDY_ROOT", "store")
    store = open_store("store")
    for seed in (0, 1, 2):
        run = replace(RUN, seed=seed)
        publish_rows(store, run, a_table(run), replace(a_provenance(), weights_digest=None))
    for folder, seeds in (("a", "(1, 2, 3)"), ("b", "range(5, 8)")):
        Path(folder).mkdir()
        Path(folder, "tiny.py").write_text(SPACE.format(seed=seeds))
    assert main(["report", "a/tiny.py"]) == 2
    assert "has no study 'tiny'; first: study run a/tiny.py" in capfd.readouterr().err
    write_study(store, "tiny", [RUN, replace(RUN, seed=1)])

    assert (
        main(["report", "a/tiny.py"]) == 1
    )  # seed 3 has no rows; those of seed 2 are of another study
    said = capfd.readouterr().err
    assert "study: a/tiny.py: +2, −1 Runs since the last run" in said
    assert "1 of 3 Runs have no rows to read (1 missing)" in said
    for verb in ("export", "publish"):
        licence = ["--licence", "mit"] if verb == "publish" else []
        assert main([verb, "a/tiny.py", "x.csv", *licence]) == 2
        assert "+2, −1 Runs since the last run; run it first, or" in capfd.readouterr().err
    for verb in (["report"], ["plan"], ["run", "--inline"], ["register"], ["export", "x.csv"]):
        assert main([verb[0], "b/tiny.py", *verb[1:]]) == 2
        said = "has none of its 3 Runs, so it is another study; rename the file"
        assert said in capfd.readouterr().err
    assert [run.id for run in read_study(store, "tiny")] == [RUN.id, replace(RUN, seed=1).id]


@pytest.mark.parametrize("flags", [(), ("--root", "here"), ("--root", "/shared", "--out", "here")])
def test_a_ray_job_keeps_nothing_in_its_own_folder(
    flags: tuple[str, ...],
    ray_job: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("STUDY_ROOT", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run", "quickstart", *flags]) == 2
    said = capsys.readouterr().err
    assert "the folder of a Ray job" in said
    assert str(Path.cwd()) in said
    assert not Path("store").exists() and not Path("here").exists()


@pytest.mark.s3
def test_a_ray_job_on_a_bucket_leaves_its_report_there(
    s3_port: int, s3_credentials: None, ray_job: None, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(s3_server.root(s3_port, uuid.uuid4().hex))
    made_by = replace(a_provenance(), weights_digest=None)
    publish_rows(store, RUN, a_table(RUN), made_by)
    write_study(store, "tiny", [RUN])
    assert write_report("tiny", store, partial=False) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(store.root.partition("?")[0])
    assert "/reports/tiny/index.html" in last
    page = store.get("reports/tiny/index.html")
    assert page.lower().startswith(b"<!doctype html>")
    assert not list(Path.cwd().rglob("index.html"))
