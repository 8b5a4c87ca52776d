"""Call the analysis in another process, to write reports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from study.cli.arguments import is_ray_job
from study.command_line import OK
from study.messages import MARK, UserError, show_message
from study.planning.plan import other_study_text
from study.planning.spaces import Space, packaged
from study.store import Store, read_study, study_names
from study.store.layout import report_folder
from study.store.store import store_command, without_secrets
from study.store.studies import runs_sealed


def ask_analysis(verb: str, root: str, *arguments: str, **options: str | bool | None) -> int:
    """Run `python -m analysis`, print its output, and return its exit status.

    `options`: None and False are left out; True is a flag without a value.
    """
    ended = run_analysis(verb, root, *arguments, **options)
    sys.stderr.write(ended.stderr)
    sys.stdout.write(ended.stdout)
    return ended.returncode


def answer_of_analysis(verb: str, root: str, **options: str | bool | None) -> Any:
    """Return the JSON that `python -m analysis` prints. Raises UserError with its message if it fails."""
    ended = run_analysis(verb, root, **options)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise UserError("\n".join(line.removeprefix(MARK) for line in lines))
    return json.loads(ended.stdout)


def run_analysis(
    verb: str, root: str, *arguments: str, **options: str | bool | None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m analysis` and capture its output; arguments as in `ask_analysis`."""
    words = [verb]
    for name, value in options.items():
        if value is not None and value is not False:
            flag = f"--{name.replace('_', '-')}"
            words.append(flag if value is True else f"{flag}={value}")
    found_in = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    # Not an argument: other users can read arguments, and the root may contain credentials.
    variables = {"STUDY_ROOT": root, "PYTHONPATH": os.pathsep.join(found_in)}
    with subprocess.Popen(
        # -P: the user's working directory may have a folder `analysis`.
        [sys.executable, "-P", "-m", "analysis", *words, "--", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | variables | {"PYTHONIOENCODING": "utf-8"},
    ) as process:
        try:
            out, err = process.communicate()
        except BaseException:
            process.terminate()  # otherwise the process would publish a report later
            try:
                process.communicate(timeout=SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


SECONDS_TO_END: Final = 10.0


REPORTS: Final = Path("reports")  # relative to the working directory


def report_place(out: str | None, name: str, store: Store) -> Path | None:
    """Return the local folder of a report; None if the report goes to the store's bucket.

    `out`: the user's choice. Default: `reports/<name>` in the working directory; for a Ray job below the
    store's root, because a job's working directory is temporary.
    """
    if out is not None:
        return Path(out)
    if not is_ray_job():
        return REPORTS / name
    return store.local_path(report_folder(name))


def log_folder(name: str, store: Store) -> Path:
    """Return the local folder of logs: `logs/<name>`; for a Ray job, below the root if it is local."""
    below = store.local_path(f"logs/{name}") if is_ray_job() else None
    return below or Path("logs") / name


def refuse_passing_places(root: str, out: str | None) -> None:
    """Raise UserError if a Ray job would write rows or a report to its temporary working directory."""
    if not is_ray_job():
        return
    of_root = "STUDY_ROOT" if os.environ.get("STUDY_ROOT") == root else "--root"
    for flag, value in (("root" if root == "./store" else of_root, root), ("--out", out)):
        if value and "://" not in value and not Path(value).expanduser().is_absolute():
            raise UserError(
                f"{flag}={value}: the folder of a Ray job ({Path.cwd()}) is deleted when the job ends: "
                "give an absolute path that all nodes can read; the root can also be a bucket"
            )


@contextmanager
def changed_runs(space: Space | None, store: Store) -> Iterator[str | None]:
    """Yield the path of a file with the space's Runs if they differ from the stored study's; else None.

    Prints the difference. Raises UserError as `difference_of` does.
    """
    difference = None if space is None else difference_of(space, store)
    if space is None or not difference:
        yield None
        return
    show_message(f"{space.path}: {difference} since the last run")
    with tempfile.NamedTemporaryFile(prefix="freezewise-runs-", suffix=".json") as file:
        file.write(runs_sealed(space.runs))
        file.flush()
        yield file.name


def difference_of(space: Space, store: Store) -> str:
    """Return how the space's Runs differ from the stored study's, as "+12, −3 Runs"; "" if they do not.

    Raises UserError if the store has no study of this name (unless the space is bundled), or if space and
    stored study have no Run in common.
    """
    if space.name not in study_names(store):
        if packaged().get(space.name) == space.path:
            return ""
        raise UserError(
            f"SPACE={space.path}: {store.shown} has no study {space.name!r}; first: "
            f"{store_command('run', str(space.path), root=store.root)}"
        )
    ours, theirs = (
        {run.id for run in runs} for runs in (space.runs, read_study(store, space.name))
    )
    if ours.isdisjoint(theirs):
        raise UserError(other_study_text(space, store))
    added, removed = len(ours - theirs), len(theirs - ours)
    return f"+{added}, −{removed} Runs" if added or removed else ""


def write_report(
    study: str, store: Store, *, partial: bool, out: str | None = None, **says: str | None
) -> int:
    """Write a report; print the verdicts and, last, the path of the page; return the exit status.

    `study`: a study's name, or a file of `study export`; `says`: further options of
    `python -m analysis report`.
    """
    options = {"partial": partial, **says}
    if out is not None or not is_ray_job():  # by default reports/<study>, here
        return ask_analysis("report", store.root, study, out=out, **options)
    name = Path(study).stem if study.endswith(".parquet") else study
    place = report_place(out, name, store)
    if place is not None:
        return ask_analysis("report", store.root, study, out=str(place), **options)
    with tempfile.TemporaryDirectory(prefix="freezewise-report-") as folder:
        said = run_analysis("report", store.root, study, out=folder, **options)
        sys.stderr.write(said.stderr)
        if said.returncode != OK:
            sys.stdout.write(said.stdout)
            return said.returncode
        *verdicts, page = said.stdout.splitlines()
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                below = file.relative_to(folder).as_posix()
                store.put(f"{report_folder(name)}/{below}", file.read_bytes())
    print("\n".join(verdicts))
    print(_uri(store, f"{report_folder(name)}/{Path(page).name}"))
    return OK


def _uri(store: Store, path: str) -> str:
    base, question, options = without_secrets(store.root).partition("?")
    return f"{base.rstrip('/')}/{path}{question}{options}"
