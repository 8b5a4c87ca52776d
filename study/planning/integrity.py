"""Check every object of a store, and find the objects that nothing needs."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from study import tasks
from study.run import Run
from study.store import (
    Damaged,
    Finished,
    Newer,
    Provenance,
    Store,
    artifacts,
    compacted,
    finished_ids,
    layout,
    read_registrations,
    read_rows,
    read_study,
    similarity,
    study_names,
    unfinished,
)
from study.store.compacted import read_provenances
from study.store.store import damaged_among


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    - `folder`: the objects' folder; `name`: pattern of their paths inside the folder. The first group
      begins with a Run's id, or is the name of a study or of a task.
    - `read`: reads and checks an object, given the store, the object's path and the first group.
    - `can_be_unneeded`: True if `study tidy` removes objects that nothing in the store needs.
    """

    folder: str
    name: re.Pattern[str]
    read: Callable[[Store, str, str], object]
    can_be_unneeded: bool = False


KINDS: Final = (
    Kind(layout.ROWS, layout.ROWS_NAME, lambda store, _, run_id: read_rows(store, run_id)),
    Kind(
        layout.COMPACTED,
        layout.COMPACTED_NAME,
        lambda store, path, _: compacted.read_at(store, path),
        True,
    ),
    Kind(
        layout.WEIGHTS,
        layout.WEIGHTS_NAME,
        lambda store, path, _: artifacts.read_weights_at(store, path),
        True,
    ),
    Kind(
        layout.PREDICTIONS,
        layout.PREDICTIONS_NAME,
        lambda store, path, _: artifacts.read_predictions_at(store, path),
        True,
    ),
    Kind(
        layout.SIMILARITY, layout.ROWS_NAME, lambda s, _, run_id: similarity.read(s, run_id), True
    ),
    Kind(layout.STUDIES, layout.STUDY_NAME, lambda store, _, name: read_study(store, name)),
    Kind(
        layout.REGISTRATIONS,
        layout.STUDY_NAME,
        lambda store, _, name: read_registrations(store, name),
    ),
    Kind(layout.TASKS, layout.TASK_NAME, lambda store, _, name: tasks.load(name, store)),
    Kind(
        layout.UNFINISHED,
        layout.UNFINISHED_NAME,
        lambda store, path, _: unfinished.read_at(store, path),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The results of reading objects; the keys of mappings are paths.

    `newer`: objects in a later release's format, which cannot be checked. `foreign`: files that no release
    wrote. `unsealed`: rows files without a digest of the whole file; only the content was checked.
    `compacted`: how the compacted rows differ from the rows files; "" if they are equal.
    """

    num_objects: int
    num_bytes: int
    damaged: Mapping[str, Damaged]
    newer: Mapping[str, str]
    foreign: tuple[str, ...]
    unsealed: tuple[str, ...]
    compacted: str


def check(store: Store, study: str | None = None, runs: Collection[Run] = ()) -> Checked:
    """Read every object of the store, or of one study (`study`: its name; `runs`: all of its Runs)."""
    wanted = {study, *(run.id for run in runs), *(run.task for run in runs)}
    sizes: dict[str, int] = {}
    read: dict[str, Callable[[], object]] = {}
    foreign = []
    for kind in KINDS:
        for entry in store.listed(kind.folder, recursive=True):
            path = store.relative(entry.path)
            match = kind.name.fullmatch(path.removeprefix(f"{kind.folder}/"))
            if match is None:
                foreign.append(path)
            # An id, a study's name or a task's name: these cannot be confused.
            elif (
                study is None
                or kind.folder == layout.COMPACTED
                or not wanted.isdisjoint((match[1][:12], match[1]))
            ):
                sizes[path] = entry.size
                read[path] = partial(kind.read, store, path, match[1])
    newer: dict[str, str] = {}
    unsealed: list[str] = []
    lock = threading.Lock()

    def one(path: str) -> None:
        try:
            found = read[path]()
            if isinstance(found, Finished) and not found.is_sealed:
                with lock:
                    unsealed.append(path)
        except Newer as later:
            with lock:
                newer[path] = str(later)

    return Checked(
        num_objects=len(read),
        num_bytes=sum(sizes.values()),
        damaged=damaged_among(one, read),
        unsealed=tuple(sorted(unsealed)),
        newer=newer,
        foreign=tuple(foreign) if study is None else (),
        compacted=_difference(store),
    )


def _difference(store: Store) -> str:
    if not store.exists(layout.manifest_path()):
        return ""
    there = finished_ids(store)
    try:
        copy = compacted.open_copy(store)
        made_by = compacted.provenances_with(copy, store, there)
        return compacted.difference(copy, store, there, made_by)
    except Newer:  # `check` reports this object as newer
        return ""


def not_needed(store: Store) -> dict[str, int]:
    """Return the sizes in bytes, by path, of objects that nothing in the store needs.

    Weights are needed if rows name them and a Run of a study starts from them; predictions, if rows name
    them; a similarity, if its Run is in a study; copies of rows, if the manifest names them. Other objects
    are always needed. Raises Damaged or Newer if a study or the rows of a Run cannot be read.
    """
    runs = {run.id: run for name in study_names(store) for run in read_study(store, name)}
    starts = {run.source.id for run in runs.values() if run.source is not None}
    own: set[str] = set()
    for run_id, made_by in read_provenances(store, finished_ids(store)).items():
        if not isinstance(made_by, Provenance):
            raise made_by
        if made_by.weights_digest is not None and run_id in starts:
            own.add(layout.weights_path(run_id, made_by.weights_digest))
        if made_by.predictions_digest is not None:
            own.add(layout.predictions_path(run_id, made_by.predictions_digest))
    own |= {layout.similarity_path(run_id) for run_id in runs}
    own |= compacted.paths(store)
    return {
        path: entry.size
        for kind in KINDS
        if kind.can_be_unneeded
        for entry in store.listed(kind.folder)
        if kind.name.fullmatch(entry.base_name) and (path := store.relative(entry.path)) not in own
    }
