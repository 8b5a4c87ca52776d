"""Small Runs and studies on the digits, trained inline, and their outcomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from study.grid import grid
from study.launching.driver import run_study
from study.launching.options import LaunchOptions
from study.launching.train_run import Interrupted, execute
from study.planning.inventory import Inventory
from study.planning.spaces import Space, chosen_ids
from study.run import Recipe, Run
from study.store import Store, finished_ids, read_rows, similarity
from study.store.layout import similarity_path
from study.tasks import BUILTIN

SOURCE = Run(
    task="digits-low",
    size=100,
    model="resnet18",
    width=4,
    recipe=Recipe(num_epochs=4, learning_rate=1e-2, batch_size=40),
    seed=1,
)
CELL = replace(SOURCE, task="digits-high", start=SOURCE, frozen=3, label_noise=0.2)
SMALL: dict[str, object] = {
    "source_task": "digits-low",
    "source_size": 40,
    "target_task": "digits-high",
    "target_size": [30, 50],
    "model": "resnet18",
    "width": 1,
    "frozen": [0, 9],
    "seed": 0,
    "recipe": Recipe(num_epochs=2, batch_size=16, learning_rate=1e-3),
}
ONE_RUN = {"source_task": None, "source_size": None, "frozen": 0, "target_size": 40}
DIVERGING = replace(
    SOURCE, recipe=replace(SOURCE.recipe, optimizer="sgd", learning_rate=1e30, weight_decay=0.0)
)


def outcome(store: Store, run_id: str) -> tuple[object, ...]:
    """Return everything stored of a finished Run that must not depend on how it was trained."""
    found = read_rows(store, run_id)
    made_by = found.provenance
    return (
        found.table.drop_columns("wall_seconds").to_pydict(),
        made_by.weights_digest,
        made_by.start_digest,
        made_by.predictions_digest,
        made_by.task_fingerprint,
        similarity.read(store, run_id).to_pydict()
        if store.exists(similarity_path(run_id))
        else None,
    )


def outcomes(store: Store) -> dict[str, tuple[object, ...]]:
    return {run_id: outcome(store, run_id) for run_id in finished_ids(store)}


def interrupt(run: Run, store: Store, after_steps: int, *, keep_predictions: bool = False) -> None:
    """Train the Run and stop it after this number of steps; a checkpoint is written."""
    answers = iter([False] * after_steps + [True])
    with pytest.raises(Interrupted):
        execute(
            run, store, should_stop=answers.__next__, keep_weights=True,
            keep_predictions=keep_predictions,
        )  # fmt: skip


def small(**changed: object) -> list[Run]:
    """Return the Runs of a grid: one source and four cells by default."""
    return grid(**(SMALL | changed))  # type: ignore[arg-type]


def write_space(path: Path, **changed: object) -> Path:
    """Write a search space with the Runs of `small`."""
    imports = "from study.grid import grid\nfrom study.run import Recipe\n"
    path.write_text(f"{imports}RUNS = grid(**{SMALL | changed!r})\n")
    return path


def space_of(runs: list[Run], *, keep_predictions: bool | str = False) -> Space:
    return Space(
        name="tiny", path=Path("tiny.py"), runs=tuple(runs), tasks=BUILTIN, doc="",
        keep_predictions=keep_predictions,
    )  # fmt: skip


def inline(
    store: Store, runs: list[Run], only: str | None = None, *, keep_predictions: bool | str = False
) -> Inventory:
    """Run the study in this process."""
    space = space_of(runs, keep_predictions=keep_predictions)
    ids = None if only is None else chosen_ids(only, runs)
    return run_study(space, store, None, LaunchOptions(address=None, gpus_per_trial=0), only=ids)
