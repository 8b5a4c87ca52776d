"""Draw heat maps and the marks on them; missing cells are hatched, never interpolated."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from analysis.descent import EPSILON
from analysis.plots import style as plot_style
from analysis.plots.style import ABSENT, FAINT, HALO, INK, PAPER, note


def cells(
    axes: Axes, mean: np.ndarray, x_edges: np.ndarray, y_edges: np.ndarray, **style: Any
) -> None:
    """Draw the cells of `mean` (rows, columns) in colour; hatch cells whose value is NaN."""
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
    epsilon: float,
    how: str = "",
) -> None:
    """Draw the edge of interpolation: a line around the cells of `inside`, with ticks that point inside.

    If there is no line, a note states on which side of `epsilon` all cells are.

    Args:
        inside, known: (rows, columns) bool. No line is drawn next to a cell whose `known` is False.
        how: words added to `train error ≤ epsilon` in the legend.
    """
    log = axes.get_xscale() == "log"
    x, y = (np.log(x_edges) if log else x_edges), y_edges
    upright = _borders(inside, known, x, y)
    level = _borders(inside.T, known.T, y, x)
    lines = [[(at, begin), (at, end)] for at, begin, end, _ in upright]
    lines += [[(begin, at), (end, at)] for at, begin, end, _ in level]
    if not lines:
        if known.any():
            note(axes, f"train error {'≤' if inside[known].any() else '>'} {epsilon:g}")
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
    label = f"train error ≤ {epsilon:g}{how} (side of the ticks)"
    for number, segments in enumerate((lines, ticks)):
        points = np.array(segments, dtype=float).reshape(-1, 2, 2)
        if log:
            points[..., 0] = np.exp(points[..., 0])
        axes.add_collection(
            LineCollection(
                list(points),
                colors=INK,
                linewidths=1.3 if number == 0 else 0.9,
                capstyle="projecting",
                path_effects=HALO,
                label=label if number == 0 else "_",
            ),
            autolim=False,
        )


def _borders(
    inside: np.ndarray, known: np.ndarray, x: np.ndarray, y: np.ndarray
) -> list[tuple[float, float, float, float]]:
    """Return the vertical borders of a region: (x, first y, last y, side); side +1: region at the right.

    Adjacent borders are joined, so that a map of thousands of cells has few lines.
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
    """Mark the peaks at (x, y); NaN means no peak.

    Peaks that the seeds show are circles, joined between neighbours. Peaks at face value only are dots.
    """
    style: dict[str, Any] = {"color": INK, "path_effects": HALO, "clip_on": False, "zorder": 5}
    if (shown & np.isfinite(x)).any():
        at = np.where(shown, x, np.nan)
        axes.plot(at, y, lw=1.0, marker="o", ms=4.8, mfc=PAPER, label="peak", **style)
    if (~shown & np.isfinite(x)).any():
        at = np.where(shown, np.nan, x)
        label = "peak at face value: the seeds cannot tell"
        axes.plot(at, y, ls="none", marker="o", ms=2.4, label=label, **style)


