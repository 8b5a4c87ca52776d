"""Arrange a study's measurements as labelled arrays, and average them over seeds.

Missing cells are NaN and need `partial=True`. Nothing is smoothed, interpolated or averaged implicitly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, overload

import numpy as np
import pandas as pd
import xarray as xr

from analysis.descent import Judgement, Rule, judge
from analysis.load import Study
from analysis.load.arms import DEFAULT_ARM
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


@overload
def over_epochs(study: Study, values: str = ..., **options: Any) -> xr.DataArray: ...
@overload
def over_epochs(study: Study, values: list[str], **options: Any) -> xr.Dataset: ...
def over_epochs(
    study: Study,
    values: str | list[str] = "test_error",
    *,
    x: str = "epoch",
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    evaluations: str = "same",
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray | xr.Dataset:
    """Return columns over epochs (or, x="step", optimizer steps): float64, dimensions DIMENSIONS and x.

    Runs without a source have source_task "none" and source_size 0; `width` is 0 for timm networks.
    Coordinates `parameters_trained` and `share_trained` have dimensions (model, width, task, frozen);
    `along` turns one of them into a dimension. `attrs["absent"]` and `attrs["diverged"]` list run ids.
    Values of a diverged Run are NaN after its last row.

    Args:
        values: measured columns of `schema.MEASUREMENTS`, or added by `load.add_column`. A name gives a
            DataArray; a list gives a Dataset, read in one pass.
        arm: one or several of `arms.ARMS`, or None for all Runs, including sources. Default: transfer; in
            a user's table without transfer, the only arm.
        evaluations: if cells were evaluated at different epochs: "same" (raise ValueError), "common" (the
            epochs of all cells), "union" (all epochs, NaN if a cell was not evaluated).
        partial: allow absent cells, as NaN; None: `study.partial`.
        squeeze: turn dimensions of length 1 into scalar coordinates.
        select: column of `study.cells` = the value, or list of values, to keep.

    Raises:
        ValueError: for an unknown name or value, or if several Runs are in one cell.
        load.Incomplete: for absent cells, unless `partial`.
    """
    if x not in ("epoch", "step"):
        raise ValueError(f"x={x!r}: choose epoch or step")
    if evaluations not in EVALUATIONS:
        raise ValueError(f"evaluations={evaluations!r}: choose one of {', '.join(EVALUATIONS)}")
    names = [values] if isinstance(values, str) else values
    study.require_columns([x, *names])
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    points = points_over(study, cells, x, evaluations)
    shape = (*(len(axis) for axis in axes.values()), len(points))
    blocks = empty(names, shape)
    standing = {
        name: positions(points_of(study, name, x), points)
        for name in cells["evaluations"].dropna().unique()
    }
    where = flat_index(cells, axes)
    name_of = cells["evaluations"].to_dict()

    def place(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        of_run, into = standing[name_of[run_id]]
        for name in names:
            blocks[name].reshape(-1, len(points))[where[run_id], into] = columns[name][of_run]

    study.read_values(list(ended_of(cells).index), names, place)
    found = _dataset(study, cells, axes | {x: points}, blocks, squeeze)
    return found[values] if isinstance(values, str) else found


@overload
def at_epoch(study: Study, values: str = ..., **options: Any) -> xr.DataArray: ...
@overload
def at_epoch(study: Study, values: list[str], **options: Any) -> xr.Dataset: ...
def at_epoch(
    study: Study,
    values: str | list[str] = "test_error",
    *,
    epoch: str | float = "last",
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray | xr.Dataset:
    """Return columns at one epoch over the grid: float64, dimensions DIMENSIONS.

    `epoch`: "last" for each Run's last evaluation (NaN if the Run diverged), or a number. Every Run must
    have an evaluation at exactly this epoch, unless it diverged before. For the other arguments see
    `over_epochs`.
    """
    names = [values] if isinstance(values, str) else values
    study.require_columns(names if epoch == "last" else ["epoch", *names])
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    blocks = empty(names, tuple(len(axis) for axis in axes.values()))
    where = flat_index(cells, axes)
    ended = ended_of(cells)
    rows = rows_at(study, ended, epoch)

    def place(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        for name in names:
            blocks[name].reshape(-1)[where[run_id]] = columns[name][rows[run_id]]

    study.read_values(list(rows), names, place)
    found = _dataset(study, cells, axes, blocks, squeeze)
    return found[values] if isinstance(values, str) else found


def computed_surface(
    study: Study,
    name: str,
    needs: Sequence[str],
    compute: Callable[..., float],
    *,
    unit: str = "",
    meaning: str = "",
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.DataArray:
    """Return one number computed from each Run's rows, over the grid: float64, dimensions DIMENSIONS.

    `compute` receives the columns `needs` of one Run, each (rows,), in row order, and returns a number;
    it must be thread-safe. A diverged Run has only the rows before divergence. For the other arguments see
    `over_epochs`.
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
    """Return the surface with "frozen" replaced by another axis, ascending.

    Args:
        axis: "parameters_trained", "share_trained", or a surface over "frozen", such as the effective rank
            at the cut (`similarity.similarity_surfaces`), averaged over seeds. If parameters vary along
            a single other dimension, such as "width", they replace it. For the name of a dimension, the
            surface is returned unchanged.

    Raises:
        ValueError: if one frozen count has several values (several networks, tasks or sizes) or none.
    """
    choices = (*map(str, surface.dims), "parameters_trained", "share_trained")
    if isinstance(axis, xr.DataArray):
        name, coordinate = str(axis.name), axis.mean("seed") if "seed" in axis.dims else axis
        if "frozen" not in coordinate.dims:
            raise ValueError(f"{name}: it has no dimension 'frozen'")
        coordinate = coordinate.sel(frozen=surface["frozen"])
        if coordinate.isnull().any():
            raise ValueError(f"{name}: absent at some of the surface's frozen counts")
    elif axis not in choices:
        raise ValueError(f"axis={axis!r}: choose one of {', '.join(choices)}")
    elif axis in surface.dims:
        return surface
    else:
        name, coordinate = axis, surface.coords[axis]
    longer = [str(other) for other in coordinate.dims if coordinate.sizes[other] > 1]
    replaced = longer[0] if len(longer) == 1 else "frozen"
    for other in coordinate.dims:
        if other == replaced:
            continue
        if coordinate.sizes[other] > 1:
            raise ValueError(f"{name}: the surface has several of {other!r}, select one")
        coordinate = coordinate.isel({other: 0}, drop=True)
    if replaced not in coordinate.dims:
        raise ValueError(f"{name}: the surface has one value of it, so it is no axis")
    moved = surface.drop_vars(name, errors="ignore")
    moved = moved.assign_coords({name: (replaced, coordinate.values)})
    return moved.swap_dims({replaced: name}).sortby(name)


