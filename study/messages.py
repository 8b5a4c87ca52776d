"""Word errors and remarks for users, including the command that installs missing packages."""

from __future__ import annotations

import difflib
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterable
from importlib import metadata
from itertools import pairwise
from typing import Final

MARK: Final = "study: "  # before each line for the user on stderr
PROJECT: Final = "freezewise"
_INSTALLED_BY: Final = {"sklearn": "scikit-learn", "PIL": "pillow"}  # module → package


class UserError(ValueError):
    """The user's input is wrong; the text explains what to change."""


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
    """Return the last line of a traceback: the exception."""
    return (error.strip().splitlines() or ["no message"])[-1]


def show_message(*lines: str) -> None:
    """Print remarks for the user on stderr."""
    for line in lines:
        print(f"{MARK}{line}", file=sys.stderr)


def require(*modules: str) -> None:
    """Raise UserError if one of these modules cannot be imported; import none."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(missing_text(module))


def require_extra(extra: str, modules: Iterable[str], *, what: str) -> None:
    """Raise UserError if one of an extra's modules cannot be imported; the message starts with `what`."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        wanted = _requirements(extra) or [f"{PROJECT}[{extra}]"]
        raise UserError(f"{what} needs packages that are not installed here: {_pip(wanted)}")


def missing_text(module: str) -> str:
    """Return a message with the command that installs all missing requirements."""
    name = _package(module)
    missing = [r for r in _requirements() if not any(metadata.distributions(name=_name_of(r)))]
    return f"this needs {name}, which is not installed here: {_pip(missing or [name])}"


def is_required(module: str) -> bool:
    """Return True if the module's package is a requirement of the project, extras excluded."""
    return _package(module) in map(_name_of, _requirements())


def _package(module: str) -> str:
    top = module.partition(".")[0]
    return _INSTALLED_BY.get(top, top)


def _requirements(extra: str | None = None) -> list[str]:
    """Return the project's requirements, or those of an extra; [] if the project is not installed."""
    try:
        all_of_them = metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return []
    if extra is None:
        return [each for each in all_of_them if "extra ==" not in each]
    marker = re.compile(rf"extra == ['\"]{extra}['\"]")
    return [each.partition(";")[0].strip() for each in all_of_them if marker.search(each)]


def _name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found[0]


def _pip(requirements: Iterable[str]) -> str:
    return f"python -m pip install {' '.join(map(shlex.quote, requirements))}"
