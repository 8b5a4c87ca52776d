"""The bundled search spaces: valid, of the size in their docstrings, and with shared Runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import study
from analysis.load.arms import arms
from study.messages import UserError
from study.planning.spaces import load_space, packaged
from study.run import Run


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_space_has_the_runs_of_its_docstring(name: str) -> None:
    space = load_space(name)
    assert f"study run {name}" in space.doc
    said = re.search(r"Runs\s+([\d,]+): ([\d,]+) sources .*?and ([\d,]+) cells", space.doc)
    assert said, space.doc
    sources = {run.source for run in space.runs if run.source is not None}
    counts = len(space.runs), len(sources), len(space.runs) - len(sources)
    assert counts == tuple(int(number.replace(",", "")) for number in said.groups())


def test_packaged_spaces_share_sources() -> None:
    def sources(name: str) -> set[Run]:
        return {run.source for run in load_space(name).runs if run.source is not None}

    shared = sources("resnet") & sources("controls")
    assert {(run.task, run.size) for run in shared} == {("cifar100", 5_000), ("cifar100", 25_000)}
    assert sources("width") & sources("resnet")
    assert sources("sources") & sources("resnet")


def test_packaged_spaces_name_the_more_related_source(tmp_path: Path) -> None:
    assert load_space("resnet").related == ("cifar100", "tiny-imagenet")
    file = tmp_path / "mine.py"
    file.write_text("from search_spaces.resnet import RUNS\nRELATED = ('cifar100', 'mnist')\n")
    with pytest.raises(UserError, match=r"RELATED=.*two of cifar100, tiny-imagenet"):
        load_space(file)


def test_load_space_that_exits_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import sys\n\nsys.exit(0)\n")
    with pytest.raises(UserError, match=r"mine.py, line 3: SystemExit: 0"):
        load_space(file)


def test_load_space_reads_keep_predictions(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    text = "from search_spaces.controls import RUNS\n"
    file.write_text(text)
    assert load_space(file).with_predictions == frozenset()
    file.write_text(text + "KEEP_PREDICTIONS = True\n")
    space = load_space(file)
    arm_of = arms(space.runs)
    assert space.with_predictions == {run.id for run in space.runs if arm_of[run.id] != "source"}
    assert {arm_of[run_id] for run_id in space.with_predictions} > {"scratch", "transfer"}
    for wrong in ("'yes'", "1", "None"):
        file.write_text(text + f"KEEP_PREDICTIONS = {wrong}\n")
        with pytest.raises(UserError, match=rf"KEEP_PREDICTIONS={wrong}: choose True, False or"):
            load_space(file)
    file.write_text(text + "KEEP_PREDICTIONS = 'probabilities'\n")
    assert load_space(file).with_probabilities == space.with_predictions
    squared = (
        "from dataclasses import replace\n"
        "RUNS = [replace(run, recipe=replace(run.recipe, loss='squared')) for run in RUNS]\n"
    )
    file.write_text(text + squared + "KEEP_PREDICTIONS = True\n")
    assert load_space(file).with_predictions and not load_space(file).with_probabilities
    file.write_text(text + squared + "KEEP_PREDICTIONS = 'probabilities'\n")
    with pytest.raises(
        UserError, match=r"'probabilities': the outputs of .* Recipe.loss='squared'"
    ):
        load_space(file)


def test_load_space_file_beside_it_does_not_replace_a_package(tmp_path: Path) -> None:
    """Runs in a new process, because this one has imported the packages."""
    for name in ("study", "timm", "torch", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py was imported')")
    (tmp_path / "helper.py").write_text("from search_spaces.quickstart import RUNS")
    (tmp_path / "own.py").write_text(
        "from importlib.util import find_spec\nfrom helper import RUNS\n"
        "assert 'site-packages' in find_spec('timm').origin, find_spec('timm')\n"
    )
    code = "from study.planning.spaces import load_space; print(len(load_space('own.py').runs))"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(study.__file__).parents[1])},
    )
    assert ended.stdout == "88\n", ended.stderr


def test_load_space_helper_with_a_packages_name_is_named(tmp_path: Path) -> None:
    (tmp_path / "pandas.py").write_text("RUNS = []")
    for line in ("from pandas import RUNS\n", "import pandas\n\nRUNS = pandas.RUNS\n"):
        (tmp_path / "own.py").write_text(line)
        with pytest.raises(UserError, match=r"pandas\.py beside it is not imported.*rename it"):
            load_space(tmp_path / "own.py")
    (tmp_path / "own.py").write_text("import helper_that_is_nowhere\n")
    with pytest.raises(UserError, match=r"No module named 'helper_that_is_nowhere'$"):
        load_space(tmp_path / "own.py")
