"""The tracer's events, as the tries that processes made at Runs.

They show two things that no result shows: training that was repeated although a checkpoint or the
finished Run existed, and how many seconds of training were repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

NUM_STEPS_LATE: Final = 5
PAUSE_SECONDS: Final = 1.0  # a step takes a hundredth of it


@dataclass(frozen=True)
class Event:
    """`at`: monotonic seconds; `kind`: begin, step, save, saved, published, live."""

    at: float
    pid: int
    kind: str
    run_id: str
    step: int


@dataclass(kw_only=True)
class Try:
    """One process's training of one Run. `saves`: begun checkpoints; `saved`: finished ones."""

    run_id: str
    pid: int
    began_at: float
    first_step: int
    last_step: int
    last_at: float
    reached_at: dict[int, float]
    saves: list[float] = field(default_factory=list)
    saved: list[tuple[float, int]] = field(default_factory=list)
    published_at: float | None = None
    saving: int | None = None


class Journal:
    """The tracer's file, read as it grows."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: list[Event] = []
        self._offset = 0

    def events(self) -> list[Event]:
        """Return all events so far, in the order in which they were written."""
        if self.path.exists():
            with self.path.open() as stream:
                stream.seek(self._offset)
                text = stream.read()
            whole = text[: text.rfind("\n") + 1]
            self._offset += len(whole)
            for line in whole.splitlines():
                at, pid, kind, run_id, step = line.split()
                self._events.append(Event(float(at), int(pid), kind, run_id, int(step)))
        return self._events

    def tries(self) -> list[Try]:
        return tries(self.events())


def tries(events: Iterable[Event]) -> list[Try]:
    """Return the tries in the order in which they began."""
    current: dict[tuple[int, str], Try] = {}
    found = []
    for event in events:
        key = (event.pid, event.run_id)
        if event.kind == "begin":
            current[key] = Try(
                run_id=event.run_id,
                pid=event.pid,
                began_at=event.at,
                first_step=event.step,
                last_step=event.step,
                last_at=event.at,
                reached_at={event.step: event.at},
            )
            found.append(current[key])
            continue
        this = current.get(key)
        assert this is not None, f"{event}: nothing was begun"
        this.last_at = event.at
        if event.kind == "step":
            this.last_step = event.step
            this.reached_at[event.step] = event.at
        elif event.kind == "save":
            this.saving = event.step
            this.saves.append(event.at)
        elif event.kind == "saved" and this.saving is not None:
            this.saved.append((event.at, this.saving))
        elif event.kind == "published":
            this.published_at = event.at
    return found


def redone_seconds(found: Sequence[Try]) -> float:
    """Return the longest stretch of training that was repeated.

    More than PAUSE_SECONDS between two steps do not count: the process was stopped, or waited for a disk.
    """
    longest = 0.0
    for later, earlier in _pairs(found):
        if earlier.last_step > later.first_step >= earlier.first_step:
            redone = [at for step, at in earlier.reached_at.items() if step >= later.first_step]
            gaps = [after - before for before, after in pairwise(sorted(redone))]
            longest = max(longest, sum(gap for gap in gaps if gap <= PAUSE_SECONDS))
    return longest


def trained_twice(found: Sequence[Try]) -> set[str]:
    """Return the Runs that were trained again from before their last checkpoint, or when finished."""
    twice = set()
    for later, earlier in _pairs(found):
        saved = [step for at, step in earlier.saved if at < later.began_at]
        was_done = earlier.published_at is not None and earlier.published_at < later.began_at
        if was_done or later.first_step < max(saved, default=0):
            twice.add(later.run_id)
    return twice


def late_checkpoints(found: Sequence[Try], interval_seconds: float) -> dict[str, int]:
    """Return the number of steps of each Run at which a checkpoint was due and stayed so for long.

    A checkpoint is due if the interval has passed since the last one was begun, and that one is on the
    disk. It is late after NUM_STEPS_LATE further steps: the trial checks after each step.
    """
    late: dict[str, int] = {}
    for each in found:
        moments = sorted(each.reached_at.values())
        for now, later in zip(moments, moments[NUM_STEPS_LATE:], strict=False):
            begun = max((at for at in each.saves if at < now), default=None)
            is_on_disk = begun is None or any(begun < at <= now for at, _ in each.saved)
            # The interval starts between the event of a begun checkpoint and the next step.
            since = moments[0] if begun is None else next(at for at in moments if at > begun)
            is_due = is_on_disk and now - since >= interval_seconds
            if is_due and not any(now <= at <= later for at in each.saves):
                late[each.run_id] = late.get(each.run_id, 0) + 1
    return late


def at_the_same_time(found: Sequence[Try]) -> set[str]:
    """Return the Runs that two processes trained at once."""
    return {
        later.run_id
        for later, earlier in _pairs(found)
        if earlier.pid != later.pid and later.began_at < earlier.last_at
    }


def _pairs(found: Sequence[Try]) -> Iterable[tuple[Try, Try]]:
    """Yield each try with each earlier one at the same Run."""
    for index, later in enumerate(found):
        for earlier in found[:index]:
            if earlier.run_id == later.run_id:
                yield later, earlier
