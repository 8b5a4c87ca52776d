"""Start, watch and kill `study …` in a process of its own.

A driver is a fork of a server that has imported everything (torch takes seconds), and writes no report.
A `fresh` driver is the command as a user starts it.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    """A process did not end, or an awaited event did not happen."""


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A started driver. `started_at`: monotonic seconds; `journal`: the tracer's file."""

    process: subprocess.Popen[bytes] | ForkServerProcess
    out: Path
    err: Path
    started_at: float
    journal: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def status(self) -> int | None:
        """Return the exit status, negative for the signal that ended it; None while it runs."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def wait_until(
        self, is_so: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS
    ) -> bool:
        """Return True once the condition holds, False if the driver ended before.

        Raises Hung if neither output nor journal grows for `seconds`; the machine may be slow.
        """
        sizes, since = self._sizes(), time.monotonic()
        while not is_so():
            if self.status() is not None:
                return bool(is_so())
            if (now := self._sizes()) != sizes:
                sizes, since = now, time.monotonic()
            if time.monotonic() - since > seconds:
                raise Hung(f"waited {seconds:.0f} s in vain: {what}; output:\n{self.said()}")
            time.sleep(0.005)
        return True

    def _sizes(self) -> list[int]:
        files = (self.out, self.err, self.journal)
        return [path.stat().st_size if path.exists() else 0 for path in files]

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """Return the exit status. Without progress for `seconds`, kill the driver and raise Hung."""
        try:
            self.wait_until(lambda: False, "the end", seconds)
        except Hung:
            self.kill()
            raise
        status = self.status()
        assert status is not None
        return status

    def kill(self) -> bool:
        """Send SIGKILL and wait; return True if it was still running."""
        was_running = self.status() is None
        if was_running:
            os.kill(self.pid, signal.SIGKILL)
        self.wait(30)
        return was_running

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; return True if it was still running."""
        if self.status() is not None:
            return False
        os.kill(self.pid, number)
        return True

    def said(self) -> str:
        """Return its stdout, then its stderr."""
        return self.out.read_text() + self.err.read_text()

    def last_line(self) -> str:
        """Return the last line of stdout, or "" if there is none."""
        return (self.out.read_text().splitlines() or [""])[-1]


def start(
    arguments: Sequence[str],
    folder: Path,
    *,
    name: str,
    variables: Mapping[str, str],
    fresh: bool = False,
    project: Path = PROJECT,
    limits: Mapping[int, int] | None = None,
    popen: Mapping[str, Any] | None = None,
) -> Driver:
    """Start `study ARGUMENTS` in a folder.

    Args:
        variables: added to the environment.
        fresh: start the command as a user does, not a fork.
        limits: RLIMIT → value, for forks; RLIMIT_DATA in addition to what the process has.
        popen: further arguments of Popen, for fresh commands; "before" has the words before Python.
    """
    out, err = folder / f"{name}.out", folder / f"{name}.err"
    started_at = time.monotonic()
    process: subprocess.Popen[bytes] | ForkServerProcess
    if fresh or popen:
        assert not limits
        with out.open("wb") as to_out, err.open("wb") as to_err:
            given = {"stdout": to_out, "stderr": to_err, "stdin": subprocess.DEVNULL}
            given |= popen or {}
            process = subprocess.Popen(
                [*given.pop("before", ()), sys.executable, "-m", "study", *arguments],
                cwd=folder,
                env=environment(project) | dict(variables),
                **given,
            )
    else:
        out.touch()
        err.touch()
        process = _FORKS.Process(
            target=_forked,
            args=(list(arguments), str(folder), dict(variables), str(out), str(err), limits or {}),
        )
        process.start()
    journal = Path(variables["FAULTS_JOURNAL"])
    return Driver(process=process, out=out, err=err, started_at=started_at, journal=journal)


def environment(project: Path = PROJECT) -> dict[str, str]:
    """Return this environment without Ray's variables, and with the tracer."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "FAULTS"))
    }
    # A copy of the code has no tests; the mutations are in this project.
    places = dict.fromkeys(map(str, (TRACER, project, PROJECT)))
    return kept | {"PYTHONPATH": os.pathsep.join(places), "FAULTS": "1"}


@contextmanager
def as_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Replace the environment of this process, for libraries that start processes."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start_fork_server() -> None:
    """Start the server, which has no thread of torch, so that forks are like new processes."""
    from multiprocessing import forkserver

    _FORKS.set_forkserver_preload(_PRELOADED)
    with as_environment(environment() | {"OMP_NUM_THREADS": "1"}):
        forkserver.ensure_running()


def stop_fork_server() -> None:
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
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the harness may run under nohup
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
        number, error, file = variables["FAULTS_FAIL"].split(" ", 2)
        calls.fail_until_exit(Path(variables["FAULTS_ROOT"]), int(number), int(error), Path(file))
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
    """Return the processes, Ray's included, whose journal is in this folder."""
    mark = f"FAULTS_JOURNAL={folder}/".encode()
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                if mark in (place / "environ").read_bytes():
                    found.append(int(place.name))
    return found


def end_processes_of(folder: Path) -> None:
    for pid in processes_of(folder):
        kill(pid)


def kill(pid: int) -> int:
    """Send SIGKILL; return 1, or 0 if there is no such process."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return 1
    return 0
