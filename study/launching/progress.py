"""How far a launch has come, how long it will still take, and the one line that says so.

Owns the arithmetic from costs, steps and a clock to the line's text, and how often it is written.
"""

from __future__ import annotations

import time

from study.launching.queue import RunQueue
from study.messages import duration
from study.run import Run
from study.store.states import DONE, FAILED, RUNNING, START_FAILED, WAITING
from study.training.steps import total_steps


class Progress:
    """Follows the Runs of a queue from now on.

    The time left is the cost left over the cost that has been worked off in a second so far, by Runs
    that ended and those half-way; what a Run had behind it when it was taken up does not count as work.
    """

    def __init__(self, queue: RunQueue) -> None:
        self._queue = queue
        self._began = time.monotonic()
        self._worked = 0.0
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def saw(self, run: Run, step: int) -> None:
        """This running Run has come to this step."""
        fraction = step / total_steps(run.recipe, run.size)
        self._first.setdefault(run.id, fraction)
        self._last[run.id] = fraction

    def ended(self, run: Run, *, finished: bool) -> None:
        """This Run is no longer running."""
        first = self._first.pop(run.id, 0.0)
        last = self._last.pop(run.id, first)
        self._worked += ((1.0 if finished else last) - first) * self._queue.cost[run.id]

    def seconds_left(self) -> float | None:
        """Until the queue is over; None while nothing is known."""
        cost = self._queue.cost
        worked = self._worked + sum((self._last[i] - self._first[i]) * cost[i] for i in self._last)
        if worked <= 0:
            return None
        behind = sum(self._last[i] * cost[i] for i in self._last)
        remaining = max(self._queue.remaining_cost() - behind, 0.0)
        return (time.monotonic() - self._began) * remaining / worked

    def text(self, num_running: int) -> str:
        """The line: "12 done, 2 running, 5 waiting, 0 failed, about 3 min 20 s left"."""
        counts = self._queue.counts()
        num_open = counts[RUNNING] + counts[WAITING]
        text = (
            f"{counts[DONE]} done, {num_running} running, {num_open - num_running} waiting, "
            f"{counts[FAILED] + counts[START_FAILED]} failed"
        )
        left = self.seconds_left() if num_open else None
        return text if left is None else f"{text}, about {duration(left)} left"
