"""Bias and variance over the epochs: a grid of panels, a row for each part of the error."""

from __future__ import annotations

from typing import Any

import matplotlib
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.pictures import curves, look, panels


def part_grid(
    parts: xr.DataArray, *, columns: str = "size", title: str = "", narrow: bool = False
) -> Figure:
    """Curves over the epochs for every frozen count; dims ("part", columns, "frozen", "epoch").

    A row for each part, as "bias" and "net variance": all in one scale, as they add up to the error.
    """
    colours = look.frozen_colours(parts["frozen"].values)
    limits = curves.span(parts.values)

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> None:
        curves.epoch_curves(axes, panels.at(parts, select), colours=colours, legend=False)
        axes.set_ylim(*limits)

    with matplotlib.rc_context(look.STYLE):
        grid = panels.grid(parts, "part", columns, right=1.05, title=title, narrow=narrow)
        note = panels.fill(grid, draw)
        panels.legend_right(grid, "frozen layers", order=float)
        panels.remark(grid, note)
        return grid.figure
