"""What a shell completes of `study …`: verbs and flags by argparse, names of spaces, tasks, studies.

Owns which names those are. Runs no search space and asks no bucket: a shell waits for it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from study.planning.spaces import packaged
from study.store import open_store, study_names
from study.tasks import BUILTIN


def complete(parser: argparse.ArgumentParser) -> None:
    """Ends the process with the completions where a shell asks for them; else does nothing.

    A shell asks once `eval "$(register-python-argcomplete study)"` has told it how.
    """
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def of_spaces(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """Spaces that come along, files of Python here, studies of a store that is a directory."""
    return [*packaged(), *_files(), *_studies(parsed_args)]


def of_tasks(parsed_args: argparse.Namespace, **_: object) -> list[str]:
    """What `study prepare` takes."""
    return [*BUILTIN, *packaged(), *_files()]


def _files() -> Iterable[str]:
    return sorted(path.name for path in Path().glob("*.py"))


def _studies(parsed_args: argparse.Namespace) -> Iterable[str]:
    if "://" in parsed_args.root or not Path(parsed_args.root).is_dir():
        return ()
    return study_names(open_store(parsed_args.root))
