"""The benchmarks' one table: a line a case, Markdown, with what was to be reached."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

_HEADER: Final = ("group", "case", "unit", "baseline", "ours", "floor", "ratio", "to reach")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One case. `ours`, `baseline`, `floor`: in `unit`, None where there is no such thing.

    - `ratio`: baseline ÷ ours, where it was not taken pair by pair from `baseline` and `ours`.
    - `at_least`: what the ratio was to reach; `at_most`: what `ours` was to stay under.
    - `missing`: why there is no measurement; then all numbers are None. `has_failed`: an error is why.
    """

    group: str
    case: str
    unit: str = ""
    ours: float | None = None
    baseline: float | None = None
    floor: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    missing: str | None = None
    has_failed: bool = False

    def __post_init__(self) -> None:
        assert (self.missing is None) == (self.ours is not None), self
        if self.ratio is None and self.baseline is not None and self.ours:
            object.__setattr__(self, "ratio", self.baseline / self.ours)

    @property
    def is_reached(self) -> bool | None:
        """None where nothing was to be reached, or nothing was measured."""
        if self.at_least is not None and self.ratio is not None:
            return self.ratio >= self.at_least
        if self.at_most is not None and self.ours is not None:
            return self.ours <= self.at_most
        return None

    def cells(self) -> tuple[str, ...]:
        if self.missing is not None:
            return (self.group, self.case, f"not measured: {self.missing}", *[""] * 5)
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
    """Three digits, or all before the point: 5,120, 31.4, 0.942."""
    if value is None:
        return ""
    if value == 0:
        return "0"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def rendered(lines: Iterable[Line]) -> str:
    """The table as Markdown."""
    rows = [_HEADER, *(line.cells() for line in lines)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    texts = [_row(map(str.ljust, row, widths)) for row in rows]
    return "\n".join([texts[0], _row("-" * width for width in widths), *texts[1:]])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def missed(lines: Sequence[Line]) -> int:
    """How many goals were missed."""
    return sum(line.is_reached is False for line in lines)
