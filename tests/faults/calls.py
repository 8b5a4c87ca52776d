"""Calls to the disk: the power fails after any of them, or one of them fails."""

from __future__ import annotations

import errno
import io
import itertools
import math
import os
import pickle
import random
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

from study.launching import lease
from study.store import atomic
from tests.faults.harness import NEVER_DUE, Harness, Outcome, Scenario

Files = Mapping[str, bytes]
DISKS: Final = ("strict", "eager")


@dataclass(frozen=True)
class Call:
    """A call, or what the store does next. Paths are relative to the root.

    `kind`: the calls sync, flush (of a folder), rename, link, unlink, mkdir; publish, then published or
    "given up"; remove.
    """

    kind: str
    path: str
    other: str = ""
    content: bytes = b""


@contextmanager
def recording(root: Path) -> Iterator[list[Call]]:
    """Record what this process does below the root within the block."""
    calls: list[Call] = []
    with _recorded_by(root, calls.append):
        yield calls


def record_into(file: Path, root: Path) -> None:
    """Record until this process ends, into a file that survives SIGKILL."""
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    _recorded_by(root, lambda call: os.write(out, pickle.dumps(call))).__enter__()


def recorded(file: Path) -> list[Call]:
    """Return what `record_into` wrote."""
    found: list[Call] = []
    with file.open("rb") as stream:
        while True:
            try:
                found.append(pickle.load(stream))
            except EOFError:
                return found


