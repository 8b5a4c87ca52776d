"""Train a block of Runs in a Ray worker, report samples of rows to Tune, check for stop requests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import astuple, replace
from functools import cache
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final

import ray
import torch
from ray import tune

from study.launching.on_ray.nodes import NODE
from study.launching.options import LaunchOptions
from study.launching.queue import Attempt
from study.launching.train_run import attempt
from study.run import Run, from_json
from study.store import Store, open_store
from study.store.schema import Row

# Fields of a row that Tune and its loggers receive.
METRICS: Final = ("epoch", "step", "train_loss", "train_error", "test_loss", "test_error")
# A report is a round trip to the driver, which all trials share.
SECONDS_BETWEEN_REPORTS: Final = 5.0
SECONDS_BETWEEN_QUESTIONS: Final = 1.0
SECONDS_FOR_FIRST_ANSWER: Final = 5.0


def trainable(
    store: Store, options: LaunchOptions, claim: Mapping[str, float], flag: Any
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    root, lease_number = store.root, store.lease_number

    def trial(config: dict[str, Any]) -> dict[str, Any]:
        # Test clusters declare GPUs that do not exist.
        device = os.environ.get("STUDY_DEVICE") or ("cuda" if claim.get("gpu") else "cpu")
        if device == "cuda" and claim.get("gpu", 1) < 1:
            # A trial that shares a GPU must not run out of memory because of another trial.
            torch.cuda.set_per_process_memory_fraction(claim["gpu"])
        reports = Reports(first_row=bool(options.logs))
        ended = _worker_thread().call(
            lambda: attempt(
                runs_of(config),
                replace(open_store(root), lease_number=lease_number),
                options.of_trial(claim, device=device),
                keep_weights=config["keep_weights"],
                keep_predictions=config["keep_predictions"],
                on_row=reports.row,
                should_stop=stop_check(flag),
            )
        )
        for each in ended.values():
            if each.outcome == "try again":
                # Raised so that Tune retries in a new process; this process may be the cause.
                raise RuntimeError(each.error)
        return reports.end(ended)

    return trial


def runs_of(config: Mapping[str, Any]) -> list[Run]:
    """Return the Runs in this configuration of a trial."""
    return [from_json(text) for text in config["runs"]]


def rows_in(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the values of METRICS in this report, by Run id."""
    return dict(result.get("rows", ()))


def outcomes_in(result: Mapping[str, Any] | None) -> dict[str, Attempt] | None:
    """Return the outcome of each Run, by id; None if this report is not the trial's last report."""
    if result is None or "outcomes" not in result:
        return None
    return {run_id: Attempt(*ended) for run_id, *ended in result["outcomes"]}


_Work = Callable[[], dict[str, Attempt]]


class WorkerThread:
    """A thread that executes calls one after another until the process ends.

    Tune starts a thread per trial, but cuDNN caches its choice of algorithms per thread. In Tune's
    threads, cuDNN would measure the algorithms again for every Run.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[_Work, Future[dict[str, Attempt]]]] = SimpleQueue()
        # A daemon, like Tune's threads: the process can end without waiting for a Run.
        Thread(target=self._serve, name="runs", daemon=True).start()

    def call(self, work: _Work) -> dict[str, Attempt]:
        """Call `work` in the thread; return its result or raise its exception."""
        future: Future[dict[str, Attempt]] = Future()
        self._calls.put((work, future))
        return future.result()

    def _serve(self) -> None:
        while True:
            self._make(*self._calls.get())

    @staticmethod
    def _make(work: _Work, future: Future[dict[str, Attempt]]) -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # also SystemExit, which Tune raises to end a trial
            future.set_exception(error)


@cache
def _worker_thread() -> WorkerThread:
    return WorkerThread()


class Reports:
    """Reports to Tune: first the node, then rows at intervals, then the last rows with the outcomes.

    `rows_in` and `outcomes_in` read the reports. `first_row`: report the first row immediately.
    """

    def __init__(self, *, first_row: bool) -> None:
        # Report the node before the first row, which may come after minutes.
        tune.report({NODE: ray.get_runtime_context().get_node_id()})
        self._reported_at = -float("inf") if first_row else time.monotonic()
        self._untold: dict[str, Row] = {}

    def row(self, run: Run, row: Row) -> None:
        """Report the row, or keep it for a later report."""
        self._untold[run.id] = row
        if time.monotonic() - self._reported_at >= SECONDS_BETWEEN_REPORTS:
            tune.report(self._values())
            self._reported_at = time.monotonic()

    def end(self, ended: Mapping[str, Attempt]) -> dict[str, Any]:
        """Return the last report: the outcomes, and the rows not yet reported."""
        outcomes = [(run_id, *astuple(each)) for run_id, each in ended.items()]
        return {**self._values(), "outcomes": outcomes}

    def _values(self) -> dict[str, Any]:
        untold, self._untold = self._untold, {}
        # Rows are a list, because Tune flattens dicts in a result.
        return {"rows": [(i, {n: getattr(row, n) for n in METRICS}) for i, row in untold.items()]}


def stop_check(flag: Any) -> Callable[[], bool]:
    """Return a function that checks the flag about once a second, and returns True after a stop request.

    `flag`: a StopFlag actor. Only the function's first call waits for an answer, so that no trial begins
    after a stop request.
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
