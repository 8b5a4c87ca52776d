"""Turn signals that end a process into a request to stop after a checkpoint, or a KeyboardInterrupt."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOPPING: Final = "stopping: Runs in training write a checkpoint (Ctrl-C again ends at once)"

INTERRUPTED_STATUS: Final = 3  # exit status of the process

# HUP: the connection is lost. USR1, USR2: Slurm's warnings. XCPU: a limit of CPU time.
STOP_SIGNALS: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
_DEFAULT: Final = (signal.SIG_DFL, signal.default_int_handler)


class StopRequest:
    """A request to stop this process, and its time."""

    def __init__(self, resume_hint: str) -> None:
        self._resume_hint = resume_hint
        self._since: float | None = None

    @property
    def is_set(self) -> bool:
        return self._since is not None

    def seconds(self) -> float:
        """Return the seconds since the first request; 0 without one."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def ask(self) -> None:
        """Request a stop; further requests change nothing."""
        if self._since is None:
            self._since = time.monotonic()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Request a stop; a second Ctrl-C ends the process at once, without cleaning up.

        In a notebook, a second Ctrl-C only ends the call, not the kernel. The first request only sets a
        flag: a handler can interrupt any code, so even a call to Ray could deadlock.
        """
        if number == signal.SIGHUP:
            _forget_terminal()
        if self.is_set and number == signal.SIGINT:
            if "ipykernel" in sys.modules:
                raise KeyboardInterrupt(self._resume_hint)
            sys.stdout.flush()
            os.write(1, f"\n{self._resume_hint}\n".encode())
            os._exit(INTERRUPTED_STATUS)
        self.ask()


class _Interrupt(StopRequest):
    """Raises KeyboardInterrupt at the first signal; a library may swallow it, but `is_set` stays True."""

    def handle(self, number: int, frame: FrameType | None) -> None:
        is_first = not self.is_set
        super().handle(number, frame)
        if is_first:
            raise KeyboardInterrupt(self._resume_hint)


_interrupt: _Interrupt | None = None  # of the innermost `interrupt_on_signals` block


@contextmanager
def interrupt_on_signals(resume_hint: str, *, is_last: bool) -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first of STOP_SIGNALS; replace only default handlers.

    An ignored signal stays ignored, so that `nohup` keeps working. `is_last`: the process ends after the
    block, and later signals must not change its exit status.
    """
    global _interrupt
    if not _is_main_thread():
        yield
        return
    outer, _interrupt = _interrupt, _Interrupt(resume_hint)
    replaced = (*_DEFAULT, *([] if outer is None else [outer.handle]))
    before = _install(_interrupt.handle, lambda _, handler: handler in replaced)
    try:
        if outer is not None and outer.is_set:
            raise KeyboardInterrupt
        yield
    finally:
        _interrupt = outer
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if is_last else handler)


def retake_signals() -> None:
    """Install the handlers of `interrupt_on_signals` again after a library has replaced them."""
    if _interrupt is not None and _is_main_thread():
        _install(_interrupt.handle, lambda _, handler: handler is not signal.SIG_IGN)


def raise_if_swallowed() -> None:
    """Raise KeyboardInterrupt if a signal has come; a library may have swallowed the first exception."""
    if _interrupt is not None and _interrupt.is_set:
        raise KeyboardInterrupt


@contextmanager
def stop_on_signals(resume_hint: str) -> Iterator[StopRequest]:
    """Let STOP_SIGNALS set the yielded request; restore the handlers afterwards.

    Replaces any handler of SIGINT and SIGTERM, but only default handlers of other signals. Enter it after
    `ray.init`, which installs handlers of its own. Only a main thread gets signals: in another thread,
    nothing sets the request.
    """
    request, outer = StopRequest(resume_hint), _interrupt
    if not _is_main_thread():
        yield request
        return
    if outer is not None and outer.is_set:
        request.ask()
    always = (signal.SIGINT, signal.SIGTERM)
    replaced = (*_DEFAULT, *([] if outer is None else [outer.handle]))
    before = _install(
        request.handle, lambda number, handler: number in always or handler in replaced
    )
    try:
        yield request
    finally:
        if outer is not None and request.is_set:
            outer.ask()  # so that further signals do not interrupt the cleanup
        for number, handler in before.items():
            signal.signal(number, handler if outer is None else outer.handle)


def _install(
    handle: Callable[[int, FrameType | None], None], is_ours: Callable[[int, object], bool]
) -> dict[signal.Signals, signal.Handlers]:
    """Install a handler for the chosen signals; return the earlier handlers."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    chosen = {n: old for n, old in before.items() if old is not None and is_ours(n, old)}
    for number in chosen:
        signal.signal(number, handle)
    return chosen  # type: ignore[return-value]


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def lost_terminal_ignored() -> Iterator[None]:
    """Discard the output of the block, and later output, if the terminal is gone.

    Writing to a closed terminal fails, even if SIGHUP is ignored and the process continues.
    """
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _forget_terminal()


def _forget_terminal() -> None:
    """Redirect stdout and stderr to /dev/null: writing to a closed terminal raises OSError."""
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


class StopFlag:
    """A Ray actor's class: a stop request that other processes can read."""

    def __init__(self) -> None:
        self._is_requested = False

    def request_stop(self) -> None:
        self._is_requested = True

    def is_stop_requested(self) -> bool:
        return self._is_requested
