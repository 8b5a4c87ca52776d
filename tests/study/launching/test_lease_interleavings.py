"""Generated interleavings of drivers' lease operations, with a simulated clock.

Drivers run the real `take`, `beat` and `release` in threads. A thread stops before every operation until
the scheduler continues it, so a driver may sleep for hours between two operations. The drivers are on
different machines: they cannot see each other's processes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from study.launching import lease
from study.launching.lease import BEATS_AN_EXPIRY, RELEASED, LeaseHeld, Owner
from study.store.processes import Process

EXPIRY: Final = 60.0
BEAT: Final = EXPIRY / BEATS_AN_EXPIRY
FEW: Final = settings(
    max_examples=40,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


class Crashed(BaseException):
    """Ends a driver's thread before its next operation."""


@dataclass
class World:
    """The state that all drivers share. `now`: the time; `offset`: of the store's clock."""

    now: float = 0.0
    offset: float = 0.0
    leases: dict[int, tuple[bytes, float, int]] = field(default_factory=dict)
    serials: Iterator[int] = field(default_factory=itertools.count)
    taken: list[int] = field(
        default_factory=list
    )  # numbers, in the order in which drivers held them

    def put(self, number: int, content: bytes) -> None:
        self.leases[number] = (content, self.now + self.offset, next(self.serials))


@dataclass(eq=False)
class Driver:
    """A driver: a thread, and the Place through which it reads and writes the leases."""

    world: World
    name: str
    is_exact: bool
    pause_seconds: float = 2.0
    wakes_at: float = 0.0
    taken: int | None = None  # the number of the lease that it has, or had
    number: int | None = None  # of the lease that it holds, as far as it knows
    is_over: bool = False
    is_crashed: bool = False
    last_beat_at: float = 0.0
    last_look_at: float = 0.0
    looked_at: float = 0.0  # for the last time before it created its lease
    above: int = 0  # the highest number held by then

    def __post_init__(self) -> None:
        process = Process(host=self.name, pid=1, machine=f"not this one: {self.name}", pid_start=1)
        self.owner = Owner(process=process, since="2026-01-01", token=self.name)
        self._may_go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._failure: BaseException | None = None

    # For the scheduler.

    def begin(self, do: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(do,), daemon=True)
        self._thread.start()
        self._stopped.acquire()

    def step(self) -> None:
        """Run one operation, and stop before the next one."""
        self._may_go.release()
        self._stopped.acquire()
        if self._failure is not None:
            raise self._failure

    def crash(self) -> None:
        self.is_crashed = True
        if not self.is_over:
            self.step()
        self._thread.join()

    @property
    def is_ready(self) -> bool:
        return not self.is_over and self.world.now >= self.wakes_at

    def _run(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Crashed:
            pass
        except BaseException as error:
            self._failure = error
        self.is_over = True
        self._stopped.release()

    # The Place: each operation stops the thread first.

    def stamps(self) -> Mapping[int, Hashable]:
        self.pause()
        self.last_look_at = self.world.now
        return {number: (time, serial) for number, (_, time, serial) in self.world.leases.items()}

    def age(self, number: int) -> float:
        self.pause()
        return self.world.now + self.world.offset - self._there(number)[1]

    def read(self, number: int) -> bytes:
        self.pause()
        return self._there(number)[0]

    def create(self, number: int, content: bytes) -> bool:
        self.pause()
        if number in self.world.leases:
            return False
        if not self.is_exact:
            self.pause()  # a bucket is asked first, then written to
        self.world.put(number, content)
        self.looked_at, self.above = self.last_look_at, max(self.world.taken, default=0)
        self.last_beat_at = self.world.now
        return True

    def beat(self, number: int, content: bytes) -> None:
        self.pause()
        if self.is_exact:
            content = self._there(number)[0]
        self.world.put(number, content)
        self.last_beat_at = self.world.now

    def release(self, number: int) -> None:
        self.pause()
        self._there(number)
        self.world.put(number, RELEASED)

    def remove(self, number: int) -> None:
        self.pause()
        self.world.leases.pop(number, None)

    def pause(self, seconds: float = 0.0) -> None:
        self.wakes_at = self.world.now + seconds
        self._stopped.release()
        self._may_go.acquire()
        self.wakes_at = self.world.now
        if self.is_crashed:
            raise Crashed

    def _there(self, number: int) -> tuple[bytes, float, int]:
        if number not in self.world.leases:
            raise FileNotFoundError(number)
        return self.world.leases[number]


class Drivers(RuleBasedStateMachine):
    """Drivers start, work, sleep, are killed, and start again."""

    is_exact = True

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.drivers: list[Driver] = []
        self.holders: list[Driver] = []  # in the order in which they held the lease
        self.clock_was_set = False

    def _begin(self, num_beats: int) -> Driver:
        driver = Driver(self.world, f"driver {len(self.drivers)}", self.is_exact)
        self.drivers.append(driver)
        driver.begin(lambda: self._work(driver, num_beats))
        return driver

    @precondition(lambda self: len(self._alive()) < 3 and len(self.drivers) < 8)
    @rule(num_beats=st.integers(0, 4))
    def start(self, num_beats: int) -> None:
        self._begin(num_beats)

    def _work(self, driver: Driver, num_beats: int) -> None:
        """Do as `lease.acquire` with its heartbeat thread, for this number of beats."""
        try:
            number = lease.take(driver, driver.owner, "the store", EXPIRY)
        except LeaseHeld:
            return
        self._check_takeover(driver, number)
        driver.taken = driver.number = number
        self.world.taken.append(number)
        self.holders.append(driver)
        for _ in range(num_beats):
            driver.pause(BEAT)
            lost_lease = any((other.taken or 0) > number for other in self.holders)
            if not lease.beat(driver, number, driver.owner):
                driver.number = None
                return
            assert not lost_lease, f"{driver.name} does not detect that its lease is lost"
        lease.release(driver, number, driver.owner)
        driver.number = None

    def _check_takeover(self, driver: Driver, number: int) -> None:
        if not self.is_exact:
            return
        assert number not in self.world.taken, f"two holders have the number {number}"
        assert number > driver.above, "numbers go back"
        for other in self.holders:
            if other.number is not None and not other.is_crashed:
                # What was done after the last look cannot have been seen.
                silent = driver.looked_at - other.last_beat_at
                least = BEAT if self.clock_was_set else EXPIRY
                assert silent <= 0 or silent >= least, f"{other.name} beat {silent:.0f} s ago"

    def _alive(self) -> list[Driver]:
        return [driver for driver in self.drivers if not driver.is_over]

    @precondition(lambda self: any(driver.is_ready for driver in self.drivers))
    @rule(data=st.data(), num_steps=st.sampled_from([1, 1, 2, 5, 20]))
    def run_one(self, data: st.DataObject, num_steps: int) -> None:
        driver = data.draw(st.sampled_from([d for d in self.drivers if d.is_ready]))
        for _ in range(num_steps):
            if driver.is_ready:
                driver.step()

    @precondition(lambda self: self._alive())
    @rule(data=st.data(), seconds=st.sampled_from([5.0, 25.0, 70.0]))
    def run_only_one(self, data: st.DataObject, seconds: float) -> None:
        driver = data.draw(st.sampled_from(self._alive()))
        until = self.world.now + seconds
        while not driver.is_over and max(self.world.now, driver.wakes_at) <= until:
            self.world.now = max(self.world.now, driver.wakes_at)
            driver.step()
            self.world.now += 0.01

    @precondition(lambda self: self._alive())
    @rule()
    def advance_to_the_next_event(self) -> None:
        waiting = [d.wakes_at for d in self._alive() if d.wakes_at > self.world.now]
        if waiting:
            self.world.now = min(waiting)

    @rule(seconds=st.sampled_from([0.3, 9.0, 11.0, 59.0, 61.0, 200.0]))
    def advance(self, seconds: float) -> None:
        """No driver runs meanwhile, as if its machine slept."""
        self.world.now += seconds

    @precondition(lambda self: not self.clock_was_set)
    @rule(seconds=st.sampled_from([-1e6, -30.0, 30.0, 1e6]))
    def set_the_clock_of_the_store(self, seconds: float) -> None:
        self.clock_was_set = True
        self.world.offset += seconds

    @precondition(lambda self: self._alive())
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self._alive())).crash()

    @invariant()
    def no_two_hold_one_number(self) -> None:
        held = [h.number for h in self.holders if h.number is not None]
        if self.is_exact:
            assert len(set(held)) == len(held), held

    def teardown(self) -> None:
        """Kill all drivers; a new one must get the lease within the stated time."""
        for driver in self._alive():
            driver.crash()
        # A clock that was put back by less than an expiry makes all seem as much younger. A millisecond
        # more: (19.04 + 60) - 19.04 is below 60 in floating point.
        self.world.now += 0.001 + EXPIRY + max(0.0, min(EXPIRY, -self.world.offset))
        last = self._begin(1)
        began = self.world.now
        while not last.is_over and last.number is None:
            self.world.now = max(self.world.now, last.wakes_at)
            last.step()
        # A holder is watched in case its clock is wrong: two beats, or an expiry if its time is ahead.
        longest = EXPIRY if self.clock_was_set else 2 * BEAT
        try:
            assert last.number is not None, "rejected, although all others are dead"
            assert self.world.now - began <= longest + 1.0, self.world.now - began
        finally:
            if not last.is_over:
                last.crash()


