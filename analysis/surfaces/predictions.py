"""Bias, variance and disagreement as surfaces, from the predictions that a store keeps.

Owns how the predictions of a cell's seeds meet the labels of its task's test images. Refuses predictions
that do not give the test error that the rows say, and a cell whose seeds are not all there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr

from analysis.load import Incomplete, Study
from analysis.load.arms import TRANSFER
from analysis.load.cells import grouped
from analysis.load.rows import StoreRows
from analysis.surfaces import bias_variance
from analysis.surfaces.grid import (
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
from study.store import Damaged, Store
from study.store.layout import task_path
from study.store.predictions import labels_of, read_predictions
from study.store.prepared_tasks import read_task_head
from study.store.schema import DONE
from study.store.store import concurrently

MEANINGS: Final = {
    "error": ("fraction", "mean test error over the seeds"),
    "bias": ("fraction", "bias: test images whose most frequent label is wrong"),
    "net_variance": ("fraction", "net variance: test error beyond the bias"),
    "variance": ("fraction", "variance: chance of another label than the most frequent one"),
    "disagreement": ("fraction", "disagreement: chance that two seeds give different labels"),
    "measured": ("fraction²", "variance of the test error over seeds"),
    "finite_test_set": ("fraction²", "variance that the finite test set alone gives"),
    "beyond": ("fraction²", "variance of the error on all images, estimated"),
    "num_seeds": ("seeds", "seeds whose predictions are there"),
}
ROWS_AT_ONCE: Final = 64  # evaluations of all seeds that are worked on together


def has_predictions(study: Study, cells: pd.DataFrame | None = None) -> bool:
    """Whether any Run of these lines of `Study.cells` (default: all) has predictions in the store."""
    if not isinstance(study.rows, StoreRows):
        return False
    cells = study.cells if cells is None else cells
    return bool(cells["predictions_digest"].notna().any())


def bias_variance_surfaces(
    study: Study,
    *,
    epoch: str | float = "last",
    arm: str | Sequence[str] | None = TRANSFER,
    evaluations: str = "same",
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.Dataset:
    """Bias, variance and disagreement of the predicted labels over seeds; dims those of the grid but seed.

    - `epoch`: "last", a number, or "all" for one more dimension "epoch".
    - `error` = `bias` + `net_variance`, and `variance`, as `bias_variance.decompose` gives them: from
      five seeds on, else NaN. Few seeds give too much bias: compare cells with equal `num_seeds`.
    - `disagreement`, and `measured`, `finite_test_set` and `beyond` of `bias_variance.finite_set_spread`:
      from two seeds on.

    All else as in `surfaces.epoch_surface`. A seed that diverged is in no cell. Raises ValueError for a
    study that was opened from elsewhere than a store, one that keeps no predictions, a task that is not
    in the store; Damaged for predictions that do not fit rows or task; `load.Incomplete` where those of a
    Run are absent, unless `partial`: its cell then rests on the other seeds.
    """
    if not isinstance(study.rows, StoreRows):
        raise ValueError(
            f"study {study.name!r} was not opened from a store: no predictions are read"
        )
    store = study.rows.store
    cells = chosen(study, arm, partial, select)
    if not has_predictions(study, cells):
        raise ValueError(
            f"study {study.name!r} keeps no predictions of these Runs: set KEEP_PREDICTIONS = True in its "
            "search space and run it again"
        )
    axes = axes_of(cells)
    del axes["seed"]
    points = points_over(study, cells, "epoch", evaluations) if epoch == "all" else np.zeros(1)
    shape = (*(len(axis) for axis in axes.values()), len(points))
    blocks = empty(list(MEANINGS), shape)
    blocks["num_seeds"][:] = 0
    where = flat_index(cells, axes)
    done = cells[cells["state"] == DONE]
    rows = rows_at(study, done, epoch) if epoch != "all" else {}
    test_errors: dict[str, np.ndarray] = {}
    study.read_values(
        list(done.index), ["test_error"], lambda i, c: test_errors.update({i: c["test_error"]})
    )
    labels: dict[str, np.ndarray] = {}
    absent: dict[str, str] = {}
    for _, seeds in grouped(done, list(axes), sort=False):
        task = str(seeds["task"].iloc[0])
        if task not in labels:
            labels[task] = _test_labels(store, task, seeds["task_fingerprint"].iloc[0])
        found, why = _read(store, seeds)
        absent |= why
        for run_id, predicted in found.items():
            _check(run_id, predicted, labels[task], test_errors[run_id])
        if not found:
            continue
        # One list of evaluations for all seeds of a cell: they have one recipe and size.
        first = next(iter(found))
        own = points_of(study, str(seeds.loc[first, "evaluations"]), "epoch")
        of_run, into = positions(own, points) if epoch == "all" else ([rows[first]], [0])
        of_run, into = np.arange(len(own))[of_run], np.arange(len(points))[into]
        for start in range(0, len(into), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            predicted = np.stack([one[of_run[some]] for one in found.values()])
            for name, values in _numbers(predicted, labels[task]).items():
                blocks[name].reshape(-1, len(points))[where[first], into[some]] = values
    if absent and not (study.partial if partial is None else partial):
        some_why = "; ".join(f"{run_id} ({why})" for run_id, why in list(absent.items())[:3])
        raise Incomplete(
            f"study {study.name!r}: {len(absent)} of {len(done)} Runs have no predictions to read: "
            f"{some_why}",
            tuple(run for run in study.wanted if run.id in absent),
            "their cells from the other seeds",
        )
    return _dataset(study, ended_of(cells), axes, points, blocks, epoch, list(absent), squeeze)


def _numbers(predicted: np.ndarray, labels: np.ndarray) -> Mapping[str, np.ndarray | int]:
    """All of MEANINGS that so many seeds allow; `predicted`: (seeds, evaluations, images)."""
    numbers: dict[str, np.ndarray | int] = {"num_seeds": len(predicted)}
    numbers["error"] = (predicted != labels).mean(axis=(0, -1))
    if len(predicted) >= 2:
        numbers["disagreement"] = bias_variance.disagreement(predicted)
        numbers |= vars(bias_variance.finite_set_spread(predicted, labels))
    if len(predicted) >= bias_variance.MIN_SEEDS:
        parts = bias_variance.decompose(predicted, labels)
        numbers |= {"bias": parts.bias, "variance": parts.variance}
        numbers["net_variance"] = parts.net_variance
    return numbers


def _read(store: Store, seeds: pd.DataFrame) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The predictions of these Runs, (evaluations, images) each, and why others have none, by id."""
    digests = {str(i): d for i, d in seeds["predictions_digest"].items() if pd.notna(d)}
    answers = concurrently(lambda i: labels_of(read_predictions(store, i, digests[i])), digests)
    found = {i: a for i, a in answers.items() if not isinstance(a, Damaged)}
    why = {i: str(a) for i, a in answers.items() if isinstance(a, Damaged)}
    why |= {i: "not there any more" for i in digests if i not in answers}
    why |= {str(i): "not kept" for i in seeds.index if i not in digests}
    return {i: found[i] for i in sorted(found)}, why


