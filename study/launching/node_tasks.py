"""Prepared tasks on a node's own disk: copied from the store's folder once, checked, and read from there.

Owns the copies. They are of use where the store lies on a network's file system; from a bucket a task is
fetched once a machine anyway. A copy that is damaged, or of another version, is made anew; where the disk
has no room for one, the store's own is read.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path

from study.store import Damaged, Store, open_store
from study.store.atomic import temporary_beside
from study.store.layout import task_path
from study.store.prepared_tasks import read_task_head
from study.tasks import prepared_file
from study.tasks.prepared_file import PreparedTask

_FULL = (errno.ENOSPC, errno.EDQUOT)


def load_task(name: str, store: Store, node_cache: Path | None) -> PreparedTask:
    """What `study.tasks.prepared_file.load` gives, by way of a copy in `node_cache` unless that is None.

    Raises as it does; what is said to be damaged is the store's own file, never a copy.
    """
    shared = store.local_path(task_path(name))
    if node_cache is None or shared is None or not shared.exists():
        return prepared_file.load(name, store)
    with store.opened(task_path(name)) as file:
        fingerprint = str(read_task_head(file, task_path(name))["fingerprint"])
    # By its fingerprint: another version of the task, or another store's, has a folder of its own.
    folder = node_cache / fingerprint
    copies = open_store(folder)
    copy = folder / task_path(name)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:  # so that one trial copies while the others wait
            fcntl.flock(lock, fcntl.LOCK_EX)
            if copy.exists() and (found := _checked(name, copies, fingerprint)) is not None:
                return found
            _copy(shared, copy)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return prepared_file.load(name, store)
    return _checked(name, copies, fingerprint) or prepared_file.load(name, store)


def _checked(name: str, copies: Store, fingerprint: str) -> PreparedTask | None:
    try:
        found = prepared_file.load(name, copies)
    except Damaged:
        return None
    return found if found.fingerprint == fingerprint else None


def _copy(shared: Path, copy: Path) -> None:
    temporary = temporary_beside(copy)
    try:
        shutil.copyfile(shared, temporary)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)
