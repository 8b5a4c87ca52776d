"""The marks on a heat map: cells, absent cells, the edge of a region, a ridge, crosses.

Knows cells by their edges and nothing of what they mean.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from analysis.pictures.look import ABSENT, FAINT, HALO, MARK, MARK_HALO, note


def cells(
    axes: Axes, mean: np.ndarray, x_edges: np.ndarray, y_edges: np.ndarray, **style: Any
) -> None:
    """Draws cells of `mean` (rows, columns) in colour, and hatches those that are NaN."""
    axes.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(mean), rasterized=True, **style)
    for row, absent in enumerate(~np.isfinite(mean)):
        changes = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(int), [0]])))
        for begin, end in changes.reshape(-1, 2):
            axes.add_patch(
                Rectangle(
                    (x_edges[begin], y_edges[row]),
                    x_edges[end] - x_edges[begin],
                    y_edges[row + 1] - y_edges[row],
                    facecolor=ABSENT,
                    edgecolor=FAINT,
                    hatch="//////",
                    linewidth=0.4,
                    label="absent",
                )
            )


def region(
    axes: Axes,
    inside: np.ndarray,
    known: np.ndarray,
    x_edges: np.ndarray,
    y_edges: np.ndarray,
    *,
    label: str,
    everywhere: str,
    nowhere: str,
) -> None:
    """Draws the line between cells inside and outside a region, with ticks that point inside.

    `inside` and `known` are (rows, columns); where a neighbour is not known no line is drawn.
    `everywhere` and `nowhere` are noted where there is no line to draw.
    """
    log = axes.get_xscale() == "log"
    x, y = (np.log(x_edges) if log else x_edges), y_edges
    upright = _borders(inside, known, x, y)
    level = _borders(inside.T, known.T, y, x)
    lines = [[(at, begin), (at, end)] for at, begin, end, _ in upright]
    lines += [[(begin, at), (end, at)] for at, begin, end, _ in level]
    if not lines:
        if known.any():
            note(axes, everywhere if inside[known].any() else nowhere)
        return
    across, along = 0.035 * (x[-1] - x[0]), 0.16
    ticks = []
    for at, begin, end, side in upright:
        for middle in np.arange(begin, end) + 0.5:
            ticks.append([(at, middle), (at + side * across, middle)])
    for at, begin, end, side in level:
        num = round((end - begin) / (0.1 * (x[-1] - x[0])))
        for middle in begin + (np.arange(num) + 0.5) / max(num, 1) * (end - begin):
            ticks.append([(middle, at), (middle, at + side * along)])
    for number, segments in enumerate((lines, ticks)):
        points = np.array(segments, dtype=float).reshape(-1, 2, 2)
        if log:
            points[..., 0] = np.exp(points[..., 0])
        axes.add_collection(
            LineCollection(
                list(points),
                colors=MARK,
                linewidths=1.3 if number == 0 else 0.9,
                capstyle="projecting",
                path_effects=HALO,
                label="_",
            ),
            autolim=False,
        )
    # In a legend a collection has no halo, without which it does not show on a dark plate.
    named = f"{label} (side of the ticks)"
    axes.plot([], [], color=MARK, lw=1.3, path_effects=HALO, label=named)


def _borders(
    inside: np.ndarray, known: np.ndarray, x: np.ndarray, y: np.ndarray
) -> list[tuple[float, float, float, float]]:
    """Upright borders of a region: (x, begin, end, side), side being +1 where it lies to the right.

    Borders above one another are one, so that a map of thousands of cells has few lines.
    """
    found = []
    differ = known[:, :-1] & known[:, 1:] & (inside[:, :-1] != inside[:, 1:])
    sides = np.where(differ, np.where(inside[:, 1:], 1, -1), 0)
    for column in np.flatnonzero(differ.any(axis=0)):
        ends = np.flatnonzero(np.diff(sides[:, column], prepend=0, append=0))
        for begin, end in pairwise(ends):
            if sides[begin, column]:
                found.append((x[column + 1], y[begin], y[end], float(sides[begin, column])))
    return found


def ridge_line(axes: Axes, x: np.ndarray, y: np.ndarray, shown: np.ndarray) -> None:
    """Marks peaks at (x, y), NaN where there is none: those that are shown over the seeds as circles,
    joined where neighbours both have one; the others, peaks at face value, as small dots."""
    style: dict[str, Any] = {"color": MARK, "path_effects": HALO, "clip_on": False, "zorder": 5}
    if (shown & np.isfinite(x)).any():
        at = np.where(shown, x, np.nan)
        axes.plot(at, y, lw=1.0, marker="o", ms=4.8, mfc=MARK_HALO, label="peak", **style)
    if (~shown & np.isfinite(x)).any():
        at = np.where(shown, np.nan, x)
        label = "peak at face value: the seeds cannot tell"
        axes.plot(at, y, ls="none", marker="o", ms=2.4, label=label, **style)


def crosses(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Marks cells where a seed's loss was not finite."""
    if len(x):
        axes.plot(
            x, y, ls="none", marker="x", ms=6, mew=1.6, color=MARK, path_effects=HALO,
            label="a seed diverged", clip_on=False, zorder=5,
        )  # fmt: skip