def _check(run_id: str, predicted: np.ndarray, labels: np.ndarray, errors: np.ndarray) -> None:
    fits = predicted.shape == (len(errors), len(labels))
    if fits:
        own = (predicted != labels).mean(axis=-1)
        fits = bool((np.abs(own - errors) < 0.5 / len(labels)).all())
    if not fits:
        raise Damaged(f"predictions of {run_id}", "they do not give the test error of its rows")


def _test_labels(store: Store, task: str, fingerprint: str | None) -> np.ndarray:
    """The labels of a task's test images, in their order; its images stay unread.

    So its fingerprint is not computed: that the labels are the right ones is shown by every test error.
    """
    path = task_path(task)
    try:
        with store.opened(path) as file:
            plain = read_task_head(file, path)
            place = pa.ipc.open_file(file).schema.get_field_index("label")
            only = pa.ipc.IpcReadOptions(included_fields=[place])
            labels = pa.ipc.open_file(file, options=only).read_all()["label"].to_numpy()
    except FileNotFoundError:
        raise ValueError(f"task {task!r} is not in {store.shown}: study prepare {task}") from None
    except (pa.ArrowException, KeyError, TypeError) as error:
        raise Damaged(path, f"not readable: {error}") from error
    if fingerprint != plain["fingerprint"]:
        raise ValueError(f"task {task!r}: {store.shown} holds another version than was trained on")
    of_test: np.ndarray = labels[plain["info"]["num_train"] :]
    return of_test


def _dataset(
    study: Study,
    cells: pd.DataFrame,
    axes: Mapping[str, np.ndarray],
    points: np.ndarray,
    blocks: Mapping[str, np.ndarray],
    epoch: str | float,
    absent: Sequence[str],
    squeeze: bool,
) -> xr.Dataset:
    coords = dict(axes) | ({"epoch": points} if epoch == "all" else {})
    dataset = xr.Dataset(coords=coords | parameters(cells, axes))
    for name, (unit, meaning) in MEANINGS.items():
        block = blocks[name] if epoch == "all" else blocks[name][..., 0]
        attrs = {"units": unit, "long_name": meaning, "study": study.name, "absent": list(absent)}
        dataset[name] = (tuple(coords), block, attrs)
    dataset["num_seeds"] = dataset["num_seeds"].astype(int)
    return dataset.squeeze() if squeeze else dataset
