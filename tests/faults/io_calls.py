"""The n-th call by which a driver reads or writes its store fails, once: with EIO, ENOSPC or EINTR.

Owns what is counted as a call: Python's own (open, read, write, fsync, rename, link, unlink, mkdir, stat,
utime, listings), and each reading, of which pyarrow does a part. The
study is one Run from nothing, so that a sweep over every n is some hundreds of studies.
"""

from __future__ import annotations

import errno
import functools
import io
import itertools
import os
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from study.store import atomic
from tests.faults.harness import Harness, Outcome, Scenario, removed

TOLD_EVERY: Final = 100

ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EINTR)
_PUBLISHING: Final = re.compile(r"write (rows|weights|predictions)/")
_OF_PYARROW: Final = "read"
_BY_PATH: Final = (
    "open",
    "replace",
    "rename",
    "link",
    "unlink",
    "mkdir",
    "stat",
    "utime",
    "listdir",
    "scandir",
)


class Calls:
    """Counts, and lets the `number`-th fail (0: none). `failed`: which one that was."""

    def __init__(self, number: int, error: int) -> None:
        self.number, self.error = number, error
        self.num, self.failed = 0, ""
        self._lock = threading.Lock()

    def count(self, what: str, path: str) -> None:
        """Raises OSError if this is the one."""
        with self._lock:
            self.num += 1
            if self.num != self.number:
                return
            self.failed = f"{what} {path}"
        raise OSError(self.error, os.strerror(self.error), path)


@contextmanager
def counted(root: Path, number: int = 0, error: int = errno.EIO) -> Iterator[Calls]:
    """Calls below the root within the block."""
    calls = Calls(number, error)
    with _counting(root, calls):
        yield calls


def fail_until_exit(root: Path, number: int, error: int, told: Path) -> None:
    """In this process, until it ends; a file is told each call, in a line; "!" marks what failed."""
    calls = Calls(number, error)
    _counting(root, calls).__enter__()
    write = os.write
    out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def count(what: str, path: str, inner: Callable[[str, str], None] = calls.count) -> None:
        failed_before = calls.failed
        try:
            inner(what, path)
        finally:
            mark = "" if calls.failed == failed_before else "!"
            write(out, f"{mark}{what} {path}\n".encode())

    calls.count = count  # type: ignore[method-assign]


def _counting(root: Path, calls: Calls) -> ExitStack:
    base = f"{root.absolute()}{os.sep}"

    def inside(path: Any) -> str | None:
        given = os.fsdecode(path) if isinstance(path, str | os.PathLike) else ""
        return given.removeprefix(base) if given.startswith(base) else None

    def by_path(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(inner)
        def counting(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if (there := inside(path)) is not None:
                calls.count(name, there)
            return inner(path, *args, **kwargs)

        return counting

    def fsync(descriptor: int, inner: Callable[[int], None] = os.fsync) -> None:
        if (there := inside(Path(f"/proc/self/fd/{descriptor}").readlink())) is not None:
            calls.count("fsync", there)
        inner(descriptor)

    def opened(path: Any, *args: Any, inner: Callable[..., Any] = io.open, **kwargs: Any) -> Any:
        there = inside(path)
        if there is None:
            return inner(path, *args, **kwargs)
        calls.count("open", there)
        return _Stream(inner(path, *args, **kwargs), there, calls)

    def tried(verb: str, path: str, waits: Any, once: Any, inner: Any = atomic.tried) -> Any:
        there = inside(path)
        if there is None or verb != _OF_PYARROW:
            return inner(verb, path, waits, once)

        def counting() -> Any:
            calls.count(verb, there)
            return once()

        return inner(verb, path, waits, counting)

    stack = ExitStack()
    for name in _BY_PATH:
        stack.enter_context(mock.patch.object(os, name, by_path(name, getattr(os, name))))
    for owner, name, new in ((os, "fsync", fsync), (io, "open", opened), (atomic, "tried", tried)):
        stack.enter_context(mock.patch.object(owner, name, new))
    return stack


class _Stream:
    """A file of which each call counts; what is written is handed to the system at once."""

    def __init__(self, stream: Any, path: str, calls: Calls) -> None:
        self._stream, self._path, self._calls = stream, path, calls

    def read(self, *given: Any) -> Any:
        self._calls.count("read", self._path)
        return self._stream.read(*given)

    def write(self, data: Any) -> Any:
        self._calls.count("write", self._path)
        num = self._stream.write(data)
        self._stream.flush()
        return num

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def some(harness: Harness, rng: random.Random, *, times: int = 4) -> Outcome:
    """At random calls, each of another study; the first of them writes what is published."""
    calls = _calls(harness)
    publishing = [n for n, call in enumerate(calls, 1) if _PUBLISHING.match(call)]
    others = rng.sample(range(1, len(calls) + 1), times - 1)
    numbers = [rng.choice(publishing), *others]
    return _each(harness, [(number, rng.choice(ERRORS)) for number in numbers])


def every(harness: Harness, rng: random.Random) -> Outcome:
    """At every call, with every error."""
    return _each(harness, list(itertools.product(range(1, len(_calls(harness)) + 1), ERRORS)))


def _calls(harness: Harness) -> list[str]:
    """Those of a study of which none fails."""
    scenario = harness.scenario("one")
    _fail(scenario, 0, errno.EIO)
    calls, failed = _told(scenario)
    assert not failed, failed
    return calls


def _each(harness: Harness, wanted: list[tuple[int, int]]) -> Outcome:
    caused, num_runs, problems = 0, 0, []
    for index, (number, error) in enumerate(wanted, 1):
        if index % TOLD_EVERY == 0:
            print(f"{index:,} of {len(wanted):,} calls", file=sys.stderr, flush=True)
        scenario = harness.scenario("one")
        _fail(scenario, number, error)
        failed = _told(scenario)[1]
        if not failed:
            removed(scenario)
            continue  # of another thread this time, or one fewer
        driver = scenario.started[-1]
        if driver.status() != 0:
            scenario.expect(
                os.strerror(error) in driver.said(), f"the cause is not told: {driver.said()}"
            )
        scenario.expect_no_traceback(driver)
        scenario.finish()
        outcome = scenario.judge("a call fails", 1, may_be_late=True)
        caused, num_runs = caused + 1, num_runs + outcome.num_runs
        found = [
            f"call {number}, {errno.errorcode[error]}, {failed}: {problem}"
            for problem in outcome.problems
        ]
        print("".join(f"{line}\n" for line in found), end="", file=sys.stderr, flush=True)
        problems += found
        removed(scenario)
    return Outcome(
        fault="one call of a study fails",
        times=caused,
        num_runs=num_runs,
        bit_equal=not problems,
        problems=(*problems, *([] if caused else ["its cause did not happen"])),
    )


def _fail(scenario: Scenario, number: int, error: int) -> None:
    """Runs the study with this call failing."""
    told = scenario.folder / "calls"
    before = dict(scenario.variables)
    scenario.variables |= {"FAULTS_ROOT": scenario.root, "FAULTS_FAIL": f"{number} {error} {told}"}
    scenario.run().wait()
    scenario.variables = before


def _told(scenario: Scenario) -> tuple[list[str], str]:
    """All calls in their order, and the one that failed, if one did."""
    calls = (scenario.folder / "calls").read_text().splitlines()
    failed = [call.removeprefix("!") for call in calls if call.startswith("!")]
    return calls, failed[0] if failed else ""
