"""What the pictures share: colours, names with units, scales, and the marks on a heat map.

Owns the look. Refuses to know what a picture is about, and keeps no state: matplotlib's settings
are changed only inside `matplotlib.rc_context(STYLE)`, by who makes a whole figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, to_hex
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedFormatter, FixedLocator, NullFormatter
from scipy.special import stdtrit

INK: Final = "#1b1e23"
FAINT: Final = "#7d838c"
STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.titlelocation": "left",
    "axes.titlepad": 5.0,
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

# Okabe & Ito (2008), neighbours of different lightness; dashes and markers differ as well.
OKABE_ITO: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES: Final[tuple[Any, ...]] = ("-", (0, (4.5, 1.4)), (0, (1.3, 1.0)), (0, (6, 1.3, 1.2, 1.3)))
# Perceptually uniform, ordered in lightness, and not the scale of the frozen counts.
ERROR_COLOURS: Final[Colormap] = matplotlib.colormaps["magma"]
HALO: Final = [Stroke(linewidth=2.8, foreground="white"), Normal()]

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
    """What an axis that shows this column or array is called, with its unit."""
    name = array if isinstance(array, str) else str(array.name)
    return NAMES.get(name, name.replace("_", " "))


def frozen_colours(frozen: Iterable[int]) -> dict[int, str]:
    """A colour for each frozen count, in the order of a perceptually uniform scale.

    The palest fifth of viridis is left out: it does not show on white.
    """
    counts = sorted({int(count) for count in frozen})
    at = np.linspace(0.0, 0.86, max(len(counts), 2))
    colours = matplotlib.colormaps["viridis"](at)
    return {count: to_hex(colours[i]) for i, count in enumerate(counts)}


def t_interval(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and half width of the t-interval over axis 0 (seeds), NaN seeds left out.

    The half width is NaN where fewer than two seeds are there.
    """
    known = np.isfinite(values)
    n = known.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(known, values, 0.0).sum(axis=0) / np.where(n > 0, n, np.nan)
        squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
        freedom = np.where(n > 1, n - 1.0, np.nan)
        half = stdtrit(freedom, 0.5 + confidence / 2) * np.sqrt(squares / freedom / n)
    return mean, half


def over_seeds(array: xr.DataArray, along: str | None = None) -> tuple[xr.DataArray, np.ndarray]:
    """Mean over the dimension "seed", and how many seeds each mean is over (empty: no such dimension).

    With `along` a curve's mean is over all seeds that the curve has anywhere, and NaN where one of
    them has ended: a mean over fewer seeds half-way would be a jump that no network made.
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
    """Adds a small remark above the Axes, at the right, as a line of its own."""
    before = axes.get_title(loc="right")
    lines = f"{before}\n{text}" if before else text
    axes.set_title(lines, loc="right", fontsize=6.5, color=FAINT)


def note_seeds(axes: Axes, counts: np.ndarray) -> None:
    """Says how many seeds the means are over."""
    if counts.size:
        low, high = int(counts.min()), int(counts.max())
        number = f"{high}" if low == high else f"{low}–{high}"
        note(axes, "1 seed" if high == 1 else f"mean over {number} seeds")


def log_edges(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right edges, shape (n,) each, of cells around ascending epochs or steps on a log axis.

    Edges lie half-way in log scale. Epoch 0, which has no place on a log axis, gets a cell of 1/20
    of the axis, left of the others and apart from them.
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
    """Where epochs or steps (`values`, default: x itself) lie on the log axis that x gives; 0 is moved."""
    values = x if values is None else values
    left, right = log_edges(x)
    return np.where(values == 0, np.sqrt(left[0] * right[0]), values)


def log_epoch_axis(axes: Axes, x: np.ndarray, name: str) -> None:
    """Makes the x axis a log scale of epochs or steps, with a tick of its own for 0."""
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


def category_axis(axes: Axes, which: str, values: np.ndarray, label: str) -> None:
    """Names cells 0 … n−1 of the x or y axis by their values, at most about a dozen of them."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    every = -(-len(values) // 13)
    axis.set_major_locator(FixedLocator(range(0, len(values), every)))
    axis.set_major_formatter(FixedFormatter([f"{value:,}" for value in values[::every]]))
    axis.set_label_text(label)
    axis.set_tick_params(length=0)


def short_number(value: float) -> str:
    """A count in three figures: 950, 8.1k, 11.2M."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g}{unit}"
    return f"{value:.0f}"


def cells(
    axes: Axes, mean: np.ndarray, x_edges: np.ndarray, y_edges: np.ndarray, **look: Any
) -> None:
    """Draws cells of `mean` (rows, columns) in colour, and hatches those that are NaN."""
    axes.pcolormesh(x_edges, y_edges, np.ma.masked_invalid(mean), rasterized=True, **look)
    for row, absent in enumerate(~np.isfinite(mean)):
        changes = np.flatnonzero(np.diff(np.concatenate([[0], absent.astype(int), [0]])))
        for begin, end in changes.reshape(-1, 2):
            axes.add_patch(
                Rectangle(
                    (x_edges[begin], y_edges[row]),
                    x_edges[end] - x_edges[begin],
                    y_edges[row + 1] - y_edges[row],
                    facecolor="#eef0f2",
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
                colors="black",
                linewidths=1.3 if number == 0 else 0.9,
                capstyle="projecting",
                path_effects=HALO,
                label="_" if number else f"{label} (side of the ticks)",
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
    look: dict[str, Any] = {"color": "black", "path_effects": HALO, "clip_on": False, "zorder": 5}
    if (shown & np.isfinite(x)).any():
        at = np.where(shown, x, np.nan)
        axes.plot(at, y, lw=1.0, marker="o", ms=4.8, mfc="white", label="peak", **look)
    if (~shown & np.isfinite(x)).any():
        at = np.where(shown, np.nan, x)
        label = "peak at face value: the seeds cannot tell"
        axes.plot(at, y, ls="none", marker="o", ms=2.4, label=label, **look)


def crosses(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    """Marks cells where a seed's loss was not finite."""
    if len(x):
        axes.plot(
            x, y, ls="none", marker="x", ms=6, mew=1.6, color="black", path_effects=HALO,
            label="a seed diverged", clip_on=False, zorder=5,
        )  # fmt: skip
