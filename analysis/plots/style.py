"""Define the plots' style: colours, names with units, marks, scales.

Must not change global state of matplotlib: apply `STYLE` with `matplotlib.rc_context`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, to_hex
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter

INK: Final = "#1b1e23"
FAINT: Final = "#7d838c"
TIMES: Final = ("epoch", "step")
SIZES: Final = ("size", "source_size")
PAPER: Final = "#ffffff"
LETTER: Final = 0.062  # inches, width of a digit in a tick label
WORD_LETTER: Final = 0.054  # inches, mean width of a letter in a tick label of words
ABSENT: Final = "#eef0f2"
EDGE: Final = "#e3e6ea"
STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
    "axes.titley": 1.0,  # fixed, because automatic placement takes a tenth of the drawing time
    "axes.labelsize": 8.0,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.title_fontsize": 7.5,
    "lines.linewidth": 1.3,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "freezewise",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
}

# Okabe & Ito (2008), ordered so that neighbours differ in lightness. Dashes and markers also differ.
OKABE_ITO: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", INK)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES: Final[tuple[Any, ...]] = ("-", (0, (4.5, 1.4)), (0, (1.3, 1.0)), (0, (6, 1.3, 1.2, 1.3)))
# Perceptually uniform, ordered in lightness, and different from the colours of the frozen counts.
ERROR_COLOURS: Final[Colormap] = matplotlib.colormaps["magma"]
OF_CUTS: Final = ("cut", "parameters_trained")  # coordinates over frozen
HEAD_ONLY: Final = "head only"
NOTHING_FROZEN: Final = "nothing frozen"
HALO: Final = [Stroke(linewidth=2.8, foreground=PAPER), Normal()]

NAMES: Final = {
    "test_error": "test error (fraction)",
    "train_error": "train error (fraction)",
    "train_error_clean": "train error, own labels (fraction)",
    "train_error_flipped": "train error, flipped labels (fraction)",
    "test_loss": "test loss (nats)",
    "train_loss": "train loss (nats)",
    "train_loss_clean": "train loss, own labels (nats)",
    "train_loss_flipped": "train loss, flipped labels (nats)",
    "epoch": "epoch (log scale)",
    "step": "optimiser step (log scale)",
    "size": "training images",
    "source_size": "training images of the source",
    "frozen": "frozen layers",
    "parameters_trained": "trained parameters (log scale)",
    "share_trained": "share of parameters trained (log scale)",
    "share_frozen": "frozen share of the layers below the head",
    "source_task": "source",
    "model": "network",
    "label_noise": "label noise",
}


def name_of(array: xr.DataArray | str) -> str:
    """Return the axis label of a column or an array, with its unit."""
    name = array if isinstance(array, str) else str(array.name)
    return NAMES.get(name, name.replace("_", " "))


def frozen_colours(frozen: Iterable[float]) -> dict[float, str]:
    """Return a colour for each frozen count, in the order of a perceptually uniform scale.

    The darkest colour has the fewest trained parameters. The palest part of viridis is left out, because
    it is invisible on white.
    """
    counts = sorted({float(count) for count in frozen}, reverse=True)
    at = np.linspace(0.0, 0.86, max(len(counts), 2))
    colours = matplotlib.colormaps["viridis"](at)
    return {count: to_hex(colours[i]) for i, count in enumerate(counts)}


def cut_names(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Return a name for each frozen count, from the coordinate `cut` without its last word "frozen".

    Without this coordinate, names are the numbers."""
    counts = array["frozen"].values.tolist()
    words = _over_frozen(array, "cut")
    if words is None:
        return [f"{count:.4g}" for count in counts]
    return [
        name if name == NOTHING_FROZEN else name.removesuffix(" frozen")
        for name in (next((w for w in row if w and isinstance(w, str)), "") for row in words)
    ]


