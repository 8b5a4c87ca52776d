"""Lay out a grid of panels in a wide or a narrow figure; sizes are in inches.

The label of every panel's Axes is the JSON of what was selected for it."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.plots import style

WIDE: Final = 10.4  # inches: the width of a report's page, with letters a tenth larger there
NARROW: Final = 3.83  # of a telephone 390 px wide, without its margins
PANEL_WIDTHS: Final = (1.75, 4.3)

GAP_X: Final = 0.26
GAP_Y: Final = 0.34
GAP_NARROW: Final = 0.56  # each panel keeps the numbers of its axes
HEADING_ROW: Final = 0.14
NUMBERS_ROW: Final = 0.14
HEADING_LETTER: Final = 0.076
GAP_BENEATH: Final = 0.1
LEGEND_ROW: Final = 0.17
REMARK_ROW: Final = 0.115
REMARK_LETTER: Final = 0.052
TITLE_LETTER: Final = 0.084  # inches that a letter of the title takes at most, on average

BENEATH: Final = "beneath"  # the label of the smaller Axes

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
    narrow: bool


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
    narrow: bool = False,
    narrow_right: float = 0.15,
    wrap: int = 0,
    sheet: float = WIDE,
) -> Grid:
    """A panel of `height` inches or more, and one of `beneath` inches under it, for each row and column.

    A dimension that the array does not have counts as one value without a heading. Where there would
    be one column of several rows, it is laid down as one row. `wrap`: at most so many columns, each
    panel with its own heading; `narrow`: one column, `narrow_right` inches at its right. `sheet`: how
    many inches are to be filled otherwise.
    """
    if len(_values(array, columns)) == 1:
        rows, columns = columns, rows
    row_values, column_values = _values(array, rows), _values(array, columns)
    pairs = [(row, column) for row in row_values for column in column_values]
    num_columns = 1 if narrow else min(wrap or len(column_values), len(column_values))
    alone = num_columns < len(column_values) or (narrow and len(pairs) > 1)
    num_rows = -(-len(pairs) // num_columns)
    right = narrow_right if narrow else right
    left = left + 0.22 * (rows in array.dims and not alone)
    width, height = _panel_size(num_columns, left + right, height, NARROW if narrow else sheet)
    full = height + (beneath + GAP_BENEATH if beneath else 0.0)
    room = int(width / HEADING_LETTER)
    headings = [_headings(array, rows, row, columns, column, room) for row, column in pairs]
    more = HEADING_ROW * (max(map(len, headings)) - 1) if alone else 0.0
    # Panels that only stand in rows for want of room may have unlike axes, whose numbers they keep.
    gap_y = more + (GAP_NARROW if narrow else GAP_Y + NUMBERS_ROW * alone)
    total_x = left + num_columns * (width + GAP_X) - GAP_X + right
    lines = textwrap.wrap(title, int((total_x - 0.16) / TITLE_LETTER), break_on_hyphens=False)
    top = 0.3 + more + (0.14 + 0.16 * len(lines) if lines else 0.0)
    total_y = top + num_rows * (full + gap_y) - gap_y + bottom
    figure = Figure(figsize=(total_x, total_y))
    FigureCanvasAgg(figure)

    def panel(x: float, y: float, tall: float, label: str) -> Axes:
        box = (x / total_x, y / total_y, width / total_x, tall / total_y)
        return figure.add_axes(box, label=label)

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
        axes = panel(x, y, height, json.dumps(select, default=_plain))
        if alone:
            axes.set_title("\n".join(headings[number]))
        elif i == 0 and columns in array.dims:
            axes.set_title(heading(columns, column))
        upper.append(axes)
        selections.append(select)
        if beneath:
            lower.append(panel(x, y - GAP_BENEATH - beneath, beneath, BENEATH))
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
        narrow=narrow,
    )


def _panel_size(
    num_columns: int, margins: float, height: float, sheet: float
) -> tuple[float, float]:
    """Width and height of a panel: panels fill the sheet as far as they stay well-proportioned."""
    width = (sheet - margins + GAP_X) / num_columns - GAP_X
    if sheet == NARROW:
        return width, height
    width = float(np.clip(width, *PANEL_WIDTHS))
    return width, height * float(np.clip((width / 2.35) ** 0.5, 1.0, 1.35))


def _headings(
    array: xr.DataArray, rows: str, row: Any, columns: str, column: Any, room: int
) -> list[str]:
    pairs = ((rows, row), (columns, column))
    texts = [heading(dim, value) for dim, value in pairs if dim in array.dims]
    return [line for text in texts for line in textwrap.wrap(text, room)]


def drawn(figure: Figure) -> set[str]:
    """The names of what is drawn in a figure, as its legend has them."""
    return set(_named(figure.axes))


def fill(grid: Grid, draw: Draw) -> str:
    """Draws every panel and keeps names and numbers of axes at the outside only.

    Returns what is noted of all panels alike, to be said once.
    """
    under = grid.lower or grid.upper
    for axes, low, select in zip(grid.upper, under, grid.selections, strict=True):
        draw(axes, low, select)
    for i, low in enumerate(under):
        beneath = under[i + grid.num_columns] if i + grid.num_columns < len(under) else None
        if beneath is not None:
            low.set_xlabel("")
            low.tick_params(labelbottom=grid.narrow or _numbers(low) != _numbers(beneath))
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
    return " · ".join(line for line in shared if line)


def _numbers(axes: Axes) -> list[str]:
    """What stands at the ticks of the x axis."""
    return [label.get_text() for label in axes.get_xticklabels()]


def legend_right(grid: Grid, title: str, order: Callable[[str], Any] | None = None) -> None:
    """One legend for all panels, at the right of the first row; in a narrow figure beneath them."""
    named = _named(grid.upper)
    labels = sorted(named, key=order) if order else list(named)
    if grid.narrow:
        widest = 0.46 + 0.078 * max([len(label) for label in labels], default=0)
        _beneath(grid, {label: named[label] for label in labels}, widest, title)
        return
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
    """One legend for the marks of all panels, beneath them; the figure grows by its rows."""
    _beneath(grid, _named(grid.upper), 2.7, "")


def _beneath(grid: Grid, named: Mapping[str, Any], widest: float, title: str) -> None:
    if not named:
        return
    num_columns = max(1, int((grid.figure.get_size_inches()[0] - 0.1) // widest))
    num_rows = -(-len(named) // num_columns) + bool(title)
    _grow_beneath(grid.figure, LEGEND_ROW * num_rows)
    width, height = grid.figure.get_size_inches()
    grid.figure.legend(
        list(named.values()),
        list(named),
        title=title or None,
        ncols=num_columns,
        loc="upper left",
        bbox_to_anchor=(0.02 / width, (0.22 + LEGEND_ROW * num_rows) / height),
        borderaxespad=0,
        columnspacing=1.0,
        handlelength=2.0,
        alignment="left",
    )


def _grow_beneath(figure: Figure, inches: float) -> None:
    """Adds white space beneath everything; Axes, texts and legends keep their sizes and distances."""
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
    """The colour scale of all panels, at the right of the first row; `beyond`: values lie above it."""
    width, height = grid.figure.get_size_inches()
    length = grid.upper[0].get_position().height
    left = 1 - (grid.right_inches - 0.15) / width
    box = (left, 1 - grid.top_inches / height - length, 0.11 / width, length)
    bar = grid.figure.add_axes(box, label="<colorbar>")
    scale = ScalarMappable(norm, style.ERROR_COLOURS)
    grid.figure.colorbar(scale, cax=bar, extend="max" if beyond else "neither", label=label)


def remark(grid: Grid, *texts: str) -> None:
    """Small print beneath everything, at the left; the figure grows by its further lines."""
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


def _named(some: Iterable[Axes]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for panel in some:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    return named


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
