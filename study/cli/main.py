"""The command `study`: its verbs as one app. Must stay importable without torch and Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from study.cli.run import VERBS
from study.command_line import new_app, perform
from study.store.provenance import code_version

app = new_app("Transfer learning seen through double descent.", completion=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"freezewise {code_version()}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Options without a verb."""


for name, act in VERBS.items():
    app.command(name)(act)


def main(argv: Sequence[str] | None = None) -> int:
    """Perform the verb in `argv` (default: of the process); return the exit status."""
    return perform(app, "study", argv)
