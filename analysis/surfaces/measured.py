"""Arrange a study's measurements as labelled arrays, and average them over seeds.

Missing cells are NaN and need `partial=True`. Nothing is smoothed, interpolated or averaged implicitly."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis.load import Study
from analysis.load.arms import TRANSFER
from analysis.load.cells import ENDED
from analysis.surfaces.grid import (
    EVALUATIONS,
    axes_of,
    chosen,
    empty,
    ended_of,
    flat_index,
    parameters,
    points_of,
    points_over,
    positions,
    rows_at,
)
from study.store import schema
from study.store.schema import DIVERGED


def epoch_surface(
    study: Study,
    value: str = "test_error",
    *,
    x: str = "epoch",
    arm: str | Sequence[str] | None = TRANSFER,
    evaluations: str = "same",
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray:
    """One column over epochs (or, x="step", optimiser steps): float64, dimensions DIMENSIONS and x.

    - `value`: any measured column of `schema.MEASUREMENTS`, or one added by `load.add_column`.
    - `arm`: which Runs (`arms.ARMS`), one, several, or None for all of them, sources too.
    - `select`: a coordinate of `study.cells` = one value, or a list of those to keep.
    - `evaluations`: what to do where cells were evaluated at different epochs: "same" (they must not),
      "common" (the epochs that all have), "union" (all, NaN where a cell was not evaluated).
    - `partial`: absent cells are allowed, as NaN; None: as the study was opened.
    - `squeeze`: dimensions of length 1 become scalar coordinates.

    A Run without source has source_task "none" and source_size 0; `width` is 0 for a network in its
    original form. Coordinates `parameters_trained` and `share_trained` lie over (model, width, task,
    frozen); `along` makes them the axis. `attrs`: `absent` and `diverged` are ids of Runs, the latter
    NaN from where their rows end. Raises ValueError for a name or value that is not there, or for Runs
    that fall into one cell; `load.Incomplete` for absent cells.
    """
    return epoch_surfaces(
        study,
        [value],
        x=x,
        arm=arm,
        evaluations=evaluations,
        partial=partial,
        squeeze=squeeze,
        **select,
    )[value]


def epoch_surfaces(
    study: Study,
    values: Sequence[str],
    *,
    x: str = "epoch",
    arm: str | Sequence[str] | None = TRANSFER,
    evaluations: str = "same",
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.Dataset:
    """Several columns at once, read in one pass: a Dataset with one `epoch_surface` for each."""
    if x not in ("epoch", "step"):
        raise ValueError(f"x={x!r}: choose epoch or step")
    if evaluations not in EVALUATIONS:
        raise ValueError(f"evaluations={evaluations!r}: choose one of {', '.join(EVALUATIONS)}")
    study.require_columns([x, *values])
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    points = points_over(study, cells, x, evaluations)
    shape = (*(len(axis) for axis in axes.values()), len(points))
    blocks = empty(values, shape)
    standing = {
        name: positions(points_of(study, name, x), points)
        for name in cells["evaluations"].dropna().unique()
    }
    where = flat_index(cells, axes)
    name_of = cells["evaluations"].to_dict()

    def place(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        of_run, into = standing[name_of[run_id]]
        for name in values:
            blocks[name].reshape(-1, len(points))[where[run_id], into] = columns[name][of_run]

    study.read_values(list(ended_of(cells).index), values, place)
    return _dataset(study, cells, axes | {x: points}, blocks, squeeze)


def freezing_surface(
    study: Study,
    value: str = "test_error",
    *,
    epoch: str | float = "last",
    arm: str | Sequence[str] | None = TRANSFER,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray:
    """One column at one epoch over the grid: float64, dimensions DIMENSIONS.

    `epoch`: "last" is each Run's last evaluation (NaN for a Run that diverged); a number is the
    evaluation at exactly this epoch, which every Run must have had unless it diverged before. All
    else as in `epoch_surface`.
    """
    return freezing_surfaces(
        study, [value], epoch=epoch, arm=arm, partial=partial, squeeze=squeeze, **select
    )[value]


def freezing_surfaces(
    study: Study,
    values: Sequence[str],
    *,
    epoch: str | float = "last",
    arm: str | Sequence[str] | None = TRANSFER,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.Dataset:
    """Several columns at once, read in one pass: a Dataset with one `freezing_surface` for each."""
    study.require_columns(values if epoch == "last" else ["epoch", *values])
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    blocks = empty(values, tuple(len(axis) for axis in axes.values()))
    where = flat_index(cells, axes)
    ended = ended_of(cells)
    rows = rows_at(study, ended, epoch)

    def place(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        for name in values:
            blocks[name].reshape(-1)[where[run_id]] = columns[name][rows[run_id]]

    study.read_values(list(rows), values, place)
    return _dataset(study, cells, axes, blocks, squeeze)


def computed_surface(
    study: Study,
    name: str,
    needs: Sequence[str],
    compute: Callable[..., float],
    *,
    unit: str = "",
    meaning: str = "",
    arm: str | Sequence[str] | None = TRANSFER,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray:
    """One number computed from each Run's rows, over the grid: float64, dimensions DIMENSIONS.

    `compute` gets the columns of `needs`, each of shape (rows,), of one Run, in row order (of one that
    diverged, up to there), and returns a number; it is called from several threads. All else as in
    `epoch_surface`.
    """
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    blocks = empty([name], tuple(len(axis) for axis in axes.values()))
    where = flat_index(cells, axes)

    def place(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        blocks[name].reshape(-1)[where[run_id]] = compute(*(columns[need] for need in needs))

    study.read_values(list(ended_of(cells).index), needs, place)
    surface = _dataset(study, cells, axes, blocks, squeeze)[name]
    surface.attrs |= {"units": unit, "long_name": meaning or name}
    return surface


def along(surface: xr.DataArray, axis: str | xr.DataArray) -> xr.DataArray:
    """The surface with "frozen" replaced by another axis, ascending.

    `axis`: "parameters_trained" or "share_trained": from the head alone to nothing frozen, the direction
    in which capacity grows; or what a surface gives for each frozen count, as the dimension of the
    features at the cut (`similarity_surface(study, "effective_rank", …)`): its mean over seeds. Raises
    ValueError where one frozen count has several values (several networks, tasks or sizes), or one is
    absent.
    """
    choices = ("frozen", "parameters_trained", "share_trained")
    if isinstance(axis, xr.DataArray):
        name, coordinate = str(axis.name), axis.mean("seed") if "seed" in axis.dims else axis
        if "frozen" not in coordinate.dims:
            raise ValueError(f"{name}: it has no dimension 'frozen'")
        coordinate = coordinate.sel(frozen=surface["frozen"])
        if coordinate.isnull().any():
            raise ValueError(f"{name}: absent at some of the surface's frozen counts")
    elif axis not in choices:
        raise ValueError(f"axis={axis!r}: choose one of {', '.join(choices)}")
    elif axis == "frozen":
        return surface
    else:
        name, coordinate = axis, surface.coords[axis]
    for other in coordinate.dims:
        if other == "frozen":
            continue
        if coordinate.sizes[other] > 1:
            raise ValueError(f"{name}: the surface has several of {other!r}, select one")
        coordinate = coordinate.isel({other: 0}, drop=True)
    moved = surface.drop_vars(name, errors="ignore")
    moved = moved.assign_coords({name: ("frozen", coordinate.values)})
    return moved.swap_dims(frozen=name).sortby(name)


def _dataset(
    study: Study,
    cells: pd.DataFrame,
    axes: Mapping[str, np.ndarray],
    blocks: Mapping[str, np.ndarray],
    squeeze: bool,
) -> xr.Dataset:
    dataset = xr.Dataset(
        {name: (tuple(axes), block) for name, block in blocks.items()}, coords=dict(axes)
    )
    dataset = dataset.assign_coords(parameters(cells, axes))
    about = {column.name: (column.unit, column.meaning) for column in schema.COLUMNS} | {
        name: (column.unit, column.meaning) for name, column in study.added.items()
    }
    shared = {
        "study": study.name,
        "num_runs": len(cells),
        "absent": list(cells.index[~cells["state"].isin(ENDED)]),
        "diverged": list(cells.index[cells["state"] == DIVERGED]),
    }
    for name in dataset.variables:
        unit, meaning = about.get(str(name), ("", str(name)))
        dataset[name].attrs = {"units": unit, "long_name": meaning}
    for name in blocks:
        dataset[name].attrs |= shared
    dataset["share_trained"].attrs["long_name"] = "share of the parameters that is trained"
    dataset.attrs = shared
    return dataset.squeeze() if squeeze else dataset


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
