"""Which frozen count is best, against the number of images: a picture of `surfaces.best_cut`.

Draws on the Axes that it is given. Refuses to say which cut is best, and to join what is absent.
"""

from __future__ import annotations

from typing import Any, Final

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.pictures import look, panels

SPREAD: Final = (
    0.5  # of the room between two sizes, over which the values of `by` stand side by side
)


def draw_cuts(axes: Axes, cuts: xr.Dataset, *, by: str = "source", legend: bool = True) -> Axes:
    """The best frozen count (y) for each number of images (x) and value of `by`.

    `cuts`: as `surfaces.best_cut` gives it, dims (by, size), `in_set` over frozen too. A large marker is
    the best, small ones and the line from the fewest to the most frozen layers the set of those that
    cannot be told apart from it.
    """
    cuts = cuts.sortby(["size", "frozen"]).transpose(by, "size", "frozen")
    counts = cuts["frozen"].values
    row_of = {float(count): row for row, count in enumerate(counts)}
    beside = offsets(cuts.sizes[by])
    for i, value in enumerate(cuts[by].values):
        one = cuts.isel({by: i})
        colour, marker = look.OKABE_ITO[i % 7], look.MARKERS[i % len(look.MARKERS)]
        x = np.arange(cuts.sizes["size"]) + beside[i]
        sizes, rows = np.nonzero(one["in_set"].values)
        axes.plot(x[sizes], rows, color=colour, ls="none", marker=marker, ms=2.6)
        for at, inside in zip(x, one["in_set"].values, strict=True):
            if inside.any():
                where = np.flatnonzero(inside)
                axes.plot([at, at], where[[0, -1]], color=colour, lw=0.8)
        best = [row_of.get(float(count), np.nan) for count in one["best"].values]
        axes.plot(x, best, color=colour, ls=look.DASHES[i % len(look.DASHES)], lw=0.8, alpha=0.6)
        style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5.2, "ls": "none"}
        axes.plot(x, best, **style, mec="white", mew=0.6, label=f"{value}")
    axes.set_xlim(-0.5, cuts.sizes["size"] - 0.5)
    axes.set_ylim(-0.5, len(counts) - 0.5)
    look.category_axis(axes, "x", cuts["size"].values, look.name_of("size"))
    look.category_axis(axes, "y", counts, look.name_of("frozen"))
    axes.grid(axis="y", color=look.FAINT, alpha=0.25, lw=0.5)
    look.note_seeds(axes, cuts["num_seeds"].values[cuts["num_seeds"].values > 0])
    if legend:
        axes.legend(title=look.name_of(by))
    return axes


def offsets(num: int) -> np.ndarray:
    """How far from a size's place on the x axis the marks of each of `num` values of `by` stand."""
    return np.linspace(-SPREAD / 2, SPREAD / 2, num + 2)[1:-1]


def cut_grid(
    cuts: xr.Dataset,
    *,
    rows: str = "",
    columns: str = "source_size",
    by: str = "source",
    title: str = "",
    narrow: bool = False,
) -> Figure:
    """A panel of `draw_cuts` for each value of `rows` and `columns`; dims (rows, columns, by, size)."""

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> None:
        draw_cuts(axes, cuts.sel(select, drop=True), by=by, legend=False)

    with matplotlib.rc_context(look.STYLE):
        right = 0.75 + 0.075 * max(len(str(value)) for value in [*cuts[by].values, by])
        height = 0.6 + 0.2 * cuts.sizes["frozen"]
        how: dict[str, Any] = {"height": height, "right": right, "narrow": narrow}
        grid = panels.grid(cuts["best"], rows, columns, title=title, **how)
        note = panels.fill(grid, draw)
        panels.legend_right(grid, look.name_of(by))
        level = float(cuts.attrs["level"])
        panels.remark(grid, note, f"small: not told apart from the best, {level:.0%} for each cell")
        return grid.figure
