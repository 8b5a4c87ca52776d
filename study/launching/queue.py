"""The order of trials: a start before what needs it, and what unblocks the most work first.

Owns which Run may be trained now, and what becomes of those that wait for one that failed. Pure
bookkeeping: imports no Ray and reads no store; `launch` and `inline` tell it what happened.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from study.run import Run
from study.store.schema import DONE, FAILED, RUNNING, START_FAILED, WAITING


class RunQueue:
    """Which Run to train next, and the state of each.

    `runs`: everything wanted, each start before its dependants. `done`: ids of Runs that need nothing.
    `unusable`: those of them that diverged, from which nothing can start. `failed`: ids of Runs that are
    not to be tried. `cost`: relative cost by id.

    `next` hands out each Run once, unless `again` or `reopen` gives it back. While a Run is waiting,
    either `next` gives one or another is running: nobody waits for ever.
    """

    def __init__(
        self,
        runs: Iterable[Run],
        *,
        done: Collection[str],
        cost: Mapping[str, float],
        failed: Collection[str] = (),
        unusable: Collection[str] = (),
    ) -> None:
        self.runs = {run.id: run for run in runs}
        self.state = {run_id: DONE if run_id in done else WAITING for run_id in self.runs}
        self._counts = Counter(self.state.values())
        self.cost = {run_id: cost[run_id] for run_id in self.runs}
        self._position = {run_id: index for index, run_id in enumerate(self.runs)}
        self._dependants: dict[str, list[str]] = {run_id: [] for run_id in self.runs}
        for run in self.runs.values():
            if run.source is not None:
                assert run.source.id in self._position, f"{run.id}: its start is not among the Runs"
                self._dependants[run.source.id].append(run.id)
        self._ready: list[tuple[float, int, str]] = []
        self._path = self._critical_paths()
        for run_id in self.runs:
            self._offer(run_id)
        for run_id in failed:
            if self.state.get(run_id) == WAITING:
                self.fail(run_id)
        self._unusable = {run_id for run_id in unusable if self.state.get(run_id) == DONE}
        for run_id in self._unusable:
            self._take_down_below(run_id)

    def next(self) -> Run | None:
        """The ready Run with the longest critical path, now running; None where none is ready."""
        while self._ready:
            _, _, run_id = heapq.heappop(self._ready)
            if self._is_ready(run_id):
                self._set(run_id, RUNNING)
                return self.runs[run_id]
        return None

    def finish(self, run_id: str, *, usable: bool = True) -> None:
        """This running Run is done; what waited for it may start, unless it diverged (not `usable`)."""
        assert self.state[run_id] == RUNNING, (run_id, self.state[run_id])
        self._set(run_id, DONE)
        if not usable:
            self._unusable.add(run_id)
            self._take_down_below(run_id)
        for each in self._dependants[run_id]:
            self._offer(each)

    def fail(self, run_id: str) -> None:
        """This Run is given up, and with it, transitively, what waits for it."""
        assert self.state[run_id] in (RUNNING, WAITING), (run_id, self.state[run_id])
        self._set(run_id, FAILED)
        self._take_down_below(run_id)

    def again(self, run_id: str) -> None:
        """This running Run stopped before its end and waits to be handed out once more."""
        assert self.state[run_id] == RUNNING, (run_id, self.state[run_id])
        self._wait(run_id)

    def reopen(self, run_id: str) -> None:
        """This Run counted as done, but what it left cannot be used: it waits to be trained anew."""
        assert self.state[run_id] == DONE, (run_id, self.state[run_id])
        self._set(run_id, WAITING)
        self._path = self._critical_paths()
        self._wait(run_id)

    @property
    def is_over(self) -> bool:
        """Whether nothing is running or waiting."""
        return self._counts[RUNNING] + self._counts[WAITING] == 0

    def counts(self) -> Counter[str]:
        """How many Runs are in each state."""
        return +self._counts

    def remaining_cost(self) -> float:
        """Cost of all Runs that are running or waiting."""
        return sum(cost for run_id, cost in self.cost.items() if self.is_open(run_id))

    def is_open(self, run_id: str) -> bool:
        """Whether this Run is still to be ended by this launch."""
        return self.state[run_id] in (RUNNING, WAITING)

    def _set(self, run_id: str, state: str) -> None:
        # Counted as they change: of thousands of Runs, whether all are over is asked for each of them.
        self._counts[self.state[run_id]] -= 1
        self._counts[state] += 1
        self.state[run_id] = state

    def _take_down_below(self, run_id: str) -> None:
        below = list(self._dependants[run_id])
        while below:
            each = below.pop()
            if self.state[each] == WAITING:
                self._set(each, START_FAILED)
                below += self._dependants[each]

    def _wait(self, run_id: str) -> None:
        start = self.runs[run_id].source
        if start is None or not (
            self.state[start.id] in (FAILED, START_FAILED) or start.id in self._unusable
        ):
            self._set(run_id, WAITING)
            self._offer(run_id)
        else:
            self._set(run_id, START_FAILED)
            self._take_down_below(run_id)

    def _is_ready(self, run_id: str) -> bool:
        start = self.runs[run_id].source
        return self.state[run_id] == WAITING and (start is None or self.state[start.id] == DONE)

    def _offer(self, run_id: str) -> None:
        if self._is_ready(run_id):
            heapq.heappush(self._ready, (-self._path[run_id], self._position[run_id], run_id))

    def _critical_paths(self) -> dict[str, float]:
        """Cost of each Run together with the longest chain of Runs that wait for it."""
        path: dict[str, float] = {}
        for run_id in reversed(self.runs):
            own = self.cost[run_id] if self.is_open(run_id) else 0.0
            path[run_id] = own + max((path[each] for each in self._dependants[run_id]), default=0.0)
        return path
