"""Determine a Run's arm (transfer, control or source) from its fields and the Runs that start from it."""

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

DEFAULT_ARM: Final = "default"  # transfer; in a table without transfer, the table's only arm

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
    """Return the arm of a Run, ignoring other Runs, by the first rule that applies (analysis/README.md):

    - "random frozen": no start, frozen layers;
    - "scratch": no start, no frozen layers (`arms` may return "source" instead);
    - "reinitialised": any start, new values above the cut;
    - "pretrained": start from timm's weights;
    - "same task": start from a Run on the same task;
    - "transfer": start from a Run on another task.
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
    """Return the arm of each Run of a study, by id.

    A "scratch" Run becomes a "source" if another Run starts from it, and if its task and part are not the
    target of any Run in another arm than "scratch".

    Some studies have sources trained for a fixed number of epochs (larger sources take more steps) and
    sources trained for a fixed number of steps. In these studies only, transfers from sources with fixed
    steps are the arm "matched steps".
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
