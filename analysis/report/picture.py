"""Save a group of figures with file names and alternative texts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from analysis.plots import figures
from analysis.plots.layout import Drawn
from analysis.report.hover import tooltips


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A saved figure.

    Args:
        group: the title of the slice.
        files: paths by format.
        inches: width and height.
        hover: the tooltips, as JSON.
    """

    group: str
    heading: str
    caption: str
    alternative: str
    files: dict[str, Path]
    inches: tuple[float, float]
    hover: str


@dataclass(frozen=True, kw_only=True)
class Album:
    """A writer for the pictures of one group.

    Args:
        name: first part of the file names.
        group: the title of the slice.
        values: the slice's errors in words, for screen readers.
    """

    directory: Path
    name: str
    group: str
    values: str

    def add(self, drawn: Drawn, kind: str, heading: str, caption: str) -> Picture:
        """Save a figure with its tooltips and its alternative text."""
        figure, panels = drawn
        stem = re.sub(r"[^\w.-]+", "-", f"{self.name}-{kind}")
        width, height = figure.get_size_inches().tolist()
        return Picture(
            group=self.group,
            heading=heading,
            caption=caption,
            alternative=f"{heading}; {self.group}. {self.values} {caption}",
            files=figures.save(figure, self.directory / stem),
            inches=(width, height),
            hover=tooltips(panels),
        )


def values_in_words(end: xr.Dataset) -> str:
    """Describe the lowest and the highest mean error at the end, for screen readers."""
    mean = end["test_error"].mean("seed")
    if not np.isfinite(mean.values).any():
        return "No value is there yet."
    words = []
    for which, place in (("lowest", mean.argmin(...)), ("highest", mean.argmax(...))):
        cell = mean.isel(place)
        where = ", ".join(
            f"{name.replace('_', ' ')} {cell[name].item()}"
            for name in ("source", "network", "source_size", "size", "cut")
            if name in cell.coords
        )
        words.append(f"{which} mean test error at the end: {cell.item():.3f} ({where})")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}."
