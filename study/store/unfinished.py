"""Runs in flight: their checkpoints, who trains them, how they failed, and what killed ones leave."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from study.store import atomic, layout, sealed
from study.store.atomic import Damaged, Newer
from study.store.layout import unfinished_folder, unfinished_path
from study.store.processes import Process
from study.store.rows import finished_ids
from study.store.store import Store, concurrently

_CHECKPOINT, _BEGAN, _FAILURE = "checkpoint", "began.json", "failure.json"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a Run failed. `final`: it is not tried again until `study retry`; `at`: ISO 8601, UTC."""

    tries: int
    error: str
    final: bool
    at: str
    kind: Literal["error", "start failed"] = "error"


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What lies there of a Run in flight; `newest`: when any of it was last written (UTC)."""

    files: frozenset[str]
    newest: datetime


def list_unfinished(store: Store) -> dict[str, Unfinished]:
    """What lies there of Runs in flight or failed, by id: one recursive listing."""
    found: dict[str, Unfinished] = {}
    for entry in store.listed(layout.UNFINISHED, recursive=True):
        match = layout.UNFINISHED_PATH.fullmatch(store.relative(entry.path))
        if match:
            assert entry.mtime is not None, "listings give the time of every file"
            before = found.get(match[1], Unfinished(files=frozenset(), newest=entry.mtime))
            found[match[1]] = Unfinished(
                files=before.files | {match[2]}, newest=max(before.newest, entry.mtime)
            )
    return found


def drop_unfinished(store: Store, run_id: str) -> None:
    """Remove all that lies there of a Run in flight."""
    store.remove_folder(unfinished_folder(run_id))


def write_checkpoint(store: Store, run_id: str, payload: bytes) -> None:
    """Replace the Run's checkpoint."""
    store.put(unfinished_path(run_id, _CHECKPOINT), sealed.frame(payload), payload)


def read_checkpoint(store: Store, run_id: str) -> bytes | None:
    """The Run's checkpoint, None if it has none. Raises Damaged."""
    path = unfinished_path(run_id, _CHECKPOINT)
    try:
        return sealed.unframe(store.get(path), path)
    except FileNotFoundError:
        return None


def note_began(store: Store, run_id: str, by: Process) -> None:
    """Note which process trains the Run from now on."""
    store.put(unfinished_path(run_id, _BEGAN), sealed.seal(asdict(by)))


def read_began(store: Store, run_id: str) -> Process | None:
    """The process that last took the Run up, None if none did. Raises Damaged."""
    path = unfinished_path(run_id, _BEGAN)
    try:
        content, _ = sealed.unseal(store.get(path), path)
        return Process(**content)
    except FileNotFoundError:
        return None
    except TypeError as error:
        raise Damaged(path, f"not a process ({error})") from error


def trained_by(store: Store) -> dict[str, Process]:
    """Which process last took up each Run in flight, by id; unreadable notes count as absent."""
    ids = [i for i, found in list_unfinished(store).items() if _BEGAN in found.files]
    read = concurrently(lambda run_id: read_began(store, run_id), ids)
    return {i: process for i, process in read.items() if isinstance(process, Process)}


def write_failure(store: Store, run_id: str, failure: Failure) -> None:
    """Note how the Run failed, in place of an earlier failure."""
    store.put(unfinished_path(run_id, _FAILURE), sealed.seal(asdict(failure)))


def read_failure(store: Store, run_id: str) -> Failure | None:
    """How the Run failed; None if it did not, or if the note is unreadable (it can fail again).

    Raises Newer for the note of a later release.
    """
    path = unfinished_path(run_id, _FAILURE)
    try:
        content, written_by = sealed.unseal(store.get(path), path)
    except (FileNotFoundError, Damaged):
        return None
    try:
        return Failure(**content)
    except TypeError as error:
        raise Newer(path, written_by, str(error)) from error


def read_failures(store: Store) -> dict[str, Failure]:
    """How Runs failed, by id: `read_failure` of all that there are."""
    ids = [i for i, found in list_unfinished(store).items() if _FAILURE in found.files]
    read: dict[str, Any] = concurrently(lambda run_id: read_failure(store, run_id), ids)
    return {run_id: failure for run_id, failure in read.items() if failure is not None}


def clear_failure(store: Store, run_id: str) -> None:
    """Forget the Run's failure, if it has one."""
    store.remove(unfinished_path(run_id, _FAILURE))


def sweep(store: Store, keep: Collection[str] = ()) -> list[str]:
    """Remove what killed processes have left: temporary files, checkpoints of finished Runs.

    For the driver that holds the lease, before it starts. Returns the paths removed. `keep`: ids of
    finished Runs that are in training again, because what they should have left beside their rows is
    not there.
    """
    removed = []
    root = store.local_path("")
    if root is not None:
        removed += [path.relative_to(root).as_posix() for path in atomic.sweep(root)]
    unfinished = list_unfinished(store)
    for run_id in sorted((finished_ids(store) & unfinished.keys()) - set(keep)):
        drop_unfinished(store, run_id)
        removed.append(unfinished_folder(run_id))
    return removed
