"""Draw curves over epochs and over the freezing on given Axes, without interpolating missing cells.

Must not use pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis.descent import EPSILON
from analysis.descent.intervals import mean_intervals
from analysis.plots import style as plot_style

# With 2 seeds, the t-interval is ±13 standard errors and would fill the panel.
MIN_BAND_SEEDS: Final = 3
MARGIN: Final = 0.08  # of the values' range, above and below


def epoch_curves(
    axes: Axes,
    error: xr.DataArray,
    *,
    colours: dict[float, str] | None = None,
) -> xr.Dataset:
    """Draw a curve over epochs (log scale) for each frozen count; return the curves (`layout.Values`).

    Frozen counts differ in colour, dashes and the marker at the end. Epoch 0 has a separate tick.
    If a seed diverges, the mean over seeds ends there, at ×.

    Args:
        error: dims (frozen, epoch or step[, seed]); other dimensions need length 1.
    """
    x = plot_style.other_dim(error, "frozen", plot_style.TIMES)
    error = plot_style.by_capacity(plot_style.narrowed(error, ("frozen", x)).sortby(x))
    error = error.transpose("frozen", ..., x)
    mean, counts = plot_style.seed_mean(error, along=x)
    at = plot_style.epoch_positions(mean[x].values)
    colours = colours or plot_style.frozen_colours(mean["frozen"].values)
    absent, diverged = [], False
    names = plot_style.cut_names(mean)
    for name, frozen, y in zip(names, mean["frozen"].values, mean.values, strict=True):
        rank = list(colours).index(float(frozen))
        colour, marker = colours[float(frozen)], plot_style.MARKERS[rank % len(plot_style.MARKERS)]
        if not np.isfinite(y).any():
            absent.append(name)
            continue
        # The step from epoch 0 is not to scale, so it is drawn differently.
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
        axes.plot([], [], color=colour, ls=dashes, marker=marker, ms=3.8, label=name)
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
    return _values(mean).assign_coords(at=(x, at))


def capacity_curves(
    above: Axes,
    below: Axes | None,
    test: xr.DataArray,
    train: xr.DataArray,
    *,
    by: str,
    wanted: xr.DataArray | None = None,
    epsilon: float = EPSILON,
) -> tuple[xr.Dataset, ...]:
    """Draw test error over trained parameters (log scale) for each value of `by`, train error on `below`.

    With at least MIN_BAND_SEEDS seeds, bands show t-intervals. A marker is filled if the mean train error
    is at most `epsilon`. On curves of three or more cuts, the edge is shaded: the range between the first
    filled marker and the marker before it.

    Args:
        test, train: dims (by, frozen[, seed]), with `parameters_trained` over frozen; without it, the x
            axis is the frozen count, falling.
        wanted: dims (by, frozen). A curve has gaps only at wanted cells.

    Returns:
        The curves on `above` and, unless it is None, on `below` (`layout.Values`).
    """
    test, train = (
        plot_style.by_capacity(plot_style.narrowed(array, (by, "frozen"))).transpose(
            by, "frozen", ...
        )
        for array in (test, train)
    )
    mean, counts = plot_style.seed_mean(test)
    trained = plot_style.values_like(plot_style.seed_mean(train)[0], mean)
    asked = np.ones(mean.shape, bool)
    if wanted is not None:
        asked = plot_style.values_like(plot_style.narrowed(wanted, (by, "frozen")), mean) == 1
    x = "parameters_trained"
    at = np.asarray(mean[x].values, float) if x in mean.coords else np.full(mean.shape[1], np.nan)
    if not np.isfinite(at).all():
        x, at = "frozen", mean["frozen"].values.astype(float)
    edges = set()
    for i, value in enumerate(mean[by].values):
        style: dict[str, Any] = {
            "color": plot_style.OKABE_ITO[i % 7],
            "ls": plot_style.DASHES[i % len(plot_style.DASHES)],
            "marker": plot_style.MARKERS[i % len(plot_style.MARKERS)],
            "ms": 4.2,
            "mew": 1.0,
        }
        here, y, error = at[asked[i]], mean.values[i, asked[i]], trained[i, asked[i]]
        filled = ~(error > epsilon)
        for axes, values in ((above, y), (below, error)):
            if axes is None:
                continue
            axes.plot(here, values, **style | {"marker": ""})
            for some, face in ((filled, style["color"]), (~filled, plot_style.PAPER)):
                axes.plot(here[some], values[some], **style | {"ls": "none"}, mfc=face)
        above.plot([], [], label=f"{value}", **style)
        if has_band(test):
            half = _half(test.isel({by: i}).transpose("frozen", "seed").values[asked[i]])
            above.fill_between(here, y - half, y + half, color=style["color"], alpha=0.15, lw=0)
        reached = np.flatnonzero(error <= epsilon)
        # Two cuts show no more than that the edge is between them.
        if reached.size and reached[0] and len(error) > 2:
            edges.add((float(here[reached[0] - 1]), float(here[reached[0]])))
    drawn = [above] if below is None else [above, below]
    for axes in drawn:
        for number, ends in enumerate(sorted(edges)):
            name = f"edge: the train error falls to {epsilon:g}" if not number else "_"
            axes.axvspan(*ends, color=plot_style.EDGE, lw=0, zorder=0, label=name)
        _depth_axis(axes, mean, x)
    if below is not None:
        below.axhline(epsilon, color=plot_style.INK, lw=0.7, ls=(0, (1, 2)))
        below.set_ylabel(plot_style.name_of(train).replace(" (", "\n("))
        above.set_xlabel("")
        above.tick_params(labelbottom=False)
    above.set_ylabel(plot_style.name_of(test))
    plot_style.note_seeds(above, counts)
    values = _values(mean).assign_coords(at=("frozen", at))
    other = xr.Dataset({_label(train): (mean.dims, trained)}, values.coords)
    both = (values.merge(other, compat="override"), other.merge(values, compat="override"))
    return both[: len(drawn)]


def freezing_curves(
    axes: Axes,
    error: xr.DataArray,
    *,
    by: str = "source_task",
    x: str = "frozen",
    train_error: xr.DataArray | None = None,
    wanted: xr.DataArray | None = None,
    epsilon: float = EPSILON,
) -> xr.Dataset:
    """Draw a curve over the cut for each value of `by`; return the curves (`layout.Values`).

    Dots are seeds. With at least MIN_BAND_SEEDS seeds, a band shows t-intervals, clipped at the frame.

    Args:
        error: dims (by, frozen[, seed]); other dimensions need length 1.
        x: the x axis: "frozen", "share_frozen", or (log scale) "parameters_trained" or "share_trained".
            The fewest frozen layers are at the right.
        train_error: dims like `error`. A marker is hollow if the mean train error is above `epsilon`.
        wanted: dims (by, frozen). A curve has gaps only at wanted cells.
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
                half = _half(seeds)
                axes.fill_between(at, y - half, y + half, color=style["color"], alpha=0.13, lw=0)
            axes.plot(at, seeds, color=style["color"], ls="none", marker=".", ms=2.5, alpha=0.7)
    axes.set_ylim(*span(error.values))
    axes.set_ylabel(plot_style.name_of(error))
    _depth_axis(axes, mean, x)
    plot_style.note_seeds(axes, counts)
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
) -> xr.Dataset:
    """Draw the error of source `first` minus the error of `second`, seed by seed (C5); return the mean.

    Dots are seeds that have both errors. With at least MIN_BAND_SEEDS such seeds, bars are t-intervals.

    Args:
        error: dims (by, frozen, seed).
        x: as in `freezing_curves`.
    """
    error = plot_style.narrowed(error, (by, "frozen", "seed")).sortby("frozen")
    error = error.transpose(by, "frozen", "seed")
    pairs = (error.sel({by: first}, drop=True) - error.sel({by: second}, drop=True)).values
    mean, half = mean_intervals(pairs.T)[0], _half(pairs)
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
    """Return True if intervals are drawn: some cell has at least MIN_BAND_SEEDS seeds."""
    if "seed" not in error.dims:
        return False
    return bool((error.notnull().sum("seed") >= MIN_BAND_SEEDS).any())


