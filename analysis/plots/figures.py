"""Build whole figures, with the values drawn in each panel, and save them reproducibly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from analysis.descent import EPSILON
from analysis.descent.intervals import LEVEL
from analysis.plots import curves, layout, maps, points, style
from analysis.plots.layout import at

DPI: Final = 200  # of PNG files
# Metadata by format, without the time of writing, so that equal rows give equal bytes.
FORMATS: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def save(figure: Figure, stem: Path) -> dict[str, Path]:
    """Write `figure` as stem.png, stem.svg and stem.pdf; return the paths by format."""
    paths = {form: stem.with_name(f"{stem.name}.{form}") for form in FORMATS}
    with matplotlib.rc_context(style.STYLE):
        for form, path in paths.items():
            figure.savefig(path, dpi=DPI, metadata=FORMATS[form])
    return paths


def panel_grid(
    test: xr.DataArray,
    train: xr.DataArray,
    *,
    rows: str = "source_size",
    columns: str = "size",
    epsilon: float = EPSILON,
    title: str = "",
) -> layout.Drawn:
    """Draw curves over epochs for every frozen count, with the train error beneath each panel.

    Default rows are source sizes, default columns target sizes, as in the panel grid of arXiv 2211.11074.

    Args:
        test, train: dims (rows, columns, frozen, epoch[, seed]).
    """
    colours = style.frozen_colours(test["frozen"].values)
    test_span = curves.span(_known(test))
    train_span = curves.span(np.append(_known(train), [0.0, epsilon]))

    def draw(upper: Axes, lower: Axes, select: dict[str, Any]) -> tuple[xr.Dataset, ...]:
        above = curves.epoch_curves(upper, at(test, select), colours=colours)
        below = curves.epoch_curves(lower, at(train, select), colours=colours)
        lower.set_title("", loc="right")
        lower.set_ylabel(lower.get_ylabel().replace(" (", "\n("))
        lower.axhline(epsilon, color=style.INK, lw=0.7, ls=(0, (1, 2)))
        upper.set_xlabel("")
        upper.tick_params(labelbottom=False)
        upper.set_ylim(*test_span)
        lower.set_ylim(*train_span)
        # The drawn error comes first in the tooltip: test error above, train error beneath.
        return _with(above, below), _with(below, above)

    with matplotlib.rc_context(style.STYLE):
        right = max(1.05, 0.68 + style.room_for_cuts(test))
        grid = layout.grid(test, rows, columns, beneath=0.62, right=right, title=title)
        panels, note = layout.fill(grid, draw)
        layout.legend_right(grid, "frozen layers", style.cut_names(style.by_capacity(test)))
        layout.remark(grid, note, f"dotted: train error = {epsilon:g}")
        return grid.figure, panels


def epoch_maps(
    test: xr.DataArray,
    train: xr.DataArray,
    *,
    rows: str = "source_size",
    columns: str = "size",
    epsilon: float = EPSILON,
    ridge: xr.DataArray | None = None,
    ridge_shown: xr.DataArray | None = None,
    diverged: xr.DataArray | None = None,
    title: str = "",
) -> layout.Drawn:
    """Draw heat maps over epoch × frozen count.

    Args:
        test, train: dims (rows, columns, frozen, epoch[, seed]).
        ridge, ridge_shown, diverged: dims (rows, columns, frozen); see `maps.epoch_map`.
    """
    norm = maps.epoch_norm(test)
    known = _known(test)
    marks = {"ridge": ridge, "ridge_shown": ridge_shown, "diverged": diverged}
    return _map_grid(
        maps.epoch_map,
        test,
        {"train_error": train} | marks,
        (rows, columns),
        norm,
        epsilon=epsilon,
        height=0.5 + 0.11 * test.sizes["frozen"],
        left=0.45 + style.room_for_cuts(test),
        beyond=bool(known.size) and bool(known.max() > (norm.vmax or 1.0) + 1e-6),
        title=title,
    )


def freezing_maps(
    test: xr.DataArray,
    train: xr.DataArray,
    *,
    rows: str = "source",
    columns: str = "source_size",
    epsilon: float = EPSILON,
    ridge: xr.DataArray | None = None,
    ridge_shown: xr.DataArray | None = None,
    diverged: xr.DataArray | None = None,
    wanted: xr.DataArray | None = None,
    title: str = "",
    wrap: int = 0,
    sheet: float = layout.WIDE,
    row_inches: float = 0.24,
) -> layout.Drawn:
    """Draw heat maps over target size × frozen count.

    Args:
        test, train: dims (rows, columns, size, frozen[, seed]).
        ridge, ridge_shown: dims (rows, columns, size); see `maps.freezing_map`.
        diverged, wanted: dims (rows, columns, size, frozen); see `maps.freezing_map`.
        wrap, sheet: see `layout.grid`.
        row_inches: height of the row of cells of one size.
    """
    marks = {"ridge": ridge, "ridge_shown": ridge_shown, "diverged": diverged, "wanted": wanted}
    return _map_grid(
        maps.freezing_map,
        test,
        {"train_error": train} | marks,
        (rows, columns),
        maps.shared_norm(test),
        epsilon=epsilon,
        height=0.6 + row_inches * test.sizes["size"],
        bottom=0.8,
        beyond=False,
        title=title,
        wrap=wrap,
        sheet=sheet,
    )


def _map_grid(
    draw_map: Callable[..., xr.Dataset],
    test: xr.DataArray,
    marks: Mapping[str, xr.DataArray | None],
    rows_and_columns: tuple[str, str],
    norm: Normalize,
    *,
    epsilon: float,
    height: float,
    beyond: bool,
    title: str,
    left: float = 0.72,
    bottom: float = 0.68,
    wrap: int = 0,
    sheet: float = layout.WIDE,
) -> layout.Drawn:
    """Draw a grid of maps with one colour scale; `marks`: further arguments of `draw_map`, by name."""

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> tuple[xr.Dataset, ...]:
        here = {name: _maybe(array, select) for name, array in marks.items()}
        return (draw_map(axes, at(test, select), epsilon=epsilon, norm=norm, **here),)

    with matplotlib.rc_context(style.STYLE):
        grid = layout.grid(
            test,
            *rows_and_columns,
            height=height,
            left=left,
            right=0.95,
            bottom=bottom,
            title=title,
            wrap=wrap,
            sheet=sheet,
        )
        panels, note = layout.fill(grid, draw)
        layout.legend_beneath(grid)
        layout.remark(grid, note)
        layout.colour_bar(grid, norm, style.name_of(test), beyond=beyond)
        return grid.figure, panels


def capacity_grid(
    test: xr.DataArray,
    train: xr.DataArray,
    *,
    columns: str,
    by: str,
    wanted: xr.DataArray | None = None,
    epsilon: float = EPSILON,
    title: str = "",
    wrap: int = 0,
    sheet: float = layout.WIDE,
) -> layout.Drawn:
    """Draw curves over the trained parameters for each value of `by`, with train errors beneath.

    Args:
        test, train: dims (columns, by, frozen[, seed]).
        wanted: see `curves.capacity_curves`.
        wrap, sheet: see `layout.grid`.
    """
    has_train = bool(train.notnull().any())
    test_span = curves.span(test.values)
    train_span = curves.span(np.append(_known(train), [0.0, epsilon]))

    def draw(upper: Axes, lower: Axes, select: dict[str, Any]) -> tuple[xr.Dataset, ...]:
        drawn = curves.capacity_curves(
            upper,
            lower if has_train else None,
            at(test, select),
            at(train, select),
            by=by,
            wanted=_maybe(wanted, select),
            epsilon=epsilon,
        )
        upper.set_ylim(*test_span)
        if has_train:
            lower.set_ylim(*train_span)
        return drawn

    with matplotlib.rc_context(style.STYLE):
        grid = layout.grid(
            test,
            "",
            columns,
            height=1.9 if test.sizes[columns] > 1 else 1.5,
            beneath=0.7 if has_train else 0.0,
            right=0.2,
            bottom=0.8,
            title=title,
            wrap=wrap,
            sheet=sheet,
        )
        panels, note = layout.fill(grid, draw)
        layout.legend_beneath(grid)
        remarks = [note]
        if curves.has_band(test):
            remarks.append(f"band: {LEVEL:.0%} t-interval over seeds, cut off at the frame")
        if has_train and all(markers(test, train, epsilon)):
            remarks.append(f"filled: train error ≤ {epsilon:g}; open: above")
        layout.remark(grid, *remarks)
        return grid.figure, panels


def freezing_grid(
    test: xr.DataArray,
    train: xr.DataArray | None = None,
    *,
    rows: str = "source_size",
    columns: str = "size",
    by: str = "source",
    x: str = "frozen",
    wanted: xr.DataArray | None = None,
    epsilon: float = EPSILON,
    title: str = "",
) -> layout.Drawn:
    """Draw curves over the cut for each value of `by`.

    Args:
        test, train: dims (rows, columns, by, frozen[, seed]).
        x, wanted: see `curves.freezing_curves`.
    """
    limits = curves.span(test.values)

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> tuple[xr.Dataset, ...]:
        drawn = curves.freezing_curves(
            axes,
            at(test, select),
            by=by,
            x=x,
            train_error=_maybe(train, select),
            wanted=_maybe(wanted, select),
            epsilon=epsilon,
        )
        axes.set_ylim(*limits)
        return (drawn,)

    with matplotlib.rc_context(style.STYLE):
        right = 0.75 + 0.075 * max(len(str(value)) for value in [*test[by].values, by])
        grid = layout.grid(test, rows, columns, right=right, title=title)
        panels, note = layout.fill(grid, draw)
        remarks = [note]
        layout.legend_right(grid, style.name_of(by))
        if train is not None and markers(test, train, epsilon)[1]:
            remarks.append(f"hollow: train error > {epsilon:g}")
        if "seed" in test.dims and test.sizes["seed"] > 1:
            remarks.append("dots: seeds")
        if curves.has_band(test):
            remarks.append(f"band: {LEVEL:.0%} t-interval over seeds, cut off at the frame")
        layout.remark(grid, *remarks)
        return grid.figure, panels


def difference_grid(
    test: xr.DataArray,
    first: Any,
    second: Any,
    *,
    rows: str = "source_size",
    columns: str = "size",
    by: str = "source",
    x: str = "frozen",
    title: str = "",
) -> layout.Drawn:
    """Draw the paired difference of two sources over the cut.

    Args:
        test: dims (rows, columns, by, frozen, seed).
        x: see `curves.freezing_curves`.
    """
    pairs = test.sel({by: first}, drop=True) - test.sel({by: second}, drop=True)
    limits = curves.span(np.append(pairs.values, 0.0))

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> tuple[xr.Dataset, ...]:
        drawn = curves.paired_difference(axes, at(test, select), first, second, by=by, x=x)
        axes.set_ylim(*limits)
        return (drawn,)

    with matplotlib.rc_context(style.STYLE):
        grid = layout.grid(test, rows, columns, left=0.88, right=0.3, title=title)
        panels, note = layout.fill(grid, draw)
        remarks = [note, "dots: pairs of one seed"]
        if curves.has_band(pairs):
            remarks.append(f"bars: {LEVEL:.0%} t-interval over them, cut off at the frame")
        layout.remark(grid, *remarks)
        return grid.figure, panels


def markers(test: xr.DataArray, train: xr.DataArray, epsilon: float) -> tuple[bool, bool]:
    """Return whether any marker of `freezing_grid` is filled, and whether any marker is hollow."""
    drawn = style.seed_mean(train)[0].where(style.seed_mean(test)[0].notnull())
    return bool((drawn <= epsilon).any()), bool((drawn > epsilon).any())


def capacity_figure(pairs: Sequence[pd.DataFrame], *, title: str = "") -> layout.Drawn:
    """Draw effective capacity against several measures of similarity, side by side.

    Args:
        pairs: a table for each measure, from `surfaces.similarity.capacity_and_similarity`.
    """
    with matplotlib.rc_context(style.STYLE):
        names = xr.DataArray(np.zeros(len(pairs)), {"measure": range(len(pairs))}, ["measure"])
        longest = max(len(cut) for some in pairs for cut in some["cut"])
        right = 0.4 + style.WORD_LETTER * longest
        grid = layout.grid(names, "", "measure", title=title, height=2.2, right=right)
        panels = []
        for axes, select, some in zip(grid.upper, grid.selections, pairs, strict=True):
            values = points.draw_capacity(axes, some)
            panels.append(layout.Panel(axes=axes, select=select, values=values))
            axes.set_title("")
            axes.set_ylim(grid.upper[0].get_ylim())
            if axes is not grid.upper[0]:
                axes.set_ylabel("")
                axes.tick_params(labelleft=False)
            frozen = axes.get_legend()
            if frozen is not None and axes is not grid.upper[-1]:
                frozen.remove()
        return grid.figure, panels


def _maybe(array: xr.DataArray | None, select: dict[str, Any]) -> xr.DataArray | None:
    return None if array is None else at(array, select)


def _with(drawn: xr.Dataset, other: xr.Dataset) -> xr.Dataset:
    return drawn.merge(other, join="left", compat="override")


def _known(array: xr.DataArray) -> np.ndarray:
    values = style.seed_mean(array)[0].values
    known: np.ndarray = values[np.isfinite(values)]
    return known


def disagreement_grid(
    shares: xr.DataArray, *, columns: str = "size", title: str = ""
) -> layout.Drawn:
    """Draw the disagreement of seeds over epochs for every frozen count; all panels share one scale.

    Args:
        shares: dims (columns, frozen, epoch).
    """
    colours = style.frozen_colours(shares["frozen"].values)
    limits = curves.span(shares.values)

    def draw(axes: Axes, _: Axes, select: dict[str, Any]) -> tuple[xr.Dataset, ...]:
        drawn = curves.epoch_curves(axes, at(shares, select), colours=colours)
        axes.set_ylim(*limits)
        return (drawn,)

    with matplotlib.rc_context(style.STYLE):
        right = max(1.05, 0.68 + style.room_for_cuts(shares))
        grid = layout.grid(shares, "", columns, right=right, title=title)
        panels, note = layout.fill(grid, draw)
        layout.legend_right(grid, "frozen layers", style.cut_names(style.by_capacity(shares)))
        layout.remark(grid, note)
        return grid.figure, panels
