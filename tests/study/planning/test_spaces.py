"""The spaces that come along: sound, of the size that they say, and asking for shared Runs once."""

import re
from pathlib import Path

import pytest

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
