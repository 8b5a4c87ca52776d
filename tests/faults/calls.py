"""Calls to the disk: the power is lost after any of them, or one of them fails."""

from __future__ import annotations

import errno
import functools
import io
import itertools
import math
import os
import pickle
import random
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from study.launching import lease
from study.store import atomic
from tests.faults.harness import NEVER_DUE, Harness, Outcome, Scenario, removed

Files = Mapping[str, bytes]
DISKS: Final = ("strict", "eager")


@dataclass(frozen=True)
class Call:
    """`kind`: sync, flush (of a folder), rename, link, unlink, mkdir, or of what is said: publish (it is
    about to be), published, given up (it was not), remove. Paths are relative to the root."""

    kind: str
    path: str
    other: str = ""
    content: bytes = b""


@contextmanager
def recording(root: Path) -> Iterator[list[Call]]:
    """Everything of the kinds of `Call` that this process does below the root within the block."""
    calls: list[Call] = []
    with _listening(root, calls.append):
        yield calls


def record_into(file: Path, root: Path) -> None:
    """Records until this process ends, into a file that survives `kill -9`."""
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    _listening(root, lambda call: os.write(out, pickle.dumps(call)) and None).__enter__()


def recorded(file: Path) -> list[Call]:
    """What `record_into` wrote."""
    found: list[Call] = []
    with file.open("rb") as stream:
        while True:
            try:
                found.append(pickle.load(stream))
            except EOFError:
                return found


