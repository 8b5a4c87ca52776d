"""Implement the verbs of `study`; each returns its exit status.

Imports that only one verb needs stay inside it."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from study.cli.arguments import (
    Accelerator,
    Address,
    CpusPerTrial,
    Data,
    GpusPerTrial,
    SpaceName,
    TaskNames,
    count,
    default_address,
    log_name,
    positive,
    related_of,
    space_among,
    store_named,
    study_of,
    whole_path,
)
from study.cli.maintenance import compact, tidy, verify
from study.cli.reports import (
    REPORTS,
    answer_of_analysis,
    ask_analysis,
    changed_runs,
    difference_of,
    log_folder,
    refuse_passing_places,
    report_place,
    write_report,
)
from study.cli.spaces import new, spaces
from study.cli.status import bytes_text, failure_lines, show, status
from study.command_line import (
    OK,
    SOME_FAILED,
    Licence,
    Out,
    Partial,
    Question,
    Related,
    Root,
    option,
    switch,
)
from study.grid import with_starts
from study.launching.display import Screen
from study.launching.options import LOGS, LaunchOptions, refuse_without_home
from study.messages import (
    UserError,
    did_you_mean,
    duration,
    last_line,
    require,
    require_extra,
    show_message,
)
from study.planning.plan import make_plan
from study.planning.spaces import Space, chosen_ids, load_space, packaged
from study.run import describe
from study.signals import INTERRUPTED_STATUS
from study.store import (
    Registration,
    Store,
    finished_ids,
    read_failures,
    read_registrations,
    study_names,
)
from study.store.errors import naming
from study.store.prepared_tasks import repeated_text
from study.store.provenance import now
from study.store.schema import ABSENT, DONE, FAILED, PARTIAL, RUNNING, START_FAILED
from study.store.store import store_command
from study.store.studies import add_registration
from study.store.unfinished import clear_failure
from study.tasks import BUILTIN

if TYPE_CHECKING:
    from study.launching.smoke_test import FirstEpochs  # loads torch


def check(space_name: SpaceName, root: Root, data: Data) -> int:
    """Train the first epochs of two Runs; keep only their speed."""
    require("torch", "timm", "safetensors", "psutil")
    # A shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _check(space_name, root, data)
    except KeyboardInterrupt:
        print("interrupted; nothing was kept")
        return INTERRUPTED_STATUS


def _check(space_name: str, root: str, data: Path) -> int:
    screen = _activity()
    with screen:
        screen.phase("comparing the study with the store")
        space, store = load_space(space_name), store_named(root)
        plan = make_plan(space, store, data)
    if plan.wrong:
        raise UserError("\n".join(plan.wrong))
    from study.launching.smoke_test import first_epochs, peak_of_process, scratch_store
    from study.planning.cost import cost_of, work_of
    from study.planning.estimate import gpus, keep, speeds_of

    on_gpu, base_bytes = bool(gpus()), peak_of_process()
    speeds = speeds_of(on_gpus=on_gpu)
    cost = {run.id: cost_of(run, plan.infos[run.task]).flops for run in space.runs}
    by_cost = sorted(space.runs, key=lambda run: cost[run.id])
    chosen = {"cheapest": by_cost[0]}
    if by_cost[-1] != by_cost[0]:
        chosen["dearest"] = by_cost[-1]
    names = {run.task for run in with_starts(chosen.values())}
    wanted = {name: space.tasks.get(name) for name in sorted(names)}
    options = LaunchOptions().of_trial({"cpu": 1}, device="cuda" if on_gpu else "cpu")
    failed, sums = False, {}
    with scratch_store(store, wanted, data) as scratch:
        for which, run in chosen.items():
            try:
                with screen:
                    screen.phase(f"training the first epochs of the {which} Run")
                    seen = first_epochs(run, scratch, options)
                work = work_of(run, plan.infos[run.task], speeds, shares_features=not on_gpu)
                steps = work.until(work.num_steps, [key for key, _ in work.features]) - work.once
                sums[work.network, work.cut] = (steps, seen.whole / run.recipe.seeds_together)
                text = _text(seen, run.recipe.seeds_together)
            except Exception as error:  # any error of a training is a result of the check
                failed, text = True, f"fails: {type(error).__name__}: {last_line(str(error))}"
            print(f"{which}: {describe(run)}: {text}", flush=True)
    if sums:
        keep(speeds, sums, base_bytes)
        print(
            f"`{store_command('plan', space_name, root=root)}` now uses the speeds of this machine"
        )
    return SOME_FAILED if failed else OK


def _text(seen: FirstEpochs, seeds_together: int) -> str:
    where = "a GPU" if seen.device == "cuda" else "one CPU thread"
    whose = "on it" if seen.device == "cuda" else "this process, so far"
    which = "the whole Run" if seeds_together == 1 else f"{seeds_together} seeds together"
    return (
        f"trains on {where}: {seen.num_steps:,} steps ({seen.num_epochs:.2g} epochs) with evaluations in "
        f"{seen.seconds:.1f} s; {1000 * seen.per_step:.3g} ms a step, "
        f"{1000 * seen.per_evaluation:.3g} ms an evaluation, {which} in about "
        f"{duration(seen.whole)}; train loss {seen.first.train_loss:.3g} → "
        f"{seen.last.train_loss:.3g}; memory up to {bytes_text(seen.peak_bytes)} ({whose})"
    )


def prepare(task_names: TaskNames, root: Root, data: Data) -> int:
    """Read or download tasks, verify them, decode them once."""
    from study import tasks

    store, wanted = store_named(root), {}
    _refuse_unwritable("root", store.local_path(""))
    for name in task_names:
        if name in BUILTIN:
            wanted[name] = BUILTIN[name]
        elif name in packaged() or name.endswith(".py"):
            space = load_space(name)
            wanted |= {each: space.tasks[each] for each in space.task_names if each in space.tasks}
        else:
            near = did_you_mean(name, [*BUILTIN, *packaged()])
            raise UserError(
                f"TASK={name}: choose from {', '.join(BUILTIN)}, or a search space "
                f"({', '.join(packaged())}, or the path of a .py file){near}"
            )
    for name, task in wanted.items():
        try:
            with naming(store.shown):
                info = tasks.prepare(task, store, data, progress=sys.stderr.isatty()).info
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


def _activity() -> Screen:
    """Return a display of phases; it shows nothing if stderr is not a terminal."""
    return Screen(quiet=not sys.stderr.isatty())


def plan(
    space_name: SpaceName,
    root: Root,
    data: Data,
    address: Address = None,
    gpus_per_trial: GpusPerTrial = None,
    accelerator: Accelerator = None,
    cpus_per_trial: CpusPerTrial = None,
) -> int:
    """Show which Runs are done, missing or wrong, and what the missing ones cost; start nothing.

    With --address or options for resources, it also shows how many Runs fit on the Ray cluster at a time.
    """
    from study.cli.status import plan_text
    from study.planning.estimate import price as price_of
    from study.planning.plan import make_plan, place_faults

    with _activity() as screen:
        screen.phase("reading the search space")
        space, store = load_space(space_name), store_named(root)
        screen.phase("comparing the study with the store")
        made = make_plan(space, store, data)
        wrong = [*made.wrong, *place_faults("report", REPORTS / space.name)]
        price = None
        left = made.inventory.ids(RUNNING, PARTIAL, ABSENT)
        if left and not wrong:
            screen.phase("counting what each Run costs")
            price = price_of([made.inventory.runs[run_id] for run_id in left], made.infos)
    text = plan_text(made, price, store_command("check", space_name, root=root))
    # Only --address and resource options need Ray, which checks them on the cluster.
    if (accelerator, gpus_per_trial, cpus_per_trial) != (None, None, None):
        address = address or default_address()
    if address is not None:
        try:
            refuse_without_home()
            from study.launching.on_ray.tuner import look_at_cluster

            cluster = look_at_cluster(
                LaunchOptions(
                    address=address,
                    gpus_per_trial=gpus_per_trial,
                    cpus_per_trial=cpus_per_trial,
                    accelerator=accelerator,
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
        # The finished Runs are a pilot study. If they allow no estimate, the plan is still valid.
        print(
            f"  seeds     needed for each claim, by the spread over the {len(done)} finished seeds"
        )
        ask_analysis("seeds", store.root, space.name, **related_of(space))
    return OK


def register(space_name: SpaceName, root: Root, data: Data) -> int:
    """Store how a study will be judged, before its first result."""
    from study.planning.plan import make_plan

    space, store = load_space(space_name), store_named(root)
    wrong = make_plan(space, store, data).wrong
    if wrong:
        raise UserError("\n".join(wrong))
    earlier = read_registrations(store, space.name)
    # If an earlier release has stored the same terms in another form, keep the stored form.
    registered = json.dumps(dict(earlier[-1].terms)) if earlier else None
    noted = Registration(
        registered_at=now(),
        is_late=bool(space.target_ids & finished_ids(store)),
        run_ids=tuple(run.id for run in space.runs),
        terms=answer_of_analysis("terms", store.root, registered=registered, **related_of(space)),
    )
    if earlier and earlier[-1].digest == noted.digest:
        print(f"{space.name}: already registered at {earlier[-1].registered_at} ({noted.digest})")
        return OK
    add_registration(store, space.name, noted)
    print(
        f"{space.name}: registered at {noted.registered_at}: {noted.digest}, of {len(space.runs)} Runs"
    )
    if noted.is_late:
        show_message(
            "registered too late: target rows already exist. The report will be marked exploratory"
        )
    return OK


def run(
    ctx: typer.Context,
    space_name: SpaceName,
    root: Root,
    data: Data,
    out: Out = None,
    address: Address = None,
    inline: Annotated[bool, switch("--inline", "one Run after another, without Ray")] = False,
    only: Annotated[
        str | None,
        option("only these Runs and their starts, without a report: 'frozen=8,9,seed=0'", "WHICH"),
    ] = None,
    quiet: Annotated[bool, switch("--quiet", "show problems only, no progress")] = False,
    log: Annotated[
        list[str],
        option(
            "show curves during training in this tool (may be repeated); files are in logs/<study>",
            "|".join(LOGS),
            log_name,
            completion=lambda: list(LOGS),
        ),
    ] = [],  # noqa: B006 (typer makes a new list)
    node_cache: Annotated[
        Path | None,
        option(
            "a directory on each node's own disk, to which prepared tasks are copied once",
            "DIR",
            whole_path,
        ),
    ] = None,
    gpus_per_trial: GpusPerTrial = None,
    accelerator: Accelerator = None,
    cpus_per_trial: CpusPerTrial = None,
    max_concurrent: Annotated[
        int | None, option("maximum number of Runs at the same time", "N", count)
    ] = None,
    checkpoint_seconds: Annotated[
        float,
        option(
            "time between two checkpoints of a Run; a crash loses at most this much", "S", positive
        ),
    ] = LaunchOptions.checkpoint_seconds,
    grace_seconds: Annotated[
        float, option("time for Runs to write a checkpoint after Ctrl-C or SIGTERM", "S", positive)
    ] = LaunchOptions.grace_seconds,
) -> int:
    """Train what is missing, then write the report."""
    if inline and address:
        raise UserError(f"--address={address}: not allowed with --inline")
    require("torch", "timm", "safetensors", "psutil", *([] if inline else ["ray"]))
    go_on = f"to go on: {ctx.obj}"
    options = LaunchOptions(
        address=None if inline else address or default_address(),
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        accelerator=accelerator,
        logs=tuple(log),
        node_cache=node_cache,
        max_concurrent=max_concurrent,
        checkpoint_seconds=checkpoint_seconds,
        grace_seconds=grace_seconds,
        resume_hint=f"interrupted; {go_on}",
    )
    with Screen(quiet=quiet) as screen:
        return _run(space_name, root, data, options, screen, out=out, only=only, go_on=go_on)


def _run(
    space_name: str,
    root: str,
    data: Path,
    options: LaunchOptions,
    screen: Screen,
    *,
    out: str | None,
    only: str | None,
    go_on: str,
) -> int:
    from study.launching.driver import run_study
    from study.launching.lease import LeaseHeld

    screen.phase("reading the search space")
    space, store = load_space(space_name), store_named(root)
    chosen = chosen_ids(only, space.runs) if only is not None else None
    for flag, value in (("--accelerator", options.accelerator), ("--log", " ".join(options.logs))):
        if options.address is None and value:
            raise UserError(f"{flag}={value}: requires Ray. Remove it or drop --inline")
    for name in options.logs:
        require_extra(name, LOGS[name], what=f"--log {name}")
    refuse_passing_places(root, out)
    if chosen is None:
        _refuse_unwritable("report", report_place(out, space.name, store))
    try:
        found = run_study(
            space,
            store,
            data,
            replace(options, log_folder=log_folder(space.name, store)),
            screen,
            only=chosen,
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
            retry_line = store_command("retry", space_name, root=root)
            show_message(f"after fixing the cause: {retry_line}, then run this again")
        if chosen is not None:
            print(
                f"{len(found.ids(DONE))} of {len(chosen)} Runs of --only={only}, including starts, are "
                f"done. {space.name} has {len(space.runs)} Runs in all. No report was written"
            )
            return SOME_FAILED if failed else OK
        written = OK
        if found.ids(DONE):
            screen.phase("writing the report")
            with redirect_stdout(StringIO()) if screen.quiet else nullcontext():
                written = write_report(
                    space.name,
                    store,
                    partial=bool(failed),
                    out=out,
                    question=space.doc,
                    **related_of(space),
                )
        return SOME_FAILED if failed or written != OK else OK
    except LeaseHeld as held:
        raise UserError(str(held)) from held


def _refuse_unwritable(what: str, place: Path | None) -> None:
    from study.planning.plan import place_faults

    wrong = [] if place is None else list(place_faults(what, place))
    if wrong:
        raise UserError("\n".join(wrong))


def retry(space_name: SpaceName, root: Root, data: Data) -> int:
    """Let `study run` try failed Runs again."""
    store = store_named(root)
    runs = study_of(space_name, store).runs
    failures = read_failures(store)
    again = [run for run in runs if run.id in failures]
    for each in again:
        clear_failure(store, each.id)
    run_line = store_command("run", space_name, root=root)
    print(f"the next `{run_line}` tries {len(again)} Runs again")
    return OK


def export(
    space_name: SpaceName, file: Annotated[str, typer.Argument()], root: Root, data: Data
) -> int:
    """Write all rows to one file: Parquet, or .csv."""
    store = store_named(root)
    name, space = space_among(space_name)
    _refuse_changed(space, store, "export")
    return ask_analysis("export", store.root, name, file)


def publish(
    space_name: SpaceName,
    folder: Annotated[str, typer.Argument(metavar="DIR")],
    root: Root,
    data: Data,
    licence: Licence = None,
) -> int:
    """Write a folder that is a data set for the Hugging Face hub."""
    if licence is None:
        if not sys.stdin.isatty():
            raise UserError(
                "--licence: missing. Choose the licence of the data set, as the hub spells it: cc-by-4.0, "
                "cc0-1.0, …"
            )
        licence = typer.prompt("licence of the data set, as the hub spells it", default="cc-by-4.0")
    store = store_named(root)
    name, space = space_among(space_name)
    _refuse_changed(space, store, "publish")
    options = {} if space is None else {"question": space.doc, "space_file": str(space.path)}
    return ask_analysis("publish", store.root, name, folder, licence=licence, **options)


def report(
    space_name: SpaceName,
    root: Root,
    data: Data,
    partial: Partial = False,
    out: Out = None,
    question: Question = None,
    more_related: Related = None,
    less_related: Related = None,
) -> int:
    """Write figures, tables, verdicts on the claims: an HTML page."""
    study, space = space_among(space_name)
    compared = {"more_related": more_related, "less_related": less_related}
    if space is not None:
        says = related_of(space)
        for name, value in compared.items():
            if value and says:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{flag}={value}: set in the search space {space_name} already. Remove the flag"
                )
        compared |= says
        question = question or space.doc
    store = store_named(root)
    with _activity() as screen, changed_runs(space, store) as runs:
        screen.phase("writing the report")
        return write_report(
            study, store, partial=partial, out=out, question=question, runs=runs, **compared
        )


def _refuse_changed(space: Space | None, store: Store, verb: str) -> None:
    if space is not None and (difference := difference_of(space, store)):
        raise UserError(
            f"SPACE={space.path}: {difference} since the last run; run it first, or {verb} the stored "
            f"study by its name, {space.name}"
        )


def launch_files(folder: Annotated[Path, typer.Argument(metavar="DIR")]) -> int:
    """Write files that start a study on Kubernetes, Slurm, clouds."""
    from study.cli.launch_files import FILES, write_launch_files

    for path in write_launch_files(folder):
        print(f"{path}  {FILES[path.name]}")
    return OK


VERBS: Final[dict[str, Callable[..., int]]] = {
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
    "compact": compact,
    "tidy": tidy,
    "launch-files": launch_files,
}
