"""How far a launch has come and how long it will still take.

Owns what is known of the Runs that are handed out, and the snapshot that a screen shows. Draws nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from study.launching.queue import RunQueue
from study.messages import duration
from study.run import Run, describe
from study.store.states import DONE, FAILED, RUNNING, START_FAILED, WAITING
from study.training.steps import steps_per_epoch, total_steps


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far a launch is.

    - `num_starting`: Runs that are handed out and have no worker yet; `num_waiting`: neither.
    - `share`: of the study's work that is done, 0 to 1; `seconds_left`: None where nothing is known yet.
    - `runs_per_minute`: that ended in this launch; None before the first.
    - `dearest`: of the running Runs the dearest, with its epoch; `last_error`: of a try that failed.
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
        """ "2 running, 44 waiting, 0 failed"; while no Run has a worker: "2 workers starting"."""
        parts = [f"{self.num_running} running"] if self.num_running or not self.num_starting else []
        if self.num_starting:
            workers = "1 worker" if self.num_starting == 1 else f"{self.num_starting} workers"
            parts.append(f"{workers} starting")
        return ", ".join([*parts, f"{self.num_waiting} waiting", f"{self.num_failed} failed"])

    def left_text(self) -> str:
        """ "11.2 a minute, about 2 min 5 s left", or that it is still being estimated."""
        if not self.num_running + self.num_starting + self.num_waiting:
            return "none left"
        rate = "" if self.runs_per_minute is None else f"{self.runs_per_minute:.2g} a minute, "
        if self.seconds_left is None:
            return f"{rate}estimating the time left"
        return f"{rate}about {duration(self.seconds_left)} left"

    def text(self) -> str:
        """All of it in one line, but for the error."""
        text = f"{self.num_done} done, {self.counts_text()}"
        if self.num_running + self.num_starting + self.num_waiting:
            text += f", {self.left_text()}"
        return text + (f"; dearest: {self.dearest}" if self.dearest else "")


class Progress:
    """Follows the Runs of a queue from now on.

    The time left is the cost left over the cost that has been worked off in a second so far, by Runs
    that ended and those half-way; what a Run had behind it when it was taken up does not count as work.
    """

    def __init__(self, queue: RunQueue) -> None:
        self._queue = queue
        self._began = time.monotonic()
        self._worked = 0.0
        self._num_ended = 0
        self._starting: set[str] = set()
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._step: dict[str, int] = {}
        self._last_error = ""

    def starts(self, run: Run) -> None:
        """This Run is handed out, and waits for a worker."""
        self._starting.add(run.id)

    def began(self, run: Run) -> None:
        """This Run has a worker."""
        self._starting.discard(run.id)
        self._step.setdefault(run.id, 0)

    def saw(self, run: Run, step: int) -> None:
        """This running Run has come to this step."""
        self.began(run)
        self._step[run.id] = step
        fraction = step / total_steps(run.recipe, run.size)
        self._first.setdefault(run.id, fraction)
        self._last[run.id] = fraction

    def ended(self, run: Run, *, finished: bool) -> None:
        """This Run is no longer running."""
        first = self._first.pop(run.id, 0.0)
        last = self._last.pop(run.id, first)
        self._starting.discard(run.id)
        self._step.pop(run.id, None)
        self._num_ended += finished
        self._worked += ((1.0 if finished else last) - first) * self._queue.cost[run.id]

    def lost(self, run: Run) -> None:
        """This Run has lost its worker, and waits for another."""
        self._step.pop(run.id, None)
        self._starting.add(run.id)

    def failed(self, run: Run, error: str) -> None:
        """A try at this Run ended so."""
        self._last_error = f"{error} ({describe(run)})"

    def seconds_left(self) -> float | None:
        """Until the queue is over; None while nothing is known."""
        cost = self._queue.cost
        worked = self._worked + sum((self._last[i] - self._first[i]) * cost[i] for i in self._last)
        if worked <= 0:
            return None
        return (time.monotonic() - self._began) * self._remaining() / worked

    def _remaining(self) -> float:
        behind = sum(self._last[i] * self._queue.cost[i] for i in self._last)
        return max(self._queue.remaining_cost() - behind, 0.0)

    def look(self) -> Snapshot:
        """How far the launch is now."""
        counts = self._queue.counts()
        num_open = counts[RUNNING] + counts[WAITING]
        num_running, num_starting = len(self._step), len(self._starting)
        whole = sum(self._queue.cost.values())
        minutes = (time.monotonic() - self._began) / 60
        return Snapshot(
            num_runs=len(self._queue.runs),
            num_done=counts[DONE],
            num_running=num_running,
            num_starting=num_starting,
            num_waiting=num_open - num_running - num_starting,
            num_failed=counts[FAILED] + counts[START_FAILED],
            share=1 - self._remaining() / whole if whole else 1.0,
            runs_per_minute=self._num_ended / minutes if self._num_ended else None,
            seconds_left=self.seconds_left() if num_open else None,
            dearest=self._dearest(),
            last_error=self._last_error,
        )

    def _dearest(self) -> str:
        if not self._step:
            return ""
        run = self._queue.runs[max(self._step, key=lambda run_id: self._queue.cost[run_id])]
        per_epoch = steps_per_epoch(run.recipe, run.size)
        num_epochs = total_steps(run.recipe, run.size) / per_epoch
        epoch = self._step[run.id] / per_epoch
        return f"{describe(run)}: epoch {epoch:.0f} of {num_epochs:g}"
