"""The verbs where only the analysis is installed: each does its work, or says in a line what it lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import study
from analysis import __main__ as analysis_command
from study.cli import main
from study.messages import missing_text

HERE = Path(study.__file__).parents[1]
STORE = HERE / "tests" / "fixtures" / "store-every-kind"
# Read by Python before anything else, also in the process that `study report` starts.
REFUSES = """\
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "ray", "safetensors", "sklearn",
                                      "psutil", "tqdm", "rich"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuses())
"""
MANY = """\
import sys
from study.cli.main import main
for verb in VERBS:
    print("$", main(verb.split()), flush=True)
"""


def ran(folder: Path, *verbs: str) -> list[tuple[int, str]]:
    """Status and words of each of these verbs, one after another in one process without those packages."""
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(REFUSES)
    ended = subprocess.run(
        [sys.executable, "-u", "-P", "-c", MANY.replace("VERBS", repr(verbs))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": f"{folder / 'without'}{os.pathsep}{HERE}", "STUDY_ROOT": "store"},
        check=True,
    )
    assert "Traceback" not in ended.stdout
    found, words = [], []
    for line in ended.stdout.splitlines():
        if line.startswith("$ "):
            found.append((int(line[2:]), "\n".join(words)))
            words = []
        else:
            words.append(line)
    assert len(found) == len(verbs)
    return found


def test_verbs_that_read_a_store_need_neither_torch_nor_ray(tmp_path: Path) -> None:
    shutil.copytree(STORE, tmp_path / "store")
    status, show, export, table, retry, verify, *others = ran(
        tmp_path,
        "status every",
        "show 5cc9",
        "export every all.parquet",
        "export every all.csv",
        "retry every",
        "verify every",
        "spaces",
        "new mine.py",
        "plan quickstart",
        "plan mine.py",
        "register mine.py",
        "publish every set --licence mit",
        "tidy",
        "launch-files files",
    )
    assert [ended for ended, _ in others] == [0] * 8, others
    assert status[0] == 0 and "2 done" in status[1]
    assert show[0] == 0 and "rows/5cc927ff7f4e.arrow" in show[1]
    assert export == (0, "all.parquet: 6 rows of 2 Runs")
    assert table == (0, "all.csv: 6 rows of 2 Runs")
    assert len((tmp_path / "all.csv").read_text().splitlines()) == 7
    assert retry == (0, "the next `study run every` tries 0 Runs again")
    assert verify[0] == 0 and "0 damaged" in verify[1]


@pytest.mark.slow
def test_a_report_needs_neither_torch_nor_ray(tmp_path: Path) -> None:
    shutil.copytree(STORE, tmp_path / "store")
    ((status, said),) = ran(tmp_path, "report every")
    assert status == 0
    assert said.splitlines()[-1] == "reports/every/index.html"
    assert (tmp_path / "reports" / "every" / "index.html").is_file()


def test_what_needs_more_says_in_one_line_what_to_install(tmp_path: Path) -> None:
    shutil.copytree(STORE, tmp_path / "store")
    (tmp_path / "planned.py").write_text(
        "from study.grid import grid\n"
        "from study.run import Recipe\n"
        "RUNS = grid(target_task='tiny', target_size=3, model='resnet18', width=1, frozen=0, seed=0,\n"
        "            recipe=Recipe(num_epochs=1, learning_rate=0.1))\n"
    )
    plan, check, run, prepare = ran(
        tmp_path, "plan planned.py", "check quickstart", "run quickstart", "prepare digits"
    )
    assert plan[0] == 0, plan
    assert "1 absent" in plan[1]
    assert "cost      not known: this needs torch, which is not installed here: " in plan[1]
    for (status, said), needs in (
        (check, "torch"),
        (run, "torch"),
        (prepare, "scikit-learn"),
    ):
        assert status == 2
        assert len(said.splitlines()) == 1
        assert said.startswith(f"study: this needs {needs}") and "python -m pip install" in said


def test_what_is_missing_is_named_as_it_is_installed() -> None:
    assert missing_text("sklearn.datasets").startswith("this needs scikit-learn, which")


@pytest.mark.parametrize("verb", ["report", "export", "publish"])
def test_study_and_analysis_verbs_take_the_same_words(verb: str) -> None:
    ours, theirs = (_words(get_command(each.app), verb) for each in (main, analysis_command))
    # Every verb of `study` takes --data; it reads the rest from the search space.
    of_space = {"publish": {"--question", "--space-file"}, "report": {"--runs"}, "export": set()}
    assert ours - {"--data"} == theirs - of_space[verb]


def _words(command: Any, verb: str) -> set[str]:
    """Return the flags of a verb, and its arguments as its help shows them."""
    params = command.commands[verb].params
    return {
        each.opts[0] if each.param_type_name == "option" else each.metavar or each.name
        for each in params
    }
