"""The command `study`: its verbs as one app. Must stay importable without torch and Ray."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from study.cli.run import VERBS
from study.command_line import new_app, perform, switch
from study.messages import UserError
from study.store.provenance import code_version

app = new_app("Transfer learning seen through double descent.", completion=True)


@app.callback(invoke_without_command=True)
def _without_verb(
    ctx: typer.Context, version: Annotated[bool, switch("--version", "print the version")] = False
) -> None:
    if version:
        print(f"freezewise {code_version()}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        raise UserError("VERB is missing; see study --help")


for name, act in VERBS.items():
    app.command(name)(act)


def main(argv: Sequence[str] | None = None) -> int:
    """Perform the verb in `argv` (default: this process's arguments); return the exit status."""
    return perform(app, "study", argv)
