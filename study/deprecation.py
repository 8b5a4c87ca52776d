"""Keep old public names for one release, with a DeprecationWarning."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

REMOVED_IN: Final = "0.3.0"


def warn_deprecated(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn the caller's caller that `old` was replaced by `new`.

    The message starts with `old`, a dotted name: pytest's `filterwarnings` recognizes our warnings by it.
    """
    text = f"{old} is deprecated and will be removed in {REMOVED_IN}: use {new}"
    warnings.warn(text, DeprecationWarning, stacklevel=stacklevel)


def renamed(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a `__getattr__` for a module: it warns about an old name and returns the object.

    Args:
        module: The module's `__name__`.
        names: Old name → dotted name of the same object today.
    """

    def getattr_of_module(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warn_deprecated(f"{module}.{name}", names[name])
        home, _, attribute = names[name].rpartition(".")
        return getattr(importlib.import_module(home), attribute)

    return getattr_of_module
