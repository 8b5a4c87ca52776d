"""What killed processes leave in a store, and its removal."""

from __future__ import annotations

from study.store import atomic
from study.store.layout import unfinished_folder
from study.store.rows import finished_ids
from study.store.store import Store
from study.store.unfinished import drop_unfinished, list_unfinished


def sweep(store: Store) -> list[str]:
    """Remove what killed processes have left: temporary files, checkpoints of finished Runs.

    For the driver that holds the lease, before it starts. Returns the paths removed.
    """
    removed = []
    root = store.local_path("")
    if root is not None:
        removed += [path.relative_to(root).as_posix() for path in atomic.sweep(root)]
    unfinished = list_unfinished(store)
    for run_id in sorted(finished_ids(store) & unfinished.keys()):
        drop_unfinished(store, run_id)
        removed.append(unfinished_folder(run_id))
    return removed
