"""The spaces that come along: sound, of the size that they say, and asking for shared Runs once."""

import re
from pathlib import Path

import pytest

from analysis.load.arms import arms
from study.messages import UserError
from study.planning.spaces import load_space, packaged
from study.run import Run


@pytest.mark.parametrize("name", sorted(packaged()))
def test_a_space_is_as_its_docstring_says(name: str) -> None:
    space = load_space(name)
    assert f"study run {name}" in space.doc
    said = re.search(r"Runs\s+([\d,]+): ([\d,]+) sources .*?and ([\d,]+) cells", space.doc)
    assert said, space.doc
    sources = {run.source for run in space.runs if run.source is not None}
    counts = len(space.runs), len(sources), len(space.runs) - len(sources)
    assert counts == tuple(int(number.replace(",", "")) for number in said.groups())


def test_sources_are_shared_between_spaces() -> None:
    def sources(name: str) -> set[Run]:
        return {run.source for run in load_space(name).runs if run.source is not None}

    shared = sources("resnet") & sources("controls")
    assert {(run.task, run.size) for run in shared} == {("cifar100", 10_000), ("cifar100", 25_000)}
    assert sources("width") & sources("resnet")
    assert sources("sources") & sources("resnet")


def test_which_source_is_more_related_is_written_in_the_space(tmp_path: Path) -> None:
    assert load_space("resnet").related == ("cifar100", "tiny-imagenet")
    file = tmp_path / "mine.py"
    file.write_text("from search_spaces.resnet import RUNS\nRELATED = ('cifar100', 'mnist')\n")
    with pytest.raises(UserError, match=r"RELATED=.*two of cifar100, tiny-imagenet"):
        load_space(file)


def test_a_space_that_leaves_the_program_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import sys\n\nsys.exit(0)\n")
    with pytest.raises(UserError, match=r"mine.py, line 3: SystemExit: 0"):
        load_space(file)


def test_whether_predictions_are_kept_is_written_in_the_space(tmp_path: Path) -> None:
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
        with pytest.raises(UserError, match=rf"KEEP_PREDICTIONS={wrong}: choose True or False"):
            load_space(file)
