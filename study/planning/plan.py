"""Collect what a study needs, what exists, what is wrong and what it will cost.

Writes and downloads nothing. Loads torch only for networks that are not in `networks.table` and were
not counted before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from study import tasks
from study.messages import did_you_mean
from study.networks.catalogue import (
    check_frozen_pieces,
    check_head_inputs,
    check_images,
    check_model,
    check_pretrained,
    check_seeds_together,
    check_trained_channels,
    num_layers,
)
from study.networks.table import TIMM
from study.planning.cost import cost_of
from study.planning.estimate import device_bytes
from study.planning.inventory import Inventory, take_inventory
from study.planning.spaces import Space
from study.run import PRETRAINED, Recipe, Run, describe, with_seed
from study.store import (
    Damaged,
    Newer,
    Store,
    finished_ids,
    layout,
    read_study,
    study_names,
    study_path,
)
from study.store.schema import ABSENT, DONE, PARTIAL
from study.store.store import without_secrets
from study.tasks import TaskInfo
from study.tasks.draws import check_size
from study.training.steps import evaluated_steps


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The state of a study, and whether it can be run.

    - `infos`: the study's tasks, by name; `unprepared`: names of tasks that are not prepared.
    - `wrong`: faults that prevent a run; `warnings`: settings that may be unintended.
    """

    space: Space
    inventory: Inventory
    infos: Mapping[str, TaskInfo]
    unprepared: tuple[str, ...]
    wrong: tuple[str, ...]
    warnings: tuple[str, ...]


def make_plan(space: Space, store: Store, data: Path | None) -> Plan:
    """Check everything that the study needs; only `tasks.describe` reads unprepared tasks.

    Raises OSError if the store's root cannot be listed.
    """
    infos, unprepared, wrong, warnings = find_faults(space, store, data)
    inventory = take_inventory(
        space.runs,
        store,
        keep_predictions=space.with_predictions,
        keep_probabilities=space.with_probabilities,
    )
    if not wrong:
        left = [inventory.runs[run_id] for run_id in inventory.ids(PARTIAL, ABSENT)]
        wrong += _grouped(left, lambda run: _memory_faults(run, infos))
    return Plan(
        space=space,
        inventory=inventory,
        infos=infos,
        unprepared=tuple(unprepared),
        wrong=tuple(wrong),
        warnings=tuple(warnings),
    )


def find_faults(
    space: Space, store: Store, data: Path | None
) -> tuple[dict[str, TaskInfo], list[str], list[str], list[str]]:
    """Return `infos`, `unprepared`, `wrong` and `warnings` of a Plan; the states of Runs are not read."""
    infos, unprepared, wrong = _tasks(space, store, data)
    wrong += _store_faults(space, store)
    wrong += _grouped(space.runs, lambda run: _run_faults(run, infos))
    doubts = [
        *_store_doubts(store),
        *_block_doubts(space.runs),
        *_grouped(space.runs, lambda run: _doubts(run, infos.get(run.task))),
    ]
    return infos, unprepared, wrong, doubts


def _tasks(
    space: Space, store: Store, data: Path | None
) -> tuple[dict[str, TaskInfo], list[str], list[str]]:
    infos: dict[str, TaskInfo] = {}
    unprepared: list[str] = []
    wrong: list[str] = []
    for name in space.task_names:
        try:
            info = tasks.load_info(name, store)
        except Damaged:
            info = None  # `prepare` quarantines and re-creates the task
        if info is None and name not in space.tasks:
            choices = ", ".join(space.tasks)
            near = did_you_mean(name, space.tasks)
            wrong.append(f"Run.task={name!r}: choose one of {choices}, or define it in TASKS{near}")
            continue
        if info is None:
            unprepared.append(name)
            try:
                info = tasks.describe(space.tasks[name], data)
            except ValueError as error:
                wrong.append(str(error))
                continue
        infos[name] = info
    return infos, unprepared, wrong