CAPACITIES: Final = ("width", "frozen", "parameters_trained", "share_trained")


def judge_along(
    study: Study,
    x: str = "parameters_trained",
    *,
    epoch: str | float = "last",
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    rule: Mapping[str, Any] | None = None,
    **select: Any,
) -> Judgement:
    """Decide whether there is double descent in the test error along an axis of capacity.

    Applies the test of claim C4 to any curve, such as a model-wise one (x="width"). Train errors are used
    if the study has them.

    Args:
        x: one of CAPACITIES. "frozen" is in descending order, so capacity grows.
        rule: values for fields of `descent.Rule`, instead of the defaults.
        Others: see `at_epoch`.

    Raises:
        ValueError: if the study has another axis with several values: select one of them.
    """
    if x not in CAPACITIES:
        raise ValueError(f"x={x!r}: choose one of {', '.join(CAPACITIES)}")
    names: list[str] = ["test_error"]
    names += ["train_error"] if "train_error" in study.measured else []
    found = at_epoch(study, names, epoch=epoch, arm=arm, **select)
    curves = {}
    for name in names:
        curve = along(found[name], x)
        others = [each for each in curve.dims if each not in (x, "seed") and curve.sizes[each] > 1]
        if others:
            raise ValueError(f"{x}: the study has several of {others[0]!r}, select one")
        curve = curve.transpose("seed", x, ...).squeeze(
            [each for each in curve.dims if each not in (x, "seed")]
        )
        curves[name] = curve.isel({x: slice(None, None, -1)}) if x == "frozen" else curve
    test, train = curves["test_error"], curves.get("train_error")
    values = test[x].values.astype(float)
    return judge(
        values.max() - values if x == "frozen" else values,
        test.values,
        Rule(**(rule or {})),
        axis=x,
        train_errors=None if train is None else train.values,
    )


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
    dataset["cut"].attrs["long_name"] = "what is frozen"
    dataset["share_trained"].attrs["long_name"] = "share of the parameters that is trained"
    dataset.attrs = shared
    return dataset.squeeze() if squeeze else dataset


def over_seeds(surface: xr.DataArray) -> xr.Dataset:
    """Average over the available seeds; return `mean`, `standard_error` and `count`, without dim "seed".

    The standard error of the mean is NaN for fewer than two seeds. `count`: the number of seeds in each
    mean, without diverged ones.
    """
    if "seed" not in surface.dims:
        raise ValueError(
            f"the surface has no dimension 'seed', but {', '.join(map(str, surface.dims))}"
        )
    count = surface.count("seed", keep_attrs=False)
    count.attrs = {"units": "seeds", "long_name": "seeds behind the mean"}
    with np.errstate(invalid="ignore"):  # infinite values have no spread: NaN
        spread = surface.std("seed", ddof=1, keep_attrs=True)
    return xr.Dataset(
        {
            "mean": surface.mean("seed", keep_attrs=True),
            "standard_error": (spread / np.sqrt(count)).assign_attrs(surface.attrs),
            "count": count,
        }
    )
