"""The words that a shell gets when it completes `study …`, by the protocol of typer's script for bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.planning.spaces import packaged
from tests.processes import environment

STORE = Path(__file__).parents[2] / "fixtures" / "store-every-kind"


def completions(line: str, folder: Path) -> set[str]:
    """Return what bash is offered if the cursor is at the end of this line."""
    asked = environment(
        _STUDY_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(line.count(" "))
    )
    asked.pop("STUDY_ROOT", None)
    ended = subprocess.run(
        [sys.executable, "-m", "study"],
        cwd=folder,
        env=asked,
        check=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    return set(ended.stdout.splitlines())


@pytest.mark.slow
def test_completion_offers_verbs_flags_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it is not run')")
    shutil.copytree(STORE, tmp_path / "other")
    assert completions("study re", tmp_path) == {"register", "report", "retry"}
    assert completions("study run --log m", tmp_path) == {"mlflow"}
    assert completions("study plan ", tmp_path) >= {*packaged(), "mine.py"}
    assert completions("study run reduced_r", tmp_path) == {"reduced_rates"}
    assert completions("study prepare cifar1", tmp_path) == {"cifar10", "cifar100"}
    assert completions("study status --root other ev", tmp_path) == {"every"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_install_completion_makes_bash_complete_spaces(tmp_path: Path) -> None:
    """In a home folder of its own; `study` is a script there, as pip installs one."""
    study = tmp_path / "study"
    study.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m study "$@"\n')
    study.chmod(0o755)
    here = environment(HOME=str(tmp_path))
    here["PATH"] = f"{tmp_path}:{here['PATH']}"
    script = r"""
        study --install-completion && source ~/.bashrc || exit 1
        COMP_WORDS=(study plan quick) COMP_CWORD=2
        $(complete -p study | sed 's/.*-F \([^ ]*\).*/\1/') study
        echo "${COMPREPLY[@]}"
    """
    ended = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=tmp_path, env=here, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "quickstart"
