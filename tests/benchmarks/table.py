"""The one table of the benchmarks, as Markdown: a line per case, with its goal, and the machine above."""

from __future__ import annotations

import datetime
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import timm
import torch

_HEADER: Final = ("group", "case", "unit", "baseline", "ours", "floor", "ratio", "goal")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One case. `ours`, `baseline`, `floor`: in `unit`.

    `at_least`: goal of baseline ÷ ours; `at_most`: goal of `ours`. `error`: why there is no measurement.
    """

    group: str
    case: str
    unit: str = ""
    ours: float | None = None
    baseline: float | None = None
    floor: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    error: str = ""

    @property
    def ratio(self) -> float | None:
        """Return baseline ÷ ours."""
        return self.baseline / self.ours if self.baseline is not None and self.ours else None

    @property
    def is_reached(self) -> bool | None:
        """Return True if the goal is reached, None without a goal or a measurement."""
        if self.at_least is not None and self.ratio is not None:
            return self.ratio >= self.at_least
        if self.at_most is not None and self.ours is not None:
            return self.ours <= self.at_most
        return None

    def cells(self) -> tuple[str, ...]:
        if self.error:
            return (self.group, self.case, f"not measured: {self.error}", *[""] * 5)
        numbers = (self.baseline, self.ours, self.floor, self.ratio)
        return (self.group, self.case, self.unit, *map(number, numbers), self._goal())

    def _goal(self) -> str:
        goal = ""
        if self.at_least is not None:
            goal = f"≥ {number(self.at_least)}"
        elif self.at_most is not None:
            goal = f"≤ {number(self.at_most)}"
        return f"{goal}: missed" if self.is_reached is False else goal


def number(value: float | None) -> str:
    """Return three digits, or all before the point: 5,120, 31.4, 0.942."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def rendered(lines: Iterable[Line]) -> str:
    rows = [_HEADER, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    texts = [_row(map(str.ljust, row, widths)) for row in rows]
    return "\n".join([texts[0], _row("-" * width for width in widths), *texts[1:]])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def head() -> list[str]:
    """Return lines with the date, the machine, its load, and the versions of packages."""
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    memory = psutil.virtual_memory().total / 2**30
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {_cpu()}, {os.cpu_count()} cores, "
        f"{memory:.0f} GiB, load {load}",
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), timm {timm.__version__}",
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
