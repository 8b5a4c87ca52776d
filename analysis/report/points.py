"""The single points of two pictures, where they stand on their axes and what a pointer is told of them.

Owns those texts. The tables have columns `x`, `y` in data units and `text`: see `hover.of_points`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analysis.plots.points import floor_of, offsets
from analysis.report.hover import labelled


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
