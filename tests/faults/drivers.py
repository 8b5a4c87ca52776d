"""`study …` as processes of their own: started, watched, killed.

A driver without Ray is forked from a server that has imported everything (torch takes seconds), and
writes no report, unless it is to be `fresh`: then it is the command as a user gives it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

TRACER: Final = Path(__file__).parent / "tracer"
PROJECT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 300.0

_PRELOADED: Final = [
    "study.cli.run",
    "study.cli.main",
    "study.launching.inline",
    "study.launching.driver",
    "study.planning.cost",
]
_FORKS: Final = multiprocessing.get_context("forkserver")


class Hung(Exception):
    """A process did not come to its end, or a moment never came."""


class Patience:
    """Is over when a driver has neither said nor noted anything for so many seconds.

    On a loaded machine everything takes many times as long, and goes on none the less.
    """

    def __init__(self, driver: Driver, seconds: float, *others: Path) -> None:
        self._files = (driver.out, driver.err, *others)
        self._seconds = seconds
        self._seen = self._sizes()
        self._since = time.monotonic()

    def is_over(self) -> bool:
        sizes = self._sizes()
        if sizes != self._seen:
            self._seen, self._since = sizes, time.monotonic()
        return time.monotonic() - self._since > self._seconds

    def _sizes(self) -> list[int]:
        return [path.stat().st_size if path.exists() else 0 for path in self._files]


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A started driver. `started_at`: monotonic seconds; `journal`: where the tracer notes its steps."""

    process: subprocess.Popen[bytes] | ForkServerProcess
    out: Path
    err: Path
    started_at: float
    journal: Path | None = None

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def status(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it runs."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Its exit status. Raises Hung, and kills it, where it makes no progress for so many seconds."""
        patience = Patience(self, seconds, *([self.journal] if self.journal else []))
        while (status := self.status()) is None:
            if patience.is_over():
                self.kill()
                raise Hung(f"no progress for {seconds:.0f} s; it said:\n{self.said()}")
            time.sleep(0.01)
        return status

    def kill(self) -> bool:
        """`kill -9`, then waits; whether it was still running."""
        was_running = self.status() is None
        if was_running:
            os.kill(self.pid, signal.SIGKILL)
        self.wait(30)
        return was_running

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; whether it was still running."""
        if self.status() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def said(self) -> str:
        """Its stdout, then its stderr."""
        return self.out.read_text() + self.err.read_text()

    def last_line(self) -> str:
        """Of stdout; "" where there is none."""
        return (self.out.read_text().splitlines() or [""])[-1]


def start(
    arguments: Sequence[str],
    folder: Path,
    *,
    name: str,
    variables: Mapping[str, str],
    fresh: bool,
    project: Path = PROJECT,
    limits: Mapping[int, int] | None = None,
    how: Mapping[str, Any] | None = None,
) -> Driver:
    """Starts `study ARGUMENTS` in a folder. `variables`: of the environment, the tracer's among them.

    `limits`: RLIMIT → value; RLIMIT_DATA is taken as bytes more than the process has. For forked ones.
    `how`: further arguments of Popen, for fresh ones; "before" are words before Python.
    """
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    started_at = time.monotonic()
    process: subprocess.Popen[bytes] | ForkServerProcess
    if fresh:
        assert not limits
        with out.open("wb") as to_out, err.open("wb") as to_err:
            given = {"stdout": to_out, "stderr": to_err, "stdin": subprocess.DEVNULL, **(how or {})}
            process = subprocess.Popen(
                [*given.pop("before", ()), sys.executable, "-m", "study", *arguments],
                cwd=folder,
                env=environment(project) | dict(variables),
                **given,
            )
    else:
        start_fork_server()
        out.touch()
        err.touch()
        process = _FORKS.Process(
            target=_forked,
            args=(list(arguments), str(folder), dict(variables), str(out), str(err), limits or {}),
        )
        process.start()
    noted = variables.get("FAULTS_JOURNAL")
    return Driver(
        process=process,
        out=out,
        err=err,
        started_at=started_at,
        journal=Path(noted) if noted else None,
    )


def environment(project: Path = PROJECT) -> dict[str, str]:
    """A process's environment in which the tracer looks on, and nothing of Ray is inherited."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "FAULTS"))
    }
    # A copy of the code has no tests: mutations are in ours.
    places = dict.fromkeys(map(str, (TRACER, project, PROJECT)))
    return kept | {"PYTHONPATH": os.pathsep.join(places), "FAULTS": "1"}


@contextmanager
def as_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """This process's own environment is this one, for what starts processes without asking."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start_fork_server() -> None:
    """Once a process; the server has no thread of torch, and forks are as new as a start."""
    from multiprocessing import forkserver

    _FORKS.set_forkserver_preload(_PRELOADED)
    with as_environment(environment() | {"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()


def stop_fork_server() -> None:
    """At the end of the harness."""
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _forked(
    arguments: list[str],
    folder: str,
    variables: dict[str, str],
    out: str,
    err: str,
    limits: dict[int, int],
) -> None:
    for path, number in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.update(variables)
    for which, value in limits.items():
        value += _data_bytes() if which == resource.RLIMIT_DATA else 0
        resource.setrlimit(which, (value, value))

    import sitecustomize  # the tracer

    from study.cli import main, run
    from tests.faults import calls, mutations

    sitecustomize.arm()
    if "FAULTS_RECORD" in variables:
        calls.record_into(Path(variables["FAULTS_RECORD"]), Path(variables["FAULTS_ROOT"]))
    if "FAULTS_FAIL" in variables:
        number, error, told = variables["FAULTS_FAIL"].split(" ", 2)
        calls.fail_until_exit(Path(variables["FAULTS_ROOT"]), int(number), int(error), Path(told))
    if "FAULTS_MUTATION" in variables:
        mutation = mutations.MUTATIONS[variables["FAULTS_MUTATION"]]
        if mutation.at.startswith("study."):
            mutation.break_code()
    # Figures take longer than the training here; fresh drivers write them.
    run.write_report = lambda *_, **__: 0  # type: ignore[assignment]
    sys.exit(main.main(arguments))


def _data_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def processes_of(folder: Path) -> list[int]:
    """Processes, Ray's included, whose journal lies in this folder."""
    mark = f"FAULTS_JOURNAL={folder}/".encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                if mark in (place / "environ").read_bytes():
                    found.append(int(place.name))
    return found


def end_processes_of(folder: Path) -> None:
    """Kills what is left of a scenario's processes."""
    for pid in processes_of(folder):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
