"""Pictures of surfaces and curves: each function draws on the Axes it is given, and returns it.

Takes labelled arrays (xarray) as `surfaces` makes them, narrowed to the dimensions that a picture
has; a further dimension "seed" may stay, is then averaged, and the number of seeds is written above the
Axes. Refuses to read a store, to fill a gap (an absent cell is hatched and named so) and to judge a
curve: a ridge to be marked is an argument. Uses no pyplot, so no global state.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from analysis import marks
from analysis.descent import EPSILON


def freezing_map(
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
    """Heat map over frozen count (x) and number of images (y).

    `error` has dims (size or source_size, frozen). The line is the edge of interpolation, along the
    edges of cells (nothing is interpolated between them); its ticks point to the cells whose mean
    `train_error` is at most `epsilon`. `ridge`, over the y dimension, is the frozen count of each
    row's peak, NaN where there is none; where `ridge_shown` is false it is a peak at face value only.
    `diverged`, of error's dims, is true where a seed diverged.
    """
    y = _other_dim(error, "frozen")
    mean, counts = marks.over_seeds(error.sortby([y, "frozen"]).transpose(y, "frozen", ...))
    x_edges, y_edges = (np.arange(mean.sizes[dim] + 1) - 0.5 for dim in ("frozen", y))
    axes.set_xlim(x_edges[0], x_edges[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    norm = norm or shared_norm(mean)
    marks.cells(axes, mean.values, x_edges, y_edges, norm=norm, cmap=marks.ERROR_COLOURS)
    marks.note_seeds(axes, counts)
    if train_error is not None:
        train = _like(marks.over_seeds(train_error)[0], mean)
        known = np.isfinite(train)
        _edge(axes, train <= epsilon, known, x_edges, y_edges, epsilon)
    if ridge is not None:
        peaks = ridge.reindex({y: mean[y]}).values
        columns = np.interp(peaks, mean["frozen"].values, np.arange(mean.sizes["frozen"]))
        columns[~np.isfinite(peaks)] = np.nan
        marks.ridge_line(
            axes, columns, np.arange(mean.sizes[y]), _shown(ridge, ridge_shown, mean[y])
        )
    if diverged is not None:
        rows, columns = np.nonzero(_like(diverged, mean) == 1)
        marks.crosses(axes, columns, rows)
    marks.category_axis(
        axes, "x", mean["frozen"].values, "frozen layers (fewer trained parameters →)"
    )
    marks.category_axis(axes, "y", mean[y].values, marks.name_of(y))
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
    x = _other_dim(error, "frozen")
    error = error.sortby(["frozen", x]).transpose("frozen", x, ...)
    mean, counts = marks.over_seeds(error, along=x)
    left, right = marks.log_edges(mean[x].values)
    edges, y_edges = np.append(left, right[-1]), np.arange(mean.sizes["frozen"] + 1) - 0.5
    axes.set_xscale("log")
    axes.set_xlim(left[0], right[-1])
    axes.set_ylim(y_edges[0], y_edges[-1])
    look = {"norm": norm or shared_norm(mean), "cmap": marks.ERROR_COLOURS}
    first = int(mean[x].values[0] == 0 and mean.sizes[x] > 1)
    if first:
        zero = np.array([left[0], right[0]])
        marks.cells(axes, mean.values[:, :1], zero, y_edges, **look)
    marks.cells(axes, mean.values[:, first:], edges[first:], y_edges, **look)
    marks.note_seeds(axes, counts)
    if train_error is not None:
        train = _like(marks.over_seeds(train_error, along=x)[0], mean)
        reached = np.logical_or.accumulate(train <= epsilon, axis=1)
        known = np.broadcast_to(np.isfinite(train).any(axis=1)[:, None], train.shape)
        _edge(axes, reached, known, edges, y_edges, epsilon, " reached")
    rows = np.arange(mean.sizes["frozen"])
    if ridge is not None:
        peaks = ridge.reindex(frozen=mean["frozen"]).values
        at = marks.epoch_positions(mean[x].values, peaks)
        marks.ridge_line(axes, at, rows, _shown(ridge, ridge_shown, mean["frozen"]))
    if diverged is not None:
        flags = diverged.reindex(frozen=mean["frozen"], fill_value=False).values.astype(bool)
        at = np.sqrt(left * right)[[_last_known(row) for row in mean.values]]
        marks.crosses(axes, at[flags], rows[flags])
    marks.log_epoch_axis(axes, mean[x].values, x)
    marks.category_axis(axes, "y", mean["frozen"].values, marks.name_of("frozen"))
    return _finish_map(axes, error, colour_bar, legend)


def epoch_curves(
    axes: Axes,
    error: xr.DataArray,
    *,
    band: bool = False,
    confidence: float = 0.95,
    colours: dict[int, str] | None = None,
    legend: bool = True,
) -> Axes:
    """Curves over epochs (log scale), one for each frozen count.

    `error` has dims (frozen, epoch) or (frozen, step). Colour, dashes and the marker at a curve's end
    all tell the frozen count; epoch 0 is a tick of its own at the left. A mean over seeds ends where
    one of its seeds ends because it diverged: marked ×. `band`: t-intervals over seeds.
    """
    x = _other_dim(error, "frozen")
    error = error.sortby(["frozen", x]).transpose("frozen", x, ...)
    mean, counts = marks.over_seeds(error, along=x)
    at = marks.epoch_positions(mean[x].values)
    colours = colours or marks.frozen_colours(mean["frozen"].values)
    absent, diverged = [], False
    for frozen, y, curves in zip(mean["frozen"].values, mean.values, error.values, strict=True):
        rank = list(colours).index(int(frozen))
        colour, marker = colours[int(frozen)], marks.MARKERS[rank % len(marks.MARKERS)]
        if not np.isfinite(y).any():
            absent.append(f"{frozen}")
            continue
        # The step from epoch 0 is not to scale, so it is not drawn like the rest of the curve.
        first = int(mean[x].values[0] == 0)
        axes.plot(at[: first + 1], y[: first + 1], color=colour, lw=0.6, ls=":")
        dashes = marks.DASHES[rank % len(marks.DASHES)]
        axes.plot(at[first:], y[first:], color=colour, ls=dashes)
        last = _last_known(y)
        ended = last < len(y) - 1
        diverged |= ended
        end: dict[str, Any] = (
            {"marker": "x", "ms": 5.5, "mew": 1.4} if ended else {"marker": marker, "ms": 3.8}
        )
        axes.plot(at[last], y[last], color=colour, ls="none", clip_on=False, **end)
        axes.plot([], [], color=colour, ls=dashes, marker=marker, ms=3.8, label=f"{frozen}")
        if band and "seed" in error.dims:
            _, half = marks.t_interval(np.moveaxis(curves, -1, 0), confidence)
            axes.fill_between(at, y - half, y + half, color=colour, alpha=0.15, lw=0)
    marks.log_epoch_axis(axes, mean[x].values, x)
    left, right = marks.log_edges(mean[x].values)
    axes.set_xlim(left[0], right[-1])
    axes.set_ylabel(marks.name_of(error))
    axes.grid(axis="y", color=marks.FAINT, alpha=0.25, lw=0.5)
    marks.note_seeds(axes, counts)
    if absent:
        marks.note(axes, f"absent: frozen {', '.join(absent)}")
    if diverged:
        marks.note(axes, "× a seed diverged")
    if legend:
        axes.legend(title="frozen layers", ncols=2, handlelength=3)
    return axes


def freezing_curves(
    axes: Axes,
    error: xr.DataArray,
    *,
    by: str = "source_task",
    x: str = "frozen",
    train_error: xr.DataArray | None = None,
    wanted: xr.DataArray | None = None,
    epsilon: float = EPSILON,
    confidence: float = 0.95,
    legend: bool = True,
) -> Axes:
    """One curve over the depth of the cut for each value of `by`, with t-intervals over seeds.

    `error` has dims (by, frozen[, seed]). `x`: "frozen", or one of the coordinates
    "parameters_trained" and "share_trained" over (by,) frozen (log scale; 0 frozen is then at the right).
    A marker is filled where the mean `train_error` is at most `epsilon`, hollow where it is not. A curve
    has a gap at an absent cell, but none where `wanted`, over (by, frozen), is false: no such cell was
    asked for.
    Small dots are the seeds; a band that leaves the Axes is cut off, not narrowed.
    """
    error = error.sortby("frozen").transpose(by, "frozen", ...)
    mean, counts = marks.over_seeds(error)
    train = None if train_error is None else _like(marks.over_seeds(train_error)[0], mean)
    asked = np.ones(mean.shape, bool) if wanted is None else _like(wanted, mean) == 1
    for i, value in enumerate(mean[by].values):
        look: dict[str, Any] = {
            "color": marks.OKABE_ITO[i % 7],
            "ls": marks.DASHES[i % len(marks.DASHES)],
        }
        at, y = _depth(mean.isel({by: i}), x)[asked[i]], mean.values[i, asked[i]]
        full = np.ones(len(y), bool) if train is None else train[i, asked[i]] <= epsilon
        marker: dict[str, Any] = {
            "marker": marks.MARKERS[i % len(marks.MARKERS)],
            "ms": 4.8,
            "mew": 1.1,
        }
        axes.plot(at, y, **look)
        axes.plot(at[full], y[full], color=look["color"], **marker, ls="none")
        axes.plot(at[~full], y[~full], color=look["color"], mfc="white", **marker, ls="none")
        axes.plot([], [], label=f"{value}", **look, **marker)
        if "seed" in error.dims and error.sizes["seed"] > 1:
            seeds = error.isel({by: i}).transpose("frozen", "seed").values[asked[i]]
            _, half = marks.t_interval(seeds.T, confidence)
            axes.fill_between(at, y - half, y + half, color=look["color"], alpha=0.13, lw=0)
            axes.plot(at, seeds, color=look["color"], ls="none", marker=".", ms=2.5, alpha=0.7)
    axes.set_ylim(*span(error.values))
    axes.set_ylabel(marks.name_of(error))
    _depth_axis(axes, mean, x)
    marks.note_seeds(axes, counts)
    if legend:
        axes.legend(title=marks.name_of(by))
        if train is not None:
            marks.note(axes, f"hollow: train error > {epsilon:g}")
    return axes


def paired_difference(
    axes: Axes,
    error: xr.DataArray,
    first: Any,
    second: Any,
    *,
    by: str = "source_task",
    confidence: float = 0.95,
) -> Axes:
    """The error after `first` minus the error after `second`, seed by seed, against frozen count (C5).

    `error` has dims (by, frozen, seed). Bars are t-intervals over the seeds that both have; small
    dots are those seeds. Below zero `first` is the better source.
    """
    error = error.sortby("frozen").transpose(by, "frozen", "seed")
    pairs = (error.sel({by: first}, drop=True) - error.sel({by: second}, drop=True)).values
    mean, half = marks.t_interval(pairs.T, confidence)
    at = error["frozen"].values
    axes.axhline(0, color=marks.INK, lw=0.8)
    axes.plot(at, pairs, ls="none", marker=".", ms=3, color=marks.FAINT)
    bars = np.where(np.isfinite(half), half, 0.0)
    axes.errorbar(at, mean, bars, color="#0072B2", marker="o", ms=4.2, lw=1.2, capsize=2.5)
    axes.set_ylim(*span(np.append(pairs, 0.0)))
    axes.set_ylabel(f"difference in\n{marks.name_of(error)}", labelpad=1.0)
    side: dict[str, Any] = {
        "rotation": 90,
        "fontsize": 6.5,
        "transform": axes.transAxes,
        "color": marks.FAINT,
    }
    axes.text(1.015, 0.99, f"{second} better →", va="top", **side)
    axes.text(1.015, 0.01, f"← {first} better", va="bottom", **side)
    _depth_axis(axes, error, "frozen")
    marks.note_seeds(axes, np.isfinite(pairs).sum(axis=1)[np.isfinite(pairs).any(axis=1)])
    return axes


def model_comparison(axes: Axes, error: xr.DataArray, *, by: str = "model", **how: Any) -> Axes:
    """`freezing_curves` of networks: against the share of parameters trained, as depths differ."""
    return freezing_curves(axes, error, by=by, x="share_trained", **how)


def shared_norm(*errors: xr.DataArray) -> Normalize:
    """One colour scale for several maps: from the least to the greatest mean over seeds of them all."""
    values = np.concatenate([marks.over_seeds(error)[0].values.ravel() for error in errors])
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
    mean = marks.over_seeds(error.sortby(x), along=x)[0].transpose(..., x)
    curves = mean.values.reshape(-1, mean.sizes[x])
    curves = curves[np.isfinite(curves).any(axis=1)]
    if not curves.size:
        return Normalize(0.0, 1.0)
    low, high = float(np.nanmin(curves)), float(np.nanmax(curves))
    later = max(float(np.nanmax(curve[np.nanargmin(curve) :])) for curve in curves)
    top = max(later, (low + high) / 2)
    return Normalize(low, top if top > low else low + 1e-9)


def span(values: np.ndarray, *, margin: float = 0.08) -> tuple[float, float]:
    """Limits of an axis that shows all known values, with a margin on both sides."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    extra = margin * float(known.max() - known.min()) or 0.01
    return float(known.min()) - extra, float(known.max()) + extra


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
    marks.region(
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
        axes.figure.colorbar(axes.collections[0], ax=axes, label=marks.name_of(error))
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


def _other_dim(array: xr.DataArray, known: str) -> str:
    others = [str(dim) for dim in array.dims if dim not in (known, "seed")]
    if known not in array.dims or len(others) != 1:
        raise ValueError(
            f"dims {array.dims}: select first, until only {known!r}, one other and perhaps 'seed' stay"
        )
    return others[0]


def _like(array: xr.DataArray, shape: xr.DataArray) -> np.ndarray:
    """Values of `array` at the labels of `shape`, in its order of dimensions; NaN where absent."""
    labels = {dim: shape[dim] for dim in shape.dims}
    return array.astype(float).reindex(labels).transpose(*shape.dims).values


def _last_known(curve: np.ndarray) -> int:
    known = np.flatnonzero(np.isfinite(curve))
    return int(known[-1]) if known.size else 0


def _depth(curve: xr.DataArray, x: str) -> np.ndarray:
    if x not in curve.coords:
        raise ValueError(
            f"x={x!r}: choose a coordinate over frozen, {sorted(map(str, curve.coords))}"
        )
    return curve[x].values


def _depth_axis(axes: Axes, array: xr.DataArray, x: str) -> None:
    axes.grid(axis="y", color=marks.FAINT, alpha=0.25, lw=0.5)
    if x != "frozen":
        if x in ("parameters_trained", "share_trained"):
            axes.set_xscale("log")
        axes.set_xlabel(marks.name_of(x))
        return
    counts = array["frozen"].values
    axes.set_xticks(counts[:: -(-len(counts) // 13)])
    axes.set_xlabel("frozen layers (fewer trained parameters →)")
