"""Implement `study status` and `study show`, and format plans and states."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from study.cli.arguments import Data, Named, SpaceName, store_named, study_of
from study.command_line import OK, SOME_FAILED, Root, switch
from study.messages import UserError, duration
from study.planning.durations import ASSUMED_SHARE, GPU
from study.planning.estimate import SECONDS_TO_START
from study.planning.inventory import (
    STATES,
    HeadSummary,
    Inventory,
    seconds_left,
    summarise_heads,
    take_inventory,
)
from study.planning.plan import Plan, predictions_bytes
from study.run import Run, describe, to_json
from study.signals import INTERRUPTED_STATUS
from study.store import (
    Store,
    finished_ids,
    predictions_path,
    read_failure,
    read_head,
    read_rows,
    read_study,
    rows_path,
    study_names,
    weights_path,
)
from study.store.schema import ABSENT, DONE, FAILED, PARTIAL, RUNNING, START_FAILED, rows_of
from study.store.store import store_command
from study.store.unfinished import find_unfinished

if TYPE_CHECKING:
    from study.planning.estimate import Price

MAX_LISTED: Final = 20

# With less GPU time than this, a plan does not mention other GPUs.
SECONDS_WORTH_TELLING: Final = 600.0


def plan_text(plan: Plan, price: Price | None, check: str = "study check") -> str:
    """Format the plan for people.

    `price`: of the remaining Runs, None if unknown; `check`: the command that measures this machine.
    """
    runs, counts = plan.space.runs, plan.inventory.counts()
    num_starts = len({run.source for run in runs if run.source is not None})
    states = ", ".join(
        f"{counts[state]} {state}" for state in (*STATES, START_FAILED) if counts[state]
    )
    lines = [
        f"{plan.space.name}: {len(runs)} Runs, {num_starts} of them are starts of others",
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
        lines += _price_lines(price, check)
    lines += _predictions_lines(plan)
    lines += failure_lines(plan.inventory)
    lines += [f"  warning: {each}" for each in plan.warnings]
    return "\n".join(lines)


def _price_lines(price: Price, check: str) -> list[str]:
    whole, shared = (f"{flops:.2g}" for flops in (price.flops, price.shared_flops))
    lines = [f"  work      {whole} floating-point operations"]
    if shared != whole:
        lines[0] += f"; {shared} on CPUs, which compute features of frozen layers once per machine"
    unit = price.machine.split()[-1].removesuffix("s")
    lines += [
        f"  time      about {duration(price.wall_seconds)} on the {price.machine} of this machine, after "
        f"{SECONDS_TO_START:.0f} s to start Ray; --inline: {duration(price.one_seconds)} on one {unit}",
        f"            {_how_known(price, check)}",
    ]
    if max(price.elsewhere.values(), default=0.0) >= SECONDS_WORTH_TELLING:
        assumed = ", ".join(
            f"{_hours(seconds)} on one {kind}" for kind, seconds in price.elsewhere.items()
        )
        lines += [
            f"            {assumed} (assumed: {ASSUMED_SHARE:.0%} of their published peak in the",
            f"            recipes' precision, and {1e6 * GPU.step.module:.0f} µs a step for each module)",
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
    lines.append(
        f"  memory    up to {bytes_text(price.base_bytes + memory.total)} a process: Python and libraries "
        f"{bytes_text(price.base_bytes)}, {parts}"
    )
    if price.num_too_large:
        lines.append(
            f"  warning: {price.num_too_large} Runs need more memory than the "
            f"{bytes_text(price.device_bytes)} of this machine's "
            f"{'smallest GPU' if 'GPU' in price.machine else 'main memory'}"
        )
    return lines


def _how_known(price: Price, check: str) -> str:
    measure = f"`{check}` measures"
    if not price.num_measured:
        what = "the speed of other networks here" if price.measured_at else "a typical speed"
        return f"(assumed from {what}; {measure} this machine)"
    at = price.measured_at.partition("T")[0]
    if price.num_measured == price.num_networks:
        return f"(from the speed that this machine had on {at})"
    some = f"{price.num_measured} of the {price.num_networks} networks"
    return f"(from the speed of {some} here, last measured on {at}; {measure} more)"


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
    some = "1 finished Run lacks" if count == 1 else f"{count} finished Runs lack"
    return [f"  {some} the requested predictions: trained again, with the same rows"]


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.2g} h"


def bytes_text(num_bytes: int) -> str:
    units = ("KiB", "MiB", "GiB", "TiB")
    power = min(max(int(math.log(max(num_bytes, 1), 1024)), 1), len(units))
    amount = num_bytes / 1024**power
    return f"{amount:{',.0f' if amount >= 1000 else '.3g'}} {units[power - 1]}"


def status_plain(name: str, found: Inventory, heads: HeadSummary) -> dict[str, Any]:
    """Return the status as plain values, for JSON; times in seconds."""
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


def status_text(name: str, found: Inventory, heads: HeadSummary, root: str) -> str:
    """Format the status as text, with at most MAX_LISTED Runs per problem."""
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
        lines.append(
            f"  {len(heads.diverged)} of the finished Runs diverged (their loss was not finite)"
        )
    lines += failure_lines(found)
    lines += [
        f"  damaged: {i}: {why}; `study run` trains it again" for i, why in heads.damaged.items()
    ]
    lines += [f"  {i}: its weights are needed but missing, it is trained again" for i in found.lost]
    lines += _without_lines(found)
    if heads.other_starts:
        lines.append(
            f"  {len(heads.other_starts)} Runs started from weights that have been replaced since: "
            + ", ".join(heads.other_starts[:MAX_LISTED])
        )
    if len(heads.trainers) > 1:
        made = ", ".join(f"{n} by TRAINER {number}" for number, n in heads.trainers.items())
        lines.append(f"  rows were made by {len(heads.trainers)} versions of the code: {made}")
    if counts[DONE]:
        some = f"{heads.num_read} of " if heads.num_read < counts[DONE] else ""
        lines.append(
            f"  only the checksums of {some}the finished Runs were checked; to check the rows: "
            f"{store_command('verify', name, root=root)}"
        )
    return "\n".join(lines)


def failure_lines(found: Inventory) -> list[str]:
    """Return a line for each failed Run and its reason; the last line counts the rest."""
    failed = found.ids(FAILED, START_FAILED)
    lines = [
        f"  {found.states[i]}: {i} ({describe(found.runs[i])}): {found.causes[i]}"
        for i in failed[:MAX_LISTED]
    ]
    if len(failed) > MAX_LISTED:
        lines.append(f"  … and {len(failed) - MAX_LISTED} more")
    return lines


SECONDS_BETWEEN_LOOKS: Final = 5.0
CLEAR: Final = "\x1b[H\x1b[2J"  # clears a terminal


def status(
    space_name: SpaceName,
    root: Root,
    data: Data,
    exit_code: Annotated[
        bool,
        switch(
            "--exit-code",
            "exit with the status of `study run`: 0 all done, 1 some failed, 3 some are left",
        ),
    ] = False,
    as_json: Annotated[bool, switch("--json", "as JSON, with the state of each Run")] = False,
    watch: Annotated[bool, switch("--watch", "repeat until no Run is left")] = False,
) -> int:
    """Show how far a study is."""
    if as_json and watch:
        raise UserError("--watch: not allowed with --json")
    store = store_named(root)
    named = study_of(space_name, store)
    found, heads = _read_state(named, store)
    if as_json:
        print(json.dumps(status_plain(named.name, found, heads), indent=1))
    elif watch:
        found = _watch(named, store, found, heads)
    else:
        print(status_text(named.name, found, heads, store.root))
    if not exit_code:
        return OK
    if found.ids(RUNNING, PARTIAL, ABSENT):
        return INTERRUPTED_STATUS
    return SOME_FAILED if found.ids(FAILED, START_FAILED) else OK


def _watch(named: Named, store: Store, found: Inventory, heads: HeadSummary) -> Inventory:
    """Show the status until no Run is left, or until Ctrl-C; return the last inventory."""
    shown = ""
    try:
        while True:
            text = status_text(named.name, found, heads, store.root)
            if sys.stdout.isatty():
                print(f"{CLEAR}{text}", flush=True)
            elif text != shown:
                print(text, flush=True)
            shown = text
            if not found.ids(RUNNING, PARTIAL, ABSENT):
                return found
            time.sleep(SECONDS_BETWEEN_LOOKS)
            found, heads = _read_state(named, store)
    except KeyboardInterrupt:
        return found


def _read_state(named: Named, store: Store) -> tuple[Inventory, HeadSummary]:
    found = named.inventory(store)
    return found, summarise_heads(found, store)


def show(run_id: Annotated[str, typer.Argument(metavar="ID")], root: Root, data: Data) -> int:
    """Show one Run: its fields, start, state, last row, files."""
    store = store_named(root)
    run = _run_named(run_id, store)
    chain = [run]
    while chain[0].source is not None:
        chain.insert(0, chain[0].source)
    found = take_inventory(chain, store)
    lines = [f"{run.id}  {describe(run)}", f"  state    {_state(found, run)}"]
    if run.source is not None:
        source = f"{run.source.id}  {describe(run.source)} ({_state(found, run.source)})"
        lines.append(f"  start    {source}")
    lines += [f"  fields   {to_json(run)}"]
    unfinished = find_unfinished(store, run.id)
    paths = sorted(unfinished.paths.values()) if unfinished is not None else []
    if found.states[run.id] == DONE:
        ended = read_rows(store, run.id)
        made_by = ended.provenance
        last = rows_of(ended.table)[-1]
        lines += [
            f"  last row epoch {last.epoch:g}, step {last.step}: train error {last.train_error:.4f}, "
            f"test error {last.test_error:.4f}, test loss {last.test_loss:.4f}",
            f"  made by  {made_by.code_version} (TRAINER {made_by.trainer}) on {made_by.device} "
            f"({made_by.host}), {made_by.began_at} to {made_by.ended_at}, "
            f"resumed {made_by.num_resumes} times",
            f"  packages {', '.join(f'{name} {v}' for name, v in made_by.packages.items())}",
        ]
        paths.insert(0, rows_path(run.id))
        if made_by.weights_digest is not None:
            paths.insert(1, weights_path(run.id, made_by.weights_digest))
        if made_by.predictions_digest is not None:
            paths.insert(1, predictions_path(run.id, made_by.predictions_digest))
    failure = read_failure(store, run.id)
    if failure is not None:
        lines += [f"  failure  after {failure.tries} tries, {failure.at}:", failure.error.rstrip()]
    lines += [f"  file     {path}" for path in paths if store.exists(path)]
    print("\n".join(lines))
    return OK


def _state(found: Inventory, run: Run) -> str:
    cause = found.causes.get(run.id)
    return found.states[run.id] + (f": {cause}" if cause else "")


def _run_named(given: str, store: Store) -> Run:
    known = {run.id: run for name in study_names(store) for run in read_study(store, name)}
    ids = sorted(i for i in {*known, *finished_ids(store)} if i.startswith(given))
    if len(ids) != 1:
        which = f"{len(ids)} Runs, among them {', '.join(ids[:5])}" if ids else "no Run"
        raise UserError(f"ID={given}: {store.shown} has {which} with this id prefix")
    return known[ids[0]] if ids[0] in known else read_head(store, ids[0]).run
