"""`study check`: the first epochs of two Runs, and nothing is kept."""

from __future__ import annotations

import shlex
import signal
import time
from pathlib import Path

import pytest

from study.cli.main import main
from study.run import Recipe
from study.store import Store
from tests.processes import start_python
from tests.studies import write_space

CHECKED = {"source_size": 100, "target_size": 100}


def files_in(folder: Path) -> dict[Path, int]:
    """Return our files and folders with the times at which files were written."""
    others = ("temporary", "__pycache__")  # Python, torch and wandb write there when loaded
    return {
        path: path.stat().st_mtime_ns if path.is_file() else 0
        for path in sorted(folder.rglob("*"))
        if not any(part in others for part in path.parts) or "freezewise" in path.name
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a search space; the temporary folder is in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    recipe = Recipe(num_epochs=3, batch_size=50, learning_rate=1e-3)
    write_space(tmp_path / "tiny.py", **CHECKED, recipe=recipe)
    return tmp_path


def test_check_prints_two_runs_and_keeps_only_their_speed(
    store: Store,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setenv("STUDY_CACHE", str(tmp_path_factory.mktemp("cache")))
    before, plan = files_in(folder), ["plan", "tiny.py", "--root", store.root]
    assert main(plan) == 0
    measure = f"`study check tiny.py --root {store.root}` measures this machine"
    assert f"(assumed from a typical speed; {measure})" in capsys.readouterr().out
    assert main(["check", "tiny.py", "--root", store.root]) == 0
    cheapest, dearest, then = capsys.readouterr().out.splitlines()
    assert then == f"`study {shlex.join(plan)}` now uses the speeds of this machine"
    assert cheapest.startswith("cheapest: digits-low n=100 → digits-high n=100, resnet18 width 1")
    assert "frozen 9, seed 0: trains on one CPU thread: 6 steps (3 epochs) with " in cheapest
    assert dearest.startswith("dearest: ") and "frozen 0, seed 0: trains on " in dearest
    for words in (" ms an evaluation, the whole Run in about ", "; train loss ", "; memory up to "):
        assert words in cheapest and words in dearest
    assert main(plan) == 0
    assert "(from the speed that this machine had on 2" in capsys.readouterr().out
    # Tasks that are not prepared are prepared in the temporary folder.
    assert main(["check", "tiny.py", "--root", "nowhere"]) == 0
    assert files_in(folder) == before


def test_check_failing_run_is_one_line(
    store: Store, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(store.root) / "tasks" / "digits-high.arrow"
    payload = bytearray(path.read_bytes())
    payload[len(payload) // 2] ^= 1
    path.write_bytes(payload)
    before = files_in(folder)
    assert main(["check", "tiny.py", "--root", store.root]) == 1
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert len(lines) == 3
    assert any("fails: Damaged: tasks/digits-high.arrow" in line for line in lines), printed
    assert "Traceback" not in printed.err
    assert files_in(folder) == before


@pytest.mark.slow
def test_check_interrupted_leaves_nothing_behind(store: Store, folder: Path) -> None:
    write_space(folder / "long.py", **CHECKED, recipe=Recipe(num_epochs=100_000, batch_size=50))
    before = files_in(folder)
    words = ("-m", "study", "check", "long.py", "--root", store.root)
    checking = start_python(*words, folder=folder, TMPDIR=str(folder / "temporary"))
    # The weights of the start exist, so the Run itself trains soon.
    while checking.poll() is None and not any(folder.glob("temporary/*/store/weights/*")):
        time.sleep(0.05)
    checking.send_signal(signal.SIGINT)
    out, err = checking.communicate(timeout=120)
    assert (checking.returncode, out) == (3, "interrupted; nothing was kept\n"), err
    assert "Traceback" not in err
    assert files_in(folder) == before
