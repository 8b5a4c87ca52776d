"""Heat maps of surfaces: freezing-wise and over the epochs, and the marks on them.

Draws on the Axes that it is given, cell by cell: nothing is interpolated between cells, and an absent
one is hatched and named so. Refuses to judge a curve: a ridge to be marked is an argument.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from analysis.descent import EPSILON
from analysis.pictures import look, map_marks


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
) -> Axes:
    """Heat map over frozen count (x) and number of images (y).

    `error` has dims (size or source_size, frozen). The line is the edge of interpolation, along the
    edges of cells (nothing is interpolated between them); its ticks point to the cells whose mean
    `train_error` is at most `epsilon`. `ridge`, over the y dimension, is the frozen count of each
    row's peak, NaN where there is none; where `ridge_shown` is false it is a peak at face value only.
    `diverged`, of error's dims, is true where a seed diverged. A frozen count that is `wanted`, of
    error's dims, at no y has no column.
    """
    y = look.other_dim(error, "frozen", look.SIZES)
    error = asked(look.narrowed(error, (y, "frozen")), wanted)
    mean, counts = look.seed_mean(error.sortby([y, "frozen"]).transpose(y, "frozen", ...))
    x_edges, y_edges = (np.arange(mean.sizes[dim] + 1) - 0.5 for dim in ("frozen", y))
    axes.set_xlim(x_edges[0], x_edges[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    norm = norm or shared_norm(mean)
    map_marks.cells(axes, mean.values, x_edges, y_edges, norm=norm, cmap=look.ERROR_COLOURS)
    look.note_seeds(axes, counts)
    if train_error is not None:
        train_error = look.narrowed(train_error, (y, "frozen"))
        train = look.values_like(look.seed_mean(train_error)[0], mean)
        known = np.isfinite(train)
        _edge(axes, train <= epsilon, known, x_edges, y_edges, epsilon)
    if ridge is not None:
        peaks = ridge.reindex({y: mean[y]}).values
        columns = np.interp(peaks, mean["frozen"].values, np.arange(mean.sizes["frozen"]))
        columns[~np.isfinite(peaks)] = np.nan
        map_marks.ridge_line(
            axes, columns, np.arange(mean.sizes[y]), _shown(ridge, ridge_shown, mean[y])
        )
    if diverged is not None:
        rows, columns = np.nonzero(look.values_like(diverged, mean) == 1)
        map_marks.crosses(axes, columns, rows)
    look.category_axis(
        axes, "x", mean["frozen"].values, "frozen layers (fewer trained parameters →)"
    )
    look.category_axis(axes, "y", mean[y].values, look.name_of(y))
    return _finish_map(axes, error, colour_bar, legend)


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
) -> Axes:
    """Heat map over epochs (x, log scale) and frozen count (y).

    `error` has dims (frozen, epoch) or (frozen, step). Epoch 0 (before training) is a column of its own
    at the left. The line is, for each frozen count, the first epoch whose mean `train_error` is at
    most `epsilon`; its ticks point to later epochs. `ridge`, over frozen, is the epoch of the peak,
    NaN where there is none; where `ridge_shown` is false it is a peak at face value only. `diverged`,
    over frozen, is true where a seed diverged.
    """
    x = look.other_dim(error, "frozen", look.TIMES)
    error = look.narrowed(error, ("frozen", x)).sortby(["frozen", x]).transpose("frozen", x, ...)
    mean, counts = look.seed_mean(error, along=x)
    left, right = look.log_edges(mean[x].values)
    edges, y_edges = np.append(left, right[-1]), np.arange(mean.sizes["frozen"] + 1) - 0.5
    axes.set_xscale("log")
    axes.set_xlim(left[0], right[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    style = {"norm": norm or shared_norm(mean), "cmap": look.ERROR_COLOURS}
    first = int(mean[x].values[0] == 0 and mean.sizes[x] > 1)
    if first:
        zero = np.array([left[0], right[0]])
        map_marks.cells(axes, mean.values[:, :1], zero, y_edges, **style)
    map_marks.cells(axes, mean.values[:, first:], edges[first:], y_edges, **style)
    look.note_seeds(axes, counts)
    if train_error is not None:
        train_error = look.narrowed(train_error, ("frozen", x))
        train = look.values_like(look.seed_mean(train_error, along=x)[0], mean)
        reached = np.logical_or.accumulate(train <= epsilon, axis=1)
        known = np.broadcast_to(np.isfinite(train).any(axis=1)[:, None], train.shape)
        _edge(axes, reached, known, edges, y_edges, epsilon, " reached")
    rows = np.arange(mean.sizes["frozen"])
    if ridge is not None:
        peaks = ridge.reindex(frozen=mean["frozen"]).values
        at = look.epoch_positions(mean[x].values, peaks)
        map_marks.ridge_line(axes, at, rows, _shown(ridge, ridge_shown, mean["frozen"]))
    if diverged is not None:
        flags = diverged.reindex(frozen=mean["frozen"], fill_value=False).values.astype(bool)
        at = np.sqrt(left * right)[[look.last_known(row) for row in mean.values]]
        map_marks.crosses(axes, at[flags], rows[flags])
    look.log_epoch_axis(axes, mean[x].values, x)
    look.category_axis(axes, "y", mean["frozen"].values, look.name_of("frozen"))
    return _finish_map(axes, error, colour_bar, legend)


def asked(error: xr.DataArray, wanted: xr.DataArray | None) -> xr.DataArray:
    """Without the frozen counts at which nothing was asked for: those are no absent cells."""
    if wanted is None:
        return error
    others = [dim for dim in wanted.dims if dim != "frozen"]
    some = (wanted == 1).any(others).reindex(frozen=error["frozen"], fill_value=False)
    return error.isel(frozen=some.values) if bool(some.any()) else error


def shared_norm(*errors: xr.DataArray) -> Normalize:
    """One colour scale for several maps: from the least to the greatest mean over seeds of them all."""
    values = np.concatenate([look.seed_mean(error)[0].values.ravel() for error in errors])
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
    mean = look.seed_mean(error.sortby(x), along=x)[0].transpose(..., x)
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
    map_marks.region(
        axes,
        inside,
        known,
        x_edges,
        y_edges,
        label=f"{low}{how}",
        everywhere=low,
        nowhere=high,
    )


def _finish_map(axes: Axes, error: xr.DataArray, colour_bar: bool, legend: bool) -> Axes:
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if colour_bar:
        axes.figure.colorbar(axes.collections[0], ax=axes, label=look.name_of(error))
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    if legend and named:
        where: dict[str, Any] = {
            "loc": "upper left",
            "bbox_to_anchor": (0.0, -0.2),
            "borderaxespad": 0,
        }
        axes.legend(list(named.values()), list(named), **where)
    return axes


def _shown(ridge: xr.DataArray, ridge_shown: xr.DataArray | None, rows: xr.DataArray) -> np.ndarray:
    flags = xr.ones_like(ridge, dtype=bool) if ridge_shown is None else ridge_shown
    return flags.reindex({rows.name: rows}, fill_value=False).values.astype(bool)
