"""Compute bias and variance of the predicted class probabilities over seeds (Yang et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from analysis.load import Study
from analysis.load.arms import DEFAULT_ARM
from analysis.load.cells import grouped
from analysis.surfaces.disagreement import (
    check_labels,
    dataset,
    read_kept,
    require_kept,
    store_of,
    test_errors,
    test_labels,
)
from analysis.surfaces.grid import axes_of, chosen, empty, flat_index
from study.store import Damaged
from study.store.artifacts import labels_of, probabilities_of
from study.store.schema import DONE


@dataclass(frozen=True, kw_only=True)
class BiasVariance:
    """Means over test images; each image's value is a sum over classes. `risk` = `bias2` + `variance`.

    - `risk`: squared distance of the probabilities from the one-hot label (Brier score), mean over seeds.
    - `variance`: squared distance of the probabilities from their expected value.
    - `bias2`: squared distance of the expected probabilities from the one-hot label.
    """

    risk: float
    bias2: float
    variance: float


def decompose(probabilities: Sequence[np.ndarray], labels: np.ndarray) -> BiasVariance:
    """Return unbiased estimates for the squared loss (Yang et al. 2020, arXiv 2002.11328).

    The variance over N seeds divides by N − 1; bias² is risk minus variance, so it may be negative.

    Args:
        probabilities: of each seed, shape (images, classes).
        labels: true labels, integers, shape (images,).

    Raises:
        ValueError: for one seed.
    """
    num = len(probabilities)
    if num < 2:
        raise ValueError("1 seed: a variance needs two")
    mean = np.mean(probabilities, axis=0, dtype=np.float64)
    own = labels[:, None]
    squares, distances = 0.0, 0.0
    for one in probabilities:
        exact = one.astype(np.float64)
        of_label = np.take_along_axis(exact, own, axis=1)[:, 0]
        distances += ((exact**2).sum(axis=1) - 2 * of_label + 1).mean()
        squares += ((exact - mean) ** 2).sum(axis=1).mean()
    risk, variance = float(distances / num), float(squares / (num - 1))
    return BiasVariance(risk=risk, bias2=risk - variance, variance=variance)


MEANINGS: Final = {
    "risk": ("probability²", "risk: squared distance of the probabilities from the label"),
    "bias2": ("probability²", "bias² of the probabilities, estimated"),
    "variance": ("probability²", "variance of the probabilities over seeds, estimated"),
    "num_seeds": ("seeds", "seeds with stored probabilities"),
}


def bias_variance(
    study: Study,
    *,
    arm: str | Sequence[str] | None = DEFAULT_ARM,
    partial: bool | None = None,
    squeeze: bool = False,
    **select: Any,
) -> xr.Dataset:
    """Return risk, bias² and variance of the class probabilities at the last evaluation; see `decompose`.

    The dimensions are those of the grid without "seed". Diverged seeds are left out. A seed is a full
    replicate: source, target images, wrong labels, initial values and order differ together. So the
    variance is not due to the target set or to the initial values alone.

    Probabilities are stored in 8 bits. Rounding changes each by at most 1/510. It adds to risk and
    variance alike: about (1/255)²/12 = 1.3e-6 for each class, less for probabilities near 0 and 1.

    Args:
        partial: if probabilities of a Run are missing, use the cell's other seeds.

    The other arguments are those of `surfaces.over_epochs`.

    Returns:
        risk, bias2, variance: see `BiasVariance`; NaN for one seed. num_seeds: seeds with probabilities.

    Raises:
        ValueError: if the study was not opened from a store or has no probabilities, or a task is not in
            the store.
        Damaged: if probabilities do not match the rows or the task.
        load.Incomplete: if probabilities of a Run are missing and `partial` is not set.
    """
    store = store_of(study)
    cells = chosen(study, arm, partial, select)
    axes = axes_of(cells)
    del axes["seed"]
    blocks = empty(list(MEANINGS), (*(len(axis) for axis in axes.values()), 1))
    blocks["num_seeds"][:] = 0
    where = flat_index(cells, axes)
    done = cells[cells["state"] == DONE]
    errors = test_errors(study, done)
    labels: dict[str, np.ndarray] = {}
    absent: dict[str, str] = {}
    for _, seeds in grouped(done, list(axes), sort=False):
        read, why = read_kept(
            store, seeds, lambda t: (labels_of(t)[-1:].copy(), probabilities_of(t))
        )
        absent |= why | {i: "labels only" for i, (_, kept) in read.items() if kept is None}
        found = {i: (own, kept) for i, (own, kept) in read.items() if kept is not None}
        if not found:
            continue
        task = str(seeds["task"].iloc[0])
        if task not in labels:
            labels[task] = test_labels(store, task, seeds["task_fingerprint"].iloc[0])
        for run_id, (own, kept) in found.items():
            check_labels(run_id, own, labels[task], errors[run_id][-1:])
            _check_largest(run_id, own[0], kept)
        at = where[next(iter(found))]
        blocks["num_seeds"].reshape(-1)[at] = len(found)
        if len(found) >= 2:
            numbers = decompose([kept for _, kept in found.values()], labels[task])
            for name, value in vars(numbers).items():
                blocks[name].reshape(-1)[at] = value
    if len(done) and len(absent) == len(done):
        raise ValueError(
            f"study {study.name!r} keeps no probabilities of these Runs: set KEEP_PREDICTIONS = "
            '"probabilities" in its search space and run it again'
        )
    require_kept(study, absent, len(done), partial)
    return dataset(study, cells, axes, np.zeros(1), blocks, MEANINGS, "last", list(absent), squeeze)


def _check_largest(run_id: str, predicted: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise Damaged unless the label of each image has the largest probability, up to two roundings."""
    of_label = np.take_along_axis(probabilities, predicted[:, None].astype(int), axis=1)[:, 0]
    if (of_label < probabilities.max(axis=1) - 1.5 / 255).any():
        raise Damaged(f"predictions of {run_id}", "their probabilities do not give their labels")
