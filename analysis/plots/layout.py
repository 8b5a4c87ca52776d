"""Lay out a grid of panels in a figure; sizes are in inches."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.plots import style

WIDE: Final = 10.4  # the report's page shows this a tenth larger
PANEL_WIDTHS: Final = (1.75, 4.3)

GAP_X: Final = 0.26
GAP_Y: Final = 0.34
HEADING_ROW: Final = 0.14
NUMBERS_ROW: Final = 0.14
HEADING_LETTER: Final = 0.076  # width of a letter
GAP_BENEATH: Final = 0.1
LEGEND_ROW: Final = 0.17
LEGEND_COLUMN: Final = 2.7
REMARK_ROW: Final = 0.115
REMARK_LETTER: Final = 0.052
TITLE_LETTER: Final = 0.084  # upper bound of the average width

# The values drawn on one Axes, in one of three forms.
# Cells: Dataset of "test" and "train", dims (y, x); the coordinate "right" has right edges of columns.
# Curves: Dataset of means, dims (curve, x), the drawn variable first; the coordinate "at" has x positions.
# Points: DataFrame with columns x, y, text.
Values = xr.Dataset | pd.DataFrame

# A function that draws one panel. Arguments: the panel's Axes, the smaller Axes beneath (or the panel's
# Axes again), the panel's selection. Returns the values drawn on each of the Axes.
Draw = Callable[[Axes, Axes, dict[str, Any]], Sequence[Values]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Panel:
    """One panel of a figure: its Axes, the label selected along each dimension, and the values drawn."""

    axes: Axes
    select: dict[str, Any]
    values: Values


# A figure and its panels.
Drawn = tuple[Figure, list[Panel]]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A figure with empty panels; lists are in the order of panels, row by row.

    Args:
        lower: a smaller panel beneath each panel of `upper`, or empty.
        selections: for each panel, the label selected along each dimension.
        right_inches, top_inches: margins.
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
    height: float = 1.6,
    beneath: float = 0.0,
    left: float = 0.72,
    right: float,
    bottom: float = 0.68,
    wrap: int = 0,
    sheet: float = WIDE,
) -> Grid:
    """Make a panel for each value of the dimensions `rows` and `columns`.

    A dimension that the array lacks counts as one value without a heading. A single column of several rows
    becomes a single row.

    Args:
        height: minimum height of a panel.
        beneath: height of a smaller panel under each panel; 0: none.
        wrap: maximum number of columns, 0: no limit. If panels wrap, each has its own heading.
        sheet: width to fill.
    """
    if len(_values(array, columns)) == 1:
        rows, columns = columns, rows
    row_values, column_values = _values(array, rows), _values(array, columns)
    pairs = [(row, column) for row in row_values for column in column_values]
    num_columns = min(wrap or len(column_values), len(column_values))
    alone = num_columns < len(column_values)
    num_rows = -(-len(pairs) // num_columns)
    left = left + 0.22 * (rows in array.dims and not alone)
    width, height = _panel_size(num_columns, left + right, height, sheet)
    full = height + (beneath + GAP_BENEATH if beneath else 0.0)
    room = int(width / HEADING_LETTER)
    headings = [_headings(array, rows, row, columns, column, room) for row, column in pairs]
    more = HEADING_ROW * (max(map(len, headings)) - 1) if alone else 0.0
    # Wrapped panels may have different x axes, so each row keeps its tick labels.
    gap_y = more + GAP_Y + NUMBERS_ROW * alone
    total_x = left + num_columns * (width + GAP_X) - GAP_X + right
    lines = textwrap.wrap(title, int((total_x - 0.16) / TITLE_LETTER), break_on_hyphens=False)
    top = 0.3 + more + (0.14 + 0.16 * len(lines) if lines else 0.0)
    total_y = top + num_rows * (full + gap_y) - gap_y + bottom
    figure = Figure(figsize=(total_x, total_y))
    FigureCanvasAgg(figure)

    def panel(x: float, y: float, tall: float) -> Axes:
        return figure.add_axes((x / total_x, y / total_y, width / total_x, tall / total_y))

    upper: list[Axes] = []
    lower: list[Axes] = []
    selections: list[dict[str, Any]] = []
    for number, (row, column) in enumerate(pairs):
        i, j = divmod(number, num_columns)
        x, y = left + j * (width + GAP_X), total_y - top - i * (full + gap_y) - height
        if rows in array.dims and not alone and j == 0:
            place = 0.14 / total_x, (y + height - full / 2) / total_y
            figure.text(*place, heading(rows, row), rotation=90, va="center", ha="center")
        select = {k: v for k, v in ((rows, row), (columns, column)) if k in array.dims}
        axes = panel(x, y, height)
        if alone:
            axes.set_title("\n".join(headings[number]))
        elif i == 0 and columns in array.dims:
            axes.set_title(heading(columns, column))
        upper.append(axes)
        selections.append(select)
        if beneath:
            lower.append(panel(x, y - GAP_BENEATH - beneath, beneath))
    if lines:
        place = 0.08 / total_x, 1 - 0.1 / total_y
        figure.text(*place, "\n".join(lines), va="top", fontsize=9, weight="bold")
    return Grid(
        figure=figure,
        upper=upper,
        lower=lower,
        selections=selections,
        num_columns=num_columns,
        right_inches=right,
        top_inches=top,
    )


def _panel_size(
    num_columns: int, margins: float, height: float, sheet: float
) -> tuple[float, float]:
    """Return width and height of a panel; panels fill the sheet if PANEL_WIDTHS allows."""
    width = (sheet - margins + GAP_X) / num_columns - GAP_X
    width = float(np.clip(width, *PANEL_WIDTHS))
    return width, height * float(np.clip((width / 2.35) ** 0.5, 1.0, 1.35))


def _headings(
    array: xr.DataArray, rows: str, row: Any, columns: str, column: Any, room: int
) -> list[str]:
    pairs = ((rows, row), (columns, column))
    texts = [heading(dim, value) for dim, value in pairs if dim in array.dims]
    return [line for text in texts for line in textwrap.wrap(text, room)]


def legend_names(figure: Figure) -> set[str]:
    """Return the names of the marks drawn in a figure, as in the legend."""
    return set(_named(figure.axes))


def fill(grid: Grid, draw: Draw) -> tuple[list[Panel], str]:
    """Draw every panel; label only the outer axes.

    Return the panels, and a text of the notes that all panels share.
    """
    under = grid.lower or grid.upper
    panels = []
    for axes, low, select in zip(grid.upper, under, grid.selections, strict=True):
        drawn = draw(axes, low, select)
        panels += [
            Panel(axes=panel, select=select, values=values)
            for panel, values in zip((axes, low), drawn, strict=False)
        ]
    for i, low in enumerate(under):
        beneath = under[i + grid.num_columns] if i + grid.num_columns < len(under) else None
        if beneath is not None:
            low.set_xlabel("")
            low.tick_params(labelbottom=_numbers(low) != _numbers(beneath))
    for i, (axes, low) in enumerate(zip(grid.upper, under, strict=True)):
        for panel in (axes, low):
            if i % grid.num_columns:
                panel.set_ylabel("")
                panel.tick_params(labelleft=False)
    notes = [panel.get_title(loc="right").split("\n") for panel in grid.upper]
    shared = [line for line in notes[0] if all(line in others for others in notes)]
    for panel, lines in zip(grid.upper, notes, strict=True):
        own = [line for line in lines if line not in shared]
        panel.set_title("\n".join(own), loc="right", fontsize=6.5, color=style.FAINT)
    return panels, " · ".join(line for line in shared if line)


def _numbers(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def legend_right(grid: Grid, title: str, order: Sequence[str] = ()) -> None:
    """Add one legend for all panels at the right of the first row; labels in `order` come first."""
    named = _named(grid.upper)
    named = {label: named[label] for label in order if label in named} | named
    width, height = grid.figure.get_size_inches()
    grid.figure.legend(
        list(named.values()),
        list(named),
        title=title,
        loc="upper left",
        bbox_to_anchor=(1 - (grid.right_inches - 0.1) / width, 1 - grid.top_inches / height),
        borderaxespad=0,
        handlelength=2.6,
        alignment="left",
    )


def legend_beneath(grid: Grid) -> None:
    """Add one legend for all panels beneath the panels; the figure grows by the height of the legend."""
    named = _named(grid.upper)
    if not named:
        return
    num_columns = max(1, int((grid.figure.get_size_inches()[0] - 0.1) // LEGEND_COLUMN))
    num_rows = -(-len(named) // num_columns)
    _grow_beneath(grid.figure, LEGEND_ROW * num_rows)
    width, height = grid.figure.get_size_inches()
    grid.figure.legend(
        list(named.values()),
        list(named),
        ncols=num_columns,
        loc="upper left",
        bbox_to_anchor=(0.02 / width, (0.22 + LEGEND_ROW * num_rows) / height),
        borderaxespad=0,
        columnspacing=1.0,
        handlelength=2.0,
        alignment="left",
    )


def _grow_beneath(figure: Figure, inches: float) -> None:
    """Add white space at the bottom; Axes, texts and legends keep their sizes and distances."""
    width, height = figure.get_size_inches()
    taller = height + inches
    anchors = [
        (legend, np.array(legend.get_bbox_to_anchor().bounds[:2]) / figure.dpi)
        for legend in figure.legends
    ]
    for axes in figure.axes:
        box = axes.get_position()
        low, tall = (box.y0 * height + inches) / taller, box.height * height / taller
        axes.set_position((box.x0, low, box.width, tall))
    for text in figure.texts:
        text.set_y((text.get_position()[1] * height + inches) / taller)
    figure.set_size_inches(width, taller)
    for legend, (x, y) in anchors:
        place = (x / width, (y + inches) / taller)
        legend.set_bbox_to_anchor(place, transform=figure.transFigure)


def colour_bar(grid: Grid, norm: Normalize, label: str, *, beyond: bool) -> None:
    """Add the colour scale of all panels at the right of the first row.

    Args:
        beyond: True if some values exceed the scale.
    """
    width, height = grid.figure.get_size_inches()
    length = grid.upper[0].get_position().height
    left = 1 - (grid.right_inches - 0.15) / width
    box = (left, 1 - grid.top_inches / height - length, 0.11 / width, length)
    bar = grid.figure.add_axes(box, label="<colorbar>")
    scale = ScalarMappable(norm, style.ERROR_COLOURS)
    grid.figure.colorbar(scale, cax=bar, extend="max" if beyond else "neither", label=label)


def remark(grid: Grid, *texts: str) -> None:
    """Add small print at the bottom; the figure grows by the height of all lines except the first."""
    line = " · ".join(text for text in texts if text)
    room = int((grid.figure.get_size_inches()[0] - 0.16) / REMARK_LETTER)
    lines = textwrap.wrap(line, room)
    if not lines:
        return
    _grow_beneath(grid.figure, REMARK_ROW * (len(lines) - 1))
    width, height = grid.figure.get_size_inches()
    place = 0.08 / width, 0.07 / height
    grid.figure.text(*place, "\n".join(lines), fontsize=6.5, color=style.FAINT)


def at(array: xr.DataArray, select: dict[str, Any]) -> xr.DataArray:
    """Return one panel's values without the epochs at which all values are missing."""
    chosen = array.sel(
        {dim: value for dim, value in select.items() if dim in array.dims}, drop=True
    )
    for x in ("epoch", "step"):
        if x in chosen.dims:
            known = chosen.notnull().any([dim for dim in chosen.dims if dim != x])
            return chosen.isel({x: known.values}) if known.any() else chosen
    return chosen


def heading(dim: str, value: Any) -> str:
    """Return the heading of a panel with this value of a dimension."""
    if dim == "size":
        return f"{value:,} training images" if value else "training images not known"
    if dim == "source_size":
        return f"source: {value:,} images" if value else "no source"
    if dim in ("label_noise", "source_label_noise"):
        return f"{dim.replace('_', ' ')} {value:.0%}"
    return str(value)


def _values(array: xr.DataArray, dim: str) -> list[Any]:
    return array[dim].values.tolist() if dim in array.dims else [None]


def _named(some: Iterable[Axes]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for panel in some:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    return named
