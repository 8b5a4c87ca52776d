"""A grid of panels in one figure: where each stands, what it is called, what they share.

Owns the layout, in inches, so that panels keep their size whatever their number. Knows nothing of what
is drawn in a panel. Every panel's Axes carries, as its label, the JSON of what was selected for it.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.pictures import look

GAP_X: Final = 0.26
GAP_Y: Final = 0.34
GAP_BENEATH: Final = 0.1
LEGEND_ROW: Final = 0.17
TITLE_LETTER: Final = 0.084  # inches that a letter of the title takes at most, on average

# Draws one panel: its Axes, the Axes beneath it (the same one where there is none), its selection.
Draw = Callable[[Axes, Axes, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A figure with its panels, row by row.

    `lower` has a smaller panel beneath each of `upper`, or is empty; `selections` says what each panel
    shows, by dimension; `right_inches` and `top_inches` are the margins there.
    """

    figure: Figure
    upper: list[Axes]
    lower: list[Axes]
    selections: list[dict[str, Any]]
    num_columns: int
    right_inches: float
    top_inches: float


def grid(
    array: xr.DataArray,
    rows: str,
    columns: str,
    *,
    title: str,
    width: float = 2.35,
    height: float = 1.6,
    beneath: float = 0.0,
    left: float = 0.72,
    right: float,
    bottom: float = 0.68,
) -> Grid:
    """A panel of width × height inches, and one of `beneath` inches under it, for each row and column.

    A dimension that the array does not have counts as one value without a heading. Where there would
    be one column of several rows, it is laid down as one row.
    """
    if len(_values(array, columns)) == 1:
        rows, columns = columns, rows
    row_values, column_values = _values(array, rows), _values(array, columns)
    left = left + 0.22 * (rows in array.dims)
    full = height + (beneath + GAP_BENEATH if beneath else 0.0)
    total_x = left + len(column_values) * (width + GAP_X) - GAP_X + right
    lines = textwrap.wrap(title, int((total_x - 0.16) / TITLE_LETTER), break_on_hyphens=False)
    top = 0.3 + (0.14 + 0.16 * len(lines) if lines else 0.0)
    total_y = top + len(row_values) * (full + GAP_Y) - GAP_Y + bottom
    figure = Figure(figsize=(total_x, total_y))
    FigureCanvasAgg(figure)

    def panel(x: float, y: float, tall: float, label: str) -> Axes:
        box = (x / total_x, y / total_y, width / total_x, tall / total_y)
        return figure.add_axes(box, label=label)

    upper: list[Axes] = []
    lower: list[Axes] = []
    selections: list[dict[str, Any]] = []
    for i, row in enumerate(row_values):
        y = total_y - top - i * (full + GAP_Y) - height
        if rows in array.dims:
            figure.text(
                0.14 / total_x,
                (y + height - full / 2) / total_y,
                heading(rows, row),
                rotation=90,
                va="center",
                ha="center",
            )
        for j, column in enumerate(column_values):
            x = left + j * (width + GAP_X)
            select = {k: v for k, v in ((rows, row), (columns, column)) if k in array.dims}
            axes = panel(x, y, height, json.dumps(select, default=_plain))
            if i == 0 and columns in array.dims:
                axes.set_title(heading(columns, column))
            upper.append(axes)
            selections.append(select)
            if beneath:
                lower.append(panel(x, y - GAP_BENEATH - beneath, beneath, "beneath"))
    if lines:
        place = 0.08 / total_x, 1 - 0.1 / total_y
        figure.text(*place, "\n".join(lines), va="top", fontsize=9, weight="bold")
    return Grid(
        figure=figure,
        upper=upper,
        lower=lower,
        selections=selections,
        num_columns=len(column_values),
        right_inches=right,
        top_inches=top,
    )


def fill(grid: Grid, draw: Draw) -> str:
    """Draws every panel and keeps names and numbers of axes at the outside only.

    Returns what is noted of all panels alike, to be said once.
    """
    for i, (axes, select) in enumerate(zip(grid.upper, grid.selections, strict=True)):
        under = grid.lower[i] if grid.lower else axes
        draw(axes, under, select)
        if i + grid.num_columns < len(grid.upper):
            under.set_xlabel("")
            under.tick_params(labelbottom=False)
        for panel in (axes, under):
            if i % grid.num_columns:
                panel.set_ylabel("")
                panel.tick_params(labelleft=False)
    notes = [panel.get_title(loc="right").split("\n") for panel in grid.upper]
    shared = [line for line in notes[0] if all(line in others for others in notes)]
    for panel, lines in zip(grid.upper, notes, strict=True):
        own = [line for line in lines if line not in shared]
        panel.set_title("\n".join(own), loc="right", fontsize=6.5, color=look.FAINT)
    return " · ".join(line for line in shared if line)


