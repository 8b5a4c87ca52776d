"""What of a store is not as it was written, and what of it nothing needs: by reading every object.

Owns which reader is for which object, and what a grid can still start from. Refuses to write: what is to
become of what it finds is for the verbs `verify` and `tidy` to say.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from study import tasks
from study.run import Run
from study.store import (
    Damaged,
    Finished,
    Head,
    Newer,
    Store,
    finished_ids,
    layout,
    read_heads,
    read_registrations,
    read_rows,
    read_study,
    similarity,
    study_names,
)
from study.store.predictions import check_predictions_at
from study.store.store import damaged_among
from study.store.unfinished import check_unfinished_at
from study.store.weights import check_weights_at

_READERS: Final[tuple[tuple[re.Pattern[str], Callable[[Store, str, str], object]], ...]] = (
    (layout.named(layout.ROWS, layout.ROWS_NAME), lambda s, _, run_id: read_rows(s, run_id)),
    (
        layout.named(layout.WEIGHTS, layout.WEIGHTS_NAME),
        lambda s, path, _: check_weights_at(s, path),
    ),
    (
        layout.named(layout.PREDICTIONS, layout.PREDICTIONS_NAME),
        lambda s, path, _: check_predictions_at(s, path),
    ),
    (
        layout.named(layout.SIMILARITY, layout.ROWS_NAME),
        lambda s, _, run_id: similarity.read(s, run_id),
    ),
    (layout.named(layout.STUDIES, layout.STUDY_NAME), lambda s, _, name: read_study(s, name)),
    (
        layout.named(layout.REGISTRATIONS, layout.STUDY_NAME),
        lambda s, _, name: read_registrations(s, name),
    ),
    (layout.named(layout.TASKS, layout.TASK_NAME), lambda s, _, name: tasks.load(name, s)),
    (layout.UNFINISHED_PATH, lambda s, path, _: check_unfinished_at(s, path)),
)
_FOLDERS: Final = (
    layout.ROWS,
    layout.WEIGHTS,
    layout.PREDICTIONS,
    layout.SIMILARITY,
    layout.STUDIES,
    layout.REGISTRATIONS,
    layout.TASKS,
    layout.UNFINISHED,
)


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What reading objects has shown, by path.

    `newer`: what a later release wrote, in whose form this one cannot check it; `foreign`: files that no
    release has put there; `unsealed`: rows without a digest of their bytes, of which all that is read was
    checked, and nothing else.
    """

    num_objects: int
    num_bytes: int
    damaged: Mapping[str, Damaged]
    newer: Mapping[str, str]
    foreign: tuple[str, ...]
    unsealed: tuple[str, ...]


def check(store: Store, study: str | None = None, runs: Collection[Run] = ()) -> Checked:
    """Reads every object of the store, or of one study (`study`, its name, and all of its `runs`)."""
    wanted = {study, *(run.id for run in runs), *(run.task for run in runs)}
    sizes: dict[str, int] = {}
    read: dict[str, Callable[[], object]] = {}
    foreign = []
    for path, size in _listed(store):
        for pattern, reader in _READERS:
            match = pattern.fullmatch(path)
            if match:
                # An id, a name of a study, or one of a task: they cannot be taken for each other.
                if study is None or match[1][:12] in wanted or match[1] in wanted:
                    sizes[path] = size
                    read[path] = _bound(reader, store, path, match[1])
                break
        else:
            foreign.append(path)
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
    )


def _listed(store: Store) -> Iterable[tuple[str, int]]:
    for folder in _FOLDERS:
        for entry in store.listed(folder, recursive=True):
            yield store.relative(entry.path), entry.size


def _bound(
    reader: Callable[[Store, str, str], object], store: Store, path: str, name: str
) -> Callable[[], object]:
    return lambda: reader(store, path, name)


def not_needed(store: Store) -> dict[str, int]:
    """Weights, predictions and similarity that nothing in the store needs, with their bytes, by path.

    Needed are weights that their Run's rows name and that a Run of some study starts from, predictions
    that rows name, and the similarity of a Run of some study. Rows are always needed. Raises Damaged,
    Newer where it cannot be told what a study asks for, or which are a Run's own.
    """
    runs = {run.id: run for name in study_names(store) for run in read_study(store, name)}
    starts = {run.source.id for run in runs.values() if run.source is not None}
    own: set[str] = set()
    for run_id, head in read_heads(store, finished_ids(store)).items():
        if not isinstance(head, Head):
            raise head
        made_by = head.provenance
        if made_by.weights_digest is not None and run_id in starts:
            own.add(layout.weights_path(run_id, made_by.weights_digest))
        if made_by.predictions_digest is not None:
            own.add(layout.predictions_path(run_id, made_by.predictions_digest))
    own |= {layout.similarity_path(run_id) for run_id in runs}
    found = {}
    for folder, pattern in (
        (layout.WEIGHTS, layout.WEIGHTS_NAME),
        (layout.PREDICTIONS, layout.PREDICTIONS_NAME),
        (layout.SIMILARITY, layout.ROWS_NAME),
    ):
        for entry in store.listed(folder):
            path = store.relative(entry.path)
            if pattern.fullmatch(entry.base_name) and path not in own:
                found[path] = entry.size
    return found