def _half(seeds: np.ndarray) -> np.ndarray:
    """Return half widths of intervals, (points,), of (points, seeds); NaN below MIN_BAND_SEEDS seeds."""
    half = mean_intervals(seeds.T)[1]
    return np.where(np.isfinite(seeds).sum(axis=1) >= MIN_BAND_SEEDS, half, np.nan)


def span(values: np.ndarray) -> tuple[float, float]:
    """Return axis limits (low, high) that contain all finite values, with a margin."""
    known = values[np.isfinite(values)]
    if known.size == 0:
        return 0.0, 1.0
    extra = MARGIN * float(known.max() - known.min()) or 0.01
    return float(known.min()) - extra, float(known.max()) + extra


def _depth(curve: xr.DataArray, x: str) -> np.ndarray:
    if x not in curve.coords:
        raise ValueError(
            f"x={x!r}: choose a coordinate along frozen: {', '.join(sorted(map(str, curve.coords)))}"
        )
    return curve[x].values


def _depth_axis(axes: Axes, array: xr.DataArray, x: str) -> None:
    axes.grid(axis="y", color=plot_style.FAINT, alpha=0.25, lw=0.5)
    if x != "frozen":
        if x in ("parameters_trained", "share_trained"):
            plot_style.log_axis(axes, array[x].values)
        elif not axes.xaxis_inverted():
            axes.invert_xaxis()
        axes.set_xlabel(f"{plot_style.name_of(x)}{plot_style.ends_in_words(array)}")
        return
    counts, names = array["frozen"].values, plot_style.cut_names(array)
    _label_cuts(axes, counts, names)
    if not axes.xaxis_inverted():
        axes.invert_xaxis()
    axes.set_xlabel("frozen layers (more trained parameters →)")


def _label_cuts(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """Label frozen counts on the x axis, without labels that overlap; outer labels extend inwards."""
    inches = axes.get_window_extent().width / axes.figure.dpi
    x = (counts - counts.min()) / max(float(np.ptp(counts)), 1e-9) * inches
    half = np.array([plot_style.LETTER * (len(name) + 1) / 2 for name in names])
    order = np.argsort(counts).tolist()
    low, high = order[0], order[-1]
    x[low] += half[low]
    x[high] -= half[high]
    shown = [low]
    for i in order[1:]:
        after_last = x[i] - x[shown[-1]] >= half[i] + half[shown[-1]]
        if after_last and (i == high or x[high] - x[i] >= half[high] + half[i]):
            shown.append(i)
    labels = axes.set_xticks(counts[shown], [names[i] for i in shown])
    for tick, i in zip(labels, shown, strict=True):
        tick.label1.set_horizontalalignment(
            "right" if i == low else "left" if i == high else "center"
        )
