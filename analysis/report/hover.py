"""Compute the tooltips of a figure, and the points of scatter plots.

Each function returns a list of panels: `box` [left, top, width, height] in fractions of the figure, and
`name`, what the panel shows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.plots import maps, style
from analysis.plots.layout import BENEATH, at
from analysis.plots.points import floor_of, offsets

MAX_COLUMNS: Final = 160

Panel = dict[str, Any]


def of_maps(
    figure: Figure,
    test: xr.DataArray,
    train: xr.DataArray,
    other: str,
    wanted: xr.DataArray | None = None,
) -> list[Panel]:
    """Panels of `figures.epoch_maps` (other="epoch") or `freezing_maps` (other="size").

    Each has the right edges of its cells' columns, as fractions of the panel; `x` and `y` labels; `test`
    and `train`, means over seeds by row, null where absent. Of many epochs about MAX_COLUMNS are there.
    """
    panels = []
    for axes, select in labelled(figure):
        along = "epoch" if other == "epoch" else None
        x, y = ("epoch", "frozen") if other == "epoch" else ("frozen", other)
        asked = None if wanted is None else at(wanted, select)
        shown = maps.asked(at(test, select), asked).sortby([x, y])
        mean = style.seed_mean(shown, along=along)[0].transpose(y, x)
        seen = style.seed_mean(at(train, select), along=along)[0]
        seen = seen.reindex({x: mean[x], y: mean[y]}).transpose(y, x)
        columns = _columns(mean.sizes[x])
        if other == "epoch":
            right = style.log_edges(mean[x].values)[1]
            last = np.append(columns[1:] - 1, mean.sizes[x] - 1)
            edges = np.log(right[last])
            low, high = np.log(axes.get_xlim())
        else:
            edges = np.arange(mean.sizes[x]) + 0.5
            low, high = axes.get_xlim()
        panels.append(
            {
                "box": _box(axes),
                "name": _name(select),
                "xName": _called(x),
                "yName": _called(y),
                "x": [_text(value) for value in mean[x].values[columns].tolist()],
                "y": [_text(value) for value in mean[y].values.tolist()],
                "right": _round((edges - low) / (high - low)),
                "test": [_round(row) for row in mean.values[:, columns]],
                "train": [_round(row) for row in seen.values[:, columns]],
            }
        )
    return panels


def of_curves(
    figure: Figure,
    values: Mapping[str, xr.DataArray],
    *,
    x: str,
    by: str,
    axis: str = "",
    beneath: str = "",
) -> list[Panel]:
    """Panels of curves over `x`, one for each value of `by`, drawn at the coordinate `axis` (default: x).

    `values`: by name; the first is what the panels show, `beneath` what those beneath them do, the others
    are told beside it. Each panel has `x` labels and their places `at`, a series for each curve with its
    mean over seeds in each of `values`, and the limits `low` and `high` of its y axis.
    """
    found = []
    shown = [(axes, select, next(iter(values))) for axes, select in labelled(figure)]
    if beneath:
        under = [axes for axes in figure.axes if axes.get_label() == BENEATH]
        shown += [
            (low, select, beneath) for low, (_, select) in zip(under, labelled(figure), strict=True)
        ]
    along = x if x in ("epoch", "step") else None
    for axes, select, first in shown:
        names = [first, *(name for name in values if name != first)]
        means = [
            style.seed_mean(at(values[name], select), along=along)[0].transpose(by, x, ...)
            for name in names
        ]
        means = [means[0], *(one.reindex({x: means[0][x], by: means[0][by]}) for one in means[1:])]
        columns = _columns(means[0].sizes[x])
        curves = []
        for i, value in enumerate(means[0][by].values.tolist()):
            places = means[0].isel({by: i})[axis or x].values
            places = style.epoch_positions(places) if along else places
            y = [_round(one.values[i, columns]) for one in means]
            if any(number is not None for number in y[0]):
                curves.append({"name": _text(value), "at": _across(axes, places[columns]), "y": y})
        low, high = axes.get_ylim()
        found.append(
            {
                "box": _box(axes),
                "name": _name(select),
                "xName": _called(x),
                "byName": _called(by),
                "values": names,
                "x": [_text(value) for value in means[0][x].values[columns].tolist()],
                "low": low,
                "high": high,
                "series": curves,
            }
        )
    return found


def of_points(figure: Figure, points: Sequence[pd.DataFrame]) -> list[Panel]:
    """Panels of single points: a table for each, with `x`, `y` in data units and `text`."""
    found = []
    for (axes, select), some in zip(labelled(figure), points, strict=True):
        across = _across(axes, some["x"].to_numpy(float))
        up = _across(axes, some["y"].to_numpy(float), which="y")
        triples = [
            [fx, fy, text]
            for fx, fy, text in zip(across, up, some["text"], strict=True)
            if fx is not None and fy is not None
        ]
        found.append({"box": _box(axes), "name": _name(select), "points": triples})
    return found


def labelled(figure: Figure) -> Iterator[tuple[Axes, dict[str, Any]]]:
    """The panels of a figure, with what each was selected by."""
    for axes in figure.axes:
        label = str(axes.get_label())
        if label.startswith("{"):
            yield axes, json.loads(label)


def _box(axes: Axes) -> list[float | None]:
    box = axes.get_position()
    return _round([box.x0, 1 - box.y1, box.width, box.height])


def _across(axes: Axes, places: np.ndarray, which: str = "x") -> list[float | None]:
    """Fractions of the panel's width (or height) at which these values lie."""
    scale = (axes.xaxis if which == "x" else axes.yaxis).get_transform()
    low, high = scale.transform(axes.get_xlim() if which == "x" else axes.get_ylim())
    known = np.where(np.isfinite(places), places, np.nan)
    return _round((scale.transform(known) - low) / (high - low))


