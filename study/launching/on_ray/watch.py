"""What looks up once in every step of Tune's loop: at the screen, the nodes, and the wish to stop.

Owns how a wish to stop reaches trials on other nodes, and how the loop is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import ray
from ray import tune

from study.launching.display import Screen
from study.launching.on_ray.nodes import NODE, Nodes
from study.launching.progress import Progress
from study.launching.signals import STOPPING, StopRequest
from study.messages import last_line
from study.run import Run, from_json
from study.store import Damaged, Store, read_failure

SECONDS_BETWEEN_LOOKS: Final = 5.0  # at the driver's own node


class Leave(BaseException):
    """Leaves Tune's loop from inside. Not an Exception: Tune would first tidy up, for minutes."""


class Watch(tune.Callback):
    """Looks up once in every step of Tune's loop: the screen, the nodes, and the wish to stop."""

    def __init__(
        self,
        progress: Progress,
        screen: Screen,
        store: Store,
        request: StopRequest,
        must_stop: Callable[[], bool],
        flag: Any,
        grace_seconds: float,
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
        self._nodes = Nodes(ray.get_runtime_context().get_node_id())
        self._looked_at = time.monotonic()
        self.begun: set[str] = set()  # ids of trials that have a worker

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun.add(trial.trial_id)
        self.progress.began(_run_of(trial))
        self._remark(self._nodes.begins(trial.trial_id))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._nodes.hears_of(trial.trial_id, result.get(NODE))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._remark(self._nodes.ends(trial.trial_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.begun.discard(trial.trial_id)  # its worker is lost, and it waits for another
        run = _run_of(trial)
        with suppress(OSError, Damaged):  # of a store that cannot be read just now
            noted = read_failure(self._store, run.id)
            error = "its worker was lost" if noted is None else last_line(noted.error)
            self.progress.failed(run, f"{error}; it is tried again")
        self.progress.lost(run)
        self._nodes.loses(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._must_stop():
            self.request.ask()
        if time.monotonic() - self._looked_at >= SECONDS_BETWEEN_LOOKS:
            self._looked_at = time.monotonic()
            lost = self._nodes.look(ray.nodes())
            if self._nodes.is_here_lost:
                # Tune would wait for ever. Trials see that the flag, on this node, is gone.
                self._remark("Ray on this node has ended")
                raise Leave
            self._remark(*lost)
        if self.request.is_set:
            if not self._has_said_so:
                self._remark(STOPPING)
                self._has_said_so = True
            self._flag.request_stop.remote()
            none_runs = not any(trial.status == "RUNNING" for trial in trials)
            if none_runs or self.request.seconds() > self._grace_seconds:
                raise Leave
        self.screen.tick()
        if self._leave_when():
            raise Leave

    def _remark(self, *texts: str) -> None:
        for text in filter(None, texts):
            self.screen.remark(text)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner into its folder, from which nothing is ever read


def _run_of(trial: Any) -> Run:
    return from_json(trial.config["run"])
