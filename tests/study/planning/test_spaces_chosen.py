"""A part of a study by coordinates (`--only`): its Runs, their starts, and errors."""

from __future__ import annotations

import pytest

from study.grid import grid
from study.messages import UserError
from study.planning.spaces import chosen_ids
from study.run import Recipe, Run, coordinates

RUNS = grid(
    source_task="near",
    source_size=100,
    target_task="far",
    target_size=(30, 50),
    label_noise=(0, 0.2),
    model="resnet18",
    width=1,
    frozen=(0, 8, 9),
    seed=(0, 1),
    recipe=Recipe(num_epochs=1, learning_rate=0.1),
)


def chosen(given: str) -> list[Run]:
    ids = chosen_ids(given, RUNS)
    return [run for run in RUNS if run.id in ids]


@pytest.mark.parametrize(
    ("given", "num_cells", "num_sources"),
    [
        ("frozen=9,seed=0", 4, 1),
        ("frozen=8,9,seed=0", 8, 1),
        ("frozen=9", 8, 2),
        ("task=near", 0, 2),
        (" size = 30 , label_noise=0.20,frozen=9 ", 2, 2),
        ("source_task=none", 0, 2),
        ("seed=0,frozen=8,seed=1", 8, 2),
    ],
)
def test_chosen_ids_have_all_values_and_their_starts(
    given: str, num_cells: int, num_sources: int
) -> None:
    found = chosen(given)
    assert len([run for run in found if run.source is not None]) == num_cells
    assert len([run for run in found if run.source is None]) == num_sources
    for run in found:
        assert run.source is None or run.source in found
        if given == "frozen=9,seed=0" and run.source is not None:
            assert (coordinates(run)["frozen"], coordinates(run)["seed"]) == (9, 0)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("sede=0", "did you mean 'seed'"),
        ("frozen=7", "frozen=7: choose from 0, 8, 9"),
        ("task=fra", "choose from far, near; did you mean 'far'"),
        ("source_size=7", "choose from 100, none"),
        ("frozen", "write it as in 'frozen=8,9,seed=0'"),
        ("", "write it as in"),
        ("frozen=", "write it as in"),
        ("task=near,frozen=9", "no Run matches all of these"),
    ],
)
def test_chosen_ids_without_a_match_name_the_choices(given: str, says: str) -> None:
    with pytest.raises(UserError, match="--only=") as refused:
        chosen_ids(given, RUNS)
    assert says in str(refused.value)
