"""Implement `--log wandb`: Ray's callback, with one W&B run for each Run and version of the code.

The driver's WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and WANDB_BASE_URL are passed on, because Ray's
processes have the cluster's environment. A failing W&B never ends a study.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import ray
from ray.air.integrations.wandb import WandbLoggerCallback
from ray.tune.result import TIMESTEPS_TOTAL, TRAINING_ITERATION

from study.fields import digest_of
from study.launching.on_ray.trial import METRICS
from study.messages import UserError, last_line
from study.run import coordinates, describe, from_json
from study.store.provenance import code_version

SECONDS_TO_FINISH: Final = 60  # for uploads when a study ends
DEFAULT_PROJECT: Final = "freezewise"


class WandbRuns(WandbLoggerCallback):
    """Ray's callback, with one W&B run for a Run, even if the Run is resumed or trained again.

    Raises UserError if nobody is logged in to W&B.
    """

    def __init__(self, folder: Path, remark: Callable[[str], None]) -> None:
        super().__init__(
            project=os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT,
            group=folder.name,
            upload_timeout=SECONDS_TO_FINISH,
        )
        folder.mkdir(parents=True, exist_ok=True)
        self._remark = remark
        self._has_failed = False
        self._folder = folder.resolve()
        self._mode = os.environ.get("WANDB_MODE")
        base_url = os.environ.get("WANDB_BASE_URL")
        self._settings: dict[str, Any] = {"silent": True} | (
            {"base_url": base_url} if base_url else {}
        )
        # Ray's own actor restarts after a crash, even if its arguments are lost. It also reads the key
        # from a runtime environment, which needs ray[default].
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        self._remote_logger_class = ray.remote(num_cpus=0, scheduling_strategy=here)(
            self._logger_actor_cls
        )
        try:
            self.setup()
        except ValueError as error:
            raise UserError(
                "--log wandb: not logged in to W&B. Run `wandb login`, or set WANDB_API_KEY, or "
                "WANDB_MODE=offline for files that `wandb sync` uploads later"
            ) from error
        if key := os.environ.get("WANDB_API_KEY"):
            self._settings["api_key"] = key

    def where(self) -> str:
        if self._mode == "offline":
            return f"W&B: offline; to upload: wandb sync {self._folder}/wandb/offline-run-*"
        return f"W&B: group {self.group} of project {self.project}"

    def log_trial_start(self, trial: Any) -> None:
        run = from_json(trial.config["run"])
        self.kwargs = {
            "id": f"{run.id}-{digest_of(code_version())[:8]}",
            "name": describe(run),
            "config": {**coordinates(run), "run_id": run.id, "code_version": code_version()},
            "resume": "allow",
            "mode": self._mode,
            "entity": os.environ.get("WANDB_ENTITY"),
            "dir": str(self._folder),
            "settings": self._settings,
        }
        super().log_trial_start(trial)

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if "step" in result:  # otherwise a report without a row
            steps = {TIMESTEPS_TOTAL: result["step"], TRAINING_ITERATION: result["step"]}
            shown = {name: result[name] for name in METRICS} | steps
            super().log_trial_result(iteration, trial, shown)

    def _cleanup_logging_actor(self, trial: Any) -> None:
        try:
            ray.get(self._trial_logging_futures[trial], timeout=0)
        except ray.exceptions.GetTimeoutError:
            self._fail("it did not upload everything in time")
        except ray.exceptions.RayError as error:
            self._fail(last_line(str(error)))
        super()._cleanup_logging_actor(trial)

    def _fail(self, why: str) -> None:
        if not self._has_failed:
            self._has_failed = True
            self._remark(f"W&B lacks some of the curves, the study goes on: {why}")

    def close(self) -> None:
        """Wait up to SECONDS_TO_FINISH until everything is uploaded or written."""
        for trial in list(self._trial_queues):
            self._signal_logging_actor_stop(trial)
        self.on_experiment_end([])

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner to a file that is never read
