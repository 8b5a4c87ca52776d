"""What a shell is told when it asks how `study …` goes on, by argcomplete's own protocol."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from study.planning.spaces import packaged
from tests.processes import environment

pytest.importorskip("argcomplete")


def completions(line: str, folder: Path) -> set[str]:
    """As a shell asks whose cursor is at the end of this line."""
    said = folder / "said"
    asked = environment(
        _ARGCOMPLETE="1",
        _ARGCOMPLETE_STDOUT_FILENAME=str(said),
        _ARGCOMPLETE_IFS="\n",
        COMP_LINE=line,
        COMP_POINT=str(len(line)),
        COMP_TYPE="9",
    )
    subprocess.run([sys.executable, "-m", "study"], cwd=folder, env=asked, check=True, timeout=120)
    return {each.strip() for each in said.read_text().split("\n") if each}


@pytest.mark.slow
def test_a_shell_completes_verbs_flags_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it is not run')")
    assert completions("study re", tmp_path) == {"register", "report", "retry"}
    assert completions("study run --log m", tmp_path) == {"mlflow"}
    assert completions("study plan ", tmp_path) >= {*packaged(), "mine.py"}
    assert completions("study run reduced_r", tmp_path) == {"reduced_rates"}
    assert completions("study prepare cifar1", tmp_path) == {"cifar10", "cifar100"}
