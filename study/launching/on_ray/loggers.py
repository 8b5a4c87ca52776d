"""Report training curves through Ray's logging callbacks.

Curves are sampled every few seconds; only the store has all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import TBXLoggerCallback

from study.launching.on_ray.trial import outcomes_in, rows_in
from study.launching.options import LOGS
from study.run import from_json


class TensorBoardFiles(TBXLoggerCallback):
    """Ray's callback, with one folder per Run below `folder`, even if several trials train the Run."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def log_trial_start(self, trial: Any) -> None:
        if trial in self._trial_writer:
            self._trial_writer[trial].close()
        place = self._folder / from_json(trial.config["run"]).id
        self._trial_writer[trial] = self._summary_writer_cls(str(place), flush_secs=30)
        self._trial_result[trial] = {}

    def log_trial_result(self, iteration: int, trial: Any, result: dict[str, Any]) -> None:
        if "step" in result:  # otherwise a report without a row
            # Ray treats step 0 as missing and uses its own count of reports instead.
            steps = {"timesteps_total": result["step"], "training_iteration": result["step"]}
            super().log_trial_result(iteration, trial, {**result, **steps})

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner to a file that is never read

    def where(self) -> str:
        return f"TensorBoard: tensorboard --logdir {self._folder.resolve()}"

    def close(self) -> None:
        """Write everything that is buffered."""
        for writer in self._trial_writer.values():
            writer.close()


class _RunOfTrial:
    """One Run of a trial, for logging callbacks, which expect one Run per trial."""

    def __init__(self, trial: Any, run: str) -> None:
        self._trial = trial
        self.config = {"run": run}
        self.trial_id = f"{trial.trial_id}-{from_json(run).id}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _RunOfTrial) and self.trial_id == other.trial_id

    def __hash__(self) -> int:
        return hash(self.trial_id)


class EachRun(tune.Callback):
    """Tune callback: passes the rows and the outcome of each Run of a trial to a logging callback."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for each in _runs(trial):
            self._logger.log_trial_start(each)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        rest = {name: value for name, value in result.items() if name not in ("rows", "outcomes")}
        rows, outcomes = rows_in(result), outcomes_in(result) or {}
        for each in _runs(trial):
            run_id = from_json(each.config["run"]).id
            ended = vars(outcomes[run_id]) if run_id in outcomes else {}
            self._logger.log_trial_result(iteration, each, rest | rows.get(run_id, {}) | ended)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for each in _runs(trial):
            self._logger.log_trial_end(each, failed=False)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        for each in _runs(trial):
            self._logger.log_trial_end(each, failed=True)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._logger.on_experiment_end(trials, **info)

    def where(self) -> str:
        where: str = self._logger.where()
        return where

    def close(self) -> None:
        self._logger.close()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner to a file that is never read


def _runs(trial: Any) -> list[_RunOfTrial]:
    return [_RunOfTrial(trial, run) for run in trial.config["runs"]]


def loggers(names: Collection[str], folder: Path, remark: Callable[[str], None]) -> list[Any]:
    """Return Tune callbacks for the loggers of these names (`study.launching.options.LOGS`).

    Call `close()` of each callback after Tune's loop. `folder`: `logs/<study>`; `remark` receives messages
    for users, such as the place of the curves. Raises UserError if a logger cannot be used.
    """
    assert set(names) <= set(LOGS), names
    made: list[Any] = []
    if "tensorboard" in names:
        made.append(TensorBoardFiles(folder))
    if "wandb" in names:
        from study.launching.on_ray.log_wandb import WandbRuns

        made.append(WandbRuns(folder, remark))
    if "mlflow" in names:
        from study.launching.on_ray.log_mlflow import MlflowRuns

        made.append(MlflowRuns(folder, remark))
    for each in made:
        remark(each.where())
    return [EachRun(each) for each in made]
