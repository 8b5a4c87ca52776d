"""Draw single points: the best frozen count, and capacity against similarity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from analysis.plots import layout
from analysis.plots import style as plot_style

SPREAD: Final = 0.5  # width of one size's markers, as a fraction of the distance between sizes


def draw_cuts(axes: Axes, cuts: xr.Dataset, *, by: str = "source") -> pd.DataFrame:
    """Draw the best frozen count (y) for each number of images (x) and value of `by`.

    The number of trained parameters grows upwards. Large markers are the best counts. Small markers,
    joined by a line, are counts that may be the best. Return the large markers (`layout.Values`).

    Args:
        cuts: from `surfaces.best_cut`, dims (by, size); `in_set` has the further dimension frozen.
    """
    cuts = cuts.sortby("size").sortby("frozen", ascending=False).transpose(by, "size", "frozen")
    counts = cuts["frozen"].values
    row_of = {float(count): row for row, count in enumerate(counts)}
    words = dict(zip(counts.tolist(), plot_style.cut_texts(cuts), strict=True))
    beside = np.linspace(-SPREAD / 2, SPREAD / 2, cuts.sizes[by] + 2)[1:-1]
    shown: list[tuple[float, float, str]] = []
    for i, value in enumerate(cuts[by].values):
        one = cuts.isel({by: i})
        colour, marker = (
            plot_style.OKABE_ITO[i % 7],
            plot_style.MARKERS[i % len(plot_style.MARKERS)],
        )
        x = np.arange(cuts.sizes["size"]) + beside[i]
        sizes, rows = np.nonzero(one["in_set"].values)
        axes.plot(x[sizes], rows, color=colour, ls="none", marker=marker, ms=2.6)
        for at, inside in zip(x, one["in_set"].values, strict=True):
            if inside.any():
                where = np.flatnonzero(inside)
                axes.plot([at, at], where[[0, -1]], color=colour, lw=0.8)
        best = [row_of.get(float(count), np.nan) for count in one["best"].values]
        axes.plot(
            x,
            best,
            color=colour,
            ls=plot_style.DASHES[i % len(plot_style.DASHES)],
            lw=0.8,
            alpha=0.6,
        )
        style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 5.2, "ls": "none"}
        axes.plot(x, best, **style, mec="white", mew=0.6, label=f"{value}")
        for column, row in enumerate(best):
            if np.isfinite(row):
                cell = one.isel(size=column)
                shown.append((x[column], row, _cut_text(str(value), cell, words)))
    axes.set_xlim(-0.5, cuts.sizes["size"] - 0.5)
    axes.set_ylim(-0.5, len(counts) - 0.5)
    images = plot_style.whole_numbers(cuts["size"].values)
    plot_style.category_axis(axes, "x", images, plot_style.name_of("size"))
    plot_style.category_axis(axes, "y", plot_style.cut_names(cuts), plot_style.name_of("frozen"))
    axes.grid(axis="y", color=plot_style.FAINT, alpha=0.25, lw=0.5)
    plot_style.note_seeds(axes, cuts["num_seeds"].values[cuts["num_seeds"].values > 0])
    return pd.DataFrame(shown, columns=["x", "y", "text"])


def _cut_text(source: str, cell: xr.Dataset, words: Mapping[float, str]) -> str:
    best, low, high = (words[float(cell[name])] for name in ("best", "low", "high"))
    alike = "" if low == high else f"\nmay be the best too: from {high} to {low}"
    return f"{source}, {cell['size'].item():,} training images\nbest: {best}{alike}"


def cut_grid(
    cuts: xr.Dataset,
    *,
    rows: str = "",
    columns: str = "source_size",
    by: str = "source",
    title: str = "",
) -> layout.Drawn:
    """Draw a panel of `draw_cuts` for each value of `rows` and `columns`."""

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> tuple[pd.DataFrame]:
        return (draw_cuts(axes, cuts.sel(select, drop=True), by=by),)

    with matplotlib.rc_context(plot_style.STYLE):
        right = 0.75 + 0.075 * max(len(str(value)) for value in [*cuts[by].values, by])
        height = 0.6 + 0.2 * cuts.sizes["frozen"]
        left = 0.45 + plot_style.room_for_cuts(cuts)
        grid = layout.grid(
            cuts["best"], rows, columns, title=title, height=height, left=left, right=right
        )
        panels, note = layout.fill(grid, draw)
        layout.legend_right(grid, plot_style.name_of(by))
        level = float(cuts.attrs["level"])
        layout.remark(grid, note, f"small: may be best, {level:.0%} for each cell")
        return grid.figure, panels


def draw_capacity(axes: Axes, pairs: pd.DataFrame) -> pd.DataFrame:
    """Draw effective capacity (y, log scale) against similarity (x); return the points (`layout.Values`).

    The marker shows the source task, the colour the frozen count. An arrow marks a lower bound: the
    largest size is interpolated. For points on the dashed line, the smallest size is not interpolated.

    Args:
        pairs: from `surfaces.similarity.capacity_and_similarity`, with a line for each point.
    """
    value = pairs.attrs["value"]
    known = pairs.loc[pairs["capacity"] > 0, "capacity"]
    floor = float(known.min()) / 2 if len(known) else 1.0
    capacities = pd.DataFrame(
        {"x": pairs[value], "y": pairs["capacity"].where(pairs["capacity"] > 0, floor)}
    )
    colours = plot_style.frozen_colours(pairs["frozen"])
    names = dict(zip(pairs["frozen"], pairs["cut"], strict=True))
    for number, (name, some) in enumerate(pairs.groupby("source_task", sort=True)):
        marker = plot_style.MARKERS[number % len(plot_style.MARKERS)]
        y = some["capacity"].where(some["capacity"] > 0, floor)
        c = [colours[count] for count in some["frozen"]]
        axes.scatter(some[value], y, c=c, marker=marker, s=22, linewidths=0.5, edgecolors="white")
        axes.scatter([], [], color=plot_style.FAINT, marker=marker, s=22, label=str(name))
    beyond = pairs[pairs["censored"].astype(bool)]
    up = {"arrowstyle": "->", "color": plot_style.FAINT, "lw": 0.8}
    for x, y in zip(beyond[value], beyond["capacity"], strict=True):
        axes.annotate("", (x, y * 1.35), (x, y * 1.05), arrowprops=up)
    axes.set_yscale("log")
    top = float(known.max()) if len(known) else floor
    axes.set_ylim(floor / 1.3 if (pairs["capacity"] == 0).any() else floor * 1.5, top * 1.6)
    ticks = {float(capacity): f"{capacity:,.0f}" for capacity in sorted(known.unique())}
    if (pairs["capacity"] == 0).any():
        axes.axhline(floor, color=plot_style.FAINT, lw=0.7, ls="--", zorder=0)
        ticks[floor] = "none"
    axes.yaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.yaxis.set_major_formatter(FixedFormatter(list(ticks.values())))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(pairs.attrs["label"])
    axes.set_ylabel("effective capacity (images, log scale)")
    named = axes.legend(title=plot_style.name_of("source_task"), loc="best")
    axes.add_artist(named)
    dots = [axes.scatter([], [], color=colours[count], s=22) for count in colours]
    axes.legend(
        dots, [names[count] for count in colours], loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
    )  # fmt: skip
    return capacities.assign(text=[_capacity_text(point, pairs) for _, point in pairs.iterrows()])


def _capacity_text(point: pd.Series[Any], pairs: pd.DataFrame) -> str:
    images = point["capacity"]
    if images > 0:
        capacity = f"{images:,.0f} images" + (" or more" if point["censored"] else "")
    else:
        capacity = "under the smallest size"
    return (
        f"{point['source_task']}, {point['cut']}, seed {point['seed']}\n"
        f"{pairs.attrs['label']}: {point[pairs.attrs['value']]:.4g}\ncapacity: {capacity}"
    )
