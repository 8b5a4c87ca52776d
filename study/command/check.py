"""`study check SPACE`: do the cheapest and the dearest Run train here, how fast, in how much memory?

Owns its lines. Starts no Ray, and leaves nothing behind: neither in the store nor on this machine.
"""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from study.command.exits import OK, SOME_FAILED
from study.command.opened import store_of
from study.command.texts import bytes_text
from study.grid import with_starts
from study.launching.options import Means
from study.launching.signals import INTERRUPTED_STATUS
from study.messages import UserError, duration, last_line
from study.planning.plan import make_plan
from study.planning.spaces import load_space
from study.requirements import require
from study.run import describe

if TYPE_CHECKING:
    from study.launching.smoke_test import FirstEpochs  # torch


def check(args: argparse.Namespace) -> int:
    """Trains the first epochs of the study's cheapest and dearest Run, and says what it saw."""
    require("torch", "timm", "safetensors", "psutil")
    # A shell starts what it puts aside without the first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        return _check(args)
    except KeyboardInterrupt:
        print("interrupted; nothing was kept")
        return INTERRUPTED_STATUS


def _check(args: argparse.Namespace) -> int:
    space, store = load_space(args.space), store_of(args)
    plan = make_plan(space, store, args.data)
    if plan.wrong:
        raise UserError("\n".join(plan.wrong))
    from study.launching.smoke_test import first_epochs, throw_away
    from study.planning.cost import cost_of, has_gpu

    cost = {run.id: cost_of(run, plan.infos[run.task]).flops for run in space.runs}
    by_cost = sorted(space.runs, key=lambda run: cost[run.id])
    chosen = {"cheapest": by_cost[0]}
    if by_cost[-1] != by_cost[0]:
        chosen["dearest"] = by_cost[-1]
    names = {run.task for run in with_starts(chosen.values())}
    wanted = {name: space.tasks.get(name) for name in sorted(names)}
    means = Means().of_trial({"cpu": 1}, device="cuda" if has_gpu() else "cpu")
    failed = False
    with throw_away(store, wanted, args.data) as scratch:
        for which, run in chosen.items():
            try:
                text = _text(first_epochs(run, scratch, means))
            except Exception as error:  # of a training: whatever it is, it is what was asked for
                failed, text = True, f"fails: {type(error).__name__}: {last_line(str(error))}"
            print(f"{which}: {describe(run)}: {text}", flush=True)
    return SOME_FAILED if failed else OK


def _text(seen: FirstEpochs) -> str:
    where = "a GPU" if seen.device == "cuda" else "one CPU thread"
    whose = "on it" if seen.device == "cuda" else "this process, so far"
    return (
        f"trains on {where}: {seen.num_steps:,} steps ({seen.num_epochs:.2g} epochs) in "
        f"{seen.seconds:.1f} s, {seen.steps_per_second:,.3g} steps/s with evaluations, all of it in about "
        f"{duration(seen.seconds_whole)}; train loss {seen.first.train_loss:.3g} → "
        f"{seen.last.train_loss:.3g}; memory up to {bytes_text(seen.peak_bytes)} ({whose})"
    )
