"""Train Runs one after another in this process, with the same rows as on a cluster.

Must stay importable without Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from study.launching.display import Screen
from study.launching.options import LaunchOptions
from study.launching.progress import Progress
from study.launching.queue import Outcomes, RunQueue
from study.launching.train_run import attempt
from study.messages import last_line
from study.run import Run
from study.signals import stop_on_signals
from study.store import Store
from study.store.schema import Row


def run_inline(
    queue: RunQueue,
    store: Store,
    options: LaunchOptions,
    *,
    progress: Progress,
    screen: Screen,
    keep: Collection[str],
    keep_predictions: Collection[str],
    must_stop: Callable[[], bool],
) -> Mapping[str, str]:
    """Train every Run of the queue in this process, until a stop is requested.

    Uses a GPU if there is one, unless `gpus_per_trial` is 0. Stops after an error that makes the GPU
    unusable in this process, because each later Run would fail, too.

    Args:
        keep: ids of Runs whose weights are kept.
        keep_predictions: ids of Runs whose predictions are kept.
        must_stop: called after every step; True requests a stop, as signals do.

    Returns:
        The errors of failed Runs, by id, that the store could not record.
    """
    use_gpu = options.gpus_per_trial != 0 and torch.cuda.is_available()
    options = options.of_trial(
        {"cpu": options.cpus_per_trial or 1}, device="cuda" if use_gpu else "cpu"
    )
    outcomes = Outcomes(queue, store)
    screen.follow(progress.look)
    with stop_on_signals(options.resume_hint) as request:

        def should_stop() -> bool:
            screen.tick()
            return request.is_set or must_stop()

        def on_row(run: Run, row: Row) -> None:
            progress.on_row(run, row.step)

        while not should_stop() and (runs := queue.next()):
            progress.began(runs)
            ended = attempt(
                runs,
                store,
                options,
                keep_weights=keep,
                keep_predictions=keep_predictions,
                on_row=on_row,
                should_stop=should_stop,
            )
            for run in runs:
                each = ended[run.id]
                outcomes.settle(run, each)
                if each.remark:
                    screen.remark(each.remark, once=True)
                if each.has_failed:
                    progress.failed(run, last_line(each.error))
                progress.ended(run, finished=not queue.is_open(run.id))
            has_failed = any(each.has_failed for each in ended.values())
            if has_failed and use_gpu and (why := _gpu_error()):
                screen.remark(
                    f"the GPU cannot be used any more in this process ({why}): no further Run is started"
                )
                break
    screen.end()
    if queue.is_over:
        outcomes.note_start_failed()
    return outcomes.unnoted


def _gpu_error() -> str:
    """Return the error that every call to the GPU raises from now on; "" if there is none."""
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).partition("\n")[0]
    return ""
