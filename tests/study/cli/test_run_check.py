"""`study check`: the first epochs of two Runs, of which nothing stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from study.cli.main import main
from study.store import Store
from tests.processes import environment

SPACE = """
from study.grid import grid
from study.run import Recipe

RUNS = grid(
    source_task="digits-low", source_size=100, target_task="digits-high", target_size=100,
    model="resnet18", width=1, frozen=(0, 9), seed=0,
    recipe=Recipe(num_epochs={epochs}, batch_size=50, learning_rate=1e-3),
)
"""


def everything(folder: Path) -> dict[Path, int]:
    """All of ours that is there, and of files when they were written."""
    theirs = ("temporary", "__pycache__")  # what Python, torch and wandb make there when loaded
    return {
        path: path.stat().st_mtime_ns if path.is_file() else 0
        for path in sorted(folder.rglob("*"))
        if not any(part in theirs for part in path.parts) or "freezewise" in path.name
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the space lies; what goes into the temporary folder goes below it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "tiny.py").write_text(SPACE.format(epochs=3))
    return tmp_path


def test_it_says_how_two_runs_train_and_keeps_nothing(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(here)
    assert main(["check", "tiny.py", "--root", store.root]) == 0
    cheapest, dearest = capsys.readouterr().out.splitlines()
    assert cheapest.startswith("cheapest: digits-low n=100 → digits-high n=100, resnet18 width 1")
    assert "frozen 9, seed 0: trains on one CPU thread: 6 steps (3 epochs) in " in cheapest
    assert dearest.startswith("dearest: ") and "frozen 0, seed 0: trains on " in dearest
    for words in (" steps/s with evaluations", "; train loss ", "; memory up to "):
        assert words in cheapest and words in dearest
    assert everything(here) == before


def test_what_is_not_prepared_is_prepared_aside(here: Path) -> None:
    before = everything(here)
    assert main(["check", "tiny.py", "--root", "nowhere"]) == 0
    assert everything(here) == before


def test_a_run_that_fails_is_one_line(
    store: Store, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(store.root) / "tasks" / "digits-high.arrow"
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)
    before = everything(here)
    assert main(["check", "tiny.py", "--root", store.root]) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 2
    assert any("fails: Damaged: tasks/digits-high.arrow" in line for line in lines), said
    assert "Traceback" not in said.err
    assert everything(here) == before


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(store: Store, here: Path) -> None:
    (here / "long.py").write_text(SPACE.format(epochs=100_000))
    before = everything(here)
    checking = subprocess.Popen(
        [sys.executable, "-m", "study", "check", "long.py", "--root", store.root],
        env=environment(TMPDIR=str(here / "temporary")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # Of the first Run's start: its weights are there, so that the first Run itself is in training soon.
    while checking.poll() is None and not any(here.glob("temporary/*/store/weights/*")):
        time.sleep(0.05)
    checking.send_signal(signal.SIGINT)
    out, err = checking.communicate(timeout=120)
    assert (checking.returncode, out) == (3, "interrupted; nothing was kept\n"), err
    assert "Traceback" not in err
    assert everything(here) == before
