"""Compute the tooltips of a figure from the values drawn in its panels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from analysis.plots import style
from analysis.plots.layout import Panel

MAX_COLUMNS: Final = 160


def tooltips(panels: Sequence[Panel]) -> str:
    """Return the tooltips of a figure as JSON, one object per panel; "" without panels.

    `box` is [left, top, width, height] in fractions of the figure; `name` is the panel's selection. Other
    keys depend on the form of `layout.Values`. report.js reads them.
    """
    described = [
        {"box": _box(panel.axes), "name": _name(panel.select)} | _values(panel.axes, panel.values)
        for panel in panels
    ]
    return json.dumps(described, separators=(",", ":")) if described else ""


def _values(axes: Axes, values: xr.Dataset | pd.DataFrame) -> dict[str, Any]:
    if isinstance(values, pd.DataFrame):
        return _points(axes, values)
    return _cells(axes, values) if "right" in values.coords else _curves(axes, values)


def _cells(axes: Axes, values: xr.Dataset) -> dict[str, Any]:
    y, x = (str(dim) for dim in values["test"].dims)
    columns = thinned(values.sizes[x])
    # The column before omitted columns is widened to cover them.
    last = np.append(columns[1:], values.sizes[x]) - 1
    return {
        "xName": _called(x),
        "yName": _called(y),
        "x": _labels(values.isel({x: columns}), x),
        "y": _labels(values, y),
        "right": _across(axes, values["right"].values[last]),
        "test": [_round(row) for row in values["test"].values[:, columns]],
        "train": [_round(row) for row in values["train"].values[:, columns]],
    }


def _curves(axes: Axes, values: xr.Dataset) -> dict[str, Any]:
    names = [str(name) for name in values]
    by, x = (str(dim) for dim in values[names[0]].dims)
    columns = thinned(values.sizes[x])
    series = []
    for i, name in enumerate(_labels(values, by)):
        curve = values.isel({by: i, x: columns})
        y = [_round(curve[value].values) for value in names]
        if any(number is not None for number in y[0]):
            series.append({"name": name, "at": _across(axes, curve["at"].values), "y": y})
    low, high = axes.get_ylim()
    return {
        "xName": _called(x),
        "byName": _called(by),
        "values": names,
        "x": _labels(values.isel({x: columns}), x),
        "low": low,
        "high": high,
        "series": series,
    }


def _points(axes: Axes, values: pd.DataFrame) -> dict[str, Any]:
    across = _across(axes, values["x"].to_numpy(float))
    up = _across(axes, values["y"].to_numpy(float), which="y")
    triples = zip(across, up, values["text"], strict=True)
    return {"points": [[x, y, text] for x, y, text in triples if x is not None and y is not None]}


def _box(axes: Axes) -> list[float | None]:
    box = axes.get_position()
    return _round([box.x0, 1 - box.y1, box.width, box.height])


def _across(axes: Axes, places: np.ndarray, which: str = "x") -> list[float | None]:
    """Return positions on the axis `which` as fractions of the panel's width or height."""
    scale = (axes.xaxis if which == "x" else axes.yaxis).get_transform()
    low, high = scale.transform(axes.get_xlim() if which == "x" else axes.get_ylim())
    known = np.where(np.isfinite(places), places, np.nan)
    return _round((scale.transform(known) - low) / (high - low))


def thinned(num: int, most: int = MAX_COLUMNS) -> np.ndarray:
    """Return at most `most` of `num` indices, log-spaced, including the first and the last."""
    if num <= most:
        return np.arange(num)
    return np.unique(np.rint(np.geomspace(1, num, most)).astype(int) - 1)


def _called(dim: str) -> str:
    names = {
        "panel": "",
        "part": "",
        "measure": "",
        "size": "training images",
        "source_size": "source images",
        "frozen": "",  # the labels are sentences
        "line": "",
    }
    return names.get(dim, dim.replace("_", " "))


def _name(select: Mapping[str, Any]) -> str:
    parts = (f"{_called(dim)} {_text(value)}".strip() for dim, value in select.items())
    return ", ".join(parts)


def _round(values: Any) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in np.asarray(values)]


def _labels(values: xr.Dataset, dim: str) -> list[str]:
    if dim == "frozen":
        return style.cut_texts(values)
    return [_text(value) for value in values[dim].values.tolist()]


def _text(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,.6g}" if value % 1 == 0 else f"{value:.4g}"
    return str(value)
