"""Allow one driver per store: a numbered lease with a heartbeat.

The highest number counts and is never removed, so numbers never decrease. Only one process can create a
number, so only one driver can replace a dead driver. On buckets without conditional writes, two drivers
that start at the same moment can both continue for one heartbeat.

The number is also a fencing token: everything written about a Run in flight is stored under it
(`Store.lease_number`), and a trial checks regularly for a higher one (`lease_lost_if_due`).

A holder on this machine is alive while its process runs. A holder elsewhere is alive while its heartbeat
is recent by the file system's clock. If the heartbeat looks old, or is in the future, the holder counts
as dead only if the heartbeat stops changing.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from study.messages import show_message
from study.store import Store, atomic, layout, open_store
from study.store.layout import LEASE, LEASE_NAME, lease_path
from study.store.processes import Process, process_from, this_process
from study.store.unfinished import highest_number

RELEASED: Final = b"{}\n"
_LOST: Final = b"the disk has lost it"  # content of an unreadable lease: only heartbeats count


class Place(Protocol):
    """The leases of one store, by number. All methods may raise OSError.

    `read` and `beat` raise FileNotFoundError if the lease does not exist. `is_exact`: True if only one
    driver can create a number, and no other driver can overwrite its lease. `pause_seconds`: time between
    two reads of a watched lease.
    """

    @property
    def is_exact(self) -> bool: ...

    @property
    def pause_seconds(self) -> float: ...

    def stamps(self) -> Mapping[int, Hashable]:
        """Map every existing number to a value that changes with every heartbeat."""
        ...

    def age(self, number: int) -> float:
        """Return seconds since the last heartbeat by the store's clock; negative if in the future."""
        ...

    def read(self, number: int) -> bytes:
        """Return the lease's content."""
        ...

    def create(self, number: int, content: bytes) -> bool:
        """Create the lease; return False if it exists."""
        ...

    def beat(self, number: int, content: bytes) -> None:
        """Give the lease a heartbeat: mark it with the current time."""
        ...

    def release(self, number: int) -> None:
        """Mark the lease as released."""
        ...

    def remove(self, number: int) -> None:
        """Remove the lease if it exists."""
        ...

    def pause(self, seconds: float) -> None: ...


def place_of(store: Store) -> Place:
    """Return the store's leases; in a directory, create their folder."""
    folder = store.local_path(LEASE)
    if folder is None:
        return Bucket(store, is_exact=store.conditions_unheeded() is None)
    atomic.make_folder(folder)
    return Directory(store, folder)


