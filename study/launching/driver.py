"""Implement `study run`: take the lease, remove leftovers, prepare tasks, train the missing Runs.

Only the store decides which Runs are done. A launch adds the failures that the store could not record.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from study import tasks
from study.launching.display import Screen
from study.launching.lease import acquire
from study.launching.options import LOCAL, LaunchOptions, refuse_unreachable, refuse_without_home
from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.messages import UserError, show_message
from study.planning.cost import cost_of, work_of
from study.planning.durations import Pace
from study.planning.estimate import NOTHING_KEPT, gpus, keep, kept, speeds_of
from study.planning.inventory import Inventory, take_inventory
from study.planning.plan import find_faults
from study.planning.spaces import Space
from study.store import (
    Damaged,
    Newer,
    Provenance,
    Store,
    compacted,
    compaction,
    read_study,
)
from study.store.artifacts import check_predictions, empty_weights
from study.store.atomic import Unreadable
from study.store.errors import naming, os_error_text
from study.store.prepared_tasks import repeated_text
from study.store.processes import this_process
from study.store.rows import finished_etags
from study.store.schema import ABSENT, DONE, FAILED, PARTIAL, RUNNING
from study.store.studies import write_study
from study.store.unfinished import Unfinished, list_unfinished, sweep, trained_by
from study.tasks import TaskInfo

SECONDS_FOR_ORPHANS: Final = 30.0


def run_study(
    space: Space,
    store: Store,
    data: Path | None,
    options: LaunchOptions,
    screen: Screen | None = None,
    *,
    only: Collection[str] | None = None,
) -> Inventory:
    """Train the Runs that the store lacks, and return the study's new inventory.

    `only`: ids of the Runs to train and return, including their starts; None: all Runs. The stored study
    always lists all Runs. `screen`: by default a new one on stderr.
    Raises UserError if the plan has faults or no cluster is found, lease.LeaseHeld if another driver holds
    the store, and OSError if Ray does not start.
    """
    with screen or Screen() as shown:
        return _run_study(space, store, data, options, shown, only)


def _run_study(
    space: Space,
    store: Store,
    data: Path | None,
    options: LaunchOptions,
    screen: Screen,
    only: Collection[str] | None,
) -> Inventory:
    part = frozenset(run.id for run in space.runs) if only is None else frozenset(only)
    screen.phase("comparing the study with the store")
    refuse_faults(space, store, data)
    if options.address is not None:
        refuse_without_home()
        refuse_unreachable(options.address)
    with acquire(store.root) as lease:
        store = replace(store, lease_number=lease.number)
        copy, is_copy_damaged = _quarantine_copy(store)
        left = _quarantine_damaged(space, store, copy)
        unfinished = _wait_for_orphans(store)
        found = _inventory(space, store, left, unfinished=unfinished)
        # A Run that has rows, but is trained again, also resumes from its checkpoint.
        sweep(store, keep=found.ids(RUNNING, PARTIAL), unfinished=unfinished)
        _note_study(space, store)
        found = found.only(part)
        must_train = bool(found.ids(RUNNING, PARTIAL, ABSENT))
        if must_train:
            aside_before = set(store.quarantined())
            infos = _prepared(space, _tasks_of(found), store, data, screen)
            unnoted = _train(space, found, infos, store, options, screen, lambda: lease.is_lost)
            not_whole = _damaged(space, store, copy, left)
            found = _inventory(space, store, not_whole, unnoted).only(part)
            for path in sorted(set(store.quarantined()) - aside_before):
                show_message(f"{path} was damaged or unusable; its contents were created again")
        if lease.is_lost:
            show_message(f"another driver has taken over {store.shown}: this driver lost its lease")
        elif is_copy_damaged or (must_train and not found.ids(RUNNING, PARTIAL, ABSENT)):
            at_least = 1 if is_copy_damaged else compaction.MIN_NEW
            if len(found.ids(DONE)) >= at_least:
                screen.phase("compacting rows")
                _compact(store, at_least)
    return found


def _inventory(
    space: Space,
    store: Store,
    left: Collection[str],
    unnoted: Mapping[str, str] | None = None,
    unfinished: Mapping[str, Unfinished] | None = None,
) -> Inventory:
    """Take the inventory. `left`: ids of Runs with a damaged object that could not be quarantined."""
    return take_inventory(
        space.runs,
        store,
        keep_predictions=space.with_predictions,
        keep_probabilities=space.with_probabilities,
        not_whole=left,
        unnoted=unnoted,
        unfinished=unfinished,
    )


def refuse_faults(space: Space, store: Store, data: Path | None) -> None:
    """Raise UserError with all faults of the plan; if it has none, show its warnings."""
    _, _, wrong, warnings = find_faults(space, store, data)
    if wrong:
        raise UserError("\n".join(wrong))
    for warning in warnings:
        show_message(f"warning: {warning}")


def prepare(
    space: Space, store: Store, data: Path | None, names: Sequence[str], *, quiet: bool = False
) -> dict[str, TaskInfo]:
    """Prepare these tasks, or check prepared ones; return TaskInfos by name."""
    infos = {}
    for name in names:
        try:
            if name in space.tasks:
                shown = sys.stderr.isatty() and not quiet
                with naming(store.shown):
                    prepared = tasks.prepare(space.tasks[name], store, data, progress=shown)
            else:
                prepared = tasks.load(name, store)
        except ValueError as error:
            raise UserError(str(error)) from error
        infos[name] = prepared.info
    return infos


def _tasks_of(found: Inventory) -> list[str]:
    return list(dict.fromkeys(run.task for run in found.runs.values()))


def _prepared(
    space: Space, names: Sequence[str], store: Store, data: Path | None, screen: Screen
) -> dict[str, TaskInfo]:
    were_there = all(_is_prepared(name, store) for name in names)
    if not were_there:
        screen.phase(f"preparing tasks: {', '.join(names)}")
        screen.rest()  # preparation shows its own progress bar
    infos = prepare(space, store, data, names, quiet=screen.quiet)
    if not were_there:
        refuse_faults(space, store, data)  # again, because the sizes of all tasks are now known
        for name in names:
            if repeated := repeated_text(store, name):
                screen.remark(f"warning: {repeated}")
    return infos


def _is_prepared(name: str, store: Store) -> bool:
    try:
        return tasks.load_info(name, store) is not None
    except Damaged:
        return False


def _note_study(space: Space, store: Store) -> None:
    try:
        if read_study(store, space.name) == list(space.runs):
            return
    except FileNotFoundError:
        pass  # not stored yet
    except Damaged as damaged:
        show_message(
            f"{damaged}; {_where_moved(store.quarantine(damaged.path))}, it is written again"
        )
    write_study(store, space.name, space.runs)


def _quarantine_copy(store: Store) -> tuple[compacted.Copy | None, bool]:
    """Quarantine damaged files of the compacted rows.

    Return the manifest, if it is usable, and True if there were damaged files.
    """
    copy, found = compacted.check_copy(store)
    damaged = [each for each in found if not isinstance(each, Unreadable)]
    for each in damaged:
        place = None
        with suppress(FileNotFoundError):
            place = store.quarantine(each.path)
        moved = f"moved to {place}, " if place is not None else ""
        show_message(f"{each}; {moved}its rows are compacted again from their files")
    return copy, bool(damaged)


def _compact(store: Store, at_least: int) -> None:
    try:
        compaction.compact(store, at_least=at_least)
    except OSError as error:  # compaction only makes reading faster
        show_message(f"the rows were not compacted: {os_error_text(error)}")
    except Newer as later:
        show_message(f"the rows were not compacted: {later}")


def _quarantine_damaged(space: Space, store: Store, copy: compacted.Copy | None) -> set[str]:
    """Quarantine damaged rows, damaged predictions that are requested, and empty weights of starts.

    Their Runs are trained again. Unreadable objects stay, and their Runs count as done. Returns the ids of
    Runs with an object that could not be moved.
    """
    left = set()
    for run_id, why in _damaged(space, store, copy, {run.id for run in space.runs}).items():
        if isinstance(why, Unreadable):
            show_message(f"{why}; Run {run_id} counts as done")
            continue
        place = store.quarantine(why.path)
        if place is None:
            left.add(run_id)
        show_message(f"{why}; {_where_moved(place)}, Run {run_id} is trained again")
    starts = {run.source.id for run in space.runs if run.source is not None}
    for empty in empty_weights(store, starts) if starts else ():
        aside = _where_moved(store.quarantine(empty.path))
        show_message(f"{empty}; {aside}, it is trained again if a Run starts from it")
    return left


def _damaged(
    space: Space, store: Store, copy: compacted.Copy | None, among: Collection[str]
) -> dict[str, Damaged]:
    """Return damaged rows and requested predictions by Run id; the values of rows are not checked."""
    there = finished_etags(store)
    read = compacted.provenances_with(copy, store, there.keys() & set(among), etags=there)
    if differs := compacted.difference(copy, store, there, read):
        show_message(differs)
    damaged = {run_id: why for run_id, why in read.items() if isinstance(why, Damaged)}
    digests = {
        run_id: made_by.predictions_digest
        for run_id, made_by in read.items()
        if isinstance(made_by, Provenance)
        and made_by.predictions_digest is not None
        and run_id in space.with_predictions
    }
    return damaged | check_predictions(store, digests)


def _where_moved(place: str | None) -> str:
    return f"moved to {place}" if place is not None else "it cannot be moved and stays for now"


def _wait_for_orphans(store: Store) -> Mapping[str, Unfinished]:
    """Return the Runs in flight, by id, once no process of an earlier driver trains them."""
    # Trials of a killed driver end by themselves. Until then they would train beside this driver's trials.
    until = time.monotonic() + SECONDS_FOR_ORPHANS
    mine = this_process()
    while True:
        found = list_unfinished(store)
        left = {p for p in trained_by(store, found).values() if p.is_alive() and p != mine}
        if not left:
            return found
        if time.monotonic() > until:
            pids = ", ".join(str(process.pid) for process in left)
            show_message(
                f"processes of an earlier driver still train ({pids}); training continues beside them"
            )
            return found
        time.sleep(0.2)


def _train(
    space: Space,
    found: Inventory,
    infos: Mapping[str, TaskInfo],
    store: Store,
    options: LaunchOptions,
    screen: Screen,
    must_stop: Callable[[], bool],
) -> Mapping[str, str]:
    """Train the missing Runs; return the errors, by Run id, that the store could not record."""
    screen.phase("counting what each Run costs")
    queue = RunQueue(
        found.runs.values(),
        done=found.ids(DONE),
        unusable=found.diverged,
        failed=found.ids(FAILED),
        cost={run.id: cost_of(run, infos[run.task]).flops for run in found.runs.values()},
    )
    if queue.is_over:
        return {}
    # If only other nodes have GPUs, the first estimates use a core's speed; finished Runs correct them.
    on_gpus = options.gpus_per_trial != 0 and bool(options.gpus_per_trial or gpus())
    speeds = speeds_of(on_gpus=on_gpus)
    works = {
        run.id: work_of(run, infos[run.task], speeds, shares_features=not on_gpus)
        for run in found.runs.values()
    }
    is_here = options.address in (None, LOCAL)
    pace = Pace((kept(speeds) if is_here else NOTHING_KEPT).sums)
    progress = Progress(queue, works, pace)
    with_weights = {run.source.id for run in space.runs if run.source is not None}
    if options.address is None:
        screen.phase("loading torch")
        from study.launching.inline import run_inline as launch
    else:
        there = options.address
        screen.phase("starting Ray" if there == LOCAL else f"joining Ray at {there}")
        try:
            from study.launching.on_ray.tuner import launch
        except ImportError as error:
            raise UserError(
                f"Ray cannot be imported ({error}): install it, or use --inline"
            ) from error
    unnoted = launch(
        queue,
        store,
        replace(options, keep_probabilities=bool(space.with_probabilities)),
        progress=progress,
        screen=screen,
        keep=with_weights,
        keep_predictions=space.with_predictions,
        must_stop=must_stop,
    )
    if is_here and pace.sums:
        keep(speeds, pace.sums)
    return unnoted
