"""Loaded by Python itself at the start of every process of a study under test, Ray's workers included.

Three things for the harness, and nothing where its variables are not set:

- A journal: every training step, checkpoint and publication is noted in the file FAULTS_JOURNAL, one
  line written at once (it survives `kill -9`). The study's own functions run as they are.
- A death at a named instant: with FAULTS_DIE_AT="EVENT REGEX [MICROSECONDS]", the process kills itself
  with SIGKILL when Python is about to perform the audited event (`open`; `os.rename`, or a link, by
  which a file gets its name, too) on a path that fits, or so many microseconds later.
- A mutation: with FAULTS_MUTATION=NAME, the study's code is broken in this way (`tests.faults.mutations`)
  when it is imported; a forked driver, which has imported it before, does so by itself.
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


def note(kind: str, run_id: str, step: int = -1) -> None:
    """One line of the journal: monotonic seconds, pid, what happened to which Run, at which step."""
    path = os.environ.get("FAULTS_JOURNAL")
    if path is None:
        return
    line = f"{time.monotonic():.6f} {os.getpid()} {kind} {run_id} {step}\n"
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(journal, line.encode())
    finally:
        os.close(journal)


def _around(owner: Any, name: str, before: Callable | None, after: Callable | None) -> None:
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def noted(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        result = inner(*args, **kwargs)
        if after is not None:
            after(*args)
        return result

    setattr(owner, name, noted)


def _watch_train(module: ModuleType) -> None:
    def begun(training: Any) -> None:
        note("begin", training.run.id, training.step)

    def stepped(training: Any) -> None:
        note("step", training.run.id, training.step)

    live: weakref.WeakSet[Any] = weakref.WeakSet()

    def counted(training: Any) -> None:
        live.add(training)
        note("live", training.run.id, len(live))

    _around(module.Training, "__iter__", begun, counted)
    _around(module.Training, "_train_step", None, stepped)


def _watch_stack(module: ModuleType) -> None:
    def begun(stack: Any) -> None:
        for member in stack.members:
            note("begin", member.run.id, stack.step)

    def stepped(stack: Any) -> None:
        for member in stack.members:
            note("step", member.run.id, stack.step)

    _around(module.Stack, "__iter__", begun, None)
    _around(module.Stack, "_train_step", None, stepped)


def _watch_run(module: ModuleType) -> None:
    def copying(checkpoints: Any) -> None:
        for job in checkpoints._jobs:
            note("save", job.run.id, job.training.step)

    _around(module.Checkpoints, "write", copying, None)
    _break(module)


def _watch_checkpoint(module: ModuleType) -> None:
    _around(module, "write_checkpoint", None, lambda _, run_id, __: note("saved", run_id))


def _watch_rows(module: ModuleType) -> None:
    _around(module, "publish_rows", None, lambda _, run, *__: note("published", run.id))


def _break(module: ModuleType) -> None:
    """By the mutation that is asked for, once the module at which it is to be done is imported."""
    wish = os.environ.get("FAULTS_MUTATION")
    if wish is not None:
        from tests.faults.mutations import MUTATIONS

        if MUTATIONS[wish].at == module.__name__:
            MUTATIONS[wish].break_code()


_WATCHED = {
    "study.launching.train_run": _watch_run,
    "study.training.loop": _watch_train,
    "study.training.stacked": _watch_stack,
    "study.store.unfinished": _watch_checkpoint,
    "study.store.rows": _watch_rows,
    "study.signals": _break,
    "study.launching.temporary_files": _break,
    "study.launching.on_ray.cluster": _break,
    "analysis.load.export": _break,
    "analysis.report.page": _break,
    "analysis.report.dataset_card": _break,
}


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the import system find the module as ever, and looks at it once it is executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _WATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        assert spec is not None and spec.loader is not None, name
        inner = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            inner(module)
            _WATCHED[name](module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def arm() -> None:
    """Obeys FAULTS_DIE_AT as it is now: at the start of a process, or after a fork."""
    wish = os.environ.get("FAULTS_DIE_AT")
    if wish is None:
        return
    wanted, pattern, *delay = wish.split(" ")
    fits = re.compile(pattern).search
    microseconds = int(delay[0]) if delay else 0

    def die() -> None:
        time.sleep(microseconds / 1e6)
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != wanted and (event, wanted) != ("os.link", "os.rename"):
            return
        path = args[1] if wanted == "os.rename" else args[0]
        if isinstance(path, str | os.PathLike) and fits(os.fspath(path)):
            if microseconds:
                threading.Thread(target=die).start()
            else:
                die()

    sys.addaudithook(hook)


if "FAULTS_JOURNAL" in os.environ or "FAULTS_DIE_AT" in os.environ or "FAULTS" in os.environ:
    sys.meta_path.insert(0, _Finder())
    arm()
