"""What the author of a search space may have meant by a name that nothing has.

Python says such a thing itself where it prints a traceback, which a user of a study does not get to see.
"""

from __future__ import annotations

import builtins
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, Final

from study.messages import did_you_mean

_NO_SUCH_NAME: Final = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")
_NO_SUCH_ARGUMENT: Final = re.compile(
    r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'"
)


def near_name(error: BaseException) -> str:
    """For the end of a message: "; did you mean 'x'?", or "" where nothing known is near.

    Of a name that is imported, looked up or given as an argument. The arguments of what this project
    hands out are all named, if none is near.
    """
    if isinstance(error, ImportError) and (said := _NO_SUCH_NAME.match(str(error))):
        name, module = said.groups()
        return did_you_mean(name, _public(dir(sys.modules.get(module))))
    if isinstance(error, AttributeError) and error.name is not None:
        return did_you_mean(error.name, _public(dir(error.obj)))
    if isinstance(error, NameError) and error.name is not None:
        return did_you_mean(error.name, [*_names_at(error), *dir(builtins)])
    if isinstance(error, TypeError) and (said := _NO_SUCH_ARGUMENT.search(str(error))):
        called, name = said.groups()
        return _near_argument(name, _names_at(error).get(called))
    return ""


def _near_argument(name: str, called: Any) -> str:
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # nothing that is called, or of C, which does not say
        return ""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    choices = [each.name for each in parameters if each.kind in named]
    if near := did_you_mean(name, choices):
        return near
    is_ours = getattr(called, "__module__", "").partition(".")[0] == "study"
    return f"; choose of {', '.join(choices)}" if is_ours else ""


def _names_at(error: BaseException) -> Mapping[str, Any]:
    """What the line that raised it could name."""
    frame: FrameType | None = None
    trace = error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
    return {} if frame is None else {**frame.f_globals, **frame.f_locals}


def _public(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.startswith("_")]
