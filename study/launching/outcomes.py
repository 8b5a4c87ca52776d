"""What a launch makes of how its tries ended: for the queue, and in the store where a Run is given up."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from study.launching.attempt import MAX_TRIES, Attempt
from study.launching.queue import RunQueue
from study.messages import last_line
from study.run import Run
from study.store import (
    Failure,
    Store,
    provenance,
    read_failure,
    write_failure,
)
from study.store.schema import DONE, START_FAILED


class Outcomes:
    """Carries what became of tries over to the queue, and to the store where a Run is given up.

    `unnoted`: why Runs failed of which the store could not take note, by id.
    """

    def __init__(self, queue: RunQueue, store: Store) -> None:
        self._queue, self._store = queue, store
        self._times_lost: Counter[str] = Counter()
        self.unnoted: dict[str, str] = {}

    def settle(self, run: Run, ended: Attempt) -> None:
        """This running Run ended so."""
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
        """This running or waiting Run is not tried again, nor what would start from it.

        Returns the text of its failure: the one that the store has, or else `error`.
        """
        with suppress(OSError):  # then `_note` finds out
            noted = read_failure(self._store, run.id)
            error = noted.error if noted is not None and noted.kind == "error" else error
        self._note(run, Failure(tries=MAX_TRIES, error=error, final=True, at=provenance.now()))
        self._queue.fail(run.id)
        return error

    def note_start_failed(self) -> None:
        """Writes to the store, for its readers, which Runs cannot be had because their start failed."""
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
                self.give_up(start, f"what it leaves was lost {MAX_TRIES} times: {error}")
        queue.again(run.id)

    def _note(self, run: Run, failure: Failure) -> None:
        try:
            write_failure(self._store, run.id, failure)
        except OSError as unwritable:
            # The others go on; without the note, the next launch tries this one again.
            self.unnoted[run.id] = f"{last_line(failure.error)} (and no note of it: {unwritable})"
