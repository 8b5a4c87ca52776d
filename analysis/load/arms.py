"""Which arm of a study a Run belongs to: the transfer itself, a control, or a mere source.

Owns the names of the arms and the one rule that tells them apart. Nothing is stored: an arm follows
from a Run's fields, and from whether other Runs of the study start from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from study.run import PRETRAINED, Run

TRANSFER: Final = "transfer"
SCRATCH: Final = "scratch"
RANDOM_FROZEN: Final = "random frozen"
SAME_TASK: Final = "same task"
REINITIALISED: Final = "reinitialised"
FROM_PRETRAINED: Final = "pretrained"
MATCHED_STEPS: Final = "matched steps"
SOURCE: Final = "source"

ARMS: Final = (
    TRANSFER,
    SCRATCH,
    RANDOM_FROZEN,
    SAME_TASK,
    REINITIALISED,
    FROM_PRETRAINED,
    MATCHED_STEPS,
    SOURCE,
)


def arm(run: Run) -> str:
    """The arm of a Run looked at alone, by the first rule that fits (analysis/README.md):

    - "random frozen": no start, yet layers are frozen;
    - "scratch": no start, nothing frozen (`arms` may call it a "source");
    - "reinitialised": what lies above the cut is made new, whatever the start;
    - "pretrained": timm's weights;
    - "same task": it starts from a Run on the same task;
    - "transfer": it starts from a Run on another task.
    """
    if run.start is None:
        return RANDOM_FROZEN if run.frozen else SCRATCH
    if run.recipe.above_cut == "reinitialised":
        return REINITIALISED
    if run.start == PRETRAINED:
        return FROM_PRETRAINED
    assert run.source is not None
    return SAME_TASK if run.source.task == run.task else TRANSFER


def arms(runs: Iterable[Run]) -> dict[str, str]:
    """The arm of each Run of a study, by id.

    A Run trained from random initial values is a "source", not "scratch", if others start from it and
    its task and part are the target of no Run that starts from something or has frozen layers. A
    source that is the scratch baseline of another cell as well counts as "scratch".

    Where the study transfers both from sources that were trained for a number of epochs, so that a
    larger one had more steps, and from sources trained for a number of steps, the latter are the arm
    "matched steps".
    """
    runs = list(runs)
    starts = {run.source for run in runs if run.source is not None}
    alone = {run.id: arm(run) for run in runs}
    targets = {(run.task, run.part) for run in runs if alone[run.id] != SCRATCH}
    transfers = [run for run in runs if alone[run.id] == TRANSFER]
    in_steps = {run.id for run in transfers if _is_in_steps(run.source)}
    if 0 < len(in_steps) < len(transfers):
        alone |= dict.fromkeys(in_steps, MATCHED_STEPS)
    return {
        run.id: SOURCE
        if alone[run.id] == SCRATCH and run in starts and (run.task, run.part) not in targets
        else alone[run.id]
        for run in runs
    }


def _is_in_steps(source: Run | None) -> bool:
    return source is not None and source.recipe.num_steps is not None
