"""Which process is which, and whether it still runs: across machines, boots, containers, reused numbers.

Owns nothing but the question. Sends no signal.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process, told from all others.

    `machine` tells machines, boots and containers apart, so that `pid` means something where it is
    the same; `pid_start` tells a process from a later one with its number. Both are None on systems
    that do not say.
    """

    host: str
    pid: int
    machine: str | None
    pid_start: int | None

    def is_alive(self) -> bool | None:
        """Whether it still runs; None where that cannot be seen from here."""
        if self.machine is None or self.machine != _machine():
            return None
        return _start_of(self.pid) == self.pid_start


def this_process() -> Process:
    """The one that asks."""
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
    """When the process began, in clock ticks since boot; None if there is none, or it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(rest[18])