def files_of(root: Path) -> dict[str, bytes]:
    """Return every file below the root by its path inside it."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def write_files(root: Path, files: Files) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _inside(root: Path) -> Callable[[Any], str | None]:
    """Return a function from a path to the path below the root, or None if it is elsewhere."""
    base = root.absolute()

    def inside(path: Any) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        given = Path(os.fsdecode(path)).absolute()
        return given.relative_to(base).as_posix() if given.is_relative_to(base) else None

    return inside


def _opened_path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _around(replaced: Sequence[tuple[Any, str, Callable[..., Any]]]) -> ExitStack:
    """Replace each function `owner.name` by `new(function, …)`."""
    stack = ExitStack()
    for owner, name, new in replaced:
        stack.enter_context(mock.patch.object(owner, name, partial(new, getattr(owner, name))))
    return stack


def _recorded_by(root: Path, record: Callable[[Call], object]) -> ExitStack:
    inside = _inside(root)

    def done(kind: str, inner: Callable[..., Any], path: Any, *given: Any, **how: Any) -> Any:
        result = inner(path, *given, **how)
        if (name := inside(path)) is not None:
            other = inside(given[0]) if kind in ("rename", "link") else None
            record(Call(kind, name, other or ""))
        return result

    def synced(inner: Callable[[int], None], descriptor: int) -> None:
        inner(descriptor)
        path = _opened_path(descriptor)
        if (name := inside(path)) is not None:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            content = b"" if is_folder else path.read_bytes()
            record(Call("flush" if is_folder else "sync", name, content=content))

    def publishing(inner: Callable[..., Any], path: str, what: Any, waits: Any, **how: Any) -> Any:
        if (name := inside(path)) is None:
            return inner(path, what, waits, **how)
        content = what.read_bytes() if isinstance(what, Path) else b"".join(what)
        record(Call("publish", name, content=content))
        result: Any = False
        try:
            result = inner(path, what, waits, **how)
        finally:
            record(Call("given up" if result is False else "published", name))
        return result

    def removing(is_folder: bool, inner: Callable[..., Any], path: str, *given: Any) -> Any:
        if (name := inside(path)) is None:
            return inner(path, *given)
        record(Call("remove", name))
        result = inner(path, *given)
        if is_folder:  # its files are removed by names relative to it
            record(Call("unlink", name))
        return result

    kinds = {name: name for name in ("rename", "link", "unlink", "mkdir")} | {"replace": "rename"}
    return _around(
        [
            (os, "fsync", synced),
            *((os, name, partial(done, kind)) for name, kind in kinds.items()),
            *((atomic, name, publishing) for name in ("put", "create", "put_file")),
            *((atomic, name, partial(removing, False)) for name in ("remove", "move")),
            (atomic, "remove_folder", partial(removing, True)),
        ]
    )


@dataclass
class _File:
    on_disk: bytes = b""


@dataclass
class Disk:
    """Names and bytes, as processes see them (`files`) and as they are on the disk (`kept_files`).

    `promised`: the contents that each path may have, with None if it may be missing.
    """

    files: dict[str, _File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    kept_files: dict[str, _File] = field(default_factory=dict)
    kept_folders: set[str] = field(default_factory=set)
    promised: dict[str, set[bytes | None]] = field(default_factory=dict)
    _underway: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def holding(cls, files: Files) -> Disk:
        """Return a disk that has had these files for long."""
        disk = cls()
        for name, content in files.items():
            disk.files[name] = disk.kept_files[name] = _File(content)
            disk.promised[name] = {content}
            disk.folders.update(_above(name))
        disk.kept_folders |= disk.folders
        return disk

    def do(self, call: Call) -> None:
        """Apply the effect of the call."""
        path = call.path
        if call.kind == "sync":
            self.files.setdefault(path, _File()).on_disk = call.content
        elif call.kind == "flush":
            self._flush(path)
        elif call.kind in ("rename", "link"):
            self.files[call.other] = self.files.setdefault(path, _File())
            if call.kind == "rename":
                del self.files[path]
        elif call.kind == "unlink":
            self.files = {n: file for n, file in self.files.items() if not _is_below(n, path)}
            self.folders = {n for n in self.folders if not _is_below(n, path)}
        elif call.kind == "mkdir":
            self.folders.add(path)
        elif call.kind == "publish":
            self.promised.setdefault(path, {None}).add(call.content)
            self._underway[path] = call.content
        elif call.kind == "published":
            self.promised[path] = {self._underway[path]}
        elif call.kind == "remove":
            for name in self.promised:
                if _is_below(name, path):
                    self.promised[name].add(None)

    def _flush(self, folder: str) -> None:
        def is_in(name: str) -> bool:
            return Path(name).parent.as_posix() == folder

        kept = {n: f for n, f in self.kept_files.items() if not is_in(n) or n in self.files}
        self.kept_files = kept | {n: f for n, f in self.files.items() if is_in(n)}
        self.kept_folders |= {n for n in self.folders if is_in(n)}

    def after_power_loss(self, disk: str) -> dict[str, bytes]:
        """Return the files that remain; a strict disk has only the names that were flushed."""
        if disk == "eager":
            return {name: file.on_disk for name, file in self.files.items()}
        return {
            name: file.on_disk
            for name, file in self.kept_files.items()
            if set(_above(name)) <= self.kept_folders
        }

    def broken_promises(self, disk: str) -> list[str]:
        """Describe the published files that are missing, and files with other contents."""
        found = self.after_power_loss(disk)
        broken = []
        for path, contents in self.promised.items():
            there = found.get(path)
            if there not in contents:
                what = "is missing" if there is None else f"is torn, {len(there)} bytes"
                broken.append(f"{path} {what} ({disk})")
        return broken


def _is_below(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")


def _above(name: str) -> list[str]:
    return [parent.as_posix() for parent in Path(name).parents if parent.as_posix() != "."]


def problems(calls: Sequence[Call], before: Files) -> list[str]:
    """Describe every promise that a power loss after any one of the calls breaks."""
    disk = Disk.holding(before)
    found: dict[str, str] = {}
    for number, call in enumerate(calls, 1):
        disk.do(call)
        for kind in DISKS:
            for broken in disk.broken_promises(kind):
                found.setdefault(broken, f"{broken} after call {number}: {call.kind} {call.path}")
    return list(found.values())


def power_loss(harness: Harness, rng: random.Random) -> Outcome:
    """Check the disk after every call of a study; continue the study from the disk after two of them."""
    scenario = harness.scenario()
    root, file = Path(scenario.root), scenario.folder / "calls"
    before = files_of(root)
    scenario.variables |= {"FAULTS_RECORD": str(file), "FAULTS_ROOT": str(root)}
    scenario.finish()
    calls = recorded(file)
    scenario.problems += problems(calls, before)
    for _ in range(2):
        disk, other = Disk.holding(before), harness.scenario()
        for call in calls[: rng.randrange(len(calls))]:
            disk.do(call)
        write_files(Path(other.root), disk.after_power_loss(rng.choice(DISKS)))
        other.finish()
        scenario.problems += other.judge().problems
    return scenario.judge(sum(call.kind in ("sync", "rename") for call in calls))


ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EINTR)
_PUBLISHING: Final = re.compile(r"write (rows|weights|predictions)/")
_BY_PATH: Final = (
    *("open", "replace", "rename", "link", "unlink", "mkdir"),
    *("stat", "utime", "listdir", "scandir"),
)


class Calls:
    """Counts calls, and lets the `number`-th fail (0: none). `failed`: that call."""

    def __init__(self, number: int, error: int, log: Callable[[str], object] | None = None) -> None:
        self.number, self.error = number, error
        self.num, self.failed = 0, ""
        self._log = log or (lambda line: None)
        self._lock = threading.Lock()

    def count(self, what: str, path: str) -> None:
        """Count one call; raise OSError if it is to fail. A busy machine has more heartbeats: ignored."""
        if threading.current_thread().name == "lease":
            return
        with self._lock:
            self.num += 1
            fails = self.num == self.number
            if fails:
                self.failed = f"{what} {path}"
            self._log(f"{'!' if fails else ''}{what} {path}\n")
        if fails:
            raise OSError(self.error, os.strerror(self.error), path)


@contextmanager
def counted(root: Path, number: int = 0, error: int = errno.EIO) -> Iterator[Calls]:
    """Count the calls below the root within the block."""
    calls = Calls(number, error)
    with _counted_by(root, calls):
        yield calls


def fail_until_exit(root: Path, number: int, error: int, file: Path) -> None:
    """Count until this process ends; write each call to a file, in a line; "!" marks the failed one."""
    lease.SECONDS_BETWEEN_QUESTIONS = math.inf  # type: ignore[misc]  # once, however long it takes
    out = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    calls = Calls(number, error, lambda line: os.write(out, line.encode()))
    _counted_by(root, calls).__enter__()


def _counted_by(root: Path, calls: Calls) -> ExitStack:
    below = _inside(root)

    def inside(path: Any) -> str | None:
        return None if (name := below(path)) == "." else name

    def by_path(
        name: str, inner: Callable[..., Any], path: Any = ".", *given: Any, **how: Any
    ) -> Any:
        if (there := inside(path)) is not None:
            calls.count(name, there)
        return inner(path, *given, **how)

    def fsync(inner: Callable[[int], None], descriptor: int) -> None:
        if (there := inside(_opened_path(descriptor))) is not None:
            calls.count("fsync", there)
        inner(descriptor)

    def opened(inner: Callable[..., Any], path: Any, *given: Any, **how: Any) -> Any:
        if (there := inside(path)) is None:
            return inner(path, *given, **how)
        calls.count("open", there)
        return _Stream(inner(path, *given, **how), there, calls)

    def tried(inner: Callable[..., Any], verb: str, path: str, waits: Any, once: Any) -> Any:
        there = inside(path)
        if there is None or verb != "read":  # pyarrow's calls cannot be replaced
            return inner(verb, path, waits, once)

        def counting() -> Any:
            calls.count(verb, there)
            return once()

        return inner(verb, path, waits, counting)

    by_paths = [(os, name, partial(by_path, name)) for name in _BY_PATH]
    return _around(
        [*by_paths, (os, "fsync", fsync), (io, "open", opened), (atomic, "tried", tried)]
    )


class _Stream:
    """A file whose calls count; written bytes are passed to the system at once."""

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


def call_fails(harness: Harness, rng: random.Random, *, times: int = 4) -> Outcome:
    """Let a random call of each of several studies fail; the first one writes a published object."""
    calls = _failing(harness, 0, errno.EIO)[1]
    publishing = [n for n, call in enumerate(calls, 1) if _PUBLISHING.match(call)]
    others = rng.sample(range(1, len(calls) + 1), times - 1)
    numbers = [rng.choice(publishing), *others]
    return _each(harness, [(number, rng.choice(ERRORS)) for number in numbers])


def each_call_fails(harness: Harness, rng: random.Random) -> Outcome:
    """Let every call fail, with every error, each in a study of its own."""
    numbers = range(1, len(_failing(harness, 0, errno.EIO)[1]) + 1)
    return _each(harness, list(itertools.product(numbers, ERRORS)))


def _failing(harness: Harness, number: int, error: int) -> tuple[Scenario, list[str]]:
    """Run a study whose `number`-th call fails; return it and all calls."""
    scenario = harness.scenario("one", checkpoint_seconds=NEVER_DUE)
    file = scenario.folder / "calls"
    scenario.variables |= {"FAULTS_ROOT": scenario.root, "FAULTS_FAIL": f"{number} {error} {file}"}
    scenario.run().wait()
    scenario.variables.clear()
    return scenario, file.read_text().splitlines()


def _each(harness: Harness, wanted: list[tuple[int, int]]) -> Outcome:
    outcomes = []
    for index, (number, error) in enumerate(wanted, 1):
        if index % 100 == 0:
            print(f"{index:,} of {len(wanted):,} calls", file=sys.stderr, flush=True)
        scenario, calls = _failing(harness, number, error)
        failed = [call for call in calls if call.startswith("!")]
        if failed:  # else the call was another thread's this time
            driver = scenario.started[-1]
            cause = "" if driver.status() == 0 else os.strerror(error)
            scenario.expect_end(driver, *range(256), says=cause)
            scenario.finish()
            outcome = scenario.judge(may_be_late=True)
            name = f"call {number}, {errno.errorcode[error]}, {failed[0][1:]}"
            found = tuple(f"{name}: {problem}" for problem in outcome.problems)
            outcomes.append(replace(outcome, problems=found))
        shutil.rmtree(scenario.folder, ignore_errors=True)
    problems = [problem for outcome in outcomes for problem in outcome.problems]
    return Outcome(
        times=len(outcomes),
        num_runs=sum(outcome.num_runs for outcome in outcomes),
        bit_equal=not problems,
        problems=tuple(problems or ([] if outcomes else ["its cause did not happen"])),
    )
