"""Ray Tune: one Tuner, one trial a Run, and the store as the only truth.

Owns resources, the Tuner, and how a wish to stop reaches trials on other nodes; the only module that
imports ray. Nothing of Tune is kept or restored: its files lie in a temporary folder, and what is done
is counted in the store. Trials write their rows themselves; Tune hears of them now and then.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import ray
from ray import tune

from study.launching.attempt import MAX_TRIES, Attempt, attempt
from study.launching.interrupt import STOPPING, Flag, StopRequest, stop_on_signals
from study.launching.outcomes import Outcomes
from study.launching.progress import Progress
from study.launching.queue import Schedule
from study.launching.resources import num_slots, told, trial_resources
from study.messages import Line, UserError
from study.run import Run, from_json, to_json
from study.store import Store, open_store
from study.store.schema import Row

LOCAL: Final = "local"

# A report is a round trip to the driver, which all trials share.
SECONDS_BETWEEN_REPORTS: Final = 5.0
SECONDS_BETWEEN_QUESTIONS: Final = 1.0
SECONDS_BETWEEN_LOOKS: Final = 5.0  # at the driver's own node
SECONDS_FOR_FIRST_ANSWER: Final = 5.0

# So many Runs are handed to Tune beyond what the cluster can hold: when one ends, the next starts in
# its worker at once, and an autoscaler sees that more is wanted. More would fix the order too early.
NUM_AHEAD: Final = 1

_TUNE: Final = {
    # Loggers write a file a trial and halve the number of reports that Tune can take.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Signals are ours; Tune's own handler would end the trials where they stand.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Errors are in the store; here they would be walls of text.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # a table even where verbose is 0
    # Snapshots are never restored.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # bounded by the searcher
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class _Leave(BaseException):
    """Leaves Tune's loop from inside. Not an Exception: Tune would first tidy up, for minutes."""


def launch(
    schedule: Schedule,
    store: Store,
    *,
    address: str,
    gpus_per_trial: float | None,
    cpus_per_trial: float | None,
    max_concurrent: int | None,
    keep: Collection[str],
    checkpoint_seconds: float,
    grace_seconds: float,
    resume_hint: str,
    must_stop: Callable[[], bool],
) -> Mapping[str, str]:
    """Ends every Run of the schedule on a cluster, unless it is asked to stop before.

    `address`: "local" starts Ray on this machine alone, anything else joins. `keep`: ids of Runs whose
    weights are kept. `must_stop` is asked now and then, beside the process's signals; then running
    trials have `grace_seconds` to write a checkpoint. Returns why Runs failed of which the
    store could not take note, by id. Raises UserError where there is no cluster, or where this machine
    cannot hold a single trial.
    """
    for name, value in _TUNE.items():
        os.environ.setdefault(name, value)
    with _connected(address), tempfile.TemporaryDirectory(prefix="freezewise-tune-") as scratch:
        resources = trial_resources(
            ray.cluster_resources(), gpus_per_trial=gpus_per_trial, cpus_per_trial=cpus_per_trial
        )
        _check_room(resources, address)
        flag = _flag()
        with stop_on_signals(resume_hint) as request:
            watch = _Watch(schedule, request, must_stop, flag, grace_seconds)
            releases = _Releases(schedule, store, watch, keep, resources, max_concurrent)
            tuner = tune.Tuner(
                tune.with_resources(
                    _trainable(store.root, resources, checkpoint_seconds, flag), dict(resources)
                ),
                tune_config=tune.TuneConfig(
                    search_alg=releases,
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: trial.trial_id,
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="study",
                    verbose=0,
                    callbacks=[watch],
                    failure_config=tune.FailureConfig(max_failures=MAX_TRIES - 1),
                ),
            )
            with suppress(_Leave):
                tuner.fit()
            watch.show_last()
    if schedule.is_over:
        releases.outcomes.note_start_failed()
    return releases.outcomes.unnoted


def _check_room(resources: Mapping[str, float], address: str) -> None:
    cluster = ray.cluster_resources()
    if num_slots(cluster, resources) == 0 and address == LOCAL:
        has = {name: cluster.get(name.upper(), 0.0) for name in resources}
        raise UserError(
            f"a trial claims {told(resources)}, and this machine has {told(has)}: "
            "lower --gpus-per-trial or --cpus-per-trial"
        )


@contextmanager
def _connected(address: str) -> Iterator[None]:
    # The store carries all data: Ray's own, sized by the machine's memory, would lie idle. The loopback
    # address stays the same when a laptop changes its network.
    own: dict[str, Any] = {
        "include_dashboard": False,
        "object_store_memory": 128 * 2**20,
        "_node_ip_address": "127.0.0.1",
    }
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(own if address == LOCAL else {}),
        )
    except ConnectionError as error:
        raise UserError(f"--address={address}: no Ray cluster answers there ({error})") from error
    # A lost node or worker: the last lines of Ray's own log, on stdout, even where nothing is to be
    # logged to the driver. Ray has no setting for it; what matters of it is in the store.
    ray._private.worker._worker_logs_enabled = False
    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        ray.shutdown()


def _flag() -> Any:
    """An actor on this node: whoever can reach it can ask whether to stop."""
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Flag)
    return actor.remote()


