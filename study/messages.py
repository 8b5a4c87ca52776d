"""Word errors and remarks for users."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Final

MARK: Final = "study: "  # before each line for the user on stderr


class UserError(ValueError):
    """The user's input is wrong; the text says what to change."""


def duration(seconds: float) -> str:
    """Return a duration for people, in its two largest units: "2 h 5 min"."""
    whole = round(seconds)
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    for (name, length), (finer, finer_length) in pairwise(units):
        if whole >= length:
            rest = whole % length // finer_length
            return f"{whole // length} {name}" + (f" {rest} {finer}" if rest else "")
    return f"{whole} s"


def did_you_mean(given: str, choices: Iterable[str]) -> str:
    """Return the end of a message: "; did you mean 'x'?", or "" if no choice is similar."""
    near = difflib.get_close_matches(given, list(choices), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def last_line(error: str) -> str:
    """Return the exception itself from the text of a failure."""
    return (error.strip().splitlines() or ["no message"])[-1]


def show_message(*lines: str) -> None:
    """Print remarks for the user on stderr."""
    for line in lines:
        print(f"{MARK}{line}", file=sys.stderr)
