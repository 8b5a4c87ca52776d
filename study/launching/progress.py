"""Follow the Runs of a launch and estimate the time left. Draws nothing."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from study.launching.queue import RunQueue
from study.messages import duration
from study.planning.durations import Pace, Work, makespan
from study.run import Run, describe
from study.store.schema import DONE, FAILED, RUNNING, START_FAILED, WAITING
from study.training.steps import steps_per_epoch

# Until a Run has ended, a running Run is measured only after this share of its steps.
SHARE_THAT_TELLS: Final = 0.1
SECONDS_BETWEEN_ESTIMATES: Final = 1.0  # of the time left

# After this many finished Runs, running Runs are no longer measured.
ENOUGH_MEASURED: Final = 200

# A longer wait includes the worker's start, which is not part of a Run's time.
MAX_SECONDS_TO_HAND_OUT: Final = 1.0


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The progress of a launch.

    - `num_starting`: Runs that are handed out, but have no worker yet; `num_waiting`: Runs not handed out.
    - `share`: finished share of the study's work, 0 to 1; `seconds_left`: None if unknown.
    - `runs_per_minute`: Runs finished in this launch; None before the first Run finishes.
    - `dearest`: the most expensive running Run, with its epoch; `last_error`: of the last failed attempt.
    """

    num_runs: int
    num_done: int
    num_running: int
    num_starting: int
    num_waiting: int
    num_failed: int
    share: float
    runs_per_minute: float | None
    seconds_left: float | None
    dearest: str
    last_error: str

    def counts_text(self) -> str:
        """Return "2 running, 44 waiting, 0 failed", or "2 workers starting" before any Run has one."""
        parts = [f"{self.num_running} running"] if self.num_running or not self.num_starting else []
        if self.num_starting:
            workers = "1 worker" if self.num_starting == 1 else f"{self.num_starting} workers"
            parts.append(f"{workers} starting")
        return ", ".join([*parts, f"{self.num_waiting} waiting", f"{self.num_failed} failed"])

    def left_text(self) -> str:
        """Return "11.2 a minute, about 2 min 5 s left", or that the time is still being estimated."""
        if not self.num_running + self.num_starting + self.num_waiting:
            return "none left"
        number = float(f"{self.runs_per_minute or 0:.2g}")  # never as 7.2e+02
        rate = "" if self.runs_per_minute is None else f"{number:,g} a minute, "
        if self.seconds_left is None:
            return f"{rate}estimating the time left"
        return f"{rate}about {duration(self.seconds_left)} left"

    def text(self) -> str:
        """Return everything except the error in one line."""
        text = f"{self.num_done} done, {self.counts_text()}"
        if self.num_running + self.num_starting + self.num_waiting:
            text += f", {self.left_text()}"
        return text + (f"; dearest: {self.dearest}" if self.dearest else "")


@dataclass(kw_only=True)
class _Running:
    """A Run that has had a worker since `began`.

    `first_step`, `step`: first and last reported step, at the times `first_seen` and `seen`. `paid`: keys
    of features computed before `began`; `waited`: seconds between hand-out and `began`. `block`: ids of
    the Runs trained as one network, including this Run; they share the worker's time equally.
    """

    began: float
    paid: frozenset[Hashable]
    waited: float
    block: tuple[str, ...]
    first_step: int | None = None
    first_seen: float = 0.0
    step: int = 0
    seen: float = 0.0


