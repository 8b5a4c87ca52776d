"""Draw heat maps and the marks on them, cell by cell.

Missing cells are hatched; nothing is interpolated."""

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
                colors=INK,
                linewidths=1.3 if number == 0 else 0.9,
                capstyle="projecting",
                path_effects=HALO,
                label=f"{label} (side of the ticks)" if number == 0 else "_",
            ),
            autolim=False,
        )


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
    style: dict[str, Any] = {"color": INK, "path_effects": HALO, "clip_on": False, "zorder": 5}
    if (shown & np.isfinite(x)).any():
        at = np.where(shown, x, np.nan)
        axes.plot(at, y, lw=1.0, marker="o", ms=4.8, mfc=PAPER, label="peak", **style)
    if (~shown & np.isfinite(x)).any():
        at = np.where(shown, np.nan, x)
        label = "peak at face value: the seeds cannot tell"
        axes.plot(at, y, ls="none", marker="o", ms=2.4, label=label, **style)


def crosses(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Marks cells where a seed's loss was not finite."""
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
    colour_bar: bool = True,
    legend: bool = True,
) -> xr.Dataset:
    """Heat map over frozen count (x) and number of images (y).

    `error` has dims (size or source_size, frozen). The line is the edge of interpolation, along the
    edges of cells (nothing is interpolated between them); its ticks point to the cells whose mean
    `train_error` is at most `epsilon`. `ridge`, over the y dimension, is the frozen count of each
    row's peak, NaN where there is none; where `ridge_shown` is false it is a peak at face value only.
    `diverged`, of error's dims, is true where a seed diverged. A frozen count that is `wanted`, of
    error's dims, at no y has no column. Returns the cells drawn (`layout.Values`).
    """
    y = plot_style.other_dim(error, "frozen", plot_style.SIZES)
    error = asked(plot_style.narrowed(error, (y, "frozen")), wanted)
    mean, counts = plot_style.seed_mean(error.sortby([y, "frozen"]).transpose(y, "frozen", ...))
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
        _edge(axes, train <= epsilon, known, x_edges, y_edges, epsilon)
    if ridge is not None:
        peaks = ridge.reindex({y: mean[y]}).values
        columns = np.interp(peaks, mean["frozen"].values, np.arange(mean.sizes["frozen"]))
        columns[~np.isfinite(peaks)] = np.nan
        ridge_line(axes, columns, np.arange(mean.sizes[y]), _shown(ridge, ridge_shown, mean[y]))
    if diverged is not None:
        rows, columns = np.nonzero(plot_style.values_like(diverged, mean) == 1)
        crosses(axes, columns, rows)
    plot_style.category_axis(
        axes, "x", mean["frozen"].values, "frozen layers (fewer trained parameters →)"
    )
    plot_style.category_axis(axes, "y", mean[y].values, plot_style.name_of(y))
    _finish_map(axes, error, colour_bar, legend)
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
    colour_bar: bool = True,
    legend: bool = True,
) -> xr.Dataset:
    """Heat map over epochs (x, log scale) and frozen count (y).

    `error` has dims (frozen, epoch) or (frozen, step). Epoch 0 (before training) is a column of its own
    at the left. The line is, for each frozen count, the first epoch whose mean `train_error` is at
    most `epsilon`; its ticks point to later epochs. `ridge`, over frozen, is the epoch of the peak,
    NaN where there is none; where `ridge_shown` is false it is a peak at face value only. `diverged`,
    over frozen, is true where a seed diverged. Returns the cells drawn (`layout.Values`).
    """
    x = plot_style.other_dim(error, "frozen", plot_style.TIMES)
    error = (
        plot_style.narrowed(error, ("frozen", x)).sortby(["frozen", x]).transpose("frozen", x, ...)
    )
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
        _edge(axes, reached, known, edges, y_edges, epsilon, " reached")
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
    plot_style.category_axis(axes, "y", mean["frozen"].values, plot_style.name_of("frozen"))
    _finish_map(axes, error, colour_bar, legend)
    return _cells(mean, train, right)


def _cells(mean: xr.DataArray, train: np.ndarray, right: np.ndarray) -> xr.Dataset:
    values = {"test": mean.variable, "train": (mean.dims, train)}
    return xr.Dataset(
        values, {dim: mean[dim] for dim in mean.dims} | {"right": (mean.dims[1], right)}
    )


def asked(error: xr.DataArray, wanted: xr.DataArray | None) -> xr.DataArray:
    """Without the frozen counts at which nothing was asked for: those are no absent cells."""
    if wanted is None:
        return error
    others = [dim for dim in wanted.dims if dim != "frozen"]
    some = (wanted == 1).any(others).reindex(frozen=error["frozen"], fill_value=False)
    return error.isel(frozen=some.values) if bool(some.any()) else error


def shared_norm(*errors: xr.DataArray) -> Normalize:
    """One colour scale for several maps: from the least to the greatest mean over seeds of them all."""
    values = np.concatenate([plot_style.seed_mean(error)[0].values.ravel() for error in errors])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + 1e-9)


def epoch_norm(error: xr.DataArray) -> Normalize:
    """A colour scale for maps over epochs that shows what comes after the first fall.

    It ends at the highest mean that any curve reaches after its minimum, or half-way up all values,
    whichever is more: untrained networks would otherwise use most of it up. Higher values are shown
    in its last colour.
    """
    x = next(str(dim) for dim in ("epoch", "step") if dim in error.dims)
    mean = plot_style.seed_mean(error.sortby(x), along=x)[0].transpose(..., x)
    curves = mean.values.reshape(-1, mean.sizes[x])
    curves = curves[np.isfinite(curves).any(axis=1)]
    if not curves.size:
        return Normalize(0.0, 1.0)
    low, high = float(np.nanmin(curves)), float(np.nanmax(curves))
    later = max(float(np.nanmax(curve[np.nanargmin(curve) :])) for curve in curves)
    top = max(later, (low + high) / 2)
    return Normalize(low, top if top > low else low + 1e-9)


def _edge(
    axes: Axes,
    inside: np.ndarray,
    known: np.ndarray,
    x_edges: np.ndarray,
    y_edges: np.ndarray,
    epsilon: float,
    how: str = "",
) -> None:
    low, high = f"train error ≤ {epsilon:g}", f"train error > {epsilon:g}"
    region(
        axes,
        inside,
        known,
        x_edges,
        y_edges,
        label=f"{low}{how}",
        everywhere=low,
        nowhere=high,
    )


def _finish_map(axes: Axes, error: xr.DataArray, colour_bar: bool, legend: bool) -> None:
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if colour_bar:
        axes.figure.colorbar(axes.collections[0], ax=axes, label=plot_style.name_of(error))
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    if legend and named:
        where: dict[str, Any] = {
            "loc": "upper left",
            "bbox_to_anchor": (0.0, -0.2),
            "borderaxespad": 0,
        }
        axes.legend(list(named.values()), list(named), **where)


def _shown(ridge: xr.DataArray, ridge_shown: xr.DataArray | None, rows: xr.DataArray) -> np.ndarray:
    flags = xr.ones_like(ridge, dtype=bool) if ridge_shown is None else ridge_shown
    return flags.reindex({rows.name: rows}, fill_value=False).values.astype(bool)