def legend_right(grid: Grid, title: str, order: Callable[[str], Any] | None = None) -> None:
    """One legend for all panels, at the right of the first row."""
    named = _named(grid.upper)
    labels = sorted(named, key=order) if order else list(named)
    width, height = grid.figure.get_size_inches()
    grid.figure.legend(
        [named[label] for label in labels],
        labels,
        title=title,
        loc="upper left",
        bbox_to_anchor=(1 - (grid.right_inches - 0.1) / width, 1 - grid.top_inches / height),
        borderaxespad=0,
        handlelength=2.6,
        alignment="left",
    )


def legend_beneath(grid: Grid) -> None:
    """One legend for the marks of all panels, beneath them; the figure grows by its rows.

    To be called before anything else is put outside the panels.
    """
    named = _named(grid.upper)
    num_columns = max(1, int(grid.figure.get_size_inches()[0] // 2.7))
    num_rows = -(-len(named) // num_columns)
    _grow_beneath(grid.figure, LEGEND_ROW * num_rows)
    width, height = grid.figure.get_size_inches()
    if named:
        grid.figure.legend(
            list(named.values()),
            list(named),
            ncols=num_columns,
            loc="upper left",
            bbox_to_anchor=(0.02 / width, (0.22 + LEGEND_ROW * num_rows) / height),
            borderaxespad=0,
        )


def _grow_beneath(figure: Figure, inches: float) -> None:
    """Adds white space beneath everything; Axes and texts keep their sizes and distances."""
    width, height = figure.get_size_inches()
    taller = height + inches
    for axes in figure.axes:
        box = axes.get_position()
        low, tall = (box.y0 * height + inches) / taller, box.height * height / taller
        axes.set_position((box.x0, low, box.width, tall))
    for text in figure.texts:
        text.set_y((text.get_position()[1] * height + inches) / taller)
    figure.set_size_inches(width, taller)


def colour_bar(grid: Grid, norm: Normalize, label: str, *, beyond: bool) -> None:
    """The colour scale of all panels, at the right of the first row; `beyond`: values lie above it."""
    width, height = grid.figure.get_size_inches()
    length = grid.upper[0].get_position().height
    left = 1 - (grid.right_inches - 0.15) / width
    box = (left, 1 - grid.top_inches / height - length, 0.11 / width, length)
    bar = grid.figure.add_axes(box, label="<colorbar>")
    scale = ScalarMappable(norm, look.ERROR_COLOURS)
    grid.figure.colorbar(scale, cax=bar, extend="max" if beyond else "neither", label=label)


def remark(grid: Grid, *texts: str) -> None:
    """Small print beneath everything, at the left."""
    width, height = grid.figure.get_size_inches()
    line = " · ".join(text for text in texts if text)
    grid.figure.text(0.08 / width, 0.07 / height, line, fontsize=6.5, color=look.FAINT)


def at(array: xr.DataArray, select: dict[str, Any]) -> xr.DataArray:
    """What one panel shows: the array at these labels, without the epochs that none of it has."""
    chosen = array.sel(
        {dim: value for dim, value in select.items() if dim in array.dims}, drop=True
    )
    for x in ("epoch", "step"):
        if x in chosen.dims:
            known = chosen.notnull().any([dim for dim in chosen.dims if dim != x])
            return chosen.isel({x: known.values}) if known.any() else chosen
    return chosen


def heading(dim: str, value: Any) -> str:
    """What a panel with this one value of a dimension is called."""
    if dim == "size":
        return f"{value:,} training images" if value else "training images not known"
    if dim == "source_size":
        return f"source: {value:,} images" if value else "no source"
    if dim in ("label_noise", "source_label_noise"):
        return f"{dim.replace('_', ' ')} {value:.0%}"
    return str(value)


def _values(array: xr.DataArray, dim: str) -> list[Any]:
    return list(array[dim].values) if dim in array.dims else [None]


def _named(panels: Iterable[Axes]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    return named


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