def cut_texts(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Return each frozen count in words, for sentences, with the trained parameters if known."""
    names = cut_names(array)
    if "cut" in array.coords:
        whole = (NOTHING_FROZEN, HEAD_ONLY)
        names = [name if name in whole else f"{name} frozen" for name in names]
    else:
        names = [f"frozen layers {name}" for name in names]
    trained = _over_frozen(array, "parameters_trained")
    if trained is None:
        return names
    known = [next((count for count in row if np.isfinite(count)), None) for row in trained]
    return [
        name if count is None else f"{name} ({count:,.0f} trained parameters)"
        for name, count in zip(names, known, strict=True)
    ]


def _over_frozen(array: xr.DataArray | xr.Dataset, name: str) -> np.ndarray | None:
    """Return a coordinate as a matrix (frozen, all other dims); None if the array lacks it."""
    if name not in array.coords:
        return None
    one = array.coords[name]
    if "frozen" not in one.dims:
        one = one.expand_dims("frozen")
    values: np.ndarray = one.transpose("frozen", ...).values.reshape(one.sizes["frozen"], -1)
    return values


def by_capacity(array: xr.DataArray) -> xr.DataArray:
    """Order an array from few to many trained parameters: by falling frozen count."""
    return array.sortby("frozen", ascending=False)


def seed_mean(array: xr.DataArray, along: str | None = None) -> tuple[xr.DataArray, np.ndarray]:
    """Return the mean over "seed" and the number of seeds of each mean (empty without that dimension).

    With `along` (the x dimension of curves), a curve's mean is over all its seeds. The mean is NaN after a
    seed has ended, because a mean over fewer seeds would jump there.
    """
    if "seed" not in array.dims:
        return array, np.empty(0, int)
    known = array.notnull()
    count = known.sum("seed")
    mean = array.mean("seed", keep_attrs=True)
    if along is not None:
        whole = known.any(along).sum("seed")
        mean, count = mean.where(count == whole), whole
    mean = mean.rename(array.name)
    return mean.assign_coords({k: v for k, v in array.coords.items() if "seed" not in v.dims}), (
        count.values[count.values > 0]
    )


def note(axes: Axes, text: str) -> None:
    """Add a remark above the Axes, at the right, on a separate line."""
    before = axes.get_title(loc="right")
    lines = f"{before}\n{text}" if before else text
    axes.set_title(lines, loc="right", fontsize=6.5, color=FAINT)


def note_seeds(axes: Axes, counts: np.ndarray) -> None:
    if counts.size:
        low, high = int(counts.min()), int(counts.max())
        number = f"{high}" if low == high else f"{low}–{high}"
        note(axes, "1 seed" if high == 1 else f"mean over {number} seeds")


def log_edges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return left and right edges, shape (n,) each, of cells around ascending epochs on a log axis.

    Edges are halfway in log scale. Epoch 0 gets a cell of 1/20 of the axis, at the left, before a gap.
    """
    positive = x[x > 0].astype(float)
    if positive.size == 0:
        return np.array([0.5]), np.array([1.0])
    ratio = np.sqrt(positive[1:] / positive[:-1]) if positive.size > 1 else np.array([2.0])
    middle = positive[:-1] * ratio if positive.size > 1 else np.empty(0)
    edges = np.concatenate(
        [[positive[0] / min(ratio[0], 2.0)], middle, [positive[-1] * min(ratio[-1], 2.0)]]
    )
    left, right = edges[:-1], edges[1:]
    if x[0] == 0:
        decade = np.log10(edges[-1] / edges[0])
        gap, cell = 10 ** (0.015 * decade), 10 ** (0.05 * decade)
        left = np.append(edges[0] / gap / cell, left)
        right = np.append(edges[0] / gap, right)
    return left, right


def epoch_positions(x: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Return x positions of `values` (default: x) on the log axis of `x`; 0 gets a positive position."""
    values = x if values is None else values
    left, right = log_edges(x)
    return np.where(values == 0, np.sqrt(left[0] * right[0]), values)


def log_epoch_axis(axes: Axes, x: np.ndarray, name: str) -> None:
    """Make the x axis a log scale of epochs or steps, with a separate tick for 0."""
    axes.set_xscale("log")
    positive = x[x > 0]
    low, high = (positive[0], positive[-1]) if positive.size else (1, 1)
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high * 1.001]
    labels = [f"{tick:,.12g}" for tick in ticks]
    if x[0] == 0:
        ticks, labels = [float(epoch_positions(x)[0]), *ticks], ["0", *labels]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))
    minor = [m * 10.0**d for d in decades for m in range(1, 10)]
    axes.xaxis.set_minor_locator(FixedLocator([t for t in minor if low <= t <= high]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(name_of(name))


def log_axis(axes: Axes, values: np.ndarray) -> None:
    """Make the x axis a log scale with plain numbers: three ticks a decade, or one if there are many."""
    axes.set_xscale("log")
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return
    low, high = float(known.min()), float(known.max())
    decades = np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 50 else (1, 3) if high / low < 500 else (1,)
    ticks = [m * 10.0**d for d in decades for m in steps if low <= m * 10.0**d <= high]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:,.12g}" for tick in ticks]))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if min(axes.get_xlim()) <= 0:  # nothing is drawn in this panel
        axes.set_xlim(low / 1.1, high * 1.1)


def category_axis(axes: Axes, which: str, names: Sequence[str], label: str) -> None:
    """Label cells 0 … n−1 of the x or y axis; skip labels that have no room."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    every = -(-len(names) // 13)
    if which == "x":
        inches = axes.get_window_extent().width / axes.figure.dpi
        widest = LETTER * (1 + max(map(len, names), default=0))
        every = max(every, math.ceil(len(names) * widest / max(inches, widest)))
    axis.set_major_locator(FixedLocator(range(0, len(names), every)))
    axis.set_major_formatter(FixedFormatter(names[::every]))
    axis.set_label_text(label)
    axis.set_tick_params(length=0)


def capacity_axis(axes: Axes, array: xr.DataArray) -> None:
    """Label cells 0 … n−1 of the x axis by their trained parameters; if unknown, by their cuts."""
    trained = _over_frozen(array, "parameters_trained")
    if trained is None or not np.isfinite(trained).any(axis=1).all():
        category_axis(axes, "x", cut_names(array), "frozen layers (more trained parameters →)")
        return
    counts = [next(count for count in row if np.isfinite(count)) for row in trained]
    label = f"trained parameters{ends_in_words(array)}"
    category_axis(axes, "x", [f"{count:,.0f}" for count in counts], label)


def ends_in_words(array: xr.DataArray) -> str:
    """Return the cuts at the axis's ends, ": head only → 6 layers frozen"; "" if cuts have no names."""
    if "cut" not in array.coords or array.sizes["frozen"] < 2:
        return ""
    ends = by_capacity(array).isel(frozen=[0, -1]).drop_vars("parameters_trained", errors="ignore")
    return f":\n{' → '.join(cut_texts(ends))}"


def room_for_cuts(array: xr.DataArray | xr.Dataset) -> float:
    """Return the width of the longest of `cut_names` at a tick or in a legend, in inches."""
    return WORD_LETTER * max(map(len, cut_names(array)))


def whole_numbers(values: np.ndarray) -> list[str]:
    return [f"{value:,.6g}" if value % 1 == 0 else f"{value:.3g}" for value in values]


def narrowed(array: xr.DataArray, needed: Sequence[str]) -> xr.DataArray:
    """Return the array with only the dimensions `needed`, and "seed" if the array has it.

    Other dimensions of length 1 are dropped. A needed scalar coordinate becomes a dimension.

    Raises:
        ValueError: another dimension is left over, or a needed dimension is missing.
    """
    for name in needed:
        if name not in array.dims and name in array.coords and array.coords[name].ndim == 0:
            array = array.expand_dims(name)
    others = [str(dim) for dim in array.dims if dim not in (*needed, "seed")]
    left = {dim: array[dim].values for dim in others if array.sizes[dim] > 1}
    missing = [name for name in needed if name not in array.dims]
    if left:
        some = " and ".join(f"{dim!r} ({_listed(values)})" for dim, values in left.items())
        also = "" if len(left) > 1 else f", as in .sel({next(iter(left))}=…)"
        raise ValueError(f"dims {array.dims}: {some} left over, select first one value{also}")
    if missing:
        there = ", ".join(map(repr, array.dims))
        raise ValueError(f"{missing[0]!r} is no dimension of this array: it has {there}")
    return array.squeeze(others)


def other_dim(array: xr.DataArray, known: str, choices: Sequence[str]) -> str:
    """Return the first of `choices` that is a dimension (preferably of several values) or a coordinate.

    Raises:
        ValueError: no choice is a dimension or a coordinate.
    """
    there = [name for name in choices if name in array.dims or name in array.coords]
    long = [name for name in there if name in array.dims and array.sizes[name] > 1]
    if not there:
        raise ValueError(
            f"dims {array.dims}: beside {known!r} one of {', '.join(choices)} is needed"
        )
    return (long or [name for name in there if name in array.dims] or there)[0]


def _listed(values: np.ndarray) -> str:
    shown = ", ".join(map(str, values[:4].tolist()))
    return f"{shown}, … {len(values)} values" if len(values) > 4 else shown


def values_like(array: xr.DataArray, shape: xr.DataArray) -> np.ndarray:
    """Return the values of `array` at the labels of `shape`, with dims as in `shape`; NaN if absent."""
    labels = {dim: shape[dim] for dim in shape.dims}
    return array.astype(float).reindex(labels).transpose(*shape.dims).values


def last_known(curve: np.ndarray) -> int:
    """Return the index of the last finite value; 0 if there is none."""
    known = np.flatnonzero(np.isfinite(curve))
    return int(known[-1]) if known.size else 0
