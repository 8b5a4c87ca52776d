"""Derive surfaces of interpolation and capacity from the measured ones.

A Run interpolates if its train error, on the labels used for training, is at most ε at an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.arms import DEFAULT_ARM
from analysis.surfaces.measured import computed_surface


def first_interpolation(
    study: Study,
    *,
    epsilon: float = EPSILON,
    x: str = "epoch",
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray:
    """Return the first evaluated epoch (or, x="step", step) with train error ≤ `epsilon`, over the grid.

    Infinite if a Run never interpolated; NaN if the Run is absent or diverged before it interpolated. The
    effective model complexity of Nakkiran et al. 2019 uses the same criterion with ε = 0.1.
    """
    if x not in ("epoch", "step"):
        raise ValueError(f"x={x!r}: choose epoch or step")

    def first(points: np.ndarray, error: np.ndarray) -> float:
        reached = np.flatnonzero(error <= epsilon)
        return float(points[reached[0]]) if len(reached) else np.inf

    surface = computed_surface(
        study,
        "first_interpolation",
        [x, "train_error"],
        first,
        unit=f"{x}s",
        meaning=f"first {x} with train error ≤ {epsilon:g}",
        arm=arm,
        partial=partial,
        squeeze=squeeze,
        **select,
    )
    unknown = _cells_named(study, surface, surface.attrs["diverged"])
    return surface.where(~(unknown & np.isinf(surface)))


def effective_capacity(
    study: Study,
    *,
    epsilon: float = EPSILON,
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    partial: bool | None = None,
    **select: Any,
) -> xr.Dataset:
    """Return the largest target size that is interpolated, over all dimensions except size.

    - `capacity` (images): the largest interpolated size of the selected Runs; 0 if none is interpolated
      (the true capacity is below the smallest size); NaN if a larger size is absent.
    - `censored`: True if the largest size is interpolated, so the true capacity may be larger.
    - `monotone`: True if every size smaller than the capacity is interpolated, too.

    Select arms and recipes that were run with the same sizes.
    """
    first = first_interpolation(study, epsilon=epsilon, arm=arm, partial=partial, **select)
    result = capacity_of(first)
    meaning = f"largest target size with train error ≤ {epsilon:g}"
    result["capacity"].attrs = dict(first.attrs) | {"units": "images", "long_name": meaning}
    return result


def capacity_of(first: xr.DataArray) -> xr.Dataset:
    """Compute `effective_capacity` from the result of `first_interpolation`."""
    first = first.transpose(..., "size")
    sizes = first["size"].values
    reached, absent = np.isfinite(first.values), np.isnan(first.values)
    largest = np.where(reached, sizes, 0).max(axis=-1)
    capacity = np.where((absent & (sizes > largest[..., None])).any(axis=-1), np.nan, largest)
    failed_below = (~reached & ~absent & (sizes < largest[..., None])).any(axis=-1)
    over = first.isel(size=0, drop=True)
    result = xr.Dataset(
        {
            "capacity": over.copy(data=capacity),
            "censored": over.copy(data=capacity == sizes[-1]),
            "monotone": over.copy(data=~failed_below),
        }
    )
    result["censored"].attrs = {"units": "", "long_name": "the largest size is interpolated"}
    result["monotone"].attrs = {"units": "", "long_name": "so is every smaller size"}
    return result


def _cells_named(study: Study, surface: xr.DataArray, run_ids: Sequence[str]) -> np.ndarray:
    named = np.zeros(surface.shape, bool)
    for run_id in run_ids:
        line = study.cells.loc[run_id]
        place = (np.flatnonzero(surface[dim].values == line[str(dim)]) for dim in surface.dims)
        named[tuple(int(found[0]) for found in place)] = True
    return named
