"""What a pointer over a heat map shows: the cells' places on the picture and their values, as JSON.

Owns that text. Reads the places off the drawn figure, so they fit whatever its layout; knows no HTML.
"""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from analysis.pictures import look
from analysis.pictures.panels import at

MAX_COLUMNS: Final = 160


def of_maps(figure: Figure, test: xr.DataArray, train: xr.DataArray, other: str) -> str:
    """JSON of the panels of `figures.epoch_maps` (other="epoch") or `freezing_maps` (other="size").

    Each panel has `box` [left, top, width, height] and the right and top edges of its cells, as
    fractions of the figure and of the panel; `x` and `y` labels; `test` and `train`, means over seeds
    by row, null where absent. Of many epochs about MAX_COLUMNS are there, evaluated ones all.
    """
    panels = []
    for axes in figure.axes:
        label = str(axes.get_label())
        if not label.startswith("{"):
            continue
        select = json.loads(label)
        along = "epoch" if other == "epoch" else None
        x, y = ("epoch", "frozen") if other == "epoch" else ("frozen", other)
        mean = look.seed_mean(at(test, select).sortby([x, y]), along=along)[0].transpose(y, x)
        seen = look.seed_mean(at(train, select), along=along)[0]
        seen = seen.reindex({x: mean[x], y: mean[y]}).transpose(y, x)
        columns = _columns(mean.sizes[x])
        if other == "epoch":
            right = look.log_edges(mean[x].values)[1]
            last = np.append(columns[1:] - 1, mean.sizes[x] - 1)
            edges = np.log(right[last])
            low, high = np.log(axes.get_xlim())
        else:
            edges = np.arange(mean.sizes[x]) + 0.5
            low, high = axes.get_xlim()
        box = axes.get_position()
        panels.append(
            {
                "box": _round([box.x0, 1 - box.y1, box.width, box.height]),
                "name": ", ".join(f"{_called(k)} {_text(v)}" for k, v in select.items()),
                "xName": _called(x),
                "yName": _called(y),
                "x": [_text(value) for value in mean[x].values[columns].tolist()],
                "y": [_text(value) for value in mean[y].values.tolist()],
                "right": _round((edges - low) / (high - low)),
                "test": [_round(row) for row in mean.values[:, columns]],
                "train": [_round(row) for row in seen.values[:, columns]],
            }
        )
    return json.dumps(panels, separators=(",", ":"))


def _columns(num: int) -> np.ndarray:
    """Indices of the columns that are there: all, or log-spaced ones with the first and the last."""
    if num <= MAX_COLUMNS:
        return np.arange(num)
    return np.unique(np.rint(np.geomspace(1, num, MAX_COLUMNS)).astype(int) - 1)


def _called(dim: str) -> str:
    names = {"size": "training images", "source_size": "source images", "frozen": "frozen layers"}
    return names.get(dim, dim.replace("_", " "))


def _round(values: Any) -> list[float | None]:
    return [round(float(v), 4) if np.isfinite(v) else None for v in np.asarray(values)]


def _text(value: Any) -> str:
    return f"{value:,.6g}" if isinstance(value, int | float) else str(value)
