"""Turn Ctrl-C and SIGTERM into a request to stop after a checkpoint.

A handler only sets a flag: it can interrupt any code, so even a call to Ray could deadlock."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOPPING: Final = "stopping: Runs in training write a checkpoint (Ctrl-C again ends at once)"

INTERRUPTED_STATUS: Final = 3  # exit status of the process


class StopRequest:
    """Whether, and since when, this process has been asked to stop."""

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

        In a notebook it only ends the call: the kernel holds more than this study.
        """
        if self.is_set and number == signal.SIGINT:
            if "ipykernel" in sys.modules:
                raise KeyboardInterrupt(self._resume_hint)
            sys.stdout.flush()
            os.write(1, f"\n{self._resume_hint}\n".encode())
            os._exit(INTERRUPTED_STATUS)
        self.ask()


@contextmanager
def stop_on_signals(resume_hint: str) -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM set the yielded request; restore the handlers afterwards.

    Enter it after `ray.init`, which installs handlers of its own. Only a main thread gets signals: in
    another thread, nothing sets the request.
    """
    request = StopRequest(resume_hint)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, request.handle) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopFlag:
    """A stop request that other processes can read, as an actor."""

    def __init__(self) -> None:
        self._is_requested = False

    def request_stop(self) -> None:
        self._is_requested = True

    def is_stop_requested(self) -> bool:
        return self._is_requested
