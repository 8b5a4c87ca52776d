"""Compute from the stored predictions how often seeds disagree, and how much their test errors vary.

Bias and variance are not computed: if seeds disagree on most images, their most frequent label does not
estimate the main prediction.

Arrays: `predicted` contains predicted labels, integers, (seeds, …, images), where … are evaluations or
other dimensions; `labels` contains true labels, (images,). Results have shape (…)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr

from analysis.load import Incomplete, Study
from analysis.load.arms import DEFAULT_ARM
from analysis.load.cells import grouped
from analysis.load.rows import StoreRows
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
from study.store.artifacts import labels_of, read_predictions
from study.store.layout import task_path
from study.store.prepared_tasks import read_task_head
from study.store.schema import DONE
from study.store.store import concurrently

Kept = TypeVar("Kept")


def pair_disagreement(predicted: np.ndarray) -> np.ndarray:
    """Return the probability that two seeds predict different labels: the mean over pairs and images.

    The estimate is unbiased for two or more seeds.

    Raises:
        ValueError: for one seed.
    """
    num = _checked(predicted, None)
    if num < 2:
        raise ValueError("1 seed: disagreement needs two")
    # −1, because each seed agrees with itself.
    pairs = [(predicted == one).mean(axis=-1).sum(axis=0) - 1 for one in predicted]
    result: np.ndarray = 1 - np.sum(pairs, axis=0) / (num * (num - 1))
    return result


@dataclass(frozen=True, eq=False, kw_only=True)
class Spread:
    """Variances over seeds of the test error (a fraction, squared), each of shape (…).

    - `measured`: the variance of the error on this test set.
    - `finite_test_set`: the variance that would be measured if all seeds had the same error on the whole
      distribution of images.
    - `beyond`: the variance of the error on the whole distribution; an unbiased estimate, so it may be
      negative.
    """

    measured: np.ndarray
    finite_test_set: np.ndarray
    beyond: np.ndarray


def finite_set_spread(predicted: np.ndarray, labels: np.ndarray) -> Spread:
    """Return how much spread over seeds the finite test set causes (Jordan 2023, arXiv 2304.01910).

    With N images, the variance over seeds of the test error is (Σ variances of single images' errors
    + Σ covariances between images) ÷ N². The mean covariance is the variance of the error on the
    distribution, because test images are independent draws from the distribution; so it is zero if all
    seeds are equally good. All three results are unbiased for two or more seeds.

    Raises:
        ValueError: for one seed, or one test image.
    """
    num = _checked(predicted, labels)
    if num < 2:
        raise ValueError("1 seed: a spread needs two")
    images = labels.size
    if images < 2:
        raise ValueError("1 test image: its spread cannot be divided")
    wrong = predicted != labels
    share = wrong.mean(axis=0)
    each = share * (1 - share) * num / (num - 1)
    measured = wrong.mean(axis=-1).var(axis=0, ddof=1)
    finite = each.mean(axis=-1) / images
    return Spread(
        measured=measured,
        finite_test_set=finite,
        beyond=(measured - finite) * images / (images - 1),
    )


def _checked(predicted: np.ndarray, labels: np.ndarray | None) -> int:
    """Check both arrays; return the number of seeds.

    Raises:
        ValueError: if an array does not contain integers, or shapes do not match.
    """
    if predicted.ndim < 2 or predicted.size == 0 or predicted.dtype.kind not in "iu":
        raise ValueError(
            f"predicted: whole numbers (seeds, …, images) are needed, not {predicted.dtype} of shape "
            f"{predicted.shape}"
        )
    if labels is not None and (
        labels.shape != predicted.shape[-1:] or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"labels: {predicted.shape[-1]} whole numbers are needed, not {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return len(predicted)


MEANINGS: Final = {
    "error": ("fraction", "mean test error over the seeds"),
    "disagreement": ("fraction", "disagreement: chance that two seeds give different labels"),
    "measured": ("fraction²", "variance of the test error over seeds"),
    "finite_test_set": ("fraction²", "variance that the finite test set alone gives"),
    "beyond": ("fraction²", "variance of the error on all images, estimated"),
    "num_seeds": ("seeds", "seeds with stored predictions"),
}
ROWS_AT_ONCE: Final = 64  # evaluations (of all seeds) per batch


def has_predictions(study: Study, cells: pd.DataFrame | None = None) -> bool:
    """Return True if a Run in `cells`, lines of `Study.cells` (default: all), has stored predictions."""
    if not isinstance(study.rows, StoreRows):
        return False
    cells = study.cells if cells is None else cells
    return bool(cells["predictions_digest"].notna().any())


def disagreement(
    study: Study,
    *,
    epoch: str | float = "last",
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    evaluations: str = "same",
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.Dataset:
    """Return how often two seeds predict different labels, over the dimensions of the grid without "seed".

    Diverged seeds are left out.

    Args:
        epoch: "last", a number, or "all", which adds the dimension "epoch".
        partial: if predictions of a Run are missing, use the cell's other seeds.

    The other arguments are those of `surfaces.over_epochs`.

    Returns:
        disagreement: see `pair_disagreement`; NaN for one seed.
        error: the mean test error of the seeds with predictions. num_seeds: their number.
        measured, finite_test_set, beyond: see `finite_set_spread`; NaN for one seed.

    Raises:
        ValueError: if the study was not opened from a store or has no predictions, or a task is not in
            the store.
        Damaged: if predictions do not match the rows or the task.
        load.Incomplete: if predictions of a Run are missing and `partial` is not set.
    """
    store = store_of(study)
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
    errors = test_errors(study, done)
    labels: dict[str, np.ndarray] = {}
    absent: dict[str, str] = {}
    for _, seeds in grouped(done, list(axes), sort=False):
        task = str(seeds["task"].iloc[0])
        if task not in labels:
            labels[task] = test_labels(store, task, seeds["task_fingerprint"].iloc[0])
        found, why = read_kept(store, seeds, labels_of)
        absent |= why
        for run_id, predicted in found.items():
            check_labels(run_id, predicted, labels[task], errors[run_id])
        if not found:
            continue
        # All seeds of a cell have the same evaluations, because recipe and size are the same.
        first = next(iter(found))
        own = points_of(study, str(seeds.loc[first, "evaluations"]), "epoch")
        of_run, into = positions(own, points) if epoch == "all" else ([rows[first]], [0])
        of_run, into = np.arange(len(own))[of_run], np.arange(len(points))[into]
        for start in range(0, len(into), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            predicted = np.stack([one[of_run[some]] for one in found.values()])
            for name, values in _numbers(predicted, labels[task]).items():
                blocks[name].reshape(-1, len(points))[where[first], into[some]] = values
    require_kept(study, absent, len(done), partial)
    return dataset(study, cells, axes, points, blocks, MEANINGS, epoch, list(absent), squeeze)


def _numbers(predicted: np.ndarray, labels: np.ndarray) -> Mapping[str, np.ndarray | int]:
    """Return the values of MEANINGS that these seeds allow. `predicted`: (seeds, evaluations, images)."""
    numbers: dict[str, np.ndarray | int] = {"num_seeds": len(predicted)}
    numbers["error"] = (predicted != labels).mean(axis=(0, -1))
    if len(predicted) >= 2:
        numbers["disagreement"] = pair_disagreement(predicted)
        numbers |= vars(finite_set_spread(predicted, labels))
    return numbers


def store_of(study: Study) -> Store:
    """Return the study's store. Raises ValueError if the study was opened from an export or a table."""
    if not isinstance(study.rows, StoreRows):
        raise ValueError(
            f"study {study.name!r} was not opened from a store: no predictions are read"
        )
    return study.rows.store


