"""Which packages the project needs, which of them are not installed here, and how to get them.

Owns the sentence for a package that is not there: much of `study` works where only the analysis is
installed, and what does not says so in one line.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterable
from importlib import metadata
from typing import Final

from study.messages import UserError

PROJECT: Final = "freezewise"
# Packages that are imported by another name than they are installed by.
_INSTALLED_BY: Final = {"sklearn": "scikit-learn", "PIL": "pillow"}


def require(*modules: str) -> None:
    """Raises UserError, with what to install, unless all of these can be imported; imports none."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise UserError(missing_text(module))


def missing_text(module: str) -> str:
    """What to say where this module cannot be imported: the command that installs all that is missing."""
    top = module.partition(".")[0]
    name = _INSTALLED_BY.get(top, top)
    wanted = " ".join(map(shlex.quote, _missing() or [name]))
    return f"this needs {name}, which is not installed here: python -m pip install {wanted}"


def require_extra(extra: str, modules: Iterable[str], *, what: str) -> None:
    """As `require`, of modules that only an extra of the project installs; `what` needs them."""
    if any(importlib.util.find_spec(module) is None for module in modules):
        wanted = [each for each in _all_requirements() if _is_of(each, extra)]
        shown = " ".join(shlex.quote(each.partition(";")[0].strip()) for each in wanted)
        raise UserError(
            f"{what} needs packages that are not installed here: python -m pip install "
            f"{shown or shlex.quote(f'{PROJECT}[{extra}]')}"
        )


def is_required(module: str) -> bool:
    """Whether this module belongs to a package that the project itself needs."""
    top = module.partition(".")[0]
    return _INSTALLED_BY.get(top, top) in map(_name_of, _requirements())


def _missing() -> list[str]:
    """The project's requirements that are not installed, as pip takes them."""
    return [each for each in _requirements() if not _is_installed(_name_of(each))]


def _requirements() -> list[str]:
    """All but those of extras."""
    return [each for each in _all_requirements() if "extra ==" not in each]


def _all_requirements() -> list[str]:
    """None where the project runs without having been installed."""
    try:
        return metadata.requires(PROJECT) or []
    except metadata.PackageNotFoundError:
        return []


def _is_of(requirement: str, extra: str) -> bool:
    return re.search(rf"extra == ['\"]{extra}['\"]", requirement) is not None


def _name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return found[0]


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