@dataclass(frozen=True)
class Directory:
    """Leases as files; a heartbeat sets the modification time."""

    store: Store
    folder: Path
    is_exact: bool = True
    pause_seconds: float = 0.5

    def stamps(self) -> Mapping[int, Hashable]:
        found: dict[int, Hashable] = {}
        for path in self.folder.iterdir():
            match = LEASE_NAME.fullmatch(path.name)
            if match:
                try:
                    found[int(match[1])] = path.stat().st_mtime_ns
                except FileNotFoundError:
                    continue  # another driver has removed it
        return found

    def age(self, number: int) -> float:
        with atomic.draft_beside(self._path(number)) as probe:
            probe.touch()
            return probe.stat().st_mtime - self._path(number).stat().st_mtime

    def read(self, number: int) -> bytes:
        try:
            return self._path(number).read_bytes()
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return _LOST

    def create(self, number: int, content: bytes) -> bool:
        return self.store.create(lease_path(number), content)

    def beat(self, number: int, content: bytes) -> None:
        os.utime(self._path(number))

    def release(self, number: int) -> None:
        path = self._path(number)
        # Overwritten in place, which works on a full disk.
        with path.open("r+b") as stream:
            stream.write(RELEASED.rjust(path.stat().st_size))

    def remove(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _path(self, number: int) -> Path:
        return self.folder / Path(lease_path(number)).name


@dataclass(frozen=True)
class Bucket:
    """Leases as objects; a heartbeat replaces the object, conditionally if the bucket supports that."""

    store: Store
    is_exact: bool
    pause_seconds: float = 2.0

    def stamps(self) -> Mapping[int, Hashable]:
        found: dict[int, Hashable] = {}
        for entry in self.store.listed(LEASE):
            match = LEASE_NAME.fullmatch(entry.base_name)
            if match:
                found[int(match[1])] = entry.mtime
        return found

    def age(self, number: int) -> float:
        # The bucket's clock is the time of an object that was just written.
        probe = f"{layout.LEASE}/now-{os.getpid()}"
        self.store.put(probe, b"")
        try:
            times = {entry.base_name: entry.mtime for entry in self.store.listed(LEASE)}
        finally:
            self.store.remove(probe)
        there = times.get(Path(lease_path(number)).name)
        if there is None:
            raise FileNotFoundError(lease_path(number))
        seconds: float = (times[Path(probe).name] - there).total_seconds()
        return seconds

    def read(self, number: int) -> bytes:
        return self.store.get(lease_path(number))

    def create(self, number: int, content: bytes) -> bool:
        return self.store.create(lease_path(number), content)

    def beat(self, number: int, content: bytes) -> None:
        self._put(number, content, content)

    def release(self, number: int) -> None:
        self._put(number, None, RELEASED)

    def remove(self, number: int) -> None:
        self.store.remove(lease_path(number))

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _put(self, number: int, expected: bytes | None, content: bytes) -> None:
        path = lease_path(number)
        if not self.is_exact:
            self.store.put(path, content)
        elif not self.store.swap(path, expected, content):
            raise FileNotFoundError(path)  # another driver has replaced it


EXPIRY_SECONDS: Final = 60.0
BEATS_AN_EXPIRY: Final = 6
# A driver writes its identity milliseconds after it creates its lease.
SECONDS_TO_SAY_WHO: Final = 2.0
SECONDS_BETWEEN_QUESTIONS: Final = 10.0  # between a trial's checks of the lease


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A driver's identity: process, start time (ISO 8601, UTC) and a unique token.

    If the process cannot be checked from this machine, only the heartbeat counts.
    """

    process: Process
    since: str
    token: str


class LeaseHeld(Exception):
    """Another driver holds the store; `owner` is None until that driver has written its identity."""

    def __init__(self, root: str, owner: Owner | None, age_seconds: float, expiry: float) -> None:
        super().__init__(root, owner, age_seconds, expiry)
        self.root, self.owner, self.expiry = root, owner, expiry
        self.age_seconds = max(age_seconds, 0.0)

    def __str__(self) -> str:
        who = "another driver"
        if self.owner is not None:
            process = self.owner.process
            who += f", process {process.pid} on {process.host} since {self.owner.since}"
        return (
            f"{self.root} is in use by {who} (last sign of life {self.age_seconds:.0f} s ago). "
            "Wait until it ends, or stop it, then run this again. The lease of a dead driver "
            f"expires {self.expiry:.0f} s after its last sign of life (immediately on the same machine)"
        )


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A lease held by `owner` under this number."""

    owner: Owner
    number: int
    lost: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    @property
    def is_lost(self) -> bool:
        """Return True if another driver took over, for example while this machine slept."""
        return self.lost.is_set()


@contextmanager
def acquire(root: str | Path, *, expiry_seconds: float = EXPIRY_SECONDS) -> Iterator[Lease]:
    """Hold the lease of the store at `root` during the block, then release the lease.

    All drivers of one store must use the same `expiry_seconds`. Raises LeaseHeld if another driver
    holds the lease, OSError if the root cannot be written.
    """
    store = open_store(root)
    place = place_of(store)
    owner = _this_driver()
    number = take(place, owner, store.shown, expiry_seconds, lambda: highest_number(store))
    lease = Lease(owner=owner, number=number)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(expiry_seconds / BEATS_AN_EXPIRY):
            # A failed heartbeat (a full disk, a bucket that does not respond) is covered by the next
            # one. If all fail, another driver takes over, and the next heartbeat here detects it.
            with suppress(OSError):
                if not beat(place, number, owner):
                    lease.lost.set()
                    return

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        # A lease that cannot be released (the store has become read-only) expires instead. This failure
        # must not replace the error that ended the block.
        with suppress(OSError):
            release(place, number, owner)


def lease_lost(store: Store) -> bool:
    """Return True if another driver has a lease with a number above `store.lease_number`."""
    if not store.lease_number:
        return False
    _asked_at[store.root, store.lease_number] = time.monotonic()
    numbers = store.matching(layout.LEASE, layout.LEASE_NAME)
    return max(map(int, numbers), default=0) > store.lease_number


# Time of this process's last check, by root and lease number: on a bucket, each check is a request.
_asked_at: dict[tuple[str, int], float] = {}


def lease_lost_if_due(store: Store) -> bool:
    """Call `lease_lost` at most every 10 s; return False in between, or if the store does not respond."""
    before = _asked_at.get((store.root, store.lease_number), -math.inf)
    if time.monotonic() - before < SECONDS_BETWEEN_QUESTIONS:
        return False
    with suppress(OSError):
        return lease_lost(store)
    return False


def take(
    place: Place, owner: Owner, shown: str, expiry: float, lowest: Callable[[], int] = lambda: 0
) -> int:
    """Take the lease under the next number; return the number. Raises LeaseHeld.

    `lowest`: called if all leases were removed; the new number exceeds its result.
    """
    mine = to_json(owner)
    while True:
        highest = max(place.stamps(), default=0)
        try:
            content = place.read(highest) if highest else b""
            if content == mine:
                # created in an earlier pass of this loop, which then failed
                number = highest
            else:
                if highest:
                    _check_free(place, highest, content, shown, expiry)
                number = (highest or lowest()) + 1
                if not place.create(number, mine):
                    continue
                if not place.is_exact and place.read(number) != mine:
                    continue
        except FileNotFoundError:
            continue  # the lease was removed, because a higher number exists
        # A driver with an old listing may create a number that has since been removed as outdated.
        there = place.stamps()
        if max(there, default=0) == number:
            break
        place.remove(number)
    for older in there:
        # Only the highest number counts: another user's lease may stay in a folder with a sticky bit.
        with suppress(OSError):
            if older < number:
                place.remove(older)
    return number


def beat(place: Place, number: int, owner: Owner) -> bool:
    """Give a heartbeat; return False if the lease is lost."""
    try:
        if not _is_ours(place, number, owner):
            return False
        place.beat(number, to_json(owner))
    except FileNotFoundError:
        return False  # lease lost, or the whole folder was removed
    return True


def release(place: Place, number: int, owner: Owner) -> None:
    """Release the lease unless it is lost."""
    with suppress(FileNotFoundError):
        if _is_ours(place, number, owner):
            place.release(number)


def to_json(owner: Owner) -> bytes:
    """Return the content of a lease's file."""
    return json.dumps(asdict(owner)).encode()


def _is_ours(place: Place, number: int, owner: Owner) -> bool:
    if max(place.stamps(), default=0) != number:
        return False
    return place.is_exact or place.read(number) == to_json(owner)


def _check_free(place: Place, number: int, content: bytes, shown: str, expiry: float) -> None:
    owner = _owner_from(content)
    alive = owner.process.is_alive() if owner is not None else None
    if content.lstrip() == RELEASED or alive is False:
        return
    age = 0.0 if alive else place.age(number)
    beat_seconds = expiry / BEATS_AN_EXPIRY
    if alive or (owner is not None and -beat_seconds < age < expiry):
        raise LeaseHeld(shown, owner, age, expiry)
    if not content.strip():  # being written now, or its writer died
        patience = min(SECONDS_TO_SAY_WHO, expiry)
    else:
        patience = expiry if age < 0 else 2 * beat_seconds
        odd = f"last gave a sign of life {age:.0f} s ago" if age > 0 else "has a time in the future"
        show_message(
            f"a driver of {shown} {odd}; watching it for {patience:.0f} s, in case its clock is wrong"
        )
    if _makes_progress(place, number, content, patience):
        raise LeaseHeld(shown, _owner_from(place.read(number)), 0.0, expiry)


def _makes_progress(place: Place, number: int, content: bytes, patience: float) -> bool:
    """Return True if the lease changes within `patience` seconds, except by its release.

    Raises FileNotFoundError if its number is no longer the highest.
    """
    stamp = place.stamps().get(number)
    num_looks = math.ceil(patience / place.pause_seconds)
    for _ in range(num_looks):
        place.pause(patience / num_looks)
        stamps, now = place.stamps(), place.read(number)
        if max(stamps, default=0) != number:
            raise FileNotFoundError(layout.lease_path(number))
        if (stamps[number], now) != (stamp, content):
            return now.lstrip() != RELEASED
    return False


def _owner_from(content: bytes) -> Owner | None:
    try:
        plain = json.loads(content)
        owner = Owner(**(plain | {"process": process_from(plain["process"])}))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return owner if isinstance(owner.since, str) and owner.since.isprintable() else None


def _this_driver() -> Owner:
    return Owner(
        process=this_process(),
        since=datetime.now(UTC).isoformat(timespec="milliseconds"),
        token=secrets.token_hex(8),
    )
