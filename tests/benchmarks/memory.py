"""The most memory that a process has held."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_gib() -> float:
    """Of this process since it runs this program, GiB resident.

    Where there is no /proc, what `getrusage` says, which can be the peak of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
