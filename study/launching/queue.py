"""Order the Runs of a launch, and record how each attempt ended.

Must stay importable without torch and Ray."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from study.messages import last_line
from study.run import Run
from study.store import Failure, Store, provenance, read_failure
from study.store.schema import DONE, FAILED, RUNNING, START_FAILED, WAITING
from study.store.unfinished import write_failure

MAX_TRIES: Final = 4

Outcome = Literal[
    "finished", "diverged", "interrupted", "start lost", "try again", "failed", "failed unnoted"
]


@dataclass(frozen=True)
class Attempt:
    """The outcome of an attempt; `error`: the exception's text, if any; `remark`: a line for the user.

    For "failed unnoted" the error is one line, because the store could not record more.
    """

    outcome: Outcome
    error: str = ""
    remark: str = ""

    @property
    def has_failed(self) -> bool:
        return self.outcome in ("try again", "failed", "failed unnoted")


class RunQueue:
    """The state of each Run, and the order of training.

    `runs`: all wanted Runs, each start before its dependants. `done`: ids of Runs that need no training.
    `unusable`: ids in `done` of diverged Runs; no Run can start from them. `failed`: ids of Runs that
    must not be tried. `cost`: relative cost by id.

    Runs of one `Run.block` are handed out together, once all their starts are done. `next` hands out each
    Run once, unless `again` or `reopen` gives it back. While a Run waits, other Runs are running or `next`
    returns Runs, so no Run waits for ever.
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
        self._blocks: dict[str, list[str]] = {}
        for run_id, run in self.runs.items():
            self._blocks.setdefault(run.block, []).append(run_id)
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

    def next(self) -> tuple[Run, ...]:
        """Hand out the waiting Runs of the ready block with the longest critical path, or ()."""
        while self._ready:
            _, _, block = heapq.heappop(self._ready)
            if self._is_ready(block):
                waiting = self._waiting(block)
                for run_id in waiting:
                    self._set(run_id, RUNNING)
                return tuple(self.runs[run_id] for run_id in waiting)
        return ()

    def finish(self, run_id: str, *, usable: bool = True) -> None:
        """Mark this running Run as done; its dependants become ready unless it diverged (not `usable`)."""
        assert self.state[run_id] == RUNNING, (run_id, self.state[run_id])
        self._set(run_id, DONE)
        if not usable:
            self._unusable.add(run_id)
            self._take_down_below(run_id)
        for each in self._dependants[run_id]:
            self._offer(each)

    def fail(self, run_id: str) -> None:
        """Give up this Run and, transitively, the Runs that wait for it."""
        assert self.state[run_id] in (RUNNING, WAITING), (run_id, self.state[run_id])
        self._set(run_id, FAILED)
        self._offer(run_id)
        self._take_down_below(run_id)

    def again(self, run_id: str) -> None:
        """Return this running Run, which stopped early, to the waiting Runs."""
        assert self.state[run_id] == RUNNING, (run_id, self.state[run_id])
        self._wait(run_id)

    def reopen(self, run_id: str) -> None:
        """Return this done Run, whose artifacts cannot be used, to the waiting Runs."""
        assert self.state[run_id] == DONE, (run_id, self.state[run_id])
        self._set(run_id, WAITING)
        self._path = self._critical_paths()
        self._wait(run_id)

    @property
    def is_over(self) -> bool:
        """Return True if no Run is running or waiting."""
        return self._counts[RUNNING] + self._counts[WAITING] == 0

    def counts(self) -> Counter[str]:
        """Return the number of Runs in each state."""
        return +self._counts

    def remaining_cost(self) -> float:
        """Return the cost of all running and waiting Runs."""
        return sum(cost for run_id, cost in self.cost.items() if self.is_open(run_id))

    def is_open(self, run_id: str) -> bool:
        """Return True if this Run is running or waiting."""
        return self.state[run_id] in (RUNNING, WAITING)

    def _set(self, run_id: str, state: str) -> None:
        # Counted on each change: `is_over` is checked for each of thousands of Runs.
        self._counts[self.state[run_id]] -= 1
        self._counts[state] += 1
        self.state[run_id] = state

    def _take_down_below(self, run_id: str) -> None:
        below = list(self._dependants[run_id])
        while below:
            each = below.pop()
            if self.state[each] == WAITING:
                self._set(each, START_FAILED)
                self._offer(each)  # the rest of the block may have waited only for this Run's start
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
            self._offer(run_id)
            self._take_down_below(run_id)

    def _waiting(self, block: str) -> list[str]:
        return [run_id for run_id in self._blocks[block] if self.state[run_id] == WAITING]

    def _is_ready(self, block: str) -> bool:
        waiting = self._waiting(block)
        starts = [self.runs[run_id].source for run_id in waiting]
        return bool(waiting) and all(s is None or self.state[s.id] == DONE for s in starts)

    def _offer(self, run_id: str) -> None:
        block = self.runs[run_id].block
        if self._is_ready(block):
            waiting = self._waiting(block)
            longest = max(self._path[each] for each in waiting)
            heapq.heappush(self._ready, (-longest, self._position[waiting[0]], block))

    def _critical_paths(self) -> dict[str, float]:
        path: dict[str, float] = {}
        for run_id in reversed(self.runs):
            own = self.cost[run_id] if self.is_open(run_id) else 0.0
            path[run_id] = own + max((path[each] for each in self._dependants[run_id]), default=0.0)
        return path