def files_of(root: Path) -> dict[str, bytes]:
    """Every file below the root, by its path inside it."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def write_files(root: Path, files: Files) -> None:
    """Makes them."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _listening(root: Path, tell: Callable[[Call], None]) -> ExitStack:
    base = root.absolute()

    def inside(path: Any) -> str | None:
        given = Path(os.fsdecode(path)).absolute()
        return given.relative_to(base).as_posix() if given.is_relative_to(base) else None

    def after(kind: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(inner)
        def noted(path: Any, *args: Any, **kwargs: Any) -> Any:
            result = inner(path, *args, **kwargs)
            name = inside(path) if isinstance(path, str | os.PathLike) else None
            if name is not None:
                other = inside(args[0]) if kind in ("rename", "link") else None
                tell(Call(kind, name, other or ""))
            return result

        return noted

    def synced(inner: Callable[[int], None]) -> Callable[[int], None]:
        @functools.wraps(inner)
        def noted(descriptor: int) -> None:
            inner(descriptor)
            name = inside(Path(f"/proc/self/fd/{descriptor}").readlink())
            if name is not None:
                is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
                content = b"" if is_folder else (base / name).read_bytes()
                tell(Call("flush" if is_folder else "sync", name, content=content))

        return noted

    def publishing(inner: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(inner)
        def noted(path: str, what: Any, waits: Any, **how: Any) -> Any:
            name = inside(path)
            if name is None:
                return inner(path, what, waits, **how)
            tell(Call("publish", name, content=_bytes_of(what)))
            kind = "given up"
            try:
                result = inner(path, what, waits, **how)
                kind = "given up" if result is False else "published"
            finally:
                tell(Call(kind, name))
            return result

        return noted

    def removing(inner: Callable[..., Any], *, is_folder: bool = False) -> Callable[..., Any]:
        @functools.wraps(inner)
        def noted(path: str, *args: Any) -> Any:
            name = inside(path)
            if name is not None:
                tell(Call("remove", name))
            result = inner(path, *args)
            if name is not None and is_folder:  # its files are removed by names relative to it
                tell(Call("unlink", name))
            return result

        return noted

    stack = ExitStack()
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (os, "fsync", synced(os.fsync)),
        (os, "replace", after("rename", os.replace)),
        (os, "rename", after("rename", os.rename)),
        (os, "link", after("link", os.link)),
        (os, "unlink", after("unlink", os.unlink)),
        (os, "mkdir", after("mkdir", os.mkdir)),
        *((atomic, n, publishing(getattr(atomic, n))) for n in ("put", "create", "put_file")),
        (atomic, "remove", removing(atomic.remove)),
        (atomic, "remove_folder", removing(atomic.remove_folder, is_folder=True)),
        (atomic, "move", removing(atomic.move)),
    ]
    for owner, name, new in replaced:
        stack.enter_context(mock.patch.object(owner, name, new))
    return stack


def _bytes_of(what: Any) -> bytes:
    return what.read_bytes() if isinstance(what, Path) else b"".join(what)


@dataclass
class _File:
    on_disk: bytes = b""


@dataclass
class Disk:
    """Names and bytes, as processes see them and as they are on the disk.

    `promised`: of each path what may be found there: some of its contents, or None for nothing.
    """

    files: dict[str, _File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    kept_files: dict[str, _File] = field(default_factory=dict)
    kept_folders: set[str] = field(default_factory=set)
    promised: dict[str, set[bytes | None]] = field(default_factory=dict)
    _underway: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def holding(cls, files: Files, folders: Sequence[str] = ()) -> Disk:
        """All of this has long been on the disk."""
        disk = cls()
        for name, content in files.items():
            disk.files[name] = disk.kept_files[name] = _File(content)
            disk.promised[name] = {content}
        for name in (*files, *(f"{folder}/x" for folder in folders)):
            disk.folders.update(_above(name))
        disk.kept_folders |= disk.folders
        return disk

    def do(self, call: Call) -> None:
        """What the call does to the disk, or promises of it."""
        path = call.path
        if call.kind == "sync":
            self.files.setdefault(path, _File()).on_disk = call.content
        elif call.kind == "flush":
            self._flush(path)
        elif call.kind in ("rename", "link"):
            given = self.files.setdefault(path, _File())
            self.files[call.other] = given
            if call.kind == "rename":
                del self.files[path]
        elif call.kind == "unlink":
            for name in [n for n in self.files if n == path or n.startswith(f"{path}/")]:
                del self.files[name]
            self.folders -= {n for n in self.folders if n == path or n.startswith(f"{path}/")}
        elif call.kind == "mkdir":
            self.folders.add(path)
        elif call.kind == "publish":
            self.promised.setdefault(path, {None}).add(call.content)
            self._underway[path] = call.content
        elif call.kind == "published":
            self.promised[path] = {self._underway[path]}
        elif call.kind == "remove":
            for name in self.promised:
                if name == path or name.startswith(f"{path}/"):
                    self.promised[name].add(None)

    def _flush(self, folder: str) -> None:
        def is_in(name: str) -> bool:
            return Path(name).parent.as_posix() == folder

        for name in [n for n in self.kept_files if is_in(n) and n not in self.files]:
            del self.kept_files[name]
        self.kept_files.update({n: f for n, f in self.files.items() if is_in(n)})
        self.kept_folders |= {n for n in self.folders if is_in(n)}

    def after_power_loss(self, disk: str) -> dict[str, bytes]:
        """The files that are found there; those in folders that were lost are lost with them."""
        if disk == "eager":
            return {name: file.on_disk for name, file in self.files.items()}
        return {
            name: file.on_disk
            for name, file in self.kept_files.items()
            if set(_above(name)) <= self.kept_folders
        }

    def broken_promises(self, disk: str) -> list[str]:
        """What is found there that never was published, and what is not that was said to be."""
        found = self.after_power_loss(disk)
        broken = []
        for path, contents in self.promised.items():
            there = found.get(path)
            if there not in contents:
                what = "is not there" if there is None else f"is torn, {len(there)} bytes"
                broken.append(f"{path} {what} ({disk})")
        return broken


def _above(name: str) -> list[str]:
    return [parent.as_posix() for parent in Path(name).parents if parent.as_posix() != "."]


def problems(calls: Sequence[Call], before: Files, folders: Sequence[str] = ()) -> list[str]:
    """Every promise that is broken where the power is lost after the first, the second, … call."""
    disk = Disk.holding(before, folders)
    found: dict[str, str] = {}
    for number, call in enumerate(calls, 1):
        disk.do(call)
        for kind in DISKS:
            for broken in disk.broken_promises(kind):
                found.setdefault(broken, f"{broken} after call {number}: {call.kind} {call.path}")
    return list(found.values())


def at_every_call(harness: Harness, rng: random.Random, *, times: int = 2) -> Outcome:
    """Every prefix of a study's calls is held against what was promised; from some of them it goes on."""
    scenario = harness.scenario()
    root, file = Path(scenario.root), scenario.folder / "calls"
    before = files_of(root)
    scenario.variables |= {"FAULTS_RECORD": str(file), "FAULTS_ROOT": str(root)}
    scenario.finish()
    calls = recorded(file)
    for problem in problems(calls, before):
        scenario.expect(False, problem)
    caused = sum(call.kind in ("sync", "rename") for call in calls)
    for _ in range(times):
        _go_on(scenario, harness.scenario(), Disk.holding(before), calls, rng)
    return scenario.judge("power lost after any call", caused)


def _go_on(
    scenario: Scenario, other: Scenario, disk: Disk, calls: Sequence[Call], rng: random.Random
) -> None:
    """A study whose machine lost its power at a random call goes on, and is as if it had not."""
    for call in calls[: rng.randrange(len(calls))]:
        disk.do(call)
    write_files(Path(other.root), disk.after_power_loss(rng.choice(DISKS)))
    other.finish()
    outcome = other.judge("power lost at a call", 1)
    scenario.problems += outcome.problems


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
        """Raises OSError if this is the one. Heartbeats do not count: a busy machine has more of them."""
        if threading.current_thread().name == "lease":
            return
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
    lease.SECONDS_BETWEEN_QUESTIONS = math.inf  # type: ignore[misc]  # once, however long it takes
    calls = Calls(number, error)
    _counting(root, calls).__enter__()
    write = os.write
    out = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def count(what: str, path: str, inner: Callable[[str, str], None] = calls.count) -> None:
        if threading.current_thread().name == "lease":
            return
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
    scenario = harness.scenario("one", checkpoint_seconds=NEVER_DUE)
    _fail(scenario, 0, errno.EIO)
    calls, failed = _told(scenario)
    assert not failed, failed
    return calls


def _each(harness: Harness, wanted: list[tuple[int, int]]) -> Outcome:
    caused, num_runs, problems = 0, 0, []
    for index, (number, error) in enumerate(wanted, 1):
        if index % TOLD_EVERY == 0:
            print(f"{index:,} of {len(wanted):,} calls", file=sys.stderr, flush=True)
        scenario = harness.scenario("one", checkpoint_seconds=NEVER_DUE)
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
