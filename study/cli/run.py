"""Implement the verbs of `study`, and `study check` in full; each returns its exit status.

Imports that only one verb needs stay inside it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final, Never

from study.cli.arguments import (
    OK,
    SOME_FAILED,
    default_address,
    related_of,
    space_among,
    store_of,
    study_of,
)
from study.cli.maintenance import tidy, verify
from study.cli.reports import (
    REPORTS,
    answer_of_analysis,
    ask_analysis,
    log_folder,
    refuse_passing_places,
    report_place,
    write_report,
)
from study.cli.spaces import new, spaces
from study.cli.status import bytes_text, failure_lines, show, status
from study.grid import with_starts
from study.launching.display import Screen
from study.launching.options import LOGS, Means
from study.launching.signals import INTERRUPTED_STATUS
from study.messages import UserError, did_you_mean, duration, last_line, show_message
from study.planning.plan import make_plan
from study.planning.spaces import chosen_ids, load_space, packaged
from study.requirements import is_required, missing_text, require, require_extra
from study.run import describe
from study.store import Registration, finished_ids, read_failures, read_registrations, study_names
from study.store.errors import naming
from study.store.prepared_tasks import repeated_text
from study.store.provenance import now
from study.store.schema import ABSENT, DONE, FAILED, PARTIAL, RUNNING, START_FAILED
from study.store.studies import add_registration
from study.store.unfinished import clear_failure
from study.tasks import BUILTIN

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


def prepare(args: argparse.Namespace) -> int:
    """Decodes the named tasks, and those of the named search spaces."""
    from study import tasks

    store, wanted = store_of(args), {}
    _refuse_unwritable("root", store.local_path(""))
    for name in args.tasks:
        if name in BUILTIN:
            wanted[name] = BUILTIN[name]
        elif name in packaged() or name.endswith(".py"):
            space = load_space(name)
            wanted |= {each: space.tasks[each] for each in space.task_names if each in space.tasks}
        else:
            near = did_you_mean(name, [*BUILTIN, *packaged()])
            raise UserError(
                f"TASK={name}: choose of {', '.join(BUILTIN)}, or a search space "
                f"({', '.join(packaged())}, or the path of a .py file){near}"
            )
    for name, task in wanted.items():
        try:
            with naming(store.shown):
                info = tasks.prepare(task, store, args.data, progress=sys.stderr.isatty()).info
        except ValueError as error:
            raise UserError(str(error)) from error
        shape = "×".join(map(str, info.image_shape))
        print(
            f"{name}: {info.num_train:,} training and {info.num_test:,} test images of {shape}, "
            f"{info.num_classes} classes"
        )
        if repeated := repeated_text(store, name):
            show_message(f"warning: {repeated}")
    return OK


def plan(args: argparse.Namespace) -> int:
    """Says how the study stands, what is left to pay, and everything that is wrong."""
    from study.cli.status import plan_text
    from study.planning.plan import make_plan, place_faults

    space, store = load_space(args.space), store_of(args)
    made = make_plan(space, store, args.data)
    wrong = [*made.wrong, *place_faults("report", REPORTS / space.name)]
    price, no_price = None, ""
    left = made.inventory.ids(RUNNING, PARTIAL, ABSENT)
    if left and not wrong:
        try:
            from study.planning.estimate import price as price_of  # torch

            price = price_of([made.inventory.runs[run_id] for run_id in left], made.infos)
        except ModuleNotFoundError as error:
            if not is_required(str(error.name)):
                raise
            no_price = f"\n  cost      not known: {missing_text(str(error.name))}"
    text = plan_text(made, price) + no_price
    # A claim is checked where it would be made; without one, nothing of Ray is asked.
    claims = (args.accelerator, args.gpus_per_trial, args.cpus_per_trial)
    address = args.address or (default_address() if claims != (None, None, None) else None)
    if address is not None:
        from study.launching.on_ray.tuner import look_at_cluster

        try:
            cluster = look_at_cluster(
                Means(
                    address=address,
                    gpus_per_trial=args.gpus_per_trial,
                    cpus_per_trial=args.cpus_per_trial,
                    accelerator=args.accelerator,
                )
            )
            text += f"\n  cluster   {cluster}"
        except UserError as error:
            wrong.append(str(error))
    print(text)
    if wrong:
        raise UserError("\n".join(wrong))
    done = {made.inventory.runs[i].seed for i in made.inventory.ids(DONE) if i in space.target_ids}
    if len(done) > 1 and space.name in study_names(store):
        # What is there is a pilot to what is to come. What cannot be told of it is no fault of the plan.
        print(
            f"  seeds     that each claim needs, by the spread over the {len(done)} that are there"
        )
        ask_analysis("seeds", root=store.root, space=space.name, **related_of(space))
    return OK


def register(args: argparse.Namespace) -> int:
    """Notes in the store by what the study will be judged, before a row of its targets is there."""
    from study.planning.plan import make_plan

    space, store = load_space(args.space), store_of(args)
    wrong = make_plan(space, store, args.data).wrong
    if wrong:
        raise UserError("\n".join(wrong))
    earlier = read_registrations(store, space.name)
    # An earlier release may have stored the same terms in another form: then its form stays.
    registered = json.dumps(dict(earlier[-1].terms)) if earlier else None
    noted = Registration(
        registered_at=now(),
        is_late=bool(space.target_ids & finished_ids(store)),
        run_ids=tuple(run.id for run in space.runs),
        terms=answer_of_analysis("terms", registered=registered, **related_of(space)),
    )
    if earlier and earlier[-1].digest == noted.digest:
        print(f"{space.name}: registered as it is at {earlier[-1].registered_at} ({noted.digest})")
        return OK
    add_registration(store, space.name, noted)
    print(
        f"{space.name}: registered at {noted.registered_at}: {noted.digest}, of {len(space.runs)} Runs"
    )
    if noted.is_late:
        show_message("targets of it have rows already: late, so its report will say exploratory")
    return OK


def run(args: argparse.Namespace) -> int:
    """Trains what is missing and writes the report, whose path is the last line."""
    require("torch", "timm", "safetensors", "psutil", *([] if args.inline else ["ray"]))
    with Screen(quiet=args.quiet) as screen:
        return _run(args, screen)


def _run(args: argparse.Namespace, screen: Screen) -> int:
    from study.launching.driver import run_study
    from study.launching.lease import LeaseHeld

    screen.phase("reading the search space")
    space, store = load_space(args.space), store_of(args)
    only = chosen_ids(args.only, space.runs) if args.only is not None else None
    for flag, value in (("--accelerator", args.accelerator), ("--log", " ".join(args.log))):
        if args.inline and value:
            raise UserError(f"{flag} {value}: that is Ray's to do, and --inline trains without it")
    for name in args.log:
        require_extra(name, LOGS[name], what=f"--log {name}")
    refuse_passing_places(args.root, args.out)
    if only is None:
        _refuse_unwritable("report", report_place(args.out, space.name, store))
    go_on = f"to go on: {args.command}"
    signal.signal(signal.SIGTERM, _as_keyboard_interrupt)
    try:
        found = run_study(
            space,
            store,
            args.data,
            Means(
                address=None if args.inline else args.address,
                gpus_per_trial=args.gpus_per_trial,
                cpus_per_trial=args.cpus_per_trial,
                accelerator=args.accelerator,
                logs=tuple(args.log),
                node_cache=args.node_cache,
                log_folder=log_folder(space.name, store),
                max_concurrent=args.max_concurrent,
                checkpoint_seconds=args.checkpoint_seconds,
                grace_seconds=args.grace_seconds,
                resume_hint=f"interrupted; {go_on}",
            ),
            screen,
            only=only,
        )
        left = found.ids(RUNNING, PARTIAL, ABSENT)
        if left:
            done = len(found.ids(DONE))
            print(f"interrupted with {done} of {len(found.states)} Runs done; {go_on}")
            return INTERRUPTED_STATUS
        failed = found.ids(FAILED, START_FAILED)
        if failed:
            show_message(
                f"{len(failed)} of {len(found.states)} Runs failed:", *failure_lines(found)
            )
            show_message(f"once the cause is gone: study retry {args.space}, then run this again")
        if only is not None:
            print(
                f"{len(found.ids(DONE))} of the {len(only)} Runs that --only={args.only} wants, starts "
                f"among them, are done; {space.name} has {len(space.runs)}, and no report was written"
            )
            return SOME_FAILED if failed else OK
        written = OK
        if found.ids(DONE):
            screen.phase("writing the report")
            written = write_report(
                space.name,
                store,
                partial=bool(failed),
                out=args.out,
                question=space.doc,
                **related_of(space),
            )
        return SOME_FAILED if failed or written != OK else OK
    except LeaseHeld as held:
        raise UserError(str(held)) from held
    except KeyboardInterrupt:
        print(f"interrupted; {go_on}")
        return INTERRUPTED_STATUS


def _refuse_unwritable(what: str, place: Path | None) -> None:
    from study.planning.plan import place_faults

    wrong = [] if place is None else list(place_faults(what, place))
    if wrong:
        raise UserError("\n".join(wrong))


def _as_keyboard_interrupt(number: int, frame: FrameType | None) -> Never:
    raise KeyboardInterrupt


def retry(args: argparse.Namespace) -> int:
    """Forgets how Runs of the study failed, so that `run` tries them again."""
    store = store_of(args)
    runs = study_of(args.space, store).runs
    failures = read_failures(store)
    again = [run for run in runs if run.id in failures]
    for each in again:
        clear_failure(store, each.id)
    print(f"{len(again)} Runs are wanted again")
    return OK


def export(args: argparse.Namespace) -> int:
    """Writes the rows of the study's finished Runs to one file."""
    space = space_among(args.space)
    name = space.name if space is not None else args.space
    return ask_analysis("export", root=store_of(args).root, space=name, file=args.file)


