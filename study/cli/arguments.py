"""Declare and resolve the verbs' arguments: store, study, data folder, Ray address."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from study.command_line import option
from study.launching.options import LOGS
from study.messages import UserError, did_you_mean
from study.planning.inventory import Inventory, take_inventory
from study.planning.spaces import Space, is_file_name, load_space, packaged, unknown_text
from study.run import Run
from study.store import Store, open_store, read_study, study_names
from study.tasks import BUILTIN


@dataclass(frozen=True, kw_only=True)
class Named:
    """A study's name and Runs; `space`: its search space, None if the study was read from the store."""

    name: str
    runs: Sequence[Run]
    space: Space | None

    def inventory(self, store: Store) -> Inventory:
        """Return the inventory of the Runs, with the predictions that the search space requests."""
        return take_inventory(
            self.runs,
            store,
            keep_predictions=self.space.with_predictions if self.space else (),
            keep_probabilities=self.space.with_probabilities if self.space else (),
        )


def store_named(root: str | Path) -> Store:
    """Return the store at this root. Raises UserError."""
    try:
        return open_store(root)
    except ValueError as error:
        raise UserError(str(error)) from error


def study_of(given: str, store: Store) -> Named:
    """Return the study `given`: a search-space file, a bundled space or a study in the store.

    Raises UserError if there is no such study.
    """
    spaces = packaged()
    if not is_file_name(given) and given not in spaces:
        names = study_names(store)
        if given not in names:
            raise UserError(unknown_text(given, dict.fromkeys([*names, *spaces])))
        return Named(name=given, runs=read_study(store, given), space=None)
    space = load_space(given)
    return Named(name=space.name, runs=space.runs, space=space)


def space_among(given: str) -> tuple[str, Space | None]:
    """Return the name and space of a search-space file or bundled space; else (given, None).

    Any other text may be the name of a stored study or an export; the analysis checks the name.
    """
    if not given.endswith(".py") and given not in packaged():
        return given, None
    space = load_space(given)
    return space.name, space


def related_of(space: Space | None) -> dict[str, str]:
    """Return the space's RELATED source tasks as options of `python -m analysis`; {} without RELATED."""
    if space is None or space.related is None:
        return {}
    return dict(zip(("more_related", "less_related"), space.related, strict=True))


def default_data() -> Path:
    return Path(os.environ.get("STUDY_DATA") or "./data")


def is_ray_job() -> bool:
    """Return True if `ray job submit` started this process; its working directory is then temporary."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def default_address() -> str:
    """Return RAY_ADDRESS, or the address of a local Ray."""
    return os.environ.get("RAY_ADDRESS") or "local"


def _complete_space(ctx: typer.Context) -> list[str]:
    """Complete bundled spaces, local Python files, and studies of a store that is a directory."""
    root = ctx.params["root"]
    has_studies = "://" not in root and Path(root).is_dir()
    return [*packaged(), *_files(), *(study_names(open_store(root)) if has_studies else ())]


def _complete_task() -> list[str]:
    return [*BUILTIN, *packaged(), *_files()]


def _files() -> Iterable[str]:
    return sorted(path.name for path in Path().glob("*.py"))


def _address(text: str) -> str:
    if text.startswith("ray://"):
        # With Ray Client, the driver would run without its signals, its lease and its terminal.
        raise typer.BadParameter(
            f"{text}: run this on a node of the cluster with --address auto, or as a Ray job"
        )
    return text


def log_name(text: str) -> str:
    if text not in LOGS:
        raise typer.BadParameter(f"{text}: choose from {', '.join(LOGS)}{did_you_mean(text, LOGS)}")
    return text


def whole_path(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_absolute():
        raise typer.BadParameter(f"{text}: trials run in another folder; give an absolute path")
    return path


def positive(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"{text}: choose a number above 0")
    return value


def _amount(text: str) -> float:
    value = _number(text)
    if not (0 <= value <= 1 or (value > 1 and value.is_integer())):
        raise typer.BadParameter(f"{text}: choose 0 to 1, or a whole number")
    return value


def count(text: str) -> int:
    value = _number(text)
    if value < 1 or not value.is_integer():
        raise typer.BadParameter(f"{text}: choose a whole number, 1 or more")
    return int(value)


def _number(text: str) -> float:
    """Return the number. If the text is not a number, return NaN: every comparison with NaN fails."""
    try:
        return float(text)
    except ValueError:
        return math.nan


# Every verb of a study takes --root and --data, so that one command line can be edited into another.
Data = Annotated[
    Path,
    option("directory of the image sets (STUDY_DATA; default ./data)", "DIR", default=default_data),
]
SpaceName = Annotated[str, typer.Argument(metavar="SPACE", autocompletion=_complete_space)]
OptionalSpaceName = Annotated[
    str | None, typer.Argument(metavar="SPACE", autocompletion=_complete_space)
]
TaskNames = Annotated[
    list[str], typer.Argument(metavar="TASK", autocompletion=_complete_task, help="or a SPACE")
]
Address = Annotated[
    str | None,
    option(
        "a Ray cluster: auto, or host:port (RAY_ADDRESS; else this machine)", "ADDRESS", _address
    ),
]
GpusPerTrial = Annotated[
    float | None, option("0.25: four Runs a GPU; default 1 if there are GPUs, else 0", "N", _amount)
]
CpusPerTrial = Annotated[float | None, option("default 1", "N", positive)]
Accelerator = Annotated[
    str | None, option("only on nodes with this Ray label: H100, A100, L4", "NAME")
]
