"""Plan and run studies, and read their status, from a notebook or a script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from study.cli.arguments import Named, default_address, default_data, store_named, study_of
from study.cli.status import failure_lines, status_text
from study.messages import UserError, show_message
from study.planning.inventory import Inventory, summarise_heads
from study.planning.spaces import Space, load_space, space_of
from study.run import Run
from study.store import Store
from study.store.schema import ABSENT, FAILED, PARTIAL, RUNNING, START_FAILED
from study.store.store import default_root
from study.tasks import Task


@dataclass(frozen=True, kw_only=True)
class StoredStudy:
    """A study and its store. For `stored`, `analysis.load.open_study(stored.root, stored.study)` opens it.

    `counts`: number of Runs in each state ("done", "running", "partial", "failed", "absent",
    "start failed"). `print` shows the text of `study plan` or `study status`.
    """

    root: str
    study: str
    counts: Mapping[str, int] = field(repr=False)
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self.text)


def plan_study(
    space: str | Path | Iterable[Run],
    name: str | None = None,
    root: str | Path | None = None,
    *,
    data: str | Path | None = None,
    tasks: Iterable[Task] = (),
    related: tuple[str, str] | None = None,
    keep_predictions: bool | str = False,
) -> StoredStudy:
    """Return the plan of a study: what it needs, what exists, what the rest will cost. Start nothing.

    - `space`: the path of a search-space file, the name of a bundled one, or Runs, which need a `name`.
    - `root`: the store, a directory or a URI (default: STUDY_ROOT, or ./store); `data`: the folder of
      image sets (default: STUDY_DATA, or ./data).
    - `tasks`, `related`, `keep_predictions`: only if `space` is a list of Runs; as TASKS, RELATED and
      KEEP_PREDICTIONS in a search-space file.

    Raises UserError, a ValueError, with one line for each problem.

    >>> from study import plan_study
    >>> print(plan_study("quickstart", root="store"))
    """
    from study.cli.status import plan_text
    from study.planning.plan import make_plan

    wanted = _space(space, name, tasks, related, keep_predictions)
    store = store_named(root or default_root())
    made = make_plan(wanted, store, Path(data or default_data()))
    if made.wrong:
        raise UserError("\n".join(made.wrong))
    from study.planning.estimate import price as price_of

    left = made.inventory.ids(RUNNING, PARTIAL, ABSENT)
    price = price_of([made.inventory.runs[run_id] for run_id in left], made.infos)
    return _stored(wanted.name, store, made.inventory, plan_text(made, price))


def run_study(
    space: str | Path | Iterable[Run],
    name: str | None = None,
    root: str | Path | None = None,
    *,
    data: str | Path | None = None,
    tasks: Iterable[Task] = (),
    related: tuple[str, str] | None = None,
    keep_predictions: bool | str = False,
    inline: bool = False,
    address: str | None = None,
    gpus_per_trial: float | None = None,
    cpus_per_trial: float | None = None,
    max_concurrent: int | None = None,
) -> StoredStudy:
    """Train the Runs that the store lacks, as `study run` does, but without the report.

    Arguments as for `plan_study`, and the options of `study run` with the same defaults:

    - `inline`: one Run after another in this process, without Ray; faster for small studies.
    - `address`: address of a Ray cluster (default: RAY_ADDRESS, or a local Ray).
    - `gpus_per_trial`, `cpus_per_trial`: resources of a Run (default: a GPU if there is one, and a
      core); `max_concurrent`: Runs at the same time (default: as many as fit).

    Failed Runs are counted and named; the others are trained. Raises UserError, a ValueError, for wrong
    input, before training; KeyboardInterrupt if interrupted, after running trainings have written a
    checkpoint: the same call continues from there.

    >>> from analysis import load
    >>> from study import run_study
    >>> from study.grid import grid
    >>> from study.run import Recipe
    >>> recipe = Recipe(learning_rate=1e-3, num_epochs=20)
    >>> runs = grid(target_task="digits", target_size=100, model="resnet18", width=4,
    ...             frozen=(0, 9), recipe=recipe, seed=range(2))
    >>> ran = run_study(runs, "two-cuts", root="store", inline=True)
    >>> study = load.open_study(ran.root, ran.study)
    """
    from study.launching.driver import run_study as train
    from study.launching.lease import LeaseHeld
    from study.launching.options import LaunchOptions

    wanted = _space(space, name, tasks, related, keep_predictions)
    store = store_named(root or default_root())
    options = LaunchOptions(
        address=None if inline else address or default_address(),
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        max_concurrent=max_concurrent,
        resume_hint="interrupted; to go on, give the same call again",
    )
    try:
        found = train(wanted, store, Path(data or default_data()), options)
    except LeaseHeld as held:
        raise UserError(str(held)) from held
    stored = _state_of(Named(name=wanted.name, runs=wanted.runs, space=wanted), store)
    if found.ids(RUNNING, PARTIAL, ABSENT):
        raise KeyboardInterrupt(f"{stored.text}\n{options.resume_hint}")
    if failed := found.ids(FAILED, START_FAILED):
        show_message(f"{len(failed)} of {len(found.states)} Runs failed:", *failure_lines(found))
    return stored


def study_status(
    space: str | Path | Iterable[Run],
    name: str | None = None,
    root: str | Path | None = None,
) -> StoredStudy:
    """Return the state of a study. Start nothing.

    `space`: as for `plan_study`, or the name of a study in the store at `root`.

    >>> from study import study_status
    >>> study_status("quickstart", root="store").counts["done"]
    69
    """
    store = store_named(root or default_root())
    if isinstance(space, str | Path):
        return _state_of(study_of(str(space), store), store)
    wanted = _space(space, name)
    return _state_of(Named(name=wanted.name, runs=wanted.runs, space=wanted), store)


def _space(
    space: str | Path | Iterable[Run],
    name: str | None,
    tasks: Iterable[Task] = (),
    related: tuple[str, str] | None = None,
    keep_predictions: bool | str = False,
) -> Space:
    if not isinstance(space, str | Path):
        if name is None:
            raise UserError("name=None: a list of Runs has no name. Give the name of the study")
        return space_of(
            space, name, tasks=tasks, related=related, keep_predictions=keep_predictions
        )
    given = {
        "name": name,
        "tasks": tuple(tasks),
        "related": related,
        "keep_predictions": keep_predictions,
    }
    for argument, value in given.items():
        if value:
            raise UserError(
                f"{argument}={value!r}: set in the search space {space} already. Remove the argument"
            )
    return load_space(space)


def _state_of(named: Named, store: Store) -> StoredStudy:
    found = named.inventory(store)
    return _stored(
        named.name,
        store,
        found,
        status_text(named.name, found, summarise_heads(found, store), store.root),
    )


def _stored(name: str, store: Store, found: Inventory, text: str) -> StoredStudy:
    return StoredStudy(root=store.root, study=name, counts=found.counts(), text=text)
