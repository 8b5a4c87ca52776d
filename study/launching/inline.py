"""Runs one after another in this process: for a debugger, a notebook, a machine without Ray.

Owns nothing but the loop: order, tries and rows are those of a launch on a cluster, bit for bit.
Refuses to import Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch

from study.launching.attempt import attempt
from study.launching.interrupt import stop_on_signals
from study.launching.outcomes import Outcomes
from study.launching.progress import Progress
from study.launching.queue import Schedule
from study.messages import Line
from study.run import Run
from study.store import Store
from study.store.schema import Row


def run_inline(
    schedule: Schedule,
    store: Store,
    *,
    use_gpu: bool,
    num_threads: int,
    keep: Collection[str],
    checkpoint_seconds: float,
    resume_hint: str,
    must_stop: Callable[[], bool],
) -> Mapping[str, str]:
    """Ends every Run of the schedule, in this process, unless it is asked to stop before.

    Returns why Runs failed of which the store could not take note, by id. `use_gpu`: where there is
    one. `keep`: ids of Runs whose weights are kept. `must_stop` is asked after every step, beside the
    process's signals.
    """
    device = "cuda" if use_gpu and torch.cuda.is_available() else "cpu"
    outcomes, progress, line = Outcomes(schedule, store), Progress(schedule), Line()
    with stop_on_signals(resume_hint) as request:

        def should_stop() -> bool:
            return request.is_set or must_stop()

        def show(run: Run, row: Row | None = None) -> None:
            if row is not None:
                progress.saw(run, row.step)
            if line.is_due:
                line.write(progress.text(num_running=1))

        while not should_stop() and (run := schedule.next()) is not None:
            show(run)
            ended = attempt(
                run,
                store,
                device=device,
                num_threads=num_threads,
                keep_weights=run.id in keep,
                checkpoint_seconds=checkpoint_seconds,
                on_row=lambda row, run=run: show(run, row),  # type: ignore[misc]
                should_stop=should_stop,
            )
            outcomes.settle(run, ended)
            progress.ended(run, finished=not schedule.is_open(run.id))
    line.write(progress.text(num_running=0))
    line.end()
    if schedule.is_over:
        outcomes.note_start_failed()
    return outcomes.unnoted
