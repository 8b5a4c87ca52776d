"""Effective capacity beside the similarity of source and target: a picture of a table.

Draws on the Axes that it is given. Refuses to join the two, and to say what a similarity means: the
table comes from `surfaces.similarity`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from analysis.pictures import look


def floor_of(pairs: pd.DataFrame) -> float:
    """Where on the y axis the points stand of which not even the smallest size is interpolated."""
    known = pairs.loc[pairs["capacity"] > 0, "capacity"]
    return float(known.min()) / 2 if len(known) else 1.0


def draw_capacity(axes: Axes, pairs: pd.DataFrame, *, by: str = "source_task") -> Axes:
    """Effective capacity (y, log scale) against similarity (x): a point for each line of `pairs`.

    `pairs`: as `surfaces.similarity.capacity_and_similarity` gives it, narrowed to what may share a
    picture. Marker by `by`, colour by frozen count. An arrow upwards: the largest size studied is
    interpolated, the capacity may lie beyond. Points on the dashed line: not even the smallest size is.
    """
    value = pairs.attrs["value"]
    known = pairs.loc[pairs["capacity"] > 0, "capacity"]
    floor = floor_of(pairs)
    colours = look.frozen_colours(pairs["frozen"])
    for number, (name, some) in enumerate(pairs.groupby(by, sort=True)):
        marker = look.MARKERS[number % len(look.MARKERS)]
        y = np.where(some["capacity"] > 0, some["capacity"], floor)
        c = [colours[count] for count in some["frozen"]]
        axes.scatter(some[value], y, c=c, marker=marker, s=22, linewidths=0.5, edgecolors="white")
        axes.scatter([], [], color=look.FAINT, marker=marker, s=22, label=str(name))
    beyond = pairs[pairs["censored"].astype(bool)]
    up = {"arrowstyle": "->", "color": look.FAINT, "lw": 0.8}
    for x, y in zip(beyond[value], beyond["capacity"], strict=True):
        axes.annotate("", (x, y * 1.35), (x, y * 1.05), arrowprops=up)
    axes.set_yscale("log")
    top = float(known.max()) if len(known) else floor
    axes.set_ylim(floor / 1.3 if (pairs["capacity"] == 0).any() else floor * 1.5, top * 1.6)
    ticks = {float(capacity): f"{capacity:,.0f}" for capacity in sorted(known.unique())}
    if (pairs["capacity"] == 0).any():
        axes.axhline(floor, color=look.FAINT, lw=0.7, ls="--", zorder=0)
        ticks[floor] = "none"
    axes.yaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.yaxis.set_major_formatter(FixedFormatter(list(ticks.values())))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(pairs.attrs["label"])
    axes.set_ylabel("effective capacity (images, log scale)")
    named = axes.legend(title=look.name_of(by), loc="best")
    axes.add_artist(named)
    dots = [axes.scatter([], [], color=colours[count], s=22) for count in colours]
    axes.legend(
        dots, [str(count) for count in colours], title="frozen layers", loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
    )  # fmt: skip
    return axes