class Outcomes:
    """Passes outcomes of attempts to the queue, and to the store if a Run is given up.

    `unnoted`: the errors of failed Runs, by id, that the store could not record.
    """

    def __init__(self, queue: RunQueue, store: Store) -> None:
        self._queue, self._store = queue, store
        self._times_lost: Counter[str] = Counter()
        self.unnoted: dict[str, str] = {}

    def settle(self, run: Run, ended: Attempt) -> None:
        """Process the outcome of this running Run."""
        queue = self._queue
        match ended.outcome:
            case "finished":
                queue.finish(run.id)
            case "diverged":
                queue.finish(run.id, usable=False)
            case "failed":
                queue.fail(run.id)
            case "failed unnoted":
                self.unnoted[run.id] = ended.error
                queue.fail(run.id)
            case "interrupted" | "try again":
                queue.again(run.id)
            case "start lost":
                self._lose_start(run, ended.error)

    def give_up(self, run: Run, error: str) -> str:
        """Give up this running or waiting Run, and the Runs that would start from it.

        Returns the error that the store has for this Run, or else `error`.
        """
        with suppress(OSError):  # `_note` handles errors of the store
            noted = read_failure(self._store, run.id)
            error = noted.error if noted is not None and noted.kind == "error" else error
        self._note(run, Failure(tries=MAX_TRIES, error=error, final=True, at=provenance.now()))
        self._queue.fail(run.id)
        return error

    def note_start_failed(self) -> None:
        """Store which Runs cannot be trained because their start failed."""
        for run_id, state in self._queue.state.items():
            run = self._queue.runs[run_id]
            if state == START_FAILED and run.source is not None:
                error = f"its start {run.source.id} failed"
                failure = Failure(
                    tries=0, error=error, final=True, at=provenance.now(), kind="start failed"
                )
                self._note(run, failure)

    def _lose_start(self, run: Run, error: str) -> None:
        start, queue = run.source, self._queue
        assert start is not None, run.id
        if queue.state[start.id] == DONE:
            self._times_lost[start.id] += 1
            queue.reopen(start.id)
            if self._times_lost[start.id] >= MAX_TRIES:
                self.give_up(start, f"its weights were lost {MAX_TRIES} times: {error}")
        queue.again(run.id)

    def _note(self, run: Run, failure: Failure) -> None:
        try:
            write_failure(self._store, run.id, failure)
        except OSError as unwritable:
            # Other Runs continue; without the record, the next launch tries this Run again.
            self.unnoted[run.id] = (
                f"{last_line(failure.error)} (the failure could not be stored: {unwritable})"
            )
