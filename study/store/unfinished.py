"""Store the checkpoints, processes and failures of Runs in flight: begun, but not finished.

Every driver writes below its lease number (`Store.lease_number`), a fencing token: a driver that lost
its lease cannot overwrite its successor's files. Readers use the highest number.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from study.store import atomic, layout, studies
from study.store.atomic import Damaged, Newer
from study.store.layout import unfinished_folder, unfinished_path
from study.store.processes import Process, process_from
from study.store.rows import finished_ids
from study.store.store import Store, concurrently

_CHECKPOINT, _BEGAN, _FAILURE = "checkpoint", "began.json", "failure.json"


@dataclass(frozen=True, kw_only=True)
class Failure:
    """How a Run failed. `final`: no retry until `study retry`; `at`: ISO 8601, UTC."""

    tries: int
    error: str
    final: bool
    at: str
    kind: Literal["error", "start failed"] = "error"


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """The files of a Run in flight.

    - `paths`: file name (checkpoint, began.json, failure.json) → its path with the highest lease number.
    - `outdated`: paths of files with lower lease numbers.
    - `newest`: the time of the last write (UTC).
    """

    paths: Mapping[str, str]
    outdated: tuple[str, ...]
    newest: datetime

    @property
    def files(self) -> frozenset[str]:
        return frozenset(self.paths)


def list_unfinished(store: Store) -> dict[str, Unfinished]:
    """Return the files of Runs in flight or failed, by id, in one recursive listing."""
    return _listed(store, layout.UNFINISHED)


def _files(store: Store, folder: str) -> Iterator[tuple[str, int, str, str, datetime]]:
    """Yield Run id, lease number, name, path and time of each file in a folder: one recursive listing."""
    for entry in store.listed(folder, recursive=True):
        path = store.relative(entry.path)
        match = layout.UNFINISHED_NAME.fullmatch(path.removeprefix(f"{layout.UNFINISHED}/"))
        if match:
            assert entry.mtime is not None, "listings give the time of every file"
            yield match[1], int(match[2] or 0), match[3], path, entry.mtime


def _listed(store: Store, folder: str) -> dict[str, Unfinished]:
    there: dict[str, list[tuple[int, str, str, datetime]]] = {}
    for run_id, number, name, path, mtime in _files(store, folder):
        there.setdefault(run_id, []).append((number, name, path, mtime))
    found = {}
    for run_id, files in there.items():
        paths = {name: path for _, name, path, _ in sorted(files)}
        found[run_id] = Unfinished(
            paths=paths,
            outdated=tuple(path for _, _, path, _ in files if path not in paths.values()),
            newest=max(time for *_, time in files),
        )
    return found


def highest_number(store: Store) -> int:
    """Return the highest lease number in paths of Runs in flight; 0 if no path has a number."""
    return max((number for _, number, *_ in _files(store, layout.UNFINISHED)), default=0)


def find_unfinished(store: Store, run_id: str) -> Unfinished | None:
    """Return the files of this Run in flight; None if it is not in flight."""
    return _listed(store, unfinished_folder(run_id)).get(run_id)


def _found(store: Store, run_id: str, name: str) -> str | None:
    there = find_unfinished(store, run_id)
    return None if there is None else there.paths.get(name)


def drop_unfinished(store: Store, run_id: str) -> None:
    """Remove all files of a Run in flight."""
    store.remove_folder(unfinished_folder(run_id))


def drop_known(
    store: Store, run_id: str, before: Unfinished | None, *, has_checkpoint: bool
) -> None:
    """Remove all files of an unfinished Run; on a bucket, without listing them.

    `before`: the files that existed when this attempt began. `has_checkpoint`: this attempt has written a
    checkpoint.
    """
    own = [_BEGAN, *([_CHECKPOINT] if has_checkpoint else [])]
    paths = {unfinished_path(run_id, name, store.lease_number) for name in own}
    if before is not None:
        paths |= {*before.paths.values(), *before.outdated}
    store.remove_each(unfinished_folder(run_id), paths)


def write_checkpoint(store: Store, run_id: str, payload: bytes) -> None:
    """Replace the Run's checkpoint of this lease."""
    path = unfinished_path(run_id, _CHECKPOINT, store.lease_number)
    store.put(path, studies.frame(payload), payload)


def drop_outdated(store: Store, run_id: str) -> None:
    """Remove the Run's checkpoints of lower lease numbers, if this lease has a checkpoint."""
    there = find_unfinished(store, run_id)
    own = unfinished_path(run_id, _CHECKPOINT, store.lease_number)
    if there is not None and there.paths.get(_CHECKPOINT) == own:
        for path in there.outdated:
            if path.endswith(f"/{_CHECKPOINT}"):
                store.remove(path)