def _store_faults(space: Space, store: Store) -> Iterator[str]:
    try:
        study_path(space.name)
    except ValueError as error:
        where = f"{space.path}: {error}; the file's name is the study's"
        yield where if space.path is not None else f"name={space.name!r}: {error}"
    else:
        if _is_other_study(space, store):
            yield other_study_text(space, store)
    names = [] if store.local_path("") is None else study_names(store)
    for name in names:
        # A case-insensitive file system would store both studies in one file.
        if name.casefold() == space.name.casefold() and space.name not in names:
            yield (
                f"study={space.name}: {store.shown} has a study {name}, whose name differs only in upper "
                "and lower case. Rename the search-space file"
            )
    root = store.local_path("")
    if root is not None:
        faults = list(place_faults("root", root))
        for folder in () if faults else layout.WRITTEN:
            if (root / folder).is_dir():
                faults += place_faults("root", root / folder)
        yield from faults


def _is_other_study(space: Space, store: Store) -> bool:
    """Return True if the store's study of this name has rows, but no Run of this space."""
    try:
        stored = read_study(store, space.name)
    except (FileNotFoundError, NotADirectoryError, Damaged, Newer):  # `run` reports them
        return False
    ours = {run.id for run in space.runs}
    # Usually the first Run of both is the same, so the other ids need not be computed.
    if any(run.id in ours for run in stored):
        return False
    return not finished_ids(store).isdisjoint(run.id for run in stored)


def other_study_text(space: Space, store: Store) -> str:
    """Return the message for a name conflict: the store has another study of this search space's name."""
    where = f"SPACE={space.path}" if space.path is not None else f"name={space.name!r}"
    rename = "rename the file" if space.path is not None else "choose another name"
    return (
        f"{where}: the study {space.name!r} in {store.shown} has none of its {len(space.runs)} Runs, so "
        f"it is another study; {rename}, or use another root"
    )


def _store_doubts(store: Store) -> Iterator[str]:
    why = store.conditions_unheeded()
    if why is not None:
        yield (
            f"root={store.shown}: start one driver at a time. Without conditional writes "
            f"({without_secrets(why)}), two drivers that start at the same moment may both train for "
            "one heartbeat; one result of each Run is kept"
        )


def place_faults(what: str, place: Path) -> Iterator[str]:
    """Yield why nothing can be written to this folder, which may be missing; `what`: its name in messages.

    Creates and removes a folder, because in some places (/proc, a quota) only this detects the fault.
    """
    nearest = next(each for each in (place, *place.absolute().parents) if each.exists())
    if not nearest.is_dir():
        yield f"{what}={place}: {nearest} is not a directory"
        return
    try:
        tempfile.TemporaryDirectory(prefix=".freezewise-", dir=nearest).cleanup()
    except OSError as error:
        yield f"{what}={place}: nothing can be written to {nearest} ({error.strerror})"


def _run_faults(run: Run, infos: Mapping[str, TaskInfo]) -> Iterator[str]:
    """Yield the faults of this Run; checks that need an unknown task are skipped."""
    fault = _model_fault(run.model, run.width)
    if fault is not None:
        yield fault
    elif run.frozen >= num_layers(run.model):
        layers = num_layers(run.model)
        yield (
            f"Run.frozen={run.frozen}: {run.model} has {layers} layers, choose 0 to {layers - 1} "
            "(the head is always trained)"
        )
    else:
        yield from _message(
            lambda: check_trained_channels(run.model, run.width, run.frozen, run.trained_channels)
        )
        yield from _message(
            lambda: check_frozen_pieces(run.model, run.width, run.frozen, run.frozen_pieces)
        )
        yield from _message(
            lambda: check_head_inputs(run.model, run.width, run.frozen, run.head_inputs)
        )
        yield from _message(
            lambda: check_seeds_together(
                run.model, run.recipe.seeds_together, run.frozen, run.trained_channels
            )
        )
        if run.recipe.seeds_together > 1 and run.model.startswith(TIMM):
            from study.training.stacked import check_timm_layers  # loads torch

            yield from _message(lambda: check_timm_layers(run.model, run.frozen))
    if fault is None and run.start == PRETRAINED:
        yield from _message(lambda: check_pretrained(run.model))
    info = infos.get(run.task)
    if info is None:
        return
    if info.num_classes < 2:
        yield f"task {info.name!r}: it has {info.num_classes} class, a task needs 2 or more"
    yield from _message(lambda: check_size(info, part=run.part, size=run.size))
    if fault is None:
        yield from _message(lambda: check_images(run.model, info.image_shape))
    theirs = infos.get(run.source.task) if run.source is not None else None
    if theirs is not None and theirs.image_shape != info.image_shape:
        yield (
            f"Run.start: images of task {info.name!r} have the shape {info.image_shape}, those of "
            f"its start's task {theirs.name!r} {theirs.image_shape}; give one of them an image_size"
        )


