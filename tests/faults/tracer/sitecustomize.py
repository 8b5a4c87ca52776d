"""Python loads this module at the start of every process of a study under test, Ray's workers included.

It does nothing without the harness's variables:

- FAULTS_JOURNAL: the file to which every training step, checkpoint and publication is written, in one
  line and at once, so that it survives SIGKILL. The study's own functions run as they are.
- FAULTS_DIE_AT="EVENT REGEX [MICROSECONDS]": the process kills itself by SIGKILL when Python is about to
  perform the audited event (`open`; `os.rename`, links included) on a matching path, or so much later.
- FAULTS_MUTATION=NAME: the code is broken in this way (`tests.faults.mutations`) when it is imported; a
  forked driver, which has imported it before, breaks it itself.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import re
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

Note = Callable[..., Any]


def note(kind: str, run_id: str, step: int = -1) -> None:
    """Write one line: monotonic seconds, process, event, Run and step."""
    if (path := os.environ.get("FAULTS_JOURNAL")) is None:
        return
    line = f"{time.monotonic():.6f} {os.getpid()} {kind} {run_id} {step}\n"
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(journal, line.encode())
    finally:
        os.close(journal)


def _nothing(*_: Any) -> None:
    pass


def _around(owner: Any, name: str, before: Note = _nothing, after: Note = _nothing) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def noted(*args: Any, **kwargs: Any) -> Any:
        before(*args)
        result = inner(*args, **kwargs)
        after(*args)
        return result

    setattr(owner, name, noted)


def _of_training(kind: str) -> Note:
    return lambda training: note(kind, training.run.id, training.step)


def _of_stack(kind: str) -> Note:
    return lambda stack: [note(kind, member.run.id, stack.step) for member in stack.members]


_live: weakref.WeakSet[Any] = weakref.WeakSet()


def _count_live(training: Any) -> None:
    _live.add(training)
    note("live", training.run.id, len(_live))


def _watch_loop(module: ModuleType) -> None:
    _around(module.Training, "__iter__", _of_training("begin"), _count_live)
    _around(module.Training, "_train_step", after=_of_training("step"))


def _watch_stacked(module: ModuleType) -> None:
    _around(module.Stack, "__iter__", _of_stack("begin"))
    _around(module.Stack, "_train_step", after=_of_stack("step"))


def _watch_train_run(module: ModuleType) -> None:
    def begun(checkpoints: Any) -> None:
        for job in checkpoints._jobs:
            note("save", job.run.id, job.training.step)

    _around(module.Checkpoints, "write", begun)


def _watch_unfinished(module: ModuleType) -> None:
    _around(module, "write_checkpoint", after=lambda _, run_id, __: note("saved", run_id))


def _watch_rows(module: ModuleType) -> None:
    _around(module, "publish_rows", after=lambda _, run, *__: note("published", run.id))


_WATCHED = {
    "study.launching.train_run": _watch_train_run,
    "study.training.loop": _watch_loop,
    "study.training.stacked": _watch_stacked,
    "study.store.unfinished": _watch_unfinished,
    "study.store.rows": _watch_rows,
}


def _executed(module: ModuleType) -> None:
    """Watch the module, and break the code if the mutation waits for this module."""
    _WATCHED.get(module.__name__, _nothing)(module)
    if "FAULTS_MUTATION" in os.environ:
        from tests.faults.mutations import MUTATIONS

        mutation = MUTATIONS[os.environ["FAULTS_MUTATION"]]
        if mutation.at == module.__name__:
            mutation.break_code()


class _Finder(importlib.abc.MetaPathFinder):
    """Calls `_executed` after the import system has executed a module of the project."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(("study.", "analysis.")):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        inner = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            inner(module)
            _executed(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def arm() -> None:
    """Read FAULTS_DIE_AT: at the start of a process, or after a fork."""
    if "FAULTS_DIE_AT" not in os.environ:
        return
    wanted, pattern, *delay = os.environ["FAULTS_DIE_AT"].split(" ")
    seconds = int(delay[0]) / 1e6 if delay else 0.0

    def die() -> None:
        time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != wanted and (event, wanted) != ("os.link", "os.rename"):
            return
        path = args[1] if wanted == "os.rename" else args[0]
        if isinstance(path, str | os.PathLike) and re.search(pattern, os.fspath(path)):
            if seconds:
                threading.Thread(target=die).start()
            else:
                die()

    sys.addaudithook(hook)


if any(name.startswith("FAULTS") for name in os.environ):
    sys.meta_path.insert(0, _Finder())
    arm()
