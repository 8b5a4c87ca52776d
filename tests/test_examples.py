"""The scripts in tests/examples run as a user would run them, on a store and on its export."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from analysis import export, load, surfaces
from study.store import open_store

EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("examples")
    wanted = synthetic.runs(num_epochs=40, sizes=(250, 1_000), frozen=(0, 9), seeds=(0, 1))
    synthetic.write(root, wanted)
    export.export(open_store(root), "synthetic", root / "study.parquet")
    return root


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_an_example_prints_the_same_from_store_and_export(name: str, root: Path) -> None:
    printed = []
    for source in (root, root / "study.parquet"):
        answer = subprocess.run(
            [sys.executable, str(EXAMPLES / name), str(source)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=EXAMPLES.parents[1],
            env={"PYTHONPATH": str(EXAMPLES.parents[1]), "PYTHONUTF8": "1", "PATH": ""},
        )
        assert answer.returncode == 0, answer.stderr
        printed.append(answer.stdout)
    assert printed[0] == printed[1]
    assert len(printed[0].splitlines()) >= 4


def test_the_paper_table_holds_the_mean(root: Path) -> None:
    answer = subprocess.run(
        [sys.executable, str(EXAMPLES / "paper_table.py"), str(root)],
        capture_output=True,
        text=True,
        check=True,
        cwd=EXAMPLES.parents[1],
        env={"PYTHONPATH": str(EXAMPLES.parents[1]), "PYTHONUTF8": "1", "PATH": ""},
        encoding="utf-8",
    )
    final = 100 * surfaces.freezing_surface(load.open(root), label_noise=0.2)
    cell = final.sel(source_task="near", source_size=5_000, size=1_000, frozen=9)
    assert f"{float(cell.mean()):.1f} ± " in answer.stdout