def read_checkpoint(store: Store, run_id: str, there: Unfinished | None = None) -> bytes | None:
    """Return the Run's checkpoint, or None. `there`: the Run's files, if known. Raises Damaged."""
    there = there or find_unfinished(store, run_id)
    path = None if there is None else there.paths.get(_CHECKPOINT)
    try:
        return None if path is None else studies.unframe(store.get(path), path)
    except FileNotFoundError:
        return None


def read_at(store: Store, path: str) -> Any:
    """Return the payload of a checkpoint, or the content of another file. Raises Damaged, Newer."""
    content = store.get(path)
    if path.endswith(f"/{_CHECKPOINT}"):
        return studies.unframe(content, path)
    return studies.unseal(content, path)[0]


def note_began(store: Store, run_id: str, by: Process) -> None:
    """Store which process trains the Run from now on."""
    store.put(unfinished_path(run_id, _BEGAN, store.lease_number), studies.seal(asdict(by)))


def read_began(store: Store, run_id: str) -> Process | None:
    """Return the process that last started the Run, or None. Raises Damaged."""
    path = _found(store, run_id, _BEGAN)
    return None if path is None else _began_at(store, path)


def _began_at(store: Store, path: str) -> Process | None:
    try:
        content, _ = studies.unseal(store.get(path), path)
        return process_from(content)
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise Damaged(path, f"not a process ({error})") from error


def trained_by(store: Store, found: Mapping[str, Unfinished]) -> dict[str, Process]:
    """Return by Run id the process that started each unfinished Run, if its record can be read."""
    paths = _paths(found, _BEGAN)
    read = concurrently(lambda run_id: _began_at(store, paths[run_id]), paths)
    return {i: process for i, process in read.items() if isinstance(process, Process)}


def write_failure(store: Store, run_id: str, failure: Failure) -> None:
    """Store how the Run failed, replacing an earlier failure."""
    path = unfinished_path(run_id, _FAILURE, store.lease_number)
    store.put(path, studies.seal(asdict(failure)))


def read_failure(store: Store, run_id: str) -> Failure | None:
    """Return how the Run failed; None if it did not fail, or if the note is damaged (to allow a retry).

    Raises Newer for the note of a later release.
    """
    path = _found(store, run_id, _FAILURE)
    return None if path is None else _failure_at(store, path)


def _failure_at(store: Store, path: str) -> Failure | None:
    try:
        content, written_by = studies.unseal(store.get(path), path)
    except (FileNotFoundError, Damaged):
        return None
    try:
        return Failure(**content)
    except TypeError as error:
        raise Newer(path, written_by, str(error)) from error


def read_failures(
    store: Store, found: Mapping[str, Unfinished] | None = None
) -> dict[str, Failure]:
    """Return how each failed Run failed, by id. `found`: `list_unfinished(store)`, if known."""
    paths = _paths(list_unfinished(store) if found is None else found, _FAILURE)
    read: dict[str, Any] = concurrently(lambda run_id: _failure_at(store, paths[run_id]), paths)
    return {run_id: failure for run_id, failure in read.items() if failure is not None}


def _paths(found: Mapping[str, Unfinished], name: str) -> dict[str, str]:
    return {run_id: there.paths[name] for run_id, there in found.items() if name in there.paths}


def clear_failure(store: Store, run_id: str) -> None:
    """Remove the note of the Run's failure, if any."""
    there = find_unfinished(store, run_id)
    for path in (*there.paths.values(), *there.outdated) if there is not None else ():
        if path.endswith(f"/{_FAILURE}"):
            store.remove(path)


def sweep(
    store: Store, keep: Collection[str] = (), unfinished: Mapping[str, Unfinished] | None = None
) -> list[str]:
    """Remove temporary files, and the checkpoints of finished Runs; return the removed paths.

    Only the driver that holds the lease may call this, before training. `keep`: ids of finished Runs
    that are trained again because an artifact is missing. `unfinished`: `list_unfinished(store)`, if
    known.
    """
    removed = []
    root = store.local_path("")
    if root is not None:
        removed += [path.relative_to(root).as_posix() for path in atomic.sweep(root)]
    if unfinished is None:
        unfinished = list_unfinished(store)
    done = finished_ids(store) if unfinished else frozenset()
    for run_id in sorted((done & unfinished.keys()) - set(keep)):
        with suppress(PermissionError):  # another user's files, in a folder with a sticky bit
            drop_unfinished(store, run_id)
            removed.append(unfinished_folder(run_id))
    return removed
