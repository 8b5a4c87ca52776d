"""The words that a shell gets when it completes `study …`, by the protocol of typer's script for bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from study.planning.spaces import packaged
from tests.processes import environment, run_python

STORE = Path(__file__).parents[2] / "fixtures" / "store-every-kind"


@pytest.mark.slow
def test_completion_offers_verbs_flags_and_spaces(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit('it is not run')")
    shutil.copytree(STORE, tmp_path / "other")

    def completions(line: str) -> set[str]:
        asked = {"_STUDY_COMPLETE": "complete_bash", "COMP_WORDS": line}
        asked["COMP_CWORD"] = str(line.count(" "))
        return set(run_python("-m", "study", folder=tmp_path, **asked)[0].splitlines())

    assert completions("study re") == {"register", "report", "retry"}
    assert completions("study run --log m") == {"mlflow"}
    assert completions("study plan ") >= {*packaged(), "mine.py"}
    assert completions("study run reduced_r") == {"reduced_rates"}
    assert completions("study prepare cifar1") == {"cifar10", "cifar100"}
    assert completions("study status --root other ev") == {"every"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_install_completion_makes_bash_complete_spaces(tmp_path: Path) -> None:
    study = tmp_path / "study"  # a script on PATH, as pip installs one
    study.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m study "$@"\n')
    study.chmod(0o755)
    script = r"""
        PATH=~:$PATH
        study --install-completion && source ~/.bashrc || exit 1
        COMP_WORDS=(study plan quick) COMP_CWORD=2
        $(complete -p study | sed 's/.*-F \([^ ]*\).*/\1/') study
        echo "${COMPREPLY[@]}"
    """
    printed = subprocess.check_output(
        ["bash", "--norc", "-c", script],
        cwd=tmp_path,
        env=environment(HOME=str(tmp_path)),
        text=True,
    )
    assert printed.splitlines()[-1] == "quickstart"
