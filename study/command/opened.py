"""What a verb's words name: a store, and a study by its file or by its name in the store."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from study.messages import UserError
from study.planning.spaces import load_space, packaged
from study.run import Run
from study.store import (
    Store,
    open_store,
    read_study,
    study_names,
)


def store_of(args: argparse.Namespace) -> Store:
    try:
        return open_store(args.root)
    except ValueError as error:
        raise UserError(str(error)) from error


def study_of(given: str, store: Store) -> tuple[str, Sequence[Run]]:
    """Name and Runs of a search space, or of a study that the store has where there is no such file."""
    try:
        space = load_space(given)
    except UserError:
        if given.endswith(".py") or given in packaged() or given not in study_names(store):
            raise
        return given, read_study(store, given)
    return space.name, space.runs
