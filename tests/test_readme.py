"""Check the commands, code, file names and links of all READMEs.

Every command is run here or by `.ci/run`, or is parsed. A command that is in no list fails a test.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from analysis.claims.registration import RULES
from analysis.load.export import kept_verdicts
from study.cli.main import app
from study.cli.run import VERBS
from study.planning.plan import make_plan
from study.planning.spaces import load_space
from study.store import Store
from tests.image_files import pixels_of, save
from tests.processes import run_python

HERE = Path(__file__).resolve().parents[1]

# Most lines that each file may have.
MOST_LINES = {
    "README.md": 150,
    "study/README.md": 300,
    "study/COMPARISON.md": 50,
    "study/PERFORMANCE.md": 100,
    "analysis/README.md": 250,
    "analysis/results/README.md": 200,
    "search_spaces/README.md": 120,
    "tests/README.md": 120,
    ".github/CONTRIBUTING.md": 120,
}
TEXTS = {name: (HERE / name).read_text(encoding="utf-8") for name in MOST_LINES}
README = TEXTS["README.md"]
PYTEST = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["pytest"]
MARKERS = {line.split(":")[0] for line in PYTEST["ini_options"]["markers"]}

# Run in this order by `test_own_study_of_the_readme_runs`; under three minutes on two cores.
RUN_HERE = (
    "study prepare photos.py",
    "study plan photos.py",
    "study run photos.py --inline",
    "study status photos.py",
)

FIRST_LOOK = "study report reduced"

# Read from README.md by `.ci/run`, which searches for a word of each.
RUN_BY_CI = {
    "quickstart": "python -m pip install -e . && study run quickstart",
    "pytest": "python -m pip install -e '.[test]' && python -m pytest",
    "jinja2": "python -m pip install pyarrow numpy scipy pandas xarray matplotlib jinja2 typer && "
    "python -m pip install --no-deps -e .",
}

# These need a cluster, or days of training.
PLANNED = (
    "study run resnet --address auto --root /shared/store --gpus-per-trial 0.25",
    "ray job submit --address http://head:8265 -- "
    "study run resnet --root /shared/store --gpus-per-trial 0.25",
)

DEVELOPMENT = (
    "python -m venv .venv && . .venv/bin/activate",
    "python -m pip install -e '.[test]'",
    'python -m pytest -n auto -m "not slow and not ray and not s3"',
    "ruff check . && ruff format . && mypy && lint-imports",
)


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """Return every command of the shell blocks, without its comment."""
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    return [command for line in lines if (command := re.sub(r"\s+# .*$", "", line).strip())]


def python_with(part: str, name: str) -> str:
    """Return the one Python block of a file that contains `part`."""
    (block,) = [block for block in blocks("python", TEXTS[name]) if part in block]
    return block


def study_words(command: str) -> list[str]:
    """Return the words after `study`, also of a command that is an argument of another one."""
    return shlex.split(command.partition("study ")[2])


def run_study(command: str, folder: Path) -> str:
    """Run a `study` command in a folder; return what it prints."""
    return run_python("-m", "study", *study_words(command), folder=folder)[0]


def test_readme_commands_are_all_known() -> None:
    known = {*RUN_HERE, FIRST_LOOK, *RUN_BY_CI.values(), *PLANNED, *DEVELOPMENT}
    assert {command for text in TEXTS.values() for command in commands(text)} == known


@pytest.mark.parametrize("word", RUN_BY_CI)
def test_ci_reads_its_commands_from_the_readme(word: str) -> None:
    script = (HERE / ".ci" / "run").read_text(encoding="utf-8")
    (name,) = re.findall(rf"^(\w+)=\$\(readme_line {word}\)$", script, re.MULTILINE)
    assert script.count(f"${name}") + script.count(f"${{{name}") >= 2, "it is checked, and run"
    lines = re.findall(rf"^(python -m pip install .*{word}.*)$", README, re.MULTILINE)
    assert lines[0] == RUN_BY_CI[word], "the first line that .ci/run finds"


@pytest.mark.parametrize("command", PLANNED)
def test_cluster_command_parses_and_its_space_has_a_plan(command: str, empty: Store) -> None:
    verb, *words = study_words(command)
    parsed = get_command(app).commands[verb].make_context(verb, words)  # type: ignore[attr-defined]
    space = load_space(parsed.params["space_name"])
    wrong = make_plan(space, empty, Path("no-such-data")).wrong
    # Only the images may be missing on this machine.
    assert all(re.match(r"task '|Run\.task|.*no-such-data", each) for each in wrong), wrong


@pytest.mark.parametrize("name", TEXTS)
def test_readme_is_short_and_all_that_it_mentions_exists(name: str) -> None:
    text, folder = TEXTS[name], (HERE / name).parent
    assert len(text.splitlines()) <= MOST_LINES[name]
    assert {*re.findall(r"`study ([a-z][a-z-]*)", text)} <= {*VERBS}
    for block in blocks("python", text):
        ast.parse(block)
    for module, rest in re.findall(r"python -m ((?:tests|analysis)[.\w]*)([^`\n]*)", text):
        path = HERE / module.replace(".", "/")
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        source = file.read_text(encoding="utf-8")
        assert all(f'"{option}"' in source for option in re.findall(r"--[\w-]+", rest)), rest
    for expression in re.findall(r'-m "(not [^"]+)"', text):
        assert {*re.findall(r"\w+", expression)} - {"not", "and"} <= MARKERS
    for target in re.findall(r"\]\((?!http)([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        file = folder / path if path else HERE / name
        assert file.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", t).lower().replace(" ", "-") for t in titles}
    for path in re.findall(r"`((?:study|analysis|tests|search_spaces|\.github)/[\w./]+\w)`", text):
        assert (HERE / path).exists(), path


def test_table_of_verbs_is_complete() -> None:
    (table,) = [b for b in blocks("text", TEXTS["study/README.md"]) if b.startswith("study ")]
    assert sorted(line.split()[1] for line in table.splitlines()) == sorted(VERBS)


@pytest.mark.parametrize("folder", ["study", "analysis"])
def test_list_of_files_has_every_file(folder: str) -> None:
    (listed,) = [b for b in blocks("text", TEXTS[f"{folder}/README.md"]) if ".py  " in b]
    found, parents = [], [HERE / folder]
    for line in listed.splitlines():
        indent, entry = re.findall(r"^( *)(\S+)", line)[0]
        path = parents[len(indent) // 2] / entry
        assert path.exists(), entry
        parents[len(indent) // 2 + 1 :] = [path]
        found += [path] if path.is_file() else []
    files = (HERE / folder).rglob("*.py")
    assert sorted(found) == sorted(path for path in files if not path.name.startswith("__"))


def test_list_of_test_files_has_every_file_and_folder() -> None:
    (listed,) = [b for b in blocks("text", TEXTS["tests/README.md"]) if "conftest.py  " in b]
    inner = [path for path in HERE.glob("tests/[!_.]*") if path.name != "README.md"]
    wanted = [f"{path.name}/" if path.is_dir() else path.name for path in inner]
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(wanted)


def test_table_of_spaces_has_every_bundled_space() -> None:
    text = TEXTS["search_spaces/README.md"]
    (table,) = re.findall(r"^\| space \| question \|\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    names = re.findall(r"`(\w+)`", "\n".join(row.split("|")[1] for row in table.splitlines()))
    files = [path.stem for path in HERE.glob("search_spaces/*.py")]
    assert sorted(names) == sorted(name for name in files if not name.startswith("_"))


def test_example_space_has_a_grid_of_birds(tmp_path: Path) -> None:
    text = python_with('name="birds"', "search_spaces/README.md")
    (tmp_path / "birds.py").write_text(text, encoding="utf-8")
    space = load_space(tmp_path / "birds.py")
    cells = [run for run in space.runs if run.task == "birds"]
    assert len(cells) > 100
    assert {run.seed for run in cells} == {*range(5)}


# The study of each verdict in README.md, and the text of its effect; None if no number is shown.
EFFECTS: Final[Mapping[str, tuple[str, Callable[[float], str] | None]]] = {
    "C1": ("reduced", None),
    "C2": ("reduced_sources", lambda value: f"{10**value:.2f}"),
    "C3": ("reduced", lambda value: f"{value:.1f}"),
    "C4": ("reduced", lambda value: f"{100 * value:.1f}"),
    "C5a": ("reduced", lambda value: f"{-100 * value:.1f}"),
    "C5b": ("reduced", lambda value: f"{-100 * value:.1f}"),
}


@pytest.mark.parametrize("claim", EFFECTS)
def test_verdict_in_the_readme_equals_the_bundled_one(claim: str) -> None:
    study, text_of = EFFECTS[claim]
    ((answer, effect),) = re.findall(rf"^\| {claim}: .* \| (.*) \| (.*) \|$", README, re.MULTILINE)

    def bundled(rules: int) -> Any:
        table = kept_verdicts(study, rules)
        assert table is not None
        (row,) = table[(table["claim"] == claim) & (table["kind"] == "primary")].itertuples()
        return row

    kept = bundled(RULES)
    assert answer == kept.answer == bundled(1).answer
    if text_of is not None:
        between = sorted(text_of(end) for end in (kept.low, kept.high))
        assert f"{text_of(kept.effect)} " in effect and f"[{', '.join(between)}]" in effect


@pytest.mark.slow
def test_first_look_prints_what_the_readme_shows(tmp_path: Path) -> None:
    printed = run_study(FIRST_LOOK, tmp_path)
    shown = [line for block in blocks("text", README) for line in block.splitlines()]
    assert shown
    for line in shown:
        assert line.removesuffix("…") in printed
    assert Path(tmp_path, printed.splitlines()[-1]).stat().st_size > 100_000


@pytest.mark.slow
def test_own_study_of_the_readme_runs(tmp_path: Path) -> None:
    for part, number in (("train", 20), ("test", 5)):
        for (label, name), each in product(enumerate(("ant", "bee", "cow")), range(number)):
            pixels = pixels_of(1000 * label + each + 500 * (part == "test"), 20, 24)
            pixels[..., label] //= 4  # there is something to learn
            save(tmp_path / "data" / "photos" / part / name / f"{each}.png", pixels)
    text = python_with('name="photos"', "README.md")
    (tmp_path / "photos.py").write_text(text, encoding="utf-8")
    prepared, planned, report, status = (run_study(command, tmp_path) for command in RUN_HERE)
    assert "60 training and 15 test images of 3×16×16, 3 classes" in prepared
    assert re.search(r"about .* on the \d+ cores? of this machine", planned)
    assert Path(tmp_path, report.splitlines()[-1]).stat().st_size > 100_000
    assert "14 Runs: 14 done" in status


@pytest.mark.slow
def test_notebook_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(python_with("run_study(", "analysis/README.md"), names)  # the README is ours
    assert "two-cuts: 6 Runs" in capsys.readouterr().out
    assert names["final"].sizes["frozen"] == 2  # type: ignore[attr-defined]
