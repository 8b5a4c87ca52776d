"""The verbs where only the analysis is installed: each does its work, or says in a line what it lacks."""

from __future__ import annotations

import os
import re
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
# Python imports it before anything else, also in the process that `study report` starts.
WITHOUT_PACKAGES = """\
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "torchvision", "timm", "ray", "safetensors", "sklearn",
                                      "psutil", "tqdm", "rich"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""
SEVERAL_VERBS = """\
import sys
from study.cli.main import main
for verb in sys.argv[1:]:
    print("$", main(verb.split()), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a store."""
    shutil.copytree(HERE / "tests" / "fixtures" / "store-every-kind", tmp_path / "store")
    return tmp_path


def run_verbs(folder: Path, *verbs: str) -> list[tuple[int, str]]:
    """Run the verbs in one process without those packages; return the status and output of each."""
    (folder / "without").mkdir()
    (folder / "without" / "sitecustomize.py").write_text(WITHOUT_PACKAGES)
    path = f"{folder / 'without'}{os.pathsep}{HERE}"
    ended = subprocess.run(
        [sys.executable, "-u", "-P", "-c", SEVERAL_VERBS, *verbs],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "STUDY_ROOT": "store"},
        check=True,
    )
    assert "Traceback" not in ended.stdout
    output = re.split(r"^\$ (\d+)\n", ended.stdout, flags=re.MULTILINE)
    assert len(output) == 2 * len(verbs) + 1
    return [
        (int(status), text.strip())
        for text, status in zip(output[:-1:2], output[1::2], strict=True)
    ]


@pytest.mark.slow
def test_verbs_that_read_a_store_need_neither_torch_nor_ray(folder: Path) -> None:
    status, show, export, table, retry, verify, *others = run_verbs(
        folder,
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
    assert len((folder / "all.csv").read_text().splitlines()) == 7
    assert retry == (0, "the next `study run every` tries 0 Runs again")
    assert verify[0] == 0 and "0 damaged" in verify[1]


@pytest.mark.slow
def test_report_needs_neither_torch_nor_ray(folder: Path) -> None:
    ((status, text),) = run_verbs(folder, "report every")
    assert status == 0 and text.splitlines()[-1] == "reports/every/index.html"
    assert (folder / "reports" / "every" / "index.html").is_file()


def test_verbs_that_need_more_name_the_package_to_install(folder: Path) -> None:
    space = (
        "from study.run import Recipe, Run\n"
        "RUNS = [Run(task='tiny', size=3, model='{}', width={}, seed=0,\n"
        "            recipe=Recipe(num_epochs=1))]\n"
    )
    (folder / "planned.py").write_text(space.format("resnet18", 1))
    (folder / "own.py").write_text(space.format("timm/resnet10t", None))
    plan, *others = run_verbs(
        folder,
        "plan planned.py",
        "plan own.py",
        "check quickstart",
        "run quickstart",
        "prepare digits",
    )
    assert plan[0] == 0 and "1 absent" in plan[1] and " floating-point operations" in plan[1]
    packages = ("torch", "torch", "torch", "scikit-learn")
    for (status, text), package in zip(others, packages, strict=True):
        assert status == 2
        assert re.fullmatch(f"study: this needs {package}.*python -m pip install.*", text)
    assert missing_text("sklearn.datasets").startswith("this needs scikit-learn, which")


@pytest.mark.parametrize("verb", ["report", "export", "publish"])
def test_study_and_analysis_have_the_same_flags(verb: str) -> None:
    def words(module: Any) -> set[str]:
        return {
            each.opts[0] if each.param_type_name == "option" else each.metavar or each.name
            for each in get_command(module.app).commands[verb].params  # type: ignore[attr-defined]
        }

    # Every verb of `study` takes --data; it reads the rest from the search space.
    of_space = {"publish": {"--question", "--space-file"}, "report": {"--runs"}, "export": set()}
    assert words(main) - {"--data"} == words(analysis_command) - of_space[verb]