def _columns(num: int) -> np.ndarray:
    """Indices of the columns that are there: all, or log-spaced ones with the first and the last."""
    if num <= MAX_COLUMNS:
        return np.arange(num)
    return np.unique(np.rint(np.geomspace(1, num, MAX_COLUMNS)).astype(int) - 1)


def _called(dim: str) -> str:
    names = {
        "panel": "",
        "part": "",
        "measure": "",
        "size": "training images",
        "source_size": "source images",
        "frozen": "frozen layers",
    }
    return names.get(dim, dim.replace("_", " "))


def _name(select: Mapping[str, Any]) -> str:
    parts = (f"{_called(dim)} {_text(value)}".strip() for dim, value in select.items())
    return ", ".join(parts)


def _round(values: Any) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in np.asarray(values)]


def _text(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,.6g}" if value % 1 == 0 else f"{value:.4g}"
    return str(value)


def cut_points(figure: Figure, found: xr.Dataset) -> list[pd.DataFrame]:
    """The best cuts of each panel of `points.cut_grid`; `found` as it takes them."""
    tables = []
    for _, select in labelled(figure):
        one = found.sel({dim: value for dim, value in select.items() if dim in found.dims})
        one = one.sortby(["size", "frozen"])
        counts = one["frozen"].values.tolist()
        lines = []
        for source, beside in zip(one["source"].values, offsets(one.sizes["source"]), strict=True):
            for column, size in enumerate(one["size"].values.tolist()):
                cell = one.sel(source=source, size=size)
                best = float(cell["best"])
                if not np.isfinite(best):
                    continue
                text = (
                    f"{source}, {size:,} training images\nbest: {best:.4g} frozen layers\n"
                    f"not told apart: {float(cell['low']):.4g} to {float(cell['high']):.4g}"
                )
                lines.append((column + beside, counts.index(best), text))
        tables.append(pd.DataFrame(lines, columns=["x", "y", "text"]))
    return tables


def capacity_points(pairs: pd.DataFrame) -> pd.DataFrame:
    """The points of one panel of `figures.capacity_figure`."""
    value = pairs.attrs["value"]
    capacity = pairs["capacity"]
    texts = [
        f"{source}, {frozen:.4g} frozen layers, seed {seed}\n{pairs.attrs['label']}: {x:.4g}\n"
        + (f"capacity: {images:,.0f} images" if images > 0 else "capacity: under the smallest size")
        + (" or more" if beyond else "")
        for source, frozen, seed, x, images, beyond in zip(
            pairs["source_task"],
            pairs["frozen"],
            pairs["seed"],
            pairs[value],
            capacity,
            pairs["censored"].astype(bool) & (capacity > 0),
            strict=True,
        )
    ]
    y = capacity.where(capacity > 0, floor_of(pairs))
    return pd.DataFrame({"x": pairs[value], "y": y, "text": texts})
