"""Map Runs to cells of an array: dimensions, coordinate values, and the position of each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.load import Study, require_rows
from analysis.load.cells import AXES, ENDED, NAMES, selected
from study.store.schema import DIVERGED

DIMENSIONS: Final = AXES

# Options for cells that were evaluated at different epochs.
EVALUATIONS: Final = ("same", "common", "union")

# Coordinates that are not dimensions. If Runs of one cell differ in these, the caller must select values.
OTHERS: Final = tuple(name for name in NAMES if name not in DIMENSIONS)

MAX_BYTES: Final = 2 * 2**30


def chosen(
    study: Study, arm: str | Sequence[str] | None, partial: bool | None, select: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the lines of `study.cells` that match `arm` and `select`, one Run per cell of the array.

    Raises:
        ValueError: for an unknown name or value, or if several Runs are in one cell.
        load.Incomplete: if a Run has no rows, unless `partial` (None: the study's `partial`).
    """
    arm = study.arm_of(arm) if isinstance(arm, str) else arm
    cells = selected(study.cells, {} if arm is None else {"arm": arm})
    cells = selected(cells, select)
    if not (study.partial if partial is None else partial):
        require_rows(study, cells)
    doubled = cells[cells.duplicated(list(DIMENSIONS), keep=False)]
    if not doubled.empty:
        first = next(iter(doubled.groupby(list(DIMENSIONS))))[1]
        differ = [name for name in OTHERS if first[name].nunique() > 1]
        choices = "; ".join(f"{name} = {', '.join(map(repr, first[name]))}" for name in differ)
        raise ValueError(
            f"{len(doubled)} Runs share their cells with others: select one of {choices}"
        )
    return cells


def ended_of(cells: pd.DataFrame) -> pd.DataFrame:
    return cells[cells["state"].isin(ENDED)]


def axes_of(cells: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the values of each dimension, sorted, "none" first: one-dimensional arrays."""
    axes = {}
    for name in DIMENSIONS:
        values = sorted(cells[name].unique(), key=lambda v: (v != "none", v))
        axes[name] = np.array(values, dtype=object if isinstance(values[0], str) else None)
    return axes


def flat_index(cells: pd.DataFrame, axes: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Return the flat index of each Run's cell over `axes`, by run id."""
    codes = [pd.Index(values).get_indexer(pd.Index(cells[name])) for name, values in axes.items()]
    flat = np.ravel_multi_index(codes, tuple(len(values) for values in axes.values()))
    return dict(zip(cells.index, flat.tolist(), strict=True))


def points_of(study: Study, name: str, x: str) -> np.ndarray:
    """Return the epochs (x="epoch") or steps of entry `name` of `Study.evaluations`: (rows,)."""
    evaluations = study.evaluations[name]
    return evaluations.epochs if x == "epoch" else evaluations.steps


def points_over(study: Study, cells: pd.DataFrame, x: str, evaluations: str) -> np.ndarray:
    """Return the epochs (x="epoch") or steps of the array's last axis. `evaluations`: see `over_epochs`.

    Raises:
        ValueError: if cells were evaluated at different points and `evaluations` is "same".
    """
    # A diverged Run has only the first part of its evaluations (`cut`).
    ended = ended_of(cells)
    whole = [
        points_of(study, name, x)
        for name in ended.loc[ended["state"] != DIVERGED, "evaluations"].unique()
    ]
    cut = [
        points_of(study, name, x)
        for name in ended.loc[ended["state"] == DIVERGED, "evaluations"].unique()
    ]
    if not whole:
        whole = sorted(cut, key=len)[-1:]
    if not whole:
        return np.empty(0)
    if evaluations == "union":
        return np.unique(np.concatenate(whole + cut))
    if evaluations == "common":
        common = whole[0]
        for other in whole[1:]:
            common = np.intersect1d(common, other)
        return common
    first = whole[0]
    same = all(np.array_equal(first, other) for other in whole[1:])
    begins = all(len(c) <= len(first) and np.array_equal(first[: len(c)], c) for c in cut)
    if not (same and begins):
        raise ValueError(
            f"the cells were evaluated at different {x}s ({len(whole + cut)} lists of them): select "
            f"cells of one, or pass evaluations='common' (the {x}s that all have) or "
            "evaluations='union' (all, NaN where a cell was not evaluated)"
        )
    return first


def positions(own: np.ndarray, points: np.ndarray) -> tuple[Any, Any]:
    """Return indices into a Run's rows (`own`) and the matching indices into `points`."""
    if len(own) <= len(points) and np.array_equal(points[: len(own)], own):
        return slice(None), slice(0, len(own))
    _, of_run, into = np.intersect1d(own, points, assume_unique=True, return_indices=True)
    return of_run, into


def rows_at(study: Study, ended: pd.DataFrame, epoch: str | float) -> dict[str, int]:
    """Return the index of each Run's row at `epoch`, by run id; leave out Runs that diverged before."""
    if isinstance(epoch, str) and epoch != "last":
        raise ValueError(f"epoch={epoch!r}: choose 'last' or a number")
    row_of: dict[str, int | None] = {}
    for name in ended["evaluations"].unique():
        epochs = study.evaluations[name].epochs
        at = np.flatnonzero(epochs == epoch) if epoch != "last" else np.array([len(epochs) - 1])
        row_of[name] = int(at[0]) if len(at) else None
    rows = {}
    for run_id, state, name in zip(ended.index, ended["state"], ended["evaluations"], strict=True):
        row = row_of[name]
        if state == DIVERGED and (epoch == "last" or row is None):
            continue
        if row is None:
            epochs = study.evaluations[name].epochs
            near = epochs[np.argsort(np.abs(epochs - float(epoch)))[:2]]
            raise ValueError(
                f"epoch={epoch!r}: Run {run_id} was evaluated at {len(epochs)} epochs, the nearest are "
                f"{', '.join(f'{e:g}' for e in near)}; no row is interpolated"
            )
        rows[run_id] = row
    return rows


def parameters(
    cells: pd.DataFrame, axes: Mapping[str, np.ndarray]
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return additional coordinates, as xarray's (dimensions, values), by name.

    `parameters_trained`, `share_trained`: over model, width, task, frozen. `cut`: model, width, frozen.
    """
    over = ("model", "width", "task", "frozen")
    shape = tuple(len(axes[name]) for name in over)
    trained, share = np.full(shape, np.nan), np.full(shape, np.nan)

    def index(lines: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, ...]:
        return tuple(pd.Index(axes[name]).get_indexer(pd.Index(lines[name])) for name in names)

    known = cells.dropna(subset=["parameters_trained"]).drop_duplicates(list(over))
    trained[index(known, over)] = known["parameters_trained"]
    share[index(known, over)] = known["parameters_trained"] / known["parameters_total"]
    of_cut = ("model", "width", "frozen")
    words = np.full(tuple(len(axes[name]) for name in of_cut), "", dtype=object)
    named = cells.drop_duplicates(list(of_cut))
    words[index(named, of_cut)] = named["cut"]
    return {
        "parameters_trained": (over, trained),
        "share_trained": (over, share),
        "cut": (of_cut, words),
    }


def empty(values: Sequence[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return an array of NaN for each name in `values`.

    Raises:
        ValueError: if the arrays need more than MAX_BYTES.
    """
    num_bytes = 8 * math.prod(shape) * len(values)
    if num_bytes > MAX_BYTES:
        raise ValueError(
            f"an array of shape {shape} for {len(values)} columns needs {num_bytes / 2**30:.1f} GiB: "
            "select fewer cells"
        )
    return {name: np.full(shape, np.nan) for name in values}