class Progress:
    """Follows the Runs of a queue.

    The time left is the time that the workers need for the open Runs, in the queue's order. It uses the
    pace of finished and of running Runs. `works`: by Run id; `pace`: receives the times of this launch.
    """

    def __init__(self, queue: RunQueue, works: Mapping[str, Work], pace: Pace) -> None:
        self._queue, self._works, self._pace = queue, works, pace
        self._began = time.monotonic()
        self._num_ended = 0
        self._num_workers = 1
        self._starting: dict[str, float] = {}
        self._running: dict[str, _Running] = {}
        self._steps_before: dict[str, int] = {}  # of interrupted Runs
        self._paid: set[Hashable] = set()
        self._last_error = ""
        self._estimate: float | None = None
        self._estimated_at = self._estimate_at = -float("inf")

    def has_workers(self, number: int) -> None:
        """Set the number of Runs that can be trained at the same time."""
        self._num_workers = max(number, 1)

    def starts(self, run: Run) -> None:
        """Record that this Run is handed out, and waits for a worker."""
        self._starting[run.id] = time.monotonic()

    def began(self, runs: Sequence[Run]) -> None:
        """Record that these Runs, which are trained as one network, have a worker."""
        now, block = time.monotonic(), tuple(run.id for run in runs)
        for run_id in block:
            if run_id in self._running:
                continue
            handed = self._starting.pop(run_id, now)
            self._running[run_id] = _Running(
                began=now,
                paid=self._paid_of(run_id),
                waited=min(now - handed, MAX_SECONDS_TO_HAND_OUT),
                block=block,
            )
            self._paid.update(key for key, _ in self._works[run_id].features)

    def _paid_of(self, run_id: str) -> frozenset[Hashable]:
        return frozenset(key for key, _ in self._works[run_id].features if key in self._paid)

    def on_row(self, run: Run, step: int) -> None:
        """Record the step that this running Run has reached."""
        self.began([run])
        running, now = self._running[run.id], time.monotonic()
        if running.first_step is None:
            running.first_step, running.first_seen = step, now
        running.step, running.seen = step, now

    def ended(self, run: Run, *, finished: bool) -> None:
        """Record that this Run is no longer running."""
        self._starting.pop(run.id, None)
        running = self._running.pop(run.id, None)
        if running is None:
            return
        if finished:
            self._num_ended += 1
            self._steps_before.pop(run.id, None)
            running.step, running.seen = self._works[run.id].num_steps, time.monotonic()
            self._measure(run.id, running, self._pace)
        else:
            self._steps_before[run.id] = running.step

    def lost(self, run: Run) -> None:
        """Record that this Run has lost its worker, and waits for another."""
        self.ended(run, finished=False)
        self.starts(run)

    def failed(self, run: Run, error: str) -> None:
        """Record the error of an attempt at this Run."""
        self._last_error = f"{error} ({describe(run)})"

    def seconds_left(self) -> float | None:
        """Return the time until the queue is over; None if unknown."""
        pace = self._pace_now()
        if not pace.is_known:
            return None
        left = self._seconds_left_by_run(pace)
        # One worker trains the running Runs of a block.
        for run_id, running in self._running.items():
            if running.block[0] != run_id and running.block[0] in left and run_id in left:
                left[running.block[0]] += left.pop(run_id)
        return makespan(self._queue.runs, left, self._running.keys(), self._num_workers)

    def _seconds_left_now_and_then(self) -> float | None:
        now = time.monotonic()
        if now >= self._estimate_at:
            self._estimate = self.seconds_left()
            self._estimated_at, took = now, time.monotonic() - now
            # Estimating takes at most 5 % of the time.
            self._estimate_at = now + max(SECONDS_BETWEEN_ESTIMATES, 20 * took)
        if self._estimate is None:
            return None
        return max(self._estimate - (now - self._estimated_at), 0.0)

    def _pace_now(self) -> Pace:
        if self._pace.num_measured >= ENOUGH_MEASURED:
            return self._pace
        pace = self._pace.copy()
        for run_id, running in self._running.items():
            if running.first_step is not None:
                share = (running.step - running.first_step) / self._works[run_id].num_steps
                if self._num_ended or share >= SHARE_THAT_TELLS:
                    self._measure(run_id, running, pace)
        return pace

    def _measure(self, run_id: str, running: _Running, pace: Pace) -> None:
        """Add the time of this Run so far to `pace`."""
        work, first = self._works[run_id], running.first_step
        if first in (
            None,
            0,
            work.num_steps,
        ):  # a resumed Run also reports a row before its last step
            assumed = work.until(running.step, running.paid)
            seconds = running.seen - running.began + running.waited
        elif first < running.step:
            assumed = work.until(running.step) - work.until(first)
            seconds = running.seen - running.first_seen
        else:
            return
        pace.measured(work, assumed, max(seconds, 1e-3) / len(running.block))

    def _seconds_left_by_run(self, pace: Pace) -> dict[str, float]:
        paid, left = set(self._paid), {}
        for run_id, work in self._works.items():
            if not self._queue.is_open(run_id):
                continue
            running = self._running.get(run_id)
            theirs = running.paid if running is not None else paid
            step = self._steps_before.get(run_id, 0) if running is None else running.step
            assumed = work.whole(theirs) - (work.until(step, theirs) if step else 0.0)
            seconds = pace.seconds(work, assumed)
            if running is not None:
                # Assume that the Run has continued at this pace since its last report.
                elapsed = time.monotonic() - max(running.seen, running.began)
                seconds = max(seconds - elapsed / len(running.block), 0.0)
            left[run_id] = seconds
            paid.update(key for key, _ in work.features)
        return left

    def _share(self) -> float:
        cost, open_cost = self._queue.cost, self._queue.remaining_cost()
        for run_id, running in self._running.items():
            open_cost -= cost[run_id] * running.step / self._works[run_id].num_steps
        whole = sum(cost.values())
        return min(max(1 - open_cost / whole, 0.0), 1.0) if whole else 1.0

    def look(self) -> Snapshot:
        """Return the current progress."""
        counts = self._queue.counts()
        num_open = counts[RUNNING] + counts[WAITING]
        num_running, num_starting = len(self._running), len(self._starting)
        minutes = (time.monotonic() - self._began) / 60
        return Snapshot(
            num_runs=len(self._queue.runs),
            num_done=counts[DONE],
            num_running=num_running,
            num_starting=num_starting,
            num_waiting=num_open - num_running - num_starting,
            num_failed=counts[FAILED] + counts[START_FAILED],
            share=self._share(),
            runs_per_minute=self._num_ended / minutes if self._num_ended else None,
            seconds_left=self._seconds_left_now_and_then() if num_open else None,
            dearest=self._dearest(),
            last_error=self._last_error,
        )

    def _dearest(self) -> str:
        if not self._running:
            return ""
        run_id = max(self._running, key=lambda run_id: self._queue.cost[run_id])
        run, work = self._queue.runs[run_id], self._works[run_id]
        per_epoch = steps_per_epoch(run.recipe, run.size)
        epoch, num_epochs = self._running[run_id].step / per_epoch, work.num_steps / per_epoch
        return f"{describe(run)}: epoch {epoch:.0f} of {num_epochs:g}"
