"""Implement `--log mlflow`: Ray's callback, with one MLflow run for each Run and version of the code.

A failing server never ends a study.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

# A server that does not respond blocks the driver's loop, for minutes with MLflow's defaults.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
for _name, _value in _PATIENCE.items():
    os.environ.setdefault(_name, _value)

import mlflow  # noqa: E402
from mlflow.entities import Metric, Param  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402
from ray.air.integrations.mlflow import MLflowLoggerCallback  # noqa: E402

from study.launching.on_ray.trial import METRICS  # noqa: E402
from study.messages import UserError, last_line  # noqa: E402
from study.run import coordinates, describe, from_json  # noqa: E402
from study.store.provenance import code_version  # noqa: E402
from study.store.store import without_secrets  # noqa: E402

RUN_TAG: Final = "freezewise.run"
CODE_TAG: Final = "freezewise.code"


def default_uri(folder: Path) -> str:
    """Return MLFLOW_TRACKING_URI, or else an SQLite database in this folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"


class MlflowRuns(MLflowLoggerCallback):
    """Ray's callback, with one MLflow run for a Run, even if the Run is resumed or trained again.

    No step is logged twice. Raises UserError if the server does not answer.
    """

    def __init__(self, folder: Path, remark: Callable[[str], None]) -> None:
        self.uri = default_uri(folder)
        if self.uri.startswith("sqlite:"):
            folder.mkdir(parents=True, exist_ok=True)
            logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        super().__init__(tracking_uri=self.uri, experiment_name=folder.name)
        self._remark = remark
        self._last_step: dict[Any, int] = {}
        self._outcome: dict[Any, str] = {}
        self._is_silent = False
        try:
            self.setup()
        except (MlflowException, OSError) as error:
            raise UserError(
                f"--log mlflow: {without_secrets(self.uri)} cannot be used: {last_line(str(error))}"
            ) from error
        self._client = mlflow.MlflowClient(tracking_uri=self.uri)

    def where(self) -> str:
        return f"MLflow: experiment {self.experiment_name} of {without_secrets(self.uri)}"

    def log_trial_start(self, trial: Any) -> None:
        if trial not in self._trial_runs:
            self._unless_failed(lambda: self._begin(trial))

    def _begin(self, trial: Any) -> None:
        run = from_json(trial.config["run"])
        tags = {RUN_TAG: run.id, CODE_TAG: code_version()}
        which = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([self.mlflow_util.experiment_id], which, max_results=1)
        if found:
            run_id = found[0].info.run_id
            history = self._client.get_metric_history(run_id, "train_loss")
            self._last_step[trial] = max((point.step for point in history), default=-1)
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = self.mlflow_util.start_run(run_name=describe(run), tags=tags).info.run_id
            self._client.log_batch(
                run_id, params=[Param(k, str(v)) for k, v in coordinates(run).items()]
            )
        self._trial_runs[trial] = run_id

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        self._outcome[trial] = result.get("outcome", "")
        step = result.get("step")
        if step is None or trial not in self._trial_runs:
            return  # a report of the Run's outcome or node, without a row
        if step > self._last_step.get(trial, -1):
            now = int(time.time() * 1000)
            # One transaction per row. Ray's callback needs one per metric: 0.14 s a row in a database.
            points = [Metric(k, float(v), now, step) for k, v in result.items() if k in METRICS]
            self._unless_failed(
                lambda: self._client.log_batch(self._trial_runs[trial], metrics=points)
            )

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        if trial in self._trial_runs:
            ended = self._outcome.pop(trial, "")
            failed = failed or ended.startswith("failed")
            if not failed and ended in ("interrupted", ""):
                run_id = self._trial_runs[trial]
                self._unless_failed(lambda: self._client.set_terminated(run_id, status="KILLED"))
            else:
                self._unless_failed(lambda: super(MlflowRuns, self).log_trial_end(trial, failed))
            del self._trial_runs[trial]

    def close(self) -> None:
        """Mark Runs that have not ended as interrupted."""
        for trial in list(self._trial_runs):
            self.log_trial_end(trial)

    def _unless_failed(self, tell: Callable[[], object]) -> None:
        if self._is_silent:
            return
        try:
            tell()
        except (MlflowException, OSError) as error:
            self._is_silent = True
            self._remark(f"MLflow gets no more metrics, the study goes on: {last_line(str(error))}")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner to a file that is never read
