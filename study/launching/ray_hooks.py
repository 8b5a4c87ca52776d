"""What Ray Tune calls: the searcher that hands it Runs, the watch in its loop, a trial's words with home.

Owns how a wish to stop reaches trials on other nodes, and at which rate Tune hears of a trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import ray
from ray import tune

from study.launching.attempt import MAX_TRIES, Attempt
from study.launching.interrupt import STOPPING, StopRequest
from study.launching.outcomes import Outcomes
from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.launching.resources import num_slots
from study.messages import Line
from study.run import Run, to_json
from study.store import Store
from study.store.schema import Row

# A report is a round trip to the driver, which all trials share.
SECONDS_BETWEEN_REPORTS: Final = 5.0
SECONDS_BETWEEN_QUESTIONS: Final = 1.0
SECONDS_BETWEEN_LOOKS: Final = 5.0  # at the driver's own node
SECONDS_FOR_FIRST_ANSWER: Final = 5.0
# So many Runs are handed to Tune beyond what the cluster can hold: when one ends, the next starts in
# its worker at once, and an autoscaler sees that more is wanted. More would fix the order too early.
NUM_AHEAD: Final = 1


class Leave(BaseException):
    """Leaves Tune's loop from inside. Not an Exception: Tune would first tidy up, for minutes."""


def report_now_and_then() -> Callable[[Row], None]:
    """Tells Tune of a row where the last one that it heard of is old enough."""
    reported_at = -float("inf")

    def report(row: Row) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= SECONDS_BETWEEN_REPORTS:
            tune.report({"epoch": row.epoch, "step": row.step, "test_error": row.test_error})
            reported_at = time.monotonic()

    return report


def stop_question(flag: Any) -> Callable[[], bool]:
    """Asks the flag now and then whether to stop; waits only for the first answer.

    So a trial that Tune starts when all are to stop need not begin.
    """
    asked_at, answer, patience = -float("inf"), None, SECONDS_FOR_FIRST_ANSWER

    def is_raised() -> bool:
        nonlocal asked_at, answer, patience
        if answer is None and time.monotonic() - asked_at >= SECONDS_BETWEEN_QUESTIONS:
            asked_at, answer = time.monotonic(), flag.is_stop_requested.remote()
        if answer is None:
            return False
        ready, _ = ray.wait([answer], timeout=patience)
        patience = 0.0
        if not ready:
            return False
        try:
            raised = bool(ray.get(answer))
        except ray.exceptions.RayError:
            return True  # the driver is gone
        answer = None
        return raised

    return is_raised


def _is_alive(node_id: str) -> bool:
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


class Watch(tune.Callback):
    """Looks up once in every step of Tune's loop: the progress line, and the wish to stop."""

    def __init__(
        self,
        queue: RunQueue,
        request: StopRequest,
        must_stop: Callable[[], bool],
        flag: Any,
        grace_seconds: float,
    ) -> None:
        self.progress = Progress(queue)
        self.request = request
        self._must_stop = must_stop
        self._flag = flag
        self._grace_seconds = grace_seconds
        self._line = Line()
        self._has_said_so = False
        self._node_id = ray.get_runtime_context().get_node_id()
        self._looked_at = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._must_stop():
            self.request.ask()
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._looked_at = time.monotonic()
            if not _is_alive(self._node_id):
                # Tune would wait for ever. Trials see that the flag, on this node, is gone.
                self._show("Ray on this node has ended")
                raise Leave
        if self.request.is_set:
            if not self._has_said_so:
                self._show(STOPPING)
                self._has_said_so = True
            self._flag.request_stop.remote()
            none_runs = not any(trial.status == "RUNNING" for trial in trials)
            if none_runs or self.request.seconds() > self._grace_seconds:
                raise Leave
        if self._line.is_due:
            num_running = sum(trial.status == "RUNNING" for trial in trials)
            self._line.write(self.progress.text(num_running))

    def _show(self, text: str) -> None:
        self._line.end()
        self._line.write(text)
        self._line.end()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner into its folder, from which nothing is ever read

    def show_last(self) -> None:
        """The line as it stands at the end."""
        self._line.write(self.progress.text(num_running=0))
        self._line.end()


class RunSearcher(tune.search.Searcher):
    """Hands Tune the next Run of the queue, as many at a time as the cluster holds."""

    def __init__(
        self,
        queue: RunQueue,
        store: Store,
        watch: Watch,
        keep: Collection[str],
        keep_predictions: Collection[str],
        claim: Mapping[str, float],
        max_concurrent: int | None,
    ) -> None:
        super().__init__()
        self.outcomes = Outcomes(queue, store)
        self._queue, self._watch = queue, watch
        self._keep, self._keep_predictions = frozenset(keep), frozenset(keep_predictions)
        self._claim = claim
        self._max_concurrent = max_concurrent
        self._trials: dict[str, Run] = {}
        self._step: dict[str, int] = {}
        self._step_at_loss: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        if self._watch.request.is_set or self._queue.is_over:
            return self.FINISHED
        if len(self._trials) >= self._limit():
            return None
        run = self._queue.next()
        if run is None:
            return None
        self._trials[trial_id] = run
        return {
            "run": to_json(run),
            "keep_weights": run.id in self._keep,
            "keep_predictions": run.id in self._keep_predictions,
        }

    def _limit(self) -> int:
        slots = num_slots(ray.cluster_resources(), self._claim) + NUM_AHEAD
        return slots if self._max_concurrent is None else min(slots, self._max_concurrent)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "step" in result:
            run = self._trials[trial_id]
            self._step[run.id] = result["step"]
            self._watch.progress.saw(run, result["step"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        run = self._trials.pop(trial_id)
        if error or result is None or "outcome" not in result:
            self._lose(run)
        else:
            self.outcomes.settle(run, Attempt(result["outcome"], result["error"]))
        self._watch.progress.ended(run, finished=not self._queue.is_open(run.id))

    def _lose(self, run: Run) -> None:
        """Tune has given this trial up: its worker was lost, or raised, MAX_TRIES times.

        A Run that has come further since the last time is tried again: nodes that come and go must
        not end a long training.
        """
        step = self._step.get(run.id, 0)
        if self._watch.request.is_set or step > self._step_at_loss.get(run.id, 0):
            self._step_at_loss[run.id] = step
            self._queue.again(run.id)
            return
        self.outcomes.give_up(
            run,
            f"its worker was lost {MAX_TRIES} times, without an exception: killed, or out of memory",
        )

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner into its folder, from which nothing is ever read

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a launch is never restored from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a launch is never restored from Tune's files")
