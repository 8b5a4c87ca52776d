"""What is said to a user, wherever it comes from: an error of theirs, a remark, a line of progress."""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from typing import Final, TextIO

SECONDS_BETWEEN_LINES: Final = 30.0  # in a log file
SECONDS_BETWEEN_REWRITES: Final = 0.5  # on a terminal


class UserError(ValueError):
    """Something that the user wrote, gave or asked for is wrong; the text says what to change."""


def duration(seconds: float) -> str:
    """A length of time for people, in its two largest units: "2 h 5 min"."""
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (name, length), (finer, finer_length) in pairwise(units):
        if whole >= length:
            rest = whole % length // finer_length
            return f"{whole // length} {name}" + (f" {rest} {finer}" if rest else "")
    return f"{whole} s"


def last_line(error: str) -> str:
    """Of a failure's text: the exception itself."""
    return (error.strip().splitlines() or ["no message"])[-1]


def show_message(*lines: str) -> None:
    """Remarks for the user, on stderr."""
    for line in lines:
        print(f"study: {line}", file=sys.stderr)


class Line:
    """Writes a line to a stream: in place on a terminal, else now and then as a line of its own."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._pause = SECONDS_BETWEEN_REWRITES if self._in_place else SECONDS_BETWEEN_LINES
        self._written_at = -float("inf")
        self._shown = ""

    @property
    def is_due(self) -> bool:
        """Whether the pause since the last line is over."""
        return time.monotonic() - self._written_at >= self._pause

    def write(self, text: str) -> None:
        """Shows this text now."""
        if self._in_place:
            self._stream.write("\r" + text.ljust(len(self._shown)))
        elif text != self._shown:
            self._stream.write(text + "\n")
        self._stream.flush()
        self._written_at, self._shown = time.monotonic(), text

    def end(self) -> None:
        """What is written next begins on a line of its own."""
        if self._in_place and self._shown:
            self._stream.write("\n")
            self._stream.flush()
        self._shown = ""
