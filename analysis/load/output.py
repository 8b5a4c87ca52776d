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
    """Return a new hidden path for a draft of `path`; create the folder and remove old drafts."""
    if path.parent.is_dir():
        atomic.sweep(path.parent, f".*~{glob.escape(path.name)}.tmp")
    return atomic.temporary_beside(path)


def publish(draft: Path, path: Path) -> None:
    """Flush a finished draft and move it to `path`. Raises OSError with path and cause."""
    atomic.put_file(str(path), draft, ())


@contextmanager
def folder(place: Path, *, last: str) -> Iterator[Path]:
    """Yield an empty folder; after the block, publish its files under `place`, the file `last` last.

    If the block raises, nothing is published. Other files in `place` are kept.
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
    """Return the text, after an apostrophe if a spreadsheet would run the text as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table, without its index, to a CSV file in which no text is a formula."""
    safe = table.map(lambda value: without_formula(value) if isinstance(value, str) else value)
    safe.to_csv(path, index=False)
