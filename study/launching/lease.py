"""One driver per store: a lease that its holder keeps alive, and that expires when it dies.

Leases are numbered (`lease_places`): the highest number is the one that counts, and it is never removed
(a released one says so and stays), so that numbers never go back. Only one process can create a number, so
of two that take over from a dead holder only one can win. A bucket may not know "only if absent", which is
tried first: there, two that begin in the same moment may both go on for one heartbeat, until the one finds
the other's words under its number.

The number is a fence, too: whatever is written of a Run in flight lies below it (`Store.lease_number`),
and a trial asks now and then whether a higher one has come (`passed_over_question`).

A holder on this machine is asked for by its process; one elsewhere is alive while its heartbeat is recent
by the clock of the file system itself. Where that clock says that it is old, or lies in the future, it
is watched: it counts as dead only if it makes no progress. Knows nothing of studies and Runs.
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from study.launching.lease_places import RELEASED, Place, place_of
from study.messages import show_message
from study.store import Store, highest_number, layout, open_store
from study.store.processes import Process, this_process

EXPIRY_SECONDS: Final = 60.0
BEATS_AN_EXPIRY: Final = 6
# One that has created its lease and not yet said who it is takes milliseconds for it.
SECONDS_TO_SAY_WHO: Final = 2.0
SECONDS_BETWEEN_QUESTIONS: Final = 10.0  # of a trial, whether its driver was passed over


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
        self.root, self.owner, self.expiry = root, owner, expiry
        self.age_seconds = max(age_seconds, 0.0)

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
    """A lease that is held, by `owner`, under this number."""

    owner: Owner
    number: int
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
    place = place_of(store)
    owner = _this_driver()
    number = take(place, owner, store.shown, expiry_seconds, lambda: highest_number(store))
    lease = Lease(owner=owner, number=number)
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(expiry_seconds / BEATS_AN_EXPIRY):
            # A beat that fails (a full disk, a bucket that does not answer) is made good by the next
            # one. If none comes through, another driver takes over, and the next one here sees it.
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
        # A lease that cannot be released (the store has become read-only) expires instead, and must
        # not take the place of the error that ended the block.
        with suppress(OSError):
            release(place, number, owner)


def passed_over(store: Store) -> bool:
    """Whether a later driver holds the store than the one under whose lease it is written to here."""
    if not store.lease_number:
        return False
    numbers = store.matching(layout.LEASE, layout.LEASE_NAME)
    return max(map(int, numbers), default=0) > store.lease_number


def passed_over_question(store: Store) -> Callable[[], bool]:
    """Asks `passed_over` now and then; a store that does not answer says nothing."""
    asked_at = time.monotonic()

    def is_passed_over() -> bool:
        nonlocal asked_at
        if time.monotonic() - asked_at < SECONDS_BETWEEN_QUESTIONS:
            return False
        asked_at = time.monotonic()
        with suppress(OSError):
            return passed_over(store)
        return False

    return is_passed_over


def take(
    place: Place, owner: Owner, shown: str, expiry: float, lowest: Callable[[], int] = lambda: 0
) -> int:
    """Creates the next number, and returns it. Raises LeaseHeld.

    `lowest`: a number to be above where there is no lease at all, because somebody has removed them.
    """
    mine = to_json(owner)
    while True:
        highest = max(place.stamps(), default=0)
        try:
            if highest and place.read(highest) == mine:
                # Of a try whose last step failed, so that it was taken for no success.
                number = highest
            else:
                if highest:
                    _check_free(place, highest, shown, expiry)
                number = (highest or lowest()) + 1
                if not place.create(number, mine) or place.read(number) != mine:
                    continue
        except FileNotFoundError:
            continue  # removed since, because there is a higher one
        # One that listed long ago may create a number that was removed as outdated since then.
        if max(place.stamps(), default=0) == number:
            break
        place.remove(number)
    for older in place.stamps():
        if older < number:
            place.remove(older)
    return number


def beat(place: Place, number: int, owner: Owner) -> bool:
    """Gives a sign of life; False where the lease is another's by now."""
    try:
        if not _is_ours(place, number, owner):
            return False
        place.beat(number, to_json(owner))
    except FileNotFoundError:
        return False  # passed over, or somebody has removed the whole folder
    return True


def release(place: Place, number: int, owner: Owner) -> None:
    """Lets go of the lease, unless it is another's by now."""
    with suppress(FileNotFoundError):
        if _is_ours(place, number, owner):
            place.release(number)


def to_json(owner: Owner) -> bytes:
    """What a lease's file holds."""
    return json.dumps(asdict(owner)).encode()


def _is_ours(place: Place, number: int, owner: Owner) -> bool:
    if max(place.stamps(), default=0) != number:
        return False
    return place.is_exact or place.read(number) == to_json(owner)


def _check_free(place: Place, number: int, shown: str, expiry: float) -> None:
    """Raises LeaseHeld unless this lease was released or its holder is dead."""
    content = place.read(number)
    owner = _owner_from(content)
    alive = owner.process.is_alive() if owner is not None else None
    if content.lstrip() == RELEASED or alive is False:
        return
    age = 0.0 if alive else place.age(number)
    beat_seconds = expiry / BEATS_AN_EXPIRY
    if alive or (owner is not None and -beat_seconds < age < expiry):
        raise LeaseHeld(shown, owner, age, expiry)
    if not content.strip():  # being written at this moment, or by a process that died in doing so
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
    """Whether the lease changes within so many seconds, unless by being released.

    Raises FileNotFoundError where it is the highest no more.
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
        return Owner(**(plain | {"process": Process(**plain["process"])}))
    except (ValueError, TypeError, KeyError):
        return None


def _this_driver() -> Owner:
    return Owner(
        process=this_process(),
        since=datetime.now(UTC).isoformat(timespec="milliseconds"),
        token=secrets.token_hex(8),
    )
