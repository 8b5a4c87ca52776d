"""Write files and folders atomically (a hidden draft, flushed, then renamed), and CSV without formulas."""

from __future__ import annotations

import glob
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pandas as pd

from study.store import atomic
from study.store.errors import naming

_DRAFT: Final = "draft"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def draft_of(path: Path) -> Path:
    """Return a new hidden path in the folder of `path`; create the folder and remove old drafts."""
    if path.parent.is_dir():
        atomic.sweep(path.parent, f".*~{glob.escape(path.name)}.tmp")
    return atomic.temporary_beside(path)


def publish(draft: Path, path: Path) -> None:
    """Move a finished, flushed file to `path`. Raises OSError with path and cause."""
    atomic.put_file(str(path), draft, ())


@contextmanager
def folder(place: Path, *, last: str) -> Iterator[Path]:
    """Yield an empty folder, then publish its content under `place`, the file `last` at the end.

    Publishes nothing if the block raises. Other existing files stay.
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


def without_formula(text: str) -> str:
    """Return the text with an apostrophe before it if a spreadsheet would run it as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table to a CSV file without its index; no text in it is a formula."""
    safe = table.map(lambda value: without_formula(value) if isinstance(value, str) else value)
    safe.to_csv(path, index=False)
