"""The README's commands and lines: each is run here, run elsewhere, or parsed and its space planned.

A command that is new in the README is in none of the three lists, and a test says so.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from study.cli.main import app
from study.cli.run import VERBS
from study.planning.plan import make_plan
from study.planning.spaces import load_space
from study.store import Store
from tests.image_files import pixels_of, save

HERE = Path(__file__).resolve().parents[1]
README = (HERE / "README.md").read_text(encoding="utf-8")

# Under three minutes on two cores: run as they stand, in this order, by `test_your_own_study_…`.
RUN_HERE = (
    "study prepare photos.py",
    "study plan photos.py",
    "study run photos.py --inline",
    "study status photos.py",
)

# Taken from the README, as they stand, by `.ci/run`, by a word that each has.
RUN_BY_CI = {
    "quickstart": "python -m pip install -e . && study run quickstart",
    "pytest": "python -m pip install -e '.[test]' && python -m pytest",
    "jinja2": "python -m pip install pyarrow numpy scipy pandas xarray matplotlib jinja2 typer && "
    "python -m pip install --no-deps -e .",
}

# A cluster, or days of training.
PLANNED = (
    "study run resnet --address auto --root /shared/store --gpus-per-trial 0.25",
    "ray job submit --address http://head:8265 -- "
    "study run resnet --root /shared/store --gpus-per-trial 0.25",
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command of the blocks of shell, without its comment."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [command for line in lines if (command := re.sub(r"\s+# .*$", "", line).strip())]


def python_with(text: str) -> str:
    (block,) = [block for block in blocks("python") if text in block]
    return block


def study_words(command: str) -> list[str]:
    """The words after `study`, of a command that may hand it to another."""
    words = shlex.split(command)
    return words[words.index("study") + 1 :]


def test_every_command_is_run_or_planned() -> None:
    assert set(commands()) == {*RUN_HERE, *RUN_BY_CI.values(), *PLANNED}


@pytest.mark.parametrize("word", RUN_BY_CI)
def test_ci_takes_its_commands_from_the_readme(word: str) -> None:
    script = (HERE / ".ci" / "run").read_text(encoding="utf-8")
    (name,) = re.findall(rf"^(\w+)=\$\(readme_line {word}\)$", script, re.MULTILINE)
    assert script.count(f"${name}") + script.count(f"${{{name}") >= 2, "it is checked, and run"
    lines = re.findall(rf"^(python -m pip install .*{word}.*)$", README, re.MULTILINE)
    assert lines[0] == RUN_BY_CI[word], "the first line that .ci/run finds"


@pytest.mark.parametrize("command", PLANNED)
def test_what_takes_long_is_parsed_and_its_space_planned(command: str, empty: Store) -> None:
    verb, *words = study_words(command)
    parsed = get_command(app).commands[verb].make_context(verb, words)  # type: ignore[attr-defined]
    space = load_space(parsed.params["space_name"])
    wrong = make_plan(space, empty, Path("no-such-data")).wrong
    # All that may be wrong here is that the images are not on this machine.
    assert all(re.match(r"task '|Run\.task|.*no-such-data", each) for each in wrong), wrong


def test_every_space_of_the_table_comes_along() -> None:
    (table,) = re.findall(r"^\| space \| question \|\n(.*?)\n\n", README, re.MULTILINE | re.DOTALL)
    names = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines()))
    assert len(names) >= 12
    for name in names:
        assert load_space(name).runs, name


def test_the_table_of_verbs_has_every_verb() -> None:
    (table,) = [block for block in blocks("") if block.startswith("study ")]
    lines = [line for line in table.splitlines() if not line.startswith(" ")]
    assert {line.split()[1] for line in lines} == {*VERBS}


def test_every_file_that_is_named_is_there() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    named = re.findall(r"`((?:study|analysis|tests|\.github)/[\w./]+\.\w+)`", README)
    assert linked and named
    for path in {*linked, *named}:
        assert (HERE / path).exists(), path


def test_the_space_that_is_shown_is_one(tmp_path: Path) -> None:
    (tmp_path / "birds.py").write_text(python_with('name="birds"'), encoding="utf-8")
    space = load_space(tmp_path / "birds.py")
    cells = [run for run in space.runs if run.task == "birds"]
    assert len(cells) > 100
    assert {run.seed for run in cells} == {*range(5)}


@pytest.mark.slow
def test_your_own_study_on_your_own_images_as_the_readme_has_it(tmp_path: Path) -> None:
    for part, number in (("train", 20), ("test", 5)):
        for label, name in enumerate(("ant", "bee", "cow")):
            for each in range(number):
                pixels = pixels_of(1000 * label + each + 500 * (part == "test"), 20, 24)
                pixels[..., label] //= 4  # there is something to learn
                save(tmp_path / "data" / "photos" / part / name / f"{each}.png", pixels)
    (tmp_path / "photos.py").write_text(python_with('name="photos"'), encoding="utf-8")
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STUDY_ROOT", "STUDY_DATA", "RAY_"))
    }
    env |= {"PYTHONPATH": str(HERE), "PYTHONUTF8": "1"}
    said = {}
    for command in RUN_HERE:
        answer = subprocess.run(
            [sys.executable, "-m", "study", *study_words(command)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        assert answer.returncode == 0, (command, answer.stderr)
        said[command] = answer.stdout
    assert "60 training and 15 test images of 3×16×16, 3 classes" in said[RUN_HERE[0]]
    assert re.search(r"\d+ cores? here: about ", said[RUN_HERE[1]])
    page = Path(tmp_path, said[RUN_HERE[2]].splitlines()[-1])
    assert page.stat().st_size > 100_000
    assert "14 Runs: 14 done" in said[RUN_HERE[3]]


@pytest.mark.slow
def test_the_lines_for_a_notebook_run_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(python_with("run_study("), names)  # the README is ours
    assert "two-cuts: 6 Runs" in capsys.readouterr().out
    assert names["final"].sizes["frozen"] == 2  # type: ignore[attr-defined]


def test_every_block_of_python_is_python() -> None:
    for block in blocks("python"):
        ast.parse(block)