def test_errors(study: Study, done: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the test errors of these Runs at each evaluation, by run id."""
    found: dict[str, np.ndarray] = {}
    study.read_values(
        list(done.index), ["test_error"], lambda i, c: found.update({i: c["test_error"]})
    )
    return found


def require_kept(
    study: Study, absent: Mapping[str, str], num_done: int, partial: bool | None
) -> None:
    """Raise load.Incomplete if any Run is `absent` (id → reason), unless `partial`; see `disagreement`."""
    if absent and not (study.partial if partial is None else partial):
        some_why = "; ".join(f"{run_id} ({why})" for run_id, why in list(absent.items())[:3])
        raise Incomplete(
            f"study {study.name!r}: {len(absent)} of {num_done} Runs have no predictions to read: "
            f"{some_why}",
            tuple(run for run in study.wanted if run.id in absent),
            "their cells from the other seeds",
        )


def read_kept(
    store: Store, seeds: pd.DataFrame, values_of: Callable[[pa.Table], Kept]
) -> tuple[dict[str, Kept], dict[str, str]]:
    """Return `values_of` the predictions, and the reasons for missing predictions, both by run id."""
    digests = {str(i): d for i, d in seeds["predictions_digest"].items() if pd.notna(d)}
    answers = concurrently(lambda i: values_of(read_predictions(store, i, digests[i])), digests)
    found = {i: a for i, a in answers.items() if not isinstance(a, Damaged)}
    why = {i: str(a) for i, a in answers.items() if isinstance(a, Damaged)}
    why |= {i: "not there any more" for i in digests if i not in answers}
    why |= {str(i): "not kept" for i in seeds.index if i not in digests}
    return {i: found[i] for i in sorted(found)}, why


def check_labels(
    run_id: str, predicted: np.ndarray, labels: np.ndarray, errors: np.ndarray
) -> None:
    """Raise Damaged unless `predicted`, (evaluations, images), has these test errors, (evaluations,)."""
    fits = predicted.shape == (len(errors), len(labels))
    if fits:
        own = (predicted != labels).mean(axis=-1)
        fits = bool((np.abs(own - errors) < 0.5 / len(labels)).all())
    if not fits:
        raise Damaged(f"predictions of {run_id}", "they do not give the test error of its rows")


def test_labels(store: Store, task: str, fingerprint: str | None) -> np.ndarray:
    """Return the labels of a task's test images, in the images' order, without reading the images."""
    # The fingerprint is not recomputed; `check_labels` detects wrong labels by the test errors.
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
        raise ValueError(
            f"task {task!r}: {store.shown} has another version than the one that was trained on"
        )
    of_test: np.ndarray = labels[plain["info"]["num_train"] :]
    return of_test


def dataset(
    study: Study,
    cells: pd.DataFrame,
    axes: Mapping[str, np.ndarray],
    points: np.ndarray,
    blocks: Mapping[str, np.ndarray],
    meanings: Mapping[str, tuple[str, str]],
    epoch: str | float,
    absent: Sequence[str],
    squeeze: bool,
) -> xr.Dataset:
    """Return an array for each of `meanings` (name → unit, meaning) from its block, (*axes, points)."""
    coords = dict(axes) | ({"epoch": points} if epoch == "all" else {})
    dataset = xr.Dataset(coords=coords | parameters(ended_of(cells), axes))
    for name, (unit, meaning) in meanings.items():
        block = blocks[name] if epoch == "all" else blocks[name][..., 0]
        attrs = {"units": unit, "long_name": meaning, "study": study.name, "absent": list(absent)}
        dataset[name] = (tuple(coords), block, attrs)
    dataset["num_seeds"] = dataset["num_seeds"].astype(int)
    return dataset.squeeze() if squeeze else dataset
