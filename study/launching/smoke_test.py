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
from study.training.steps import steps_per_epoch, total_steps

EPOCHS: Final = 2  # more if they take less than MIN_SECONDS
MIN_SECONDS: Final = 2.0
MAX_SECONDS: Final = 60.0  # even if no epoch is complete
START_STEPS: Final = 2  # for the start of a Run


@dataclass(frozen=True, kw_only=True)
class FirstEpochs:
    """Observations of a Run's first epochs.

    - `num_steps` in `seconds`: including evaluations; `num_epochs`: the same in epochs.
    - `seconds_whole`: of all its steps at that rate.
    - `first`, `last`: the row before training, and the last measured row.
    - `peak_bytes`: peak of torch's memory on a GPU; on a CPU, of the memory of this process so far.
    """

    device: str
    num_steps: int
    num_epochs: float
    seconds: float
    seconds_whole: float
    first: Row
    last: Row
    peak_bytes: int

    @property
    def steps_per_second(self) -> float:
        return self.num_steps / self.seconds


@contextmanager
def scratch_store(
    store: Store, wanted: Mapping[str, Task | None], data: Path | None
) -> Iterator[Store]:
    """Yield a temporary store with only the tasks `wanted`.

    Prepared tasks of `store` are linked (or copied, from a bucket); others are prepared (by their
    definition in `wanted`; None: prepared already). It also caches features of frozen layers.
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
    per_epoch, whole = steps_per_epoch(run.recipe, run.size), total_steps(run.recipe, run.size)
    rows: list[Row] = []
    began, num_steps, seconds = 0.0, -1, 0.0

    def is_enough() -> bool:
        nonlocal began, num_steps, seconds
        if is_gpu:
            torch.cuda.synchronize()
        num_steps += 1  # called before the first step and after each
        now = time.perf_counter()
        began = began or now
        seconds = now - began
        enough = num_steps >= EPOCHS * per_epoch and seconds >= MIN_SECONDS
        return num_steps > 0 and (enough or seconds >= MAX_SECONDS)

    with suppress(Interrupted):
        execute(tried, scratch, options, on_row=rows.append, should_stop=is_enough)
    return FirstEpochs(
        device=options.device,
        num_steps=num_steps,
        num_epochs=num_steps / per_epoch,
        seconds=seconds,
        seconds_whole=seconds / num_steps * whole,
        first=rows[0],
        last=rows[-1],
        peak_bytes=torch.cuda.max_memory_allocated() if is_gpu else _peak_of_process(),
    )


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


def _peak_of_process() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
