"""Means over the seeds that are there, with their standard error and their number.

Owns how a surface is averaged over "seed", and only when asked. Refuses to hide how many seeds stand
behind a mean, and to give a spread of one.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import xarray as xr

# Values that are averaged over seeds at a time: 256 KiB of them.
BLOCK: Final = 2**15


def over_seeds(surface: xr.DataArray) -> xr.Dataset:
    """`mean`, `standard_error` and `count` over the seeds that are there; shape without "seed".

    The standard error is that of the mean, NaN for fewer than two seeds. `count` says how many seeds
    stand behind each mean: a diverged Run's are missing from it.
    """
    if "seed" not in surface.dims:
        raise ValueError(
            f"the surface has no dimension 'seed', but {', '.join(map(str, surface.dims))}"
        )
    axis = surface.get_axis_num("seed")
    before, after = (math.prod(part) for part in (surface.shape[:axis], surface.shape[axis + 1 :]))
    values = surface.values.reshape(before, surface.sizes["seed"], after)
    mean, error = np.empty((before, after)), np.empty((before, after))
    count = np.empty((before, after), np.int64)
    # Block by block: the surface may hold 40 million values, and what is worked on fits the cache.
    step = max(1, BLOCK // max(1, values.shape[1] * after))
    for first in range(0, before, step):
        block = slice(first, first + step)
        mean[block], error[block], count[block] = _over_seeds(values[block])
    of_mean = surface.isel(seed=0, drop=True)
    result = xr.Dataset(
        {
            name: of_mean.copy(data=numbers.reshape(of_mean.shape))
            for name, numbers in (("mean", mean), ("standard_error", error), ("count", count))
        }
    )
    result["count"].attrs = {"units": "seeds", "long_name": "seeds behind the mean"}
    return result


def _over_seeds(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard error and count over axis 1 of values (cells, seeds, points), NaN left out."""
    absent = np.isnan(values)
    count = values.shape[1] - absent.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # no seed: NaN; infinite: no spread
        mean = np.where(absent, 0.0, values).sum(axis=1) / count
        square = values - mean[:, None]
        square *= square
        square[absent] = 0.0
        error = np.sqrt(square.sum(axis=1) / (count - 1) / count)
    error[count < 2] = np.nan
    return mean, error, count


def mean(surface: xr.DataArray) -> xr.DataArray:
    """The mean over the seeds that are there."""
    return over_seeds(surface)["mean"]


def standard_error(surface: xr.DataArray) -> xr.DataArray:
    """The standard error of the mean over seeds; NaN for fewer than two."""
    return over_seeds(surface)["standard_error"]


def count(surface: xr.DataArray) -> xr.DataArray:
    """How many seeds each cell has."""
    return over_seeds(surface)["count"]
