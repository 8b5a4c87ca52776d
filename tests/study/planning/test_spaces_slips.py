"""Misspelled names in search spaces: similar names are suggested."""

from __future__ import annotations

from pathlib import Path

import pytest

from study.messages import UserError
from study.planning.spaces import load_space

RUN_AND_RECIPE = "from study.run import Recipe, Run\n"


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("from study.run import Recip", "did you mean 'Recipe'?"),
        ("from study.tasks import FolderImages", "did you mean 'ImageFolderImages'?"),
        ("import study.grid; study.grid.gird()", "did you mean 'grid'?"),
        ("RUNS = [Rnu]", "did you mean 'Run'?"),
        ("RUNS = rnage(3)", "did you mean 'range'?"),
        (
            "Recipe(num_epoch=3)",
            "did you mean 'num_epochs'?",
        ),
        ("Recipe(x_y_z=3)", "; choose from "),
        ("Run.zzzz(1)", "has no attribute 'zzzz'"),
        ("def own(size): ...\nown(q=1)", "unexpected keyword argument 'q'"),
        ("[].append(kee=1)", "takes no keyword arguments"),
        (
            "class Own:\n    __signature__ = 3\n    def __call__(self): ...\nOwn()(q=1)",
            "argument 'q'",
        ),
    ],
)
def test_load_space_misspelled_name_suggests_the_right_one(
    line: str, end: str, tmp_path: Path
) -> None:
    space = tmp_path / "mine.py"
    space.write_text(RUN_AND_RECIPE + line)
    with pytest.raises(UserError) as caught:
        load_space(space)
    said = str(caught.value)
    assert end.lower() in said.lower()  # Python 3.13 suggests some names itself, in its own words
    assert said.lower().count("did you mean") == (1 if "did you" in end else 0), (
        "nothing is made up"
    )
