"""Save a group of figures with file names and alternative texts."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analysis.plots import figures, style

# Draws the figure: False, as wide as a page; True, in one column.
Draw = Callable[[bool], Figure]
# What a pointer is told of each panel of a figure: see `hover`.
Tell = Callable[[Figure], list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A saved figure: `files` by format; `inches` its size; `hover` what a pointer shows, as JSON.

    `group` says which slice it shows, `heading` what of it. `narrow` is the figure in one column, as SVG.
    """

    group: str
    heading: str
    caption: str
    alternative: str
    files: dict[str, Path]
    inches: tuple[float, float]
    narrow: str
    narrow_inches: tuple[float, float]
    hover: str


@dataclass(frozen=True, kw_only=True)
class Album:
    """Where the pictures of one group go; `values` is their text for who cannot see them."""

    directory: Path
    name: str
    group: str
    values: str

    def add(
        self,
        draw: Draw,
        kind: str,
        heading: str,
        caption: str | Callable[[Figure], str],
        tell: Tell | None = None,
    ) -> Picture:
        """Draws, saves and describes a picture. `caption`: its text, or what makes it of what is drawn."""
        wide, narrow = draw(False), draw(True)
        stem = re.sub(r"[^\w.-]+", "-", f"{self.name}-{kind}")
        paths = figures.save(wide, self.directory / stem)
        caption = caption if isinstance(caption, str) else caption(wide)
        panels = tell(wide) if tell else []
        for panel, same in zip(panels, tell(narrow) if tell else [], strict=True):
            panel["box"] = [panel["box"], same["box"]]
        return Picture(
            group=self.group,
            heading=heading,
            caption=caption,
            alternative=f"{heading}; {self.group}. {self.values} {caption}",
            files=dict(zip(figures.FORMATS, paths, strict=True)),
            inches=_inches(wide),
            narrow=_svg(narrow),
            narrow_inches=_inches(narrow),
            hover=json.dumps(panels, separators=(",", ":")) if panels else "",
        )


def _inches(figure: Figure) -> tuple[float, float]:
    width, height = figure.get_size_inches().tolist()
    return width, height


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    with matplotlib.rc_context(style.STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def values_in_words(end: xr.Dataset) -> str:
    """What the values are, in words: for who hears the page."""
    mean = end["test_error"].mean("seed")
    if not np.isfinite(mean.values).any():
        return "No value is there yet."
    words = []
    for which, place in (("lowest", mean.argmin(...)), ("highest", mean.argmax(...))):
        cell = mean.isel(place)
        where = ", ".join(
            f"{name.replace('_', ' ')} {cell[name].item()}"
            for name in ("source", "network", "source_size", "size", "frozen")
            if name in cell.coords
        )
        words.append(f"{which} mean test error at the end: {cell.item():.3f} ({where})")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}."
