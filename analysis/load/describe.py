"""A study in five lines: for a terminal, and as a table for a notebook.

Owns these words. Reads nothing but the table of cells.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Final

import pandas as pd

from analysis.load.arms import SOURCE
from analysis.load.cells import ENDED

MAX_LISTED: Final = 8
_NONE: Final = ("none", 0, "")


def lines_of(name: str, cells: pd.DataFrame, coverage: Mapping[str, int]) -> list[tuple[str, str]]:
    """Five pairs of a word and what is said under it; `cells`, `coverage`: those of the `Study`."""
    targets = cells[cells["arm"] != SOURCE]
    targets = targets if len(targets) else cells
    counts = ", ".join(f"{n:,} {state}" for state, n in coverage.items() if n)
    width = targets["width"].map(lambda value: f" width {value}" if value else "")
    networks = _listed((targets["model"] + width).str.strip(), "")
    epochs = cells.loc[cells["state"].isin(ENDED), "last_epoch"]
    ends = f", up to {epochs.max():,.6g} epochs" if epochs.notna().any() else ""
    noise = ", ".join(f"{value:.0%}" for value in sorted(targets["label_noise"].unique()))
    return [
        ("study", f"{name}: {len(cells):,} Runs ({counts})"),
        (
            "targets",
            f"{_listed(targets['task'])}; {_listed(targets['size'])} images; label noise {noise}",
        ),
        ("sources", _sources(targets)),
        ("networks", f"{networks}; frozen layers {_listed(targets['frozen'])}"),
        ("seeds", f"{_listed(targets['seed'])}{ends}; arms: {_listed(cells['arm'])}"),
    ]


def text_of(pairs: list[tuple[str, str]]) -> str:
    """The five lines."""
    longest = max(len(word) for word, _ in pairs)
    return "\n".join(f"{word:{longest}}  {text}" for word, text in pairs)


def html_of(pairs: list[tuple[str, str]]) -> str:
    """The five lines as a table."""
    left = "style='text-align:left'"
    rows = "".join(
        f"<tr><th {left}>{word}</th><td {left}>{html.escape(text)}</td></tr>"
        for word, text in pairs
    )
    return f"<table>{rows}</table>"


def _sources(targets: pd.DataFrame) -> str:
    named = targets[~targets["source_task"].isin(_NONE)]
    if named.empty:
        return "none"
    sizes = named.loc[named["source_size"] > 0, "source_size"]
    return _listed(named["source_task"]) + (f"; {_listed(sizes)} images" if len(sizes) else "")


def _listed(values: pd.Series, empty: str = "none") -> str:
    """The different values in order, numbers short; of many the first and the last."""
    found = sorted(values.unique(), key=lambda value: (isinstance(value, str), value))
    texts = [
        value if isinstance(value, str) else f"{value:,.4g}" if value % 1 else f"{value:,.0f}"
        for value in found
    ]
    if len(texts) > MAX_LISTED:
        texts = [*texts[: MAX_LISTED - 2], "…", texts[-1]]
    return ", ".join(texts) or empty
