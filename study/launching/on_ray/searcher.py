"""Assign the queue's Runs to Tune's trials, and handle stop requests in Tune's loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any, Final

import ray
from ray import tune

from study.launching.display import Screen
from study.launching.on_ray.cluster import NewNodes
from study.launching.on_ray.nodes import NODE, Nodes, nodes_with, num_slots
from study.launching.on_ray.trial import outcomes_in, rows_in, runs_of
from study.launching.progress import Progress
from study.launching.queue import MAX_TRIES, Outcomes, RunQueue
from study.messages import last_line
from study.run import Run, to_json
from study.signals import STOPPING, StopRequest
from study.store import Damaged, Store, read_failure

SECONDS_BETWEEN_LOOKS: Final = 5.0  # between checks of the nodes


class LeaveTuneLoop(BaseException):
    """Leaves Tune's loop. After an Exception, Tune would clean up for minutes."""


class Watch(tune.Callback):
    """Tune callback, run on every step: refreshes the display, checks nodes, handles stop requests."""

    def __init__(
        self,
        progress: Progress,
        screen: Screen,
        store: Store,
        request: StopRequest,
        must_stop: Callable[[], bool],
        flag: Any,
        grace_seconds: float,
        nodes: Nodes,
        new_nodes: NewNodes,
        leave_when: Callable[[], bool],
    ) -> None:
        self.progress, self.screen = progress, screen
        self.request = request
        self._store = store
        self._must_stop = must_stop
        self._flag = flag
        self._grace_seconds = grace_seconds
        self._leave_when = leave_when
        self._has_said_so = False
        self._nodes, self._new_nodes = nodes, new_nodes
        self._looked_at = time.monotonic()
        self.begun: set[str] = set()  # ids of trials that have a worker

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun.add(trial.trial_id)
        self.progress.began(runs_of(trial.config))
        self._remark(self._nodes.on_worker_started(trial.trial_id))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._nodes.record_node(trial.trial_id, result.get(NODE))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._remark(self._nodes.on_trial_ended(trial.trial_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun.discard(trial.trial_id)  # its worker is lost; the trial waits for another
        for run in runs_of(trial.config):
            with suppress(OSError, Damaged):  # the store cannot be read at the moment
                noted = read_failure(self._store, run.id)
                error = "its worker was lost" if noted is None else last_line(noted.error)
                self.progress.failed(run, f"{error}; it is tried again")
            self.progress.lost(run)
        self._nodes.on_worker_lost(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._must_stop():
            self.request.ask()
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._looked_at = time.monotonic()
            nodes = ray.nodes()
            lost = self._nodes.look(nodes)
            if self._nodes.is_here_lost:
                # Tune would wait for ever. Trials stop when the flag, an actor on this node, is gone.
                self._remark("Ray on this node has ended")
                raise LeaveTuneLoop
            self._remark(*lost)
            if faults := self._new_nodes.look(nodes):
                # The node's rows would come from other versions, or its Runs would fail.
                self._remark(*faults, "a node that joined is not like the others: the study stops")
                self.request.ask()
        if self.request.is_set:
            if not self._has_said_so:
                self._remark(STOPPING)
                self._has_said_so = True
            self._flag.request_stop.remote()
            none_runs = not any(trial.status == "RUNNING" for trial in trials)
            if none_runs or self.request.seconds() > self._grace_seconds:
                raise LeaveTuneLoop
        self.screen.tick()
        if self._leave_when():
            raise LeaveTuneLoop

    def _remark(self, *texts: str) -> None:
        for text in filter(None, texts):
            self.screen.remark(text)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner to a file that is never read


SECONDS_BETWEEN_COUNTS: Final = 1.0  # a count of the cluster's slots is a round trip to Ray's head
# If a trial has no worker after this time, no worker is starting: the trial waits for room.
SECONDS_TO_BEGIN: Final = 120.0


class WorkersMayStart(tune.schedulers.FIFOScheduler):
    """Gives a free worker the newest trial, instead of the first one without a worker.

    A worker takes seconds to start. If another worker becomes free meanwhile, Tune by default gives it
    the trial, ends the starting worker, and starts one for the next trial. With short Runs, no second
    worker would ever train.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Return None: Tune then starts workers for trials that have not requested one."""


class RunSearcher(tune.search.Searcher):
    """Gives Tune the next Runs of the queue, as many at a time as fit on the cluster.

    `may_grow`: let further trials wait for a worker, as many as already have a worker (at least one). An
    autoscaler adds nodes for waiting trials; for a single one, it would add one node at a time.
    """

    def __init__(
        self,
        queue: RunQueue,
        store: Store,
        watch: Watch,
        keep: Collection[str],
        keep_predictions: Collection[str],
        claim: Mapping[str, float],
        max_concurrent: int | None,
        *,
        accelerator: str | None = None,
        may_grow: bool,
    ) -> None:
        super().__init__()
        self.outcomes = Outcomes(queue, store)
        self._queue, self._watch = queue, watch
        self._keep, self._keep_predictions = frozenset(keep), frozenset(keep_predictions)
        self._claim = claim
        self._max_concurrent = max_concurrent
        self._accelerator, self._may_grow = accelerator, may_grow
        self._num_slots, self._counted_at = 0, -float("inf")
        self._trials: dict[str, tuple[Run, ...]] = {}
        self._handed_at: dict[str, float] = {}
        self._step: dict[str, int] = {}
        self._step_at_loss: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        if self._watch.request.is_set or self._queue.is_over:
            return self.FINISHED
        if not self._has_room():
            return None
        runs = self._queue.next()
        if not runs:
            return None
        self._trials[trial_id], self._handed_at[trial_id] = runs, time.monotonic()
        for run in runs:
            self._watch.progress.starts(run)
        return {
            "runs": [to_json(run) for run in runs],
            "keep_weights": [run.id for run in runs if run.id in self._keep],
            "keep_predictions": [run.id for run in runs if run.id in self._keep_predictions],
        }

    def _has_room(self) -> bool:
        waiting = [at for each, at in self._handed_at.items() if each not in self._watch.begun]
        if waiting and time.monotonic() - min(waiting) > SECONDS_TO_BEGIN:
            return False  # the waiting trial gets the next free worker
        num_handed = len(self._trials)
        if self._max_concurrent is not None and num_handed >= self._max_concurrent:
            return False
        num_begun = num_handed - len(waiting)
        return num_handed < self._slots() or (self._may_grow and len(waiting) < max(1, num_begun))

    def _slots(self) -> int:
        if time.monotonic() - self._counted_at >= SECONDS_BETWEEN_COUNTS:
            fitting = nodes_with(ray.nodes(), self._accelerator)
            self._num_slots = sum(num_slots(node["Resources"], self._claim) for node in fitting)
            self._counted_at = time.monotonic()
            fewest = min(self._num_slots, self._max_concurrent or self._num_slots)
            self._watch.progress.has_workers(fewest)
        return self._num_slots

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        rows = rows_in(result)
        for run in self._trials[trial_id]:
            if run.id in rows:
                self._step[run.id] = rows[run.id]["step"]
                self._watch.progress.on_row(run, rows[run.id]["step"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        runs = self._trials.pop(trial_id)
        del self._handed_at[trial_id]
        self._watch.begun.discard(trial_id)
        outcomes = None if error else outcomes_in(result)
        for run in runs:
            if outcomes is None:
                self._lose(run)
            else:
                ended = outcomes[run.id]
                self.outcomes.settle(run, ended)
                if ended.remark:
                    self._watch.screen.remark(ended.remark, once=True)
                if ended.has_failed:
                    self._watch.progress.failed(run, last_line(ended.error))
            self._watch.progress.ended(run, finished=not self._queue.is_open(run.id))

    def _lose(self, run: Run) -> None:
        step = self._step.get(run.id, 0)
        # Retry a Run that has advanced since its last loss: nodes that come and go must not end a long
        # training.
        if self._watch.request.is_set or step > self._step_at_loss.get(run.id, 0):
            self._step_at_loss[run.id] = step
            self._queue.again(run.id)
            return
        error = (
            f"its worker was lost {MAX_TRIES} times, without an exception: killed, or out of memory"
        )
        self._watch.progress.failed(run, last_line(self.outcomes.give_up(run, error)))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner to a file that is never read

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a launch is never restored from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a launch is never restored from Tune's files")
