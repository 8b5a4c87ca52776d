"""Power loss: what a disk keeps of the calls by which a study publishes, after every single one of them.

Owns the recording of a process's calls (fsync, rename, link, unlink, mkdir, and what it says to be
published), and two disks that lose their power after any prefix of them:

- strict: what POSIX promises. A file's bytes are those of its last fsync, a name is there if its folder
  was flushed since it was given, a folder likewise.
- eager: names reach the disk at once, the bytes of files only when they are flushed (so files that hold
  nothing are met in practice).

On both, every object must be one that was published there, whole; and what was said to be published must
be there. Which bytes were written without being flushed does not matter: they are lost.
"""

from __future__ import annotations

import functools
import os
import pickle
import random
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from study.store import atomic
from tests.faults.harness import Harness, Outcome, Scenario

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
