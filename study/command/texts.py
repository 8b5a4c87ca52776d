"""What the verbs print of a plan and of a study's state, for people and as JSON.

Owns the words and lines; decides nothing.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from study.messages import duration
from study.planning.durations import ASSUMED_SHARE
from study.planning.inventory import STATES, HeadSummary, Inventory, seconds_left
from study.planning.plan import Plan, predictions_bytes
from study.run import describe
from study.store.schema import DONE, FAILED, START_FAILED

if TYPE_CHECKING:
    from study.planning.estimate import Price  # torch

MAX_LISTED: Final = 20

# A GPU's time that is less than this is no reason to look for one.
SECONDS_WORTH_TELLING: Final = 600.0


def plan_text(plan: Plan, price: Price | None) -> str:
    """The plan for people; `price` is that of what is left to be done, None where that is unknown."""
    runs, counts = plan.space.runs, plan.inventory.counts()
    num_starts = len({run.source for run in runs if run.source is not None})
    states = ", ".join(
        f"{counts[state]} {state}" for state in (*STATES, START_FAILED) if counts[state]
    )
    lines = [
        f"{plan.space.name}: {len(runs)} Runs, {num_starts} of them starts of others",
        f"  there     {states}",
    ]
    for name, info in plan.infos.items():
        shape = "×".join(map(str, info.image_shape))
        state = "to be prepared" if name in plan.unprepared else "prepared"
        lines.append(
            f"  task      {name}: {info.num_train:,} training and {info.num_test:,} test images of "
            f"{shape}, {info.num_classes} classes ({state})"
        )
    if price is not None and price.largest is not None:
        lines += _price_lines(price)
    lines += _predictions_lines(plan)
    lines += failure_lines(plan.inventory)
    lines += [f"  warning: {each}" for each in plan.warnings]
    return "\n".join(lines)


def _price_lines(price: Price) -> list[str]:
    whole, shared = (f"{flops:.2g}" for flops in (price.flops, price.shared_flops))
    lines = [f"  cost      {whole} floating-point operations"]
    if shared != whole:
        lines[0] += f"; {shared} on CPUs, where features of frozen layers are made once a machine"
    one = price.machine.split()[-1].removesuffix("s")
    alone = f"; {duration(price.one_seconds)} on one {one}" if price.machine != f"1 {one}" else ""
    lines.append(
        f"  time      {price.machine} here: about {duration(price.wall_seconds)} (a few steps were "
        f"measured just now{alone})"
    )
    if max(price.elsewhere.values(), default=0.0) >= SECONDS_WORTH_TELLING:
        assumed = ", ".join(
            f"{_hours(seconds)} on one {kind}" for kind, seconds in price.elsewhere.items()
        )
        lines += [
            f"            {assumed} (assumed: {ASSUMED_SHARE:.0%} of their published peak",
            "            in the recipes' precision; not measured)",
        ]
    if price.features_bytes:
        lines.append(
            f"  disk      features of frozen layers: up to {bytes_text(price.features_bytes)} on each "
            "machine that trains on CPUs"
        )
    memory = price.largest
    assert memory is not None
    parts = ", ".join(
        f"{field.name.replace('_', ' ')} {bytes_text(getattr(memory, field.name))}"
        for field in fields(memory)
    )
    return [*lines, f"  memory    up to {bytes_text(memory.total)} a trial: {parts}"]


def _predictions_lines(plan: Plan) -> list[str]:
    num_kept = len(plan.space.with_predictions)
    if not num_kept:
        return []
    num_bytes = predictions_bytes(plan.space, plan.inventory, plan.infos)
    lines = [
        f"  disk      predictions of {num_kept} Runs are kept: {bytes_text(num_bytes)} still to come, "
        "before compression"
    ]
    return lines + _without_lines(plan.inventory)


def _without_lines(found: Inventory) -> list[str]:
    count = len(found.without_predictions)
    if not count:
        return []
    told = "1 finished Run has" if count == 1 else f"{count} finished Runs have"
    return [f"  {told} no predictions, which are wanted: trained anew, with the same rows"]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.2g} h"


def bytes_text(num_bytes: int) -> str:
    """A number of bytes for people."""
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(max(int(math.log(max(num_bytes, 1), 1024)), 1), len(units))
    return f"{num_bytes / 1024**power:.3g} {units[power - 1]}"


def status_plain(name: str, found: Inventory, heads: HeadSummary) -> dict[str, Any]:
    """All of it as plain values, for JSON; times in seconds."""
    return {
        "study": name,
        "runs": len(found.states),
        "counts": {state: found.counts()[state] for state in (*STATES, START_FAILED)},
        "states": dict(found.states),
        "causes": dict(found.causes),
        "diverged": list(heads.diverged),
        "damaged": dict(heads.damaged),
        "lost_weights": list(found.lost),
        "without_predictions": list(found.without_predictions),
        "other_starts": list(heads.other_starts),
        "trainers": dict(heads.trainers),
        "code_versions": dict(heads.code_versions),
        "heads_read": heads.num_read,
        "images_per_second": heads.images_per_second,
        "seconds_left": seconds_left(found, heads.images_per_second),
    }


def status_text(name: str, found: Inventory, heads: HeadSummary) -> str:
    """All of it for people; of what went wrong at most MAX_LISTED Runs by name."""
    counts = found.counts()
    parts = [f"{counts[state]} {state}" for state in STATES]
    if counts[START_FAILED]:
        parts.append(f"{counts[START_FAILED]} {START_FAILED}")
    lines = [f"{name}: {len(found.states)} Runs: {', '.join(parts)}"]
    left = seconds_left(found, heads.images_per_second)
    if heads.images_per_second and left is not None:
        lines.append(
            f"  {heads.images_per_second:,.0f} training images a second in the last hour of work, "
            f"about {duration(left)} left at that rate"
        )
    if heads.diverged:
        lines.append(f"  {len(heads.diverged)} of the done diverged (their loss was not finite)")
    lines += failure_lines(found)
    lines += [
        f"  damaged: {i}: {why}; `study run` makes it anew" for i, why in heads.damaged.items()
    ]
    lines += [f"  {i}: its weights are needed and gone, it is trained anew" for i in found.lost]
    lines += _without_lines(found)
    if heads.other_starts:
        lines.append(
            f"  {len(heads.other_starts)} Runs started from other weights than their start has now: "
            + ", ".join(heads.other_starts[:MAX_LISTED])
        )
    if len(heads.trainers) > 1:
        made = ", ".join(f"{n} by TRAINER {number}" for number, n in heads.trainers.items())
        lines.append(f"  rows were made by {len(heads.trainers)} versions of the code: {made}")
    if counts[DONE]:
        some = f"{heads.num_read} of " if heads.num_read < counts[DONE] else ""
        lines.append(
            f"  rows are not checked here, only the heads of {some}the done were read: study verify {name}"
        )
    return "\n".join(lines)


def failure_lines(found: Inventory) -> list[str]:
    """A line for each failed Run, with what it is and why; the last line counts the rest."""
    failed = found.ids(FAILED, START_FAILED)
    lines = [
        f"  {found.states[i]}: {i} ({describe(found.runs[i])}): {found.causes[i]}"
        for i in failed[:MAX_LISTED]
    ]
    if len(failed) > MAX_LISTED:
        lines.append(f"  … and {len(failed) - MAX_LISTED} more")
    return lines
