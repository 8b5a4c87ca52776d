"""What is written for people is whole or as it was before, whenever its writer is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from analysis.load import output

KILLED = """
import os, sys
from pathlib import Path
from analysis.load import output
place = Path(sys.argv[1])
with output.folder(place, last="index.html") as draft:
    (draft / "tables").mkdir()
    (draft / "tables" / "new.csv").write_text("new")
    (draft / "index.html").write_text("half of")
    half = output.draft_of(place / "all[1].parquet")
    half.write_bytes(b"half of")
    os._exit(9)
"""


def everything(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_a_killed_writer_leaves_what_was_there_and_the_next_one_tidies(tmp_path: Path) -> None:
    with output.folder(tmp_path, last="index.html") as draft:
        (draft / "index.html").write_text("good")
        (draft / "old.csv").write_text("old")
    good = {"index.html": "good", "old.csv": "old"}
    assert everything(tmp_path) == good
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == 9
    left = everything(tmp_path)
    assert {name: left[name] for name in good} == good
    assert len(left) == 5, "two drafts of the page, one of the export"
    with output.folder(tmp_path, last="index.html") as draft:
        (draft / "index.html").write_text("better")
    output.draft_of(tmp_path / "all[1].parquet")
    assert everything(tmp_path) == {"index.html": "better", "old.csv": "old"}


def test_a_writer_that_fails_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("good")
    with (
        pytest.raises(ZeroDivisionError),
        output.folder(tmp_path, last="index.html") as draft,
    ):
        (draft / "index.html").write_text("half of")
        raise ZeroDivisionError
    assert everything(tmp_path) == {"index.html": "good"}
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_the_page_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published: list[str] = []

    def publish(draft: Path, path: Path) -> None:
        published.append(path.name)

    monkeypatch.setattr(output, "publish", publish)
    with output.folder(tmp_path, last="index.html") as draft:
        for name in ("z.csv", "index.html", "a.csv"):
            (draft / name).write_text("")
    assert published == ["a.csv", "z.csv", "index.html"]
