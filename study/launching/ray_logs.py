"""Curves for tools that watch trainings: Ray's own callbacks, told of what Tune hears of.

Owns where they write and under which name a Run stands there. They get a row every few seconds, so a short
Run leaves few points: rows are in the store, and nothing is ever read from here.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ray.tune.logger import TBXLoggerCallback

from study.launching.means import LOGS
from study.run import from_json


class TensorBoardFiles(TBXLoggerCallback):
    """Ray's own, but that each Run has one folder below `folder`, whichever trial trains it."""

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
        if "step" in result:  # else it is how the Run ended
            # Ray takes a step of 0 for none, and its own count of reports instead.
            steps = {"timesteps_total": result["step"], "training_iteration": result["step"]}
            super().log_trial_result(iteration, trial, {**result, **steps})

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its Tuner into its folder, from which nothing is ever read


def loggers(names: Collection[str], folder: Path) -> list[Any]:
    """Tune's callbacks of these names, of `study.launching.means.LOGS`; `folder`: `logs/<study>`."""
    assert set(names) <= set(LOGS), names
    return [TensorBoardFiles(folder)] if "tensorboard" in names else []
