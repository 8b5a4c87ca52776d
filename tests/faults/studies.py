"""The tiny studies that the faults befall, and what one of them must come to, disturbed or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow.dataset as pads
import pyarrow.fs as pafs

from study.run import Run
from study.store import (
    Damaged,
    Store,
    finished_ids,
    read_predictions,
    read_rows,
    read_weights,
    rows,
)

# A source, and cells from it, whose predictions are kept: some tenths of a second to a few seconds each.
TINY: Final = '''"""A tiny study."""
from study.grid import grid
from study.run import Recipe

RUNS = grid(
    source_task="digits-low",
    source_size=100,
    target_task="digits-high",
    target_size=[60, 100],
    label_noise=0.2,
    model="resnet18",
    width=2,
    frozen=[0, 9],
    seed=0,
    recipe=Recipe(num_epochs=6, batch_size=16, learning_rate=1e-3),
    source_recipe=Recipe(num_epochs={source_epochs}, batch_size=16, learning_rate=1e-3),
)
KEEP_PREDICTIONS = True
'''

# One Run that needs far more memory than the others, and one whose loss is not finite at once.
WITH_BUGS: Final = (
    TINY.format(source_epochs=12)
    + """
BIG = Run(
    task="digits-low",
    size=8,
    model="resnet18",
    width=256,
    seed=0,
    recipe=Recipe(num_steps=1, batch_size=8),
)
WILD = Run(
    task="digits-low",
    size=16,
    model="resnet18",
    width=2,
    seed=0,
    recipe=Recipe(num_epochs=2, batch_size=8, optimizer="sgd", learning_rate=1e30),
)
RUNS += [BIG, WILD]
"""
).replace("import Recipe\n", "import Recipe, Run\n")

# One Run from nothing, with a checkpoint or none: what a driver does at the least.
ONE: Final = '''"""One Run."""
from study.run import Recipe, Run

RUNS = [
    Run(
        task="digits-low",
        size=60,
        model="resnet18",
        width=2,
        seed=0,
        recipe=Recipe(num_epochs=8, batch_size=16, learning_rate=1e-3),
    )
]
'''

# Three seeds of a block of four, which are trained as one network.
SEEDS: Final = "seed=(0, 1, 3)"
STACKED: Final = (
    TINY.format(source_epochs=12)
    .replace("seed=0", SEEDS)
    .replace("learning_rate=1e-3", "learning_rate=1e-3, seeds_together=4")
)

# 20 short Runs, and Runs whose loss is not finite at once.
MANY: Final = (
    ONE.replace("num_epochs=8", "num_epochs=1")
    .replace("seed=0", "seed=seed")
    .replace("    )\n]", "    )\n    for seed in range({count})\n]")
)
# The source does not diverge: its cells would count as failed.
ALL_DIVERGED: Final = TINY.format(source_epochs=2).replace(
    "num_epochs=6, batch_size=16, learning_rate=1e-3",
    'num_epochs=6, batch_size=16, optimizer="sgd", learning_rate=1e30',
)

TEXTS: Final[Mapping[str, str]] = {
    "tiny": TINY.format(source_epochs=12),
    "slow_source": TINY.format(source_epochs=60),
    "slower_source": TINY.format(source_epochs=300),
    "with_bugs": WITH_BUGS,
    "one": ONE,
    "stacked": STACKED,
    "ten": MANY.format(count=10),
    "many": MANY.format(count=20),
    "all_diverged": ALL_DIVERGED,
}


def runs_of(text: str) -> dict[str, Run]:
    """The Runs of a search space's text, by id."""
    values: dict[str, Any] = {}
    exec(text, values)
    return {run.id: run for run in values["RUNS"]}


@dataclass(frozen=True)
class Result:
    """All of a finished Run that must not depend on how it came about.

    `rows`: digest over the columns without the times; `weights`, `predictions`: of what lies in the store.
    """

    steps: tuple[int, ...]
    rows: str
    weights: str | None
    predictions: str | None
    start: str | None


def results(store: Store) -> dict[str, Result | str]:
    """The Result of each finished Run; where one cannot be read, why."""
    found: dict[str, Result | str] = {}
    for run_id in finished_ids(store):
        try:
            run = read_rows(store, run_id)
            made_by = run.provenance
            if made_by.weights_digest is not None:
                read_weights(store, run_id, made_by.weights_digest)
            if made_by.predictions_digest is not None:
                read_predictions(store, run_id, made_by.predictions_digest)
        except (Damaged, OSError) as error:
            found[run_id] = str(error)
            continue
        found[run_id] = Result(
            steps=tuple(run.table["step"].to_pylist()),
            rows=rows.table_digest(run.table.drop_columns("wall_seconds")),
            weights=made_by.weights_digest,
            predictions=made_by.predictions_digest,
            start=made_by.start_digest,
        )
    return found


def rows_there(store: Store) -> Counter[tuple[str, int]]:
    """How often each (Run, step) stands in the table, as any reader of it sees it."""
    if not finished_ids(store):
        return Counter()
    server = pafs.FileSystem.from_uri(store.root)[0] if "://" in store.root else None
    table = pads.dataset(f"{store.base}/rows", filesystem=server, format="ipc").to_table(
        columns=["run_id", "step"]
    )
    run_ids, steps = (table[name].to_pylist() for name in ("run_id", "step"))
    return Counter(zip(run_ids, steps, strict=True))
