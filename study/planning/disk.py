"""What the predictions of a study will take on the disk, counted without a network.

Everything else that a Run leaves is small beside them, but for the weights of starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from study.planning.inventory import Inventory
from study.planning.spaces import Space
from study.run import Recipe
from study.store.schema import DONE
from study.tasks import TaskInfo
from study.training.steps import evaluated_steps

BYTES_OF_A_LABEL = 2


def predictions_bytes(space: Space, found: Inventory, infos: Mapping[str, TaskInfo]) -> int:
    """Bytes, before compression, of the predictions that are kept and not there yet.

    20 kB an evaluation on 10,000 test images; the file has a small part of that, as most answers stay
    what they were at the evaluation before. Runs on a task that is not known count as nothing.
    """
    return sum(
        _num_evaluations(run.recipe, run.size) * infos[run.task].num_test * BYTES_OF_A_LABEL
        for run in space.runs
        if run.id in space.with_predictions and found.states[run.id] != DONE and run.task in infos
    )


@cache
def _num_evaluations(recipe: Recipe, size: int) -> int:
    return len(evaluated_steps(recipe, size))