def _memory_faults(run: Run, infos: Mapping[str, TaskInfo]) -> Iterator[str]:
    together = run.recipe.seeds_together
    if together == 1 or run.task not in infos:
        return
    needed, there = _bytes_together(with_seed(run, 0), infos[run.task]), device_bytes()
    if needed > there:
        most = there * together // needed
        yield (
            f"Recipe.seeds_together={together}: the networks and features of {together} seeds take "
            f"{needed / 2**30:.1f} GiB at once, this machine has {there / 2**30:.1f} GiB; choose "
            f"{max(most, 1)} or fewer"
        )


@cache
def _bytes_together(run: Run, info: TaskInfo) -> int:
    return cost_of(run, info).memory.total


@cache
def _model_fault(model: str, width: int | None) -> str | None:
    return next(_message(lambda: check_model(model, width)), None)


def _message(check: Callable[[], None]) -> Iterator[str]:
    try:
        check()
    except ValueError as error:
        yield str(error)


def _block_doubts(runs: Sequence[Run]) -> Iterator[str]:
    by_number: dict[int, list[str]] = {}
    for run in runs:
        if run.recipe.seeds_together > 1:
            by_number.setdefault(run.recipe.seeds_together, []).append(run.block)
    for together, blocks in by_number.items():
        num_places = together * len(set(blocks))
        if 2 * len(blocks) < num_places:
            yield (
                f"Recipe.seeds_together={together}: the Runs use {len(blocks)} of {num_places} places, "
                f"and an empty place takes as long; choose whole blocks of seeds (0 to {together - 1}), "
                "or fewer seeds together"
            )


def _doubts(run: Run, info: TaskInfo | None) -> Iterator[str]:
    if info is not None and run.size < info.num_classes:
        yield (
            f"Run.size={run.size}: task {info.name!r} has {info.num_classes} classes, so some have no "
            "training image"
        )
    source = run.source
    if source is not None and source.task == run.task:
        parts = {source.part, run.part}
        if parts != {"a", "b"}:
            yield (
                f"source and target are both {run.task!r}, parts {source.part!r} and {run.part!r}: "
                "they share images; the halves 'a' and 'b' would not"
            )


def _grouped(runs: Sequence[Run], faults: Callable[[Run], Iterator[str]]) -> list[str]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        for fault in faults(run):
            found.setdefault(fault, []).append(run)
    return [
        f"{fault} [{_num_runs(len(those))}: {describe(those[0])}]" for fault, those in found.items()
    ]


def _num_runs(count: int) -> str:
    return "1 Run" if count == 1 else f"{count} Runs, the first"


BYTES_OF_A_LABEL = 2


def predictions_bytes(space: Space, found: Inventory, infos: Mapping[str, TaskInfo]) -> int:
    """Return the bytes, before compression, of requested predictions that do not exist yet.

    20 kB an evaluation on 10,000 test images; the file is much smaller, because most predictions do not
    change between evaluations. Class probabilities take one byte for each image and class. Runs on an
    unknown task are not counted.
    """
    return sum(
        infos[run.task].num_test
        * (
            _num_evaluations(run.recipe, run.size) * BYTES_OF_A_LABEL
            + infos[run.task].num_classes * (run.id in space.with_probabilities)
        )
        for run in space.runs
        if run.id in space.with_predictions and found.states[run.id] != DONE and run.task in infos
    )


@cache
def _num_evaluations(recipe: Recipe, size: int) -> int:
    return len(evaluated_steps(recipe, size))
