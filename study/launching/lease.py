"""One driver per store: a lease that its holder keeps alive, and that expires when it dies.

In a directory the lease is exact. Its files are numbered, `lease/<number>.json`; only one process can
create a number, the highest is the one that counts, and the highest is never removed (a released one
says so and stays), so numbers never go back and of two that take over from a dead holder only one
can win. A holder on this machine is asked for by its process; one elsewhere by the age of its file,
which its heartbeat touches, measured by the clock of the file system itself.

On a bucket, where nothing can be created only if absent, it is best effort: each driver writes an
object of its own and yields to one that is alive and began earlier. Two that start within the same
moment, or with clocks that differ, may both go on for one heartbeat, until the later one sees itself
as lost; what both train is then published twice under one name, and found by its digest.

Knows nothing of studies and Runs.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from study.store import Store, atomic, open_store
from study.store.layout import LEASE
from study.store.processes import Process, this_process

Beat = Callable[[], bool]
Release = Callable[[], None]

EXPIRY_SECONDS: Final = 60.0
_FILE: Final = re.compile(r"(\d{8})\.json")
_RELEASED: Final = b"{}\n"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A driver, since when (ISO 8601, UTC), and what tells it from all others.

    Where its process cannot be seen from here, the heartbeat alone counts.
    """

    process: Process
    since: str
    token: str


class LeaseHeld(Exception):
    """Another driver holds the store. `owner` is None while it has not yet said who it is."""

    def __init__(self, root: str, owner: Owner | None, age_seconds: float, expiry: float) -> None:
        super().__init__(root, owner, age_seconds, expiry)
        self.root, self.owner, self.age_seconds, self.expiry = root, owner, age_seconds, expiry

    def __str__(self) -> str:
        who = "another driver"
        if self.owner is not None:
            process = self.owner.process
            who += f", process {process.pid} on {process.host} since {self.owner.since}"
        return (
            f"{self.root} is in use by {who} (last sign of life {self.age_seconds:.0f} s ago). "
            "Wait until it ends, or stop it, then run this again. One that has died is passed over "
            f"at once on its own machine, elsewhere {self.expiry:.0f} s after its last sign of life"
        )


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease that is held, by `owner`."""

    owner: Owner
    lost: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def is_lost(self) -> bool:
        """Whether another driver took over, believing this one dead (a machine that slept): stop."""
        return self.lost.is_set()


@contextmanager
def acquire(root: str | Path, *, expiry_seconds: float = EXPIRY_SECONDS) -> Iterator[Lease]:
    """Hold the store at `root` for the length of the block; released on leaving it.

    All drivers of one store must give the same `expiry_seconds`. Raises LeaseHeld if another driver
    holds it, OSError if the root cannot be written.
    """
    store = open_store(root)
    lease = Lease(owner=_this_driver())
    folder = store.local_path(LEASE)
    if folder is None:
        beat, release = _hold_object(store, lease.owner, expiry_seconds)
    else:
        beat, release = _hold_file(folder, store.shown, lease.owner, expiry_seconds)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(expiry_seconds / 6):
            # A beat that fails (a full disk, a bucket that does not answer) is made good by the next
            # one. If none comes through, another driver takes over, and the next one here sees it.
            with suppress(OSError):
                if not beat():
                    lease.lost.set()
                    return

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        # A lease that cannot be released (the store has become read-only) expires instead, and must
        # not take the place of the error that ended the block.
        with suppress(OSError):
            release()


def to_json(owner: Owner) -> bytes:
    """What a lease's file holds."""
    return json.dumps(asdict(owner)).encode()


def _hold_file(folder: Path, root: str, owner: Owner, expiry: float) -> tuple[Beat, Release]:
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        highest = _highest(folder)
        if highest:
            try:
                _check_free(_numbered(folder, highest), root, expiry)
            except FileNotFoundError:
                continue  # removed since, because there is a higher one
        number = highest + 1
        path = _numbered(folder, number)
        try:
            stream = path.open("xb")
        except FileExistsError:
            continue
        with stream:
            try:
                stream.write(to_json(owner))
                stream.flush()
            except OSError:
                # A full disk: a file that says nothing would keep everybody out until it expires.
                path.unlink(missing_ok=True)
                raise
        # One that listed long ago may create a number that was removed as outdated since then.
        if _highest(folder) == number:
            break
        path.unlink(missing_ok=True)
    for older in folder.iterdir():
        match = _FILE.fullmatch(older.name)
        if match and int(match[1]) < number:
            older.unlink(missing_ok=True)

    def beat() -> bool:
        try:
            if _highest(folder) != number:
                return False
            os.utime(path)
        except FileNotFoundError:
            return False  # passed over, or somebody has removed the whole folder
        return True

    def release() -> None:
        if _highest(folder) == number:
            # In place: on a full disk there is room for it.
            with path.open("r+b") as stream:
                stream.write(_RELEASED.rjust(path.stat().st_size))

    return beat, release


def _highest(folder: Path) -> int:
    matches = (_FILE.fullmatch(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in matches if match), default=0)


def _numbered(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.json"


def _check_free(path: Path, root: str, expiry: float) -> None:
    content = path.read_bytes()
    if content.lstrip() == _RELEASED:
        return
    # By the clock of the file system, which need not be this machine's.
    probe = atomic.temporary_beside(path)
    probe.touch()
    try:
        age = probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink()
    owner = _owner_from(content)
    alive = owner.process.is_alive() if owner is not None else None
    if alive or (alive is None and age < expiry):
        raise LeaseHeld(root, owner, age, expiry)


def _hold_object(store: Store, owner: Owner, expiry: float) -> tuple[Beat, Release]:
    path = f"{LEASE}/{owner.token}.json"

    def earlier() -> tuple[Owner, float] | None:
        store.put(path, to_json(owner))
        entries = store.listed(LEASE)
        now = max(entry.mtime for entry in entries)
        for entry in entries:
            age = (now - entry.mtime).total_seconds()
            if age >= expiry:
                continue
            try:
                other = _owner_from(store.get(f"{LEASE}/{entry.base_name}"))
            except FileNotFoundError:
                continue
            if other and (other.since, other.token) < (owner.since, owner.token):
                return other, age
        return None

    def release() -> None:
        store.remove(path)

    found = earlier()
    if found:
        release()
        raise LeaseHeld(store.shown, *found, expiry)
    return lambda: earlier() is None, release


def _owner_from(content: bytes) -> Owner | None:
    try:
        plain = json.loads(content)
        return Owner(**(plain | {"process": Process(**plain["process"])}))
    except (ValueError, TypeError, KeyError):
        return None  # being written at this moment, or by a process that died in doing so


def _this_driver() -> Owner:
    return Owner(
        process=this_process(),
        since=datetime.now(UTC).isoformat(timespec="milliseconds"),
        token=secrets.token_hex(8),
    )