def crosses(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Mark cells in which a seed's loss was not finite."""
    if len(x):
        axes.plot(
            x, y, ls="none", marker="x", ms=6, mew=1.6, color=INK, path_effects=HALO,
            label="a seed diverged", clip_on=False, zorder=5,
        )  # fmt: skip


def freezing_map(
    axes: Axes,
    error: xr.DataArray,
    *,
    train_error: xr.DataArray | None = None,
    epsilon: float = EPSILON,
    ridge: xr.DataArray | None = None,
    ridge_shown: xr.DataArray | None = None,
    diverged: xr.DataArray | None = None,
    wanted: xr.DataArray | None = None,
    norm: Normalize | None = None,
) -> xr.Dataset:
    """Draw a heat map over frozen count (x) and number of images (y); return its cells (`layout.Values`).

    The number of trained parameters grows to the right. The edge of interpolation runs along the edges of
    cells; nothing is interpolated between them.

    Args:
        error: dims (size or source_size, frozen[, seed]); other dimensions need length 1.
        train_error: dims like `error`. Ticks of the edge point to cells with a mean of at most `epsilon`.
        ridge: frozen count of each row's peak, dims (size or source_size,); NaN: no peak.
        ridge_shown: dims like `ridge`; False for a peak at face value only.
        diverged: dims like `error` without seed; True if a seed diverged.
        wanted: dims like `diverged`. A frozen count without a wanted cell has no column.
    """
    y = plot_style.other_dim(error, "frozen", plot_style.SIZES)
    error = only_wanted(plot_style.narrowed(error, (y, "frozen")), wanted)
    error = plot_style.by_capacity(error.sortby(y)).transpose(y, "frozen", ...)
    mean, counts = plot_style.seed_mean(error)
    x_edges, y_edges = (np.arange(mean.sizes[dim] + 1) - 0.5 for dim in ("frozen", y))
    axes.set_xlim(x_edges[0], x_edges[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    norm = norm or shared_norm(mean)
    cells(axes, mean.values, x_edges, y_edges, norm=norm, cmap=plot_style.ERROR_COLOURS)
    plot_style.note_seeds(axes, counts)
    train = np.full(mean.shape, np.nan)
    if train_error is not None:
        train_error = plot_style.narrowed(train_error, (y, "frozen"))
        train = plot_style.values_like(plot_style.seed_mean(train_error)[0], mean)
        known = np.isfinite(train)
        region(axes, train <= epsilon, known, x_edges, y_edges, epsilon)
    if ridge is not None:
        peaks = ridge.reindex({y: mean[y]}).values
        columns = np.interp(-peaks, -mean["frozen"].values, np.arange(mean.sizes["frozen"]))
        columns[~np.isfinite(peaks)] = np.nan
        ridge_line(axes, columns, np.arange(mean.sizes[y]), _shown(ridge, ridge_shown, mean[y]))
    if diverged is not None:
        rows, columns = np.nonzero(plot_style.values_like(diverged, mean) == 1)
        crosses(axes, columns, rows)
    plot_style.capacity_axis(axes, mean)
    sizes = plot_style.whole_numbers(mean[y].values)
    plot_style.category_axis(axes, "y", sizes, plot_style.name_of(y))
    axes.spines[:].set_visible(False)
    return _cells(mean, train, x_edges[1:])


def epoch_map(
    axes: Axes,
    error: xr.DataArray,
    *,
    train_error: xr.DataArray | None = None,
    epsilon: float = EPSILON,
    ridge: xr.DataArray | None = None,
    ridge_shown: xr.DataArray | None = None,
    diverged: xr.DataArray | None = None,
    norm: Normalize | None = None,
) -> xr.Dataset:
    """Draw a heat map over epochs (x, log scale) and frozen count (y); return its cells (`layout.Values`).

    Epoch 0 (before training) is a separate column at the left. The most layers are frozen at the bottom.

    Args:
        error: dims (frozen, epoch or step[, seed]); other dimensions need length 1.
        train_error: dims like `error`. The line marks the first epoch with a mean of at most `epsilon`.
        ridge: epoch of each frozen count's peak, dims (frozen,); NaN: no peak.
        ridge_shown: dims like `ridge`; False for a peak at face value only.
        diverged: dims like `ridge`; True if a seed diverged.
    """
    x = plot_style.other_dim(error, "frozen", plot_style.TIMES)
    error = plot_style.narrowed(error, ("frozen", x)).sortby(x)
    error = plot_style.by_capacity(error).transpose("frozen", x, ...)
    mean, counts = plot_style.seed_mean(error, along=x)
    left, right = plot_style.log_edges(mean[x].values)
    edges, y_edges = np.append(left, right[-1]), np.arange(mean.sizes["frozen"] + 1) - 0.5
    axes.set_xscale("log")
    axes.set_xlim(left[0], right[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    style = {"norm": norm or shared_norm(mean), "cmap": plot_style.ERROR_COLOURS}
    first = int(mean[x].values[0] == 0 and mean.sizes[x] > 1)
    if first:
        zero = np.array([left[0], right[0]])
        cells(axes, mean.values[:, :1], zero, y_edges, **style)
    cells(axes, mean.values[:, first:], edges[first:], y_edges, **style)
    plot_style.note_seeds(axes, counts)
    train = np.full(mean.shape, np.nan)
    if train_error is not None:
        train_error = plot_style.narrowed(train_error, ("frozen", x))
        train = plot_style.values_like(plot_style.seed_mean(train_error, along=x)[0], mean)
        reached = np.logical_or.accumulate(train <= epsilon, axis=1)
        known = np.broadcast_to(np.isfinite(train).any(axis=1)[:, None], train.shape)
        region(axes, reached, known, edges, y_edges, epsilon, " reached")
    rows = np.arange(mean.sizes["frozen"])
    if ridge is not None:
        peaks = ridge.reindex(frozen=mean["frozen"]).values
        at = plot_style.epoch_positions(mean[x].values, peaks)
        ridge_line(axes, at, rows, _shown(ridge, ridge_shown, mean["frozen"]))
    if diverged is not None:
        flags = diverged.reindex(frozen=mean["frozen"], fill_value=False).values.astype(bool)
        at = np.sqrt(left * right)[[plot_style.last_known(row) for row in mean.values]]
        crosses(axes, at[flags], rows[flags])
    plot_style.log_epoch_axis(axes, mean[x].values, x)
    plot_style.category_axis(axes, "y", plot_style.cut_names(mean), plot_style.name_of("frozen"))
    axes.spines[:].set_visible(False)
    return _cells(mean, train, right)


def _cells(mean: xr.DataArray, train: np.ndarray, right: np.ndarray) -> xr.Dataset:
    values = {"test": mean.variable, "train": (mean.dims, train)}
    coords = {dim: mean[dim] for dim in mean.dims} | {"right": (mean.dims[1], right)}
    coords |= {name: mean[name] for name in plot_style.OF_CUTS if name in mean.coords}
    return xr.Dataset(values, coords)


def only_wanted(error: xr.DataArray, wanted: xr.DataArray | None) -> xr.DataArray:
    """Drop the frozen counts at which no cell is wanted, since their cells are not absent."""
    if wanted is None:
        return error
    others = [dim for dim in wanted.dims if dim != "frozen"]
    some = (wanted == 1).any(others).reindex(frozen=error["frozen"], fill_value=False)
    return error.isel(frozen=some.values) if bool(some.any()) else error


def shared_norm(error: xr.DataArray) -> Normalize:
    """Return one colour scale for all maps of `error`; its ends are the extreme means over seeds."""
    values = plot_style.seed_mean(error)[0].values
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1e-9)


def epoch_norm(error: xr.DataArray) -> Normalize:
    """Return a colour scale for maps over epochs that resolves the errors after the first descent.

    The scale ends at the highest mean that any curve reaches after its minimum, but not below the middle
    of all values. Else untrained networks would use most of the scale. Higher values get the last colour.
    """
    x = next(str(dim) for dim in plot_style.TIMES if dim in error.dims)
    mean = plot_style.seed_mean(error.sortby(x), along=x)[0].transpose(..., x)
    curves = mean.values.reshape(-1, mean.sizes[x])
    curves = curves[np.isfinite(curves).any(axis=1)]
    if not curves.size:
        return Normalize(0.0, 1.0)
    low, high = float(np.nanmin(curves)), float(np.nanmax(curves))
    later = max(float(np.nanmax(curve[np.nanargmin(curve) :])) for curve in curves)
    top = max(later, (low + high) / 2)
    return Normalize(low, top if top > low else low + 1e-9)


def _shown(ridge: xr.DataArray, ridge_shown: xr.DataArray | None, rows: xr.DataArray) -> np.ndarray:
    flags = xr.ones_like(ridge, dtype=bool) if ridge_shown is None else ridge_shown
    return flags.reindex({rows.name: rows}, fill_value=False).values.astype(bool)
