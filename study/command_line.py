"""Run a command line of typer functions: one-line errors and exit statuses.

Also declares the options that `study` and `python -m analysis` share. Must stay importable without
torch and Ray."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from study.messages import UserError, did_you_mean, is_required, missing_text, show_message
from study.signals import INTERRUPTED_STATUS, interrupt_on_signals
from study.store import Damaged, Newer
from study.store.errors import os_error_text
from study.store.store import default_root, without_secrets

OK: Final = 0
SOME_FAILED: Final = 1
WRONG_INPUT: Final = 2
_INTERRUPTED_BY_TYPER: Final = 130  # typer returns it for a KeyboardInterrupt


def option(
    text: str,
    metavar: str | None = None,
    parser: Callable[[str], Any] | None = None,
    *,
    default: Callable[[], Any] | None = None,
    completion: Callable[[], list[str]] | None = None,
) -> Any:
    """Declare an option with a value. `default`: a function that returns the default, when parsing."""
    return typer.Option(
        help=text,
        metavar=metavar,
        parser=parser,
        default_factory=default,
        show_default=default is None,
        autocompletion=completion,
    )


def switch(flag: str, text: str) -> Any:
    """Declare an option without a value. For a plain bool, typer would also add a flag `--no-…`."""
    return typer.Option(flag, help=text)


Root = Annotated[
    str,
    option(
        "the store: a directory or a URI (STUDY_ROOT; default ./store)",
        "ROOT",
        default=default_root,
    ),
]
Partial = Annotated[bool, switch("--partial", "write the report even if Runs are missing")]
Out = Annotated[
    str | None,
    option(
        "directory of the report; default: reports/<study> (a Ray job: <root>/reports/<study>)",
        "DIR",
    ),
]
Question = Annotated[str | None, option("the study's question, shown at the top", "TEXT")]
Related = Annotated[
    str | None, option("a source task; both flags name the pair that C5 compares", "TASK")
]
Licence = Annotated[
    str | None, option("the licence's id on the hub: cc-by-4.0, cc0-1.0, …", "NAME")
]


def new_app(text: str, *, completion: bool) -> typer.Typer:
    """Return an app without commands. `text`: its help; `completion`: add --install-completion."""
    return typer.Typer(
        help=text,
        add_completion=completion,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # plain help and errors; rich takes 0.1 s to load
        pretty_exceptions_enable=False,  # our own bugs keep Python's traceback
    )


def perform(app: typer.Typer, prog: str, argv: Sequence[str] | None) -> int:
    """Run the command in `argv` (None: this process's arguments); return its exit status.

    A command's `typer.Context.obj` is the command line as text, without credentials.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    verbs = [str(command.name) for command in app.registered_commands]
    if given and not given[0].startswith("-") and given[0] not in verbs:
        near = did_you_mean(given[0], verbs)
        return _failed(f"VERB={given[0]}: choose one of {', '.join(verbs)}{near}", WRONG_INPUT)
    line = f"{prog} {without_secrets(shlex.join(given), mark='…')}"
    go_on = f"interrupted; to go on: {line}"
    try:
        with interrupt_on_signals(go_on, is_last=argv is None):
            status: int = app(given, prog_name=prog, standalone_mode=False, obj=line)
            if status == _INTERRUPTED_BY_TYPER:
                raise KeyboardInterrupt
            return status
    except KeyboardInterrupt:
        print(go_on)
        return INTERRUPTED_STATUS
    except typer.TyperException as error:
        verb = [word for word in given[:1] if word in verbs]
        return _failed(_usage_text(error, " ".join([prog, *verb, "--help"])), WRONG_INPUT)
    except (UserError, Newer) as error:
        return _failed(str(error), WRONG_INPUT)
    except ModuleNotFoundError as error:
        if not is_required(str(error.name)):
            raise  # our own bug
        return _failed(missing_text(str(error.name)), WRONG_INPUT)
    except Damaged as error:
        return _failed(without_secrets(str(error)), SOME_FAILED)
    except OSError as error:
        return _failed(without_secrets(os_error_text(error)), SOME_FAILED)


def _usage_text(error: typer.TyperException, help_line: str) -> str:
    """Return `FLAG=value: problem` if a value is wrong; else the problem and the command for help."""
    if isinstance(error, typer.BadParameter) and error.message and error.param is not None:
        return f"{error.param.opts[0]}={error.message}"
    return f"{error.format_message().removesuffix('.')}; see {help_line}"


def _failed(text: str, exit_status: int) -> int:
    show_message(*text.splitlines())
    return exit_status
