"""Resolve the verbs' arguments: store, study, data folder, Ray address; define the exit statuses."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from study.messages import UserError
from study.planning.spaces import Space, is_file_name, load_space, packaged, unknown_text
from study.run import Run
from study.store import Store, open_store, read_study, study_names


@dataclass(frozen=True, kw_only=True)
class Named:
    """A study by its name; `space`: its file, None for a study of the store whose file is not here."""

    name: str
    runs: Sequence[Run]
    space: Space | None


def store_of(args: argparse.Namespace) -> Store:
    """The store at `--root`. Raises UserError."""
    return store_named(args.root)


def store_named(root: str | Path) -> Store:
    """The store at this root. Raises UserError."""
    try:
        return open_store(root)
    except ValueError as error:
        raise UserError(str(error)) from error


def study_of(given: str, store: Store) -> Named:
    """The study of a search space, or one that the store has where there is no such file.

    The file is run once: it is the user's, and may take its time.
    """
    spaces = packaged()
    if not is_file_name(given) and given not in spaces:
        names = study_names(store)
        if given not in names:
            raise UserError(unknown_text(given, dict.fromkeys([*names, *spaces])))
        return Named(name=given, runs=read_study(store, given), space=None)
    space = load_space(given)
    return Named(name=space.name, runs=space.runs, space=space)


def space_among(given: str) -> Space | None:
    """The search space of a file, or of one that comes along; None for any other word.

    That is then for the analysis to judge: a study of the store, or an export of one.
    """
    return load_space(given) if given.endswith(".py") or given in packaged() else None


def related_of(space: Space | None) -> dict[str, str]:
    """The two sources that the space compares, as the analysis' verbs take them; {} where it says none."""
    if space is None or space.related is None:
        return {}
    return dict(zip(("more_related", "less_related"), space.related, strict=True))


def default_data() -> Path:
    """STUDY_DATA, or ./data."""
    return Path(os.environ.get("STUDY_DATA") or "./data")


def is_ray_job() -> bool:
    """Whether `ray job submit` has started this process: it runs in a folder that is the job's own."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def default_address() -> str:
    """RAY_ADDRESS, or a Ray of this machine alone."""
    return os.environ.get("RAY_ADDRESS") or "local"


OK: Final = 0
SOME_FAILED: Final = 1
WRONG_INPUT: Final = 2
