"""Bias and variance of a study whose store keeps predictions: which are drawn, and one table of them.

Owns what the report shows of `surfaces.bias_variance_surfaces`, and what it says where they are not read.
Reads the predictions of each line once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis.load import Study
from analysis.report import slices
from analysis.report.slices import GRID, Slice
from analysis.surfaces.bias_variance import has_predictions
from study.store import Damaged

# What is drawn: from five seeds on, and below that.
PARTS: Final = ("bias", "net_variance")
FEW: Final = ("disagreement",)
_NAMES: Final = {"net_variance": "net variance"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Variances:
    """`found`: over GRID and "epoch", by (name of the slice, label of the line); `unread`: why others were
    not read, in sentences."""

    found: Mapping[tuple[str, str], xr.Dataset]
    unread: tuple[str, ...]


def variances(study: Study, parts: Sequence[Slice]) -> Variances:
    """Of all lines that have predictions."""
    found, unread = {}, []
    for part in parts:
        for line in part.lines:
            if not has_predictions(study, line.cells):
                continue
            try:
                found[part.name, line.label] = slices.predictions_of(study, line)
            except (ValueError, Damaged) as why:
                unread.append(f"{part.title}, {line.label}: {why}")
    return Variances(found=found, unread=tuple(unread))


def drawn(one: xr.Dataset) -> xr.DataArray:
    """What is drawn of a line: dims ("part", GRID, "epoch")."""
    names = PARTS if one["bias"].notnull().any() else FEW
    labels = pd.Index([_NAMES.get(name, name) for name in names], name="part")
    array = xr.concat([one[name] for name in names], labels, combine_attrs="drop")
    return array.rename("share of test images")


def at_the_end(one: xr.Dataset) -> xr.Dataset:
    """At the last evaluation of each cell: dims GRID."""
    there = one["num_seeds"] > 0
    last = there.sizes["epoch"] - 1 - there.isel(epoch=slice(None, None, -1)).argmax("epoch")
    return one.isel(epoch=last).drop_vars("epoch").where(there.any("epoch"))


def table(all_of: Variances, parts: Sequence[Slice]) -> pd.DataFrame:
    """One line for each cell with predictions, at its last evaluation, with the numbers of
    `surfaces.bias_variance_surfaces`. `spread` and `spread_of_finite_test_set` are standard deviations
    over seeds."""
    titles = {part.name: part.title for part in parts}
    frames = []
    for (name, label), one in all_of.found.items():
        frame = at_the_end(one).to_dataframe(dim_order=list(GRID)).reset_index()
        frame = frame[frame["num_seeds"] > 0].assign(slice=titles[name], source=label)
        frame["spread"] = np.sqrt(frame["measured"])
        frame["spread_of_finite_test_set"] = np.sqrt(frame["finite_test_set"])
        frames.append(frame)
    columns = ["slice", "source", *GRID, "num_seeds", "error", "bias", "net_variance", "variance"]
    columns += ["disagreement", "spread", "spread_of_finite_test_set"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def finite_share(one: xr.Dataset) -> str:
    """How much of the variance over seeds the finite test set alone gives, in a sentence; "" unknown."""
    end = at_the_end(one)
    measured, finite = (float(end[name].mean()) for name in ("measured", "finite_test_set"))
    if not measured > 0:
        return ""
    return (
        "After the last epoch the variance of the test error over seeds is "
        f"{measured**0.5:.4f}², mean over the cells; images that err independently of each other would "
        f"give {finite**0.5:.4f}² on a test set of this size ({finite / measured:.0%})."
    )