class OnABucket(Drivers):
    """Without conditional writes, two may take one number; one detects it at its next beat."""

    is_exact = False

    @invariant()
    def one_of_two_gives_up(self) -> None:
        if any(not d.is_over and d.number is None for d in self.drivers):
            return  # a driver is about to write
        for number in {h.number for h in self.holders if h.number is not None}:
            both = [h for h in self.holders if h.number == number and not h.is_crashed]
            content = self.world.leases.get(number, (b"",))[0]
            winners = [h for h in both if lease.to_json(h.owner) == content]
            assert len(winners) <= 1, winners


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "show_message", lambda _: None)


TestInADirectory = Drivers.TestCase
TestInADirectory.settings = FEW
TestOnABucket = OnABucket.TestCase
TestOnABucket.settings = FEW


def _always_beats(place: lease.Place, number: int, owner: Owner) -> bool:
    place.stamps()
    return True


def _never_exact(self: Driver, number: int, content: bytes) -> bool:
    self.pause()
    self.world.put(number, content)
    self.looked_at, self.above = self.last_look_at, 0
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    "owner, name, broken, noticed",
    [
        (lease, "_check_free", lambda *_: None, "s ago"),
        (lease, "beat", _always_beats, "does not detect that its lease is lost"),
        (Driver, "create", _never_exact, "two holders have the number"),
    ],
)
def test_interleavings_find_a_broken_lease(
    owner: object, name: str, broken: object, noticed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    only = settings(FEW, max_examples=1_000, phases=[Phase.generate], derandomize=True)
    with pytest.raises(AssertionError, match=noticed):
        run_state_machine_as_test(Drivers, settings=only)  # type: ignore[no-untyped-call]
