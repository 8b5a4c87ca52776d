"""Identify a process across machines, boots, containers and reused pids, and check whether it runs."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process, identified uniquely.

    `machine` identifies machine, boot and container, in which `pid` is meaningful; `pid_start` separates
    a process from a later one with the same pid. Both are None on systems without this information.
    """

    host: str
    pid: int
    machine: str | None
    pid_start: int | None

    def is_alive(self) -> bool | None:
        """Return whether the process still runs; None if unknown, as for another machine."""
        if self.machine is None or self.machine != _machine():
            return None
        return self.pid_start is not None and _start_of(self.pid) == self.pid_start


def process_from(plain: Any) -> Process:
    """Return the process from the plain values of a file. Raises ValueError, TypeError."""
    process = Process(**plain)
    kinds = {"host": str, "pid": int, "machine": str | None, "pid_start": int | None}
    for name, kind in kinds.items():
        value = getattr(process, name)
        if not isinstance(value, kind) or (isinstance(value, str) and not value.isprintable()):
            raise ValueError(f"{name}={value!r}: not a valid entry for a process")
    return process


def this_process() -> Process:
    """Return the calling process."""
    return Process(
        host=socket.gethostname(),
        pid=os.getpid(),
        machine=_machine(),
        pid_start=_start_of(os.getpid()),
    )


def _machine() -> str | None:
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return None


def _start_of(pid: int) -> int | None:
    """Return the process's start in clock ticks since boot; None if it does not exist or has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])