def _trainable(
    root: str, resources: Mapping[str, float], checkpoint_seconds: float, flag: Any
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    num_threads = max(1, int(resources["cpu"]))

    def trial(config: dict[str, Any]) -> dict[str, Any]:
        run = from_json(config["run"])
        ended = attempt(
            run,
            open_store(root),
            # Clusters of tests declare GPUs that are not there.
            device=os.environ.get("STUDY_DEVICE") or ("cuda" if resources.get("gpu") else "cpu"),
            num_threads=num_threads,
            keep_weights=config["keep_weights"],
            checkpoint_seconds=checkpoint_seconds,
            on_row=_reporter(),
            should_stop=_question(flag),
        )
        if ended.outcome == "try again":
            # Raised for Tune to try it in a new process, which this one may have good reason to need.
            raise RuntimeError(ended.error)
        return {"outcome": ended.outcome, "error": ended.error}

    return trial


def _reporter() -> Callable[[Row], None]:
    """Tells Tune of a row where the last one that it heard of is old enough."""
    told_at = -float("inf")

    def tell(row: Row) -> None:
        nonlocal told_at
        if time.monotonic() - told_at >= SECONDS_BETWEEN_REPORTS:
            tune.report({"epoch": row.epoch, "step": row.step, "test_error": row.test_error})
            told_at = time.monotonic()

    return tell


def _question(flag: Any) -> Callable[[], bool]:
    """Asks the flag now and then whether to stop; waits only for the first answer.

    So a trial that Tune starts when all are to stop need not begin.
    """
    asked_at, answer, patience = -float("inf"), None, SECONDS_FOR_FIRST_ANSWER

    def is_raised() -> bool:
        nonlocal asked_at, answer, patience
        if answer is None and time.monotonic() - asked_at >= SECONDS_BETWEEN_QUESTIONS:
            asked_at, answer = time.monotonic(), flag.is_raised.remote()
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


class _Watch(tune.Callback):
    """Looks up once in every step of Tune's loop: the progress line, and the wish to stop."""

    def __init__(
        self,
        schedule: Schedule,
        request: StopRequest,
        must_stop: Callable[[], bool],
        flag: Any,
        grace_seconds: float,
    ) -> None:
        self.progress = Progress(schedule)
        self.request = request
        self._must_stop = must_stop
        self._flag = flag
        self._grace_seconds = grace_seconds
        self._line = Line()
        self._has_told = False
        self._node_id = ray.get_runtime_context().get_node_id()
        self._looked_at = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._must_stop():
            self.request.ask()
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._looked_at = time.monotonic()
            if not _is_alive(self._node_id):
                # Tune would wait for ever. Trials see that the flag, on this node, is gone.
                self._tell("Ray on this node has ended")
                raise _Leave
        if self.request.is_set:
            if not self._has_told:
                self._tell(STOPPING)
                self._has_told = True
            self._flag.hoist.remote()
            none_runs = not any(trial.status == "RUNNING" for trial in trials)
            if none_runs or self.request.seconds() > self._grace_seconds:
                raise _Leave
        if self._line.is_due:
            num_running = sum(trial.status == "RUNNING" for trial in trials)
            self._line.write(self.progress.text(num_running))

    def _tell(self, text: str) -> None:
        self._line.end()
        self._line.write(text)
        self._line.end()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner into its folder, from which nothing is ever read

    def show_last(self) -> None:
        """The line as it stands at the end."""
        self._line.write(self.progress.text(num_running=0))
        self._line.end()


class _Releases(tune.search.Searcher):
    """Hands Tune the next Run of the schedule, as many at a time as the cluster holds."""

    def __init__(
        self,
        schedule: Schedule,
        store: Store,
        watch: _Watch,
        keep: Collection[str],
        resources: Mapping[str, float],
        max_concurrent: int | None,
    ) -> None:
        super().__init__()
        self.outcomes = Outcomes(schedule, store)
        self._schedule, self._watch = schedule, watch
        self._keep, self._resources = frozenset(keep), resources
        self._max_concurrent = max_concurrent
        self._trials: dict[str, Run] = {}
        self._step: dict[str, int] = {}
        self._step_at_loss: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        if self._watch.request.is_set or self._schedule.is_over:
            return self.FINISHED
        if len(self._trials) >= self._limit():
            return None
        run = self._schedule.next()
        if run is None:
            return None
        self._trials[trial_id] = run
        return {"run": to_json(run), "keep_weights": run.id in self._keep}

    def _limit(self) -> int:
        slots = num_slots(ray.cluster_resources(), self._resources) + NUM_AHEAD
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
        self._watch.progress.ended(run, finished=not self._schedule.is_open(run.id))

    def _lose(self, run: Run) -> None:
        """Tune has given this trial up: its worker was lost, or raised, MAX_TRIES times.

        A Run that has come further since the last time is tried again: nodes that come and go must
        not end a long training.
        """
        step = self._step.get(run.id, 0)
        if self._watch.request.is_set or step > self._step_at_loss.get(run.id, 0):
            self._step_at_loss[run.id] = step
            self._schedule.again(run.id)
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
