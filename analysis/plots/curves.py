"""Draw curves over epochs and over the freezing on given Axes.

Missing cells are marked, never interpolated. Does not use pyplot."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis.descent import EPSILON
from analysis.descent.intervals import mean_intervals
from analysis.plots import style as plot_style

# Of two seeds a t-interval is 13 standard errors wide to either side: it fills the picture, dots do not.
MIN_BAND_SEEDS: Final = 3


def epoch_curves(
    axes: Axes,
    error: xr.DataArray,
    *,
    colours: dict[float, str] | None = None,
    legend: bool = True,
) -> xr.Dataset:
    """Curves over epochs (log scale), one for each frozen count.

    `error` has dims (frozen, epoch) or (frozen, step); others of length 1 may stay. Colour, dashes and
    the marker at a curve's end all tell the frozen count; epoch 0 is a tick of its own at the left. A mean
    over seeds ends where one of its seeds ends because it diverged: marked ×. Returns the curves
    drawn (`layout.Values`).
    """
    x = plot_style.other_dim(error, "frozen", plot_style.TIMES)
    error = plot_style.narrowed(error, ("frozen", x)).sortby(["frozen", x])
    error = error.transpose("frozen", ..., x)
    mean, counts = plot_style.seed_mean(error, along=x)
    at = plot_style.epoch_positions(mean[x].values)
    colours = colours or plot_style.frozen_colours(mean["frozen"].values)
    absent, diverged = [], False
    for frozen, y in zip(mean["frozen"].values, mean.values, strict=True):
        rank = list(colours).index(float(frozen))
        colour, marker = colours[float(frozen)], plot_style.MARKERS[rank % len(plot_style.MARKERS)]
        if not np.isfinite(y).any():
            absent.append(f"{frozen:.4g}")
            continue
        # The step from epoch 0 is not to scale, so it is not drawn like the rest of the curve.
        first = int(mean[x].values[0] == 0)
        axes.plot(at[: first + 1], y[: first + 1], color=colour, lw=0.6, ls=":")
        dashes = plot_style.DASHES[rank % len(plot_style.DASHES)]
        axes.plot(at[first:], y[first:], color=colour, ls=dashes)
        last = plot_style.last_known(y)
        ended = last < len(y) - 1
        diverged |= ended
        end: dict[str, Any] = (
            {"marker": "x", "ms": 5.5, "mew": 1.4} if ended else {"marker": marker, "ms": 3.8}
        )
        axes.plot(at[last], y[last], color=colour, ls="none", clip_on=False, **end)
        axes.plot([], [], color=colour, ls=dashes, marker=marker, ms=3.8, label=f"{frozen:.4g}")
    plot_style.log_epoch_axis(axes, mean[x].values, x)
    left, right = plot_style.log_edges(mean[x].values)
    axes.set_xlim(left[0], right[-1])
    axes.set_ylabel(plot_style.name_of(error))
    axes.grid(axis="y", color=plot_style.FAINT, alpha=0.25, lw=0.5)
    plot_style.note_seeds(axes, counts)
    if absent:
        plot_style.note(axes, f"absent: frozen {', '.join(absent)}")
    if diverged:
        plot_style.note(axes, "× a seed diverged")
    if legend:
        axes.legend(title="frozen layers", ncols=2, handlelength=3)
    return _values(mean).assign_coords(at=(x, at))


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
) -> xr.Dataset:
    """One curve over the depth of the cut for each value of `by`, with t-intervals over seeds.

    `error` has dims (by, frozen[, seed]); others of length 1 may stay. `x`: "frozen", or one of the
    coordinates "parameters_trained" and "share_trained" over (by,) frozen (log scale; 0 frozen is then at
    the right).
    A marker is filled where the mean `train_error` is at most `epsilon`, hollow where it is not. A curve
    has a gap at an absent cell, but none where `wanted`, over (by, frozen), is false: no such cell was
    asked for.
    Small dots are the seeds; from MIN_BAND_SEEDS on there is a band too: one that leaves the Axes is cut
    off, not narrowed. Returns the curves drawn (`layout.Values`).
    """
    error = plot_style.narrowed(error, (by, "frozen")).sortby("frozen").transpose(by, "frozen", ...)
    train_error, wanted = (
        None if array is None else plot_style.narrowed(array, (by, "frozen"))
        for array in (train_error, wanted)
    )
    mean, counts = plot_style.seed_mean(error)
    train = (
        None
        if train_error is None
        else plot_style.values_like(plot_style.seed_mean(train_error)[0], mean)
    )
    asked = (
        np.ones(mean.shape, bool) if wanted is None else plot_style.values_like(wanted, mean) == 1
    )
    for i, value in enumerate(mean[by].values):
        style: dict[str, Any] = {
            "color": plot_style.OKABE_ITO[i % 7],
            "ls": plot_style.DASHES[i % len(plot_style.DASHES)],
        }
        at, y = _depth(mean.isel({by: i}), x)[asked[i]], mean.values[i, asked[i]]
        full = np.ones(len(y), bool) if train is None else train[i, asked[i]] <= epsilon
        marker: dict[str, Any] = {
            "marker": plot_style.MARKERS[i % len(plot_style.MARKERS)],
            "ms": 4.8,
            "mew": 1.1,
        }
        axes.plot(at, y, **style)
        axes.plot(at[full], y[full], color=style["color"], **marker, ls="none")
        axes.plot(at[~full], y[~full], color=style["color"], mfc="white", **marker, ls="none")
        axes.plot([], [], label=f"{value}", **style, **marker)
        if "seed" in error.dims and error.sizes["seed"] > 1:
            seeds = error.isel({by: i}).transpose("frozen", "seed").values[asked[i]]
            if has_band(error):
                half = _half(seeds, confidence)
                axes.fill_between(at, y - half, y + half, color=style["color"], alpha=0.13, lw=0)
            axes.plot(at, seeds, color=style["color"], ls="none", marker=".", ms=2.5, alpha=0.7)
    axes.set_ylim(*span(error.values))
    axes.set_ylabel(plot_style.name_of(error))
    _depth_axis(axes, mean, x)
    plot_style.note_seeds(axes, counts)
    if legend:
        axes.legend(title=plot_style.name_of(by))
        if train is not None:
            plot_style.note(axes, f"hollow: train error > {epsilon:g}")
    values = _values(mean).assign_coords(at=mean[x])
    if train_error is not None:
        values = values.assign({_label(train_error): (mean.dims, train)})
    return values


def paired_difference(
    axes: Axes,
    error: xr.DataArray,
    first: Any,
    second: Any,
    *,
    by: str = "source_task",
    x: str = "frozen",
    confidence: float = 0.95,
) -> xr.Dataset:
    """The error after `first` minus the error after `second`, seed by seed, against frozen count (C5).

    `error` has dims (by, frozen, seed), `x` is as of `freezing_curves`. Bars are t-intervals over the
    seeds that both have, from MIN_BAND_SEEDS on; small dots are those seeds. Below zero `first` is the
    better source. Returns the curve drawn (`layout.Values`).
    """
    error = plot_style.narrowed(error, (by, "frozen", "seed")).sortby("frozen")
    error = error.transpose(by, "frozen", "seed")
    pairs = (error.sel({by: first}, drop=True) - error.sel({by: second}, drop=True)).values
    mean, half = mean_intervals(pairs.T, confidence)[0], _half(pairs, confidence)
    at = _depth(error.sel({by: first}), x)
    axes.axhline(0, color=plot_style.INK, lw=0.8)
    axes.plot(at, pairs, ls="none", marker=".", ms=3, color=plot_style.FAINT)
    bars = np.where(np.isfinite(half), half, 0.0)
    axes.errorbar(at, mean, bars, color="#0072B2", marker="o", ms=4.2, lw=1.2, capsize=2.5)
    axes.set_ylim(*span(np.append(pairs, 0.0)))
    axes.set_ylabel(f"difference in\n{plot_style.name_of(error)}", labelpad=1.0)
    _depth_axis(axes, error, x)
    plot_style.note_seeds(axes, np.isfinite(pairs).sum(axis=1)[np.isfinite(pairs).any(axis=1)])
    plot_style.note(axes, f"below 0: {first} better")
    name, pair = f"difference in {_label(error)}", f"{first} minus {second}"
    coords = {"pair": [pair], "frozen": error["frozen"], "at": ("frozen", at)}
    return xr.Dataset({name: (("pair", "frozen"), mean[None])}, coords)


def _label(array: xr.DataArray) -> str:
    return str(array.name).replace("_", " ")


def _values(mean: xr.DataArray) -> xr.Dataset:
    return mean.to_dataset(name=_label(mean))


def has_band(error: xr.DataArray) -> bool:
    """Whether intervals over seeds are drawn somewhere: some cell has MIN_BAND_SEEDS or more."""
    if "seed" not in error.dims:
        return False
    return bool((error.notnull().sum("seed") >= MIN_BAND_SEEDS).any())


def _half(seeds: np.ndarray, confidence: float) -> np.ndarray:
    """Half the width of the interval at each point, NaN where fewer than MIN_BAND_SEEDS are; `seeds` is
    (points, seeds)."""
    half = mean_intervals(seeds.T, confidence)[1]
    return np.where(np.isfinite(seeds).sum(axis=1) >= MIN_BAND_SEEDS, half, np.nan)


def span(values: np.ndarray, *, margin: float = 0.08) -> tuple[float, float]:
    """Limits of an axis that shows all known values, with a margin on both sides."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    extra = margin * float(known.max() - known.min()) or 0.01
    return float(known.min()) - extra, float(known.max()) + extra


def _depth(curve: xr.DataArray, x: str) -> np.ndarray:
    if x not in curve.coords:
        raise ValueError(
            f"x={x!r}: choose a coordinate over frozen, {sorted(map(str, curve.coords))}"
        )
    return curve[x].values


def _depth_axis(axes: Axes, array: xr.DataArray, x: str) -> None:
    axes.grid(axis="y", color=plot_style.FAINT, alpha=0.25, lw=0.5)
    if x != "frozen":
        if x in ("parameters_trained", "share_trained"):
            axes.set_xscale("log")
        axes.set_xlabel(plot_style.name_of(x))
        return
    counts = array["frozen"].values
    axes.set_xticks(counts[:: -(-len(counts) // 13)])
    axes.set_xlabel("frozen layers (fewer trained parameters →)")