def publish(args: argparse.Namespace) -> int:
    """Writes a folder that is a data set for the hub; the search space goes with it."""
    space = space_among(args.space)
    path = space.path if space is not None else None
    return ask_analysis(
        "publish",
        root=store_of(args).root,
        space=space.name if space is not None else args.space,
        dir=args.dir,
        question=space.doc if space is not None else None,
        space_text=path.read_text(encoding="utf-8") if path is not None else None,
        licence=args.licence,
    )


def report(args: argparse.Namespace) -> int:
    """Writes the report, as `python -m analysis report` does; a search-space file says what it asks."""
    space = space_among(args.space)
    compared = {"more_related": args.more_related, "less_related": args.less_related}
    question = args.question
    if space is not None:
        says = related_of(space)
        for name, value in compared.items():
            if value and says:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(f"{flag}={value}: the search space {args.space} says so itself")
        compared |= says
        question = question or space.doc
    return write_report(
        space.name if space is not None else args.space,
        store_of(args),
        partial=args.partial,
        out=args.out,
        question=question,
        **compared,
    )


def launch_files(args: argparse.Namespace) -> int:
    """Writes the files by which a study is started on clusters."""
    from study.cli.launch_files import FILES, write_launch_files

    for path in write_launch_files(args.dir):
        print(f"{path}  {FILES[path.name]}")
    return OK


VERBS: Final = {
    "spaces": spaces,
    "new": new,
    "prepare": prepare,
    "plan": plan,
    "check": check,
    "register": register,
    "run": run,
    "status": status,
    "show": show,
    "retry": retry,
    "export": export,
    "publish": publish,
    "report": report,
    "verify": verify,
    "tidy": tidy,
    "launch-files": launch_files,
}
