"""Train the first epochs of one Run in a temporary store."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from study import tasks
from study.grid import with_starts
from study.launching.options import LaunchOptions
from study.launching.temporary_files import CHECK_PREFIX, temporary_folder
from study.launching.train_run import Interrupted, execute
from study.run import Run
from study.store import Store, open_store
from study.store.layout import task_path
from study.store.schema import Row
from study.tasks import Task
from study.training.feature_cache import FOLDER_VARIABLE
from study.training.steps import evaluated_steps, steps_per_epoch, total_steps

EPOCHS: Final = 2  # more if they take less than MIN_SECONDS
MIN_SECONDS: Final = 2.0
MAX_SECONDS: Final = 60.0  # even if no epoch is complete
START_STEPS: Final = 2  # for the start of a Run


@dataclass(frozen=True, kw_only=True)
class FirstEpochs:
    """Observations of a Run's first epochs.

    - `num_steps`: steps in `seconds`, which include evaluations; `num_epochs`: these steps in epochs.
    - `per_step`, `per_evaluation`: seconds; `whole`: seconds that they predict for the whole Run.
    - `first`, `last`: the row before training, and the last measured row.
    - `peak_bytes`: peak memory; on a GPU torch's, on a CPU this process's so far.
    """

    device: str
    num_steps: int
    num_epochs: float
    seconds: float
    per_step: float
    per_evaluation: float
    whole: float
    first: Row
    last: Row
    peak_bytes: int


@contextmanager
def scratch_store(
    store: Store, wanted: Mapping[str, Task | None], data: Path | None
) -> Iterator[Store]:
    """Yield a temporary store with only the tasks `wanted`.

    Tasks that `store` has are linked (or copied, from a bucket). Other tasks are prepared by their
    definition in `wanted`. Features of frozen layers are cached there, too.
    """
    with temporary_folder(CHECK_PREFIX) as folder:
        before = os.environ.get(FOLDER_VARIABLE)
        os.environ[FOLDER_VARIABLE] = str(Path(folder) / "features")
        scratch = open_store(Path(folder) / "store")
        try:
            for name, task in wanted.items():
                _copy_task(name, task, store, scratch, data)
            yield scratch
        finally:
            if before is None:
                del os.environ[FOLDER_VARIABLE]
            else:
                os.environ[FOLDER_VARIABLE] = before


def _copy_task(
    name: str, task: Task | None, store: Store, scratch: Store, data: Path | None
) -> None:
    path, here = task_path(name), scratch.local_path(task_path(name))
    assert here is not None
    if not store.exists(path):
        assert task is not None, name
        tasks.prepare(task, scratch, data, progress=sys.stderr.isatty())
        return
    here.parent.mkdir(parents=True, exist_ok=True)
    there = store.local_path(path)
    if there is not None:
        here.symlink_to(there.resolve())
    else:
        scratch.put(path, store.get(path))


def first_epochs(run: Run, scratch: Store, options: LaunchOptions) -> FirstEpochs:
    """Train the first epochs of `run` with its recipe and images, from a start trained for a few steps.

    Raises the errors of training.
    """
    source = _shortened(run.source)
    tried = run if source is None else replace(run, start=source)
    for each in with_starts([tried])[:-1]:
        execute(each, scratch, options, keep_weights=True)
    is_gpu = options.device == "cuda"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    per_epoch = steps_per_epoch(run.recipe, run.size)
    rows: list[Row] = []
    times: list[float] = []  # after the evaluation at step 0, and after each step
    work_times: list[float] = []  # the same; on a CPU by this thread's clock
    num_rows: list[int] = []  # rows measured until then

    def is_enough() -> bool:
        if is_gpu:
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        # Other processes may not run when the study is trained.
        work_times.append(times[-1] if is_gpu else time.thread_time())
        num_rows.append(len(rows))
        seconds, num_steps = times[-1] - times[0], len(times) - 1
        enough = num_steps >= EPOCHS * per_epoch and seconds >= MIN_SECONDS
        return num_steps > 0 and (enough or seconds >= MAX_SECONDS)

    with suppress(Interrupted):
        execute(tried, scratch, options, on_row=rows.append, should_stop=is_enough)
    num_steps, seconds = len(times) - 1, times[-1] - times[0]
    per_step, per_evaluation = _seconds_each(np.diff(work_times), np.diff(num_rows))
    return FirstEpochs(
        device=options.device,
        num_steps=num_steps,
        num_epochs=num_steps / per_epoch,
        seconds=seconds,
        per_step=per_step,
        per_evaluation=per_evaluation,
        whole=total_steps(run.recipe, run.size) * per_step
        + len(evaluated_steps(run.recipe, run.size)) * per_evaluation,
        first=rows[0],
        last=rows[-1],
        peak_bytes=torch.cuda.max_memory_allocated() if is_gpu else peak_of_process(),
    )


def _seconds_each(seconds: np.ndarray, evaluations: np.ndarray) -> tuple[float, float]:
    """Return the mean seconds of a step, and of an evaluation.

    `seconds`: of each step, with its evaluations; `evaluations`: 0 or 1 for each step. If every step has
    an evaluation, the two times cannot be separated, and a step counts as 0 s.
    """
    alone = seconds[evaluations == 0]
    per_step = float(alone.mean()) if len(alone) else 0.0
    with_evaluation = seconds[evaluations > 0]
    if not len(with_evaluation):
        return per_step, 0.0
    return per_step, max(float(with_evaluation.mean()) - per_step, 0.0)


def _shortened(source: Run | None) -> Run | None:
    # The weights of the shortened start are useless, but have the right shapes.
    if source is None:
        return None
    recipe = replace(
        source.recipe,
        num_epochs=None,
        num_steps=START_STEPS,
        evaluation="log_spaced",
        num_evaluations=2,
    )
    start = _shortened(source.source) or source.start
    size = min(source.size, source.recipe.batch_size)
    return replace(source, recipe=recipe, start=start, size=size)


def peak_of_process() -> int:
    """Return the peak memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
