"""Write files and folders atomically: a hidden draft, flushed, then renamed."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from study.store import atomic
from study.store.errors import naming

_DRAFT: Final = "draft"


def draft_of(path: Path) -> Path:
    """A new hidden name beside `path`, whose folder is made; drafts of it that were left are removed."""
    if path.parent.is_dir():
        atomic.sweep(path.parent, f".*~{glob.escape(path.name)}.tmp")
    return atomic.temporary_beside(path)


def publish(draft: Path, path: Path) -> None:
    """Moves a finished file to its place, flushed first. Raises OSError naming path and cause."""
    atomic.put_file(str(path), draft, ())


@contextmanager
def folder(place: Path, *, last: str) -> Iterator[Path]:
    """An empty folder to write to; all that it holds is then published under `place`, `last` as the last.

    Nothing is published where the block raises. Files that were there before and are not made anew stay.
    """
    with naming(place):
        draft = draft_of(place / _DRAFT)
        draft.mkdir()
    try:
        with naming(place, instead_of=draft):
            yield draft
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda each: each == draft / last):
            publish(path, place / path.relative_to(draft))
    finally:
        shutil.rmtree(draft)
