"""What the claims need of each Run: a few numbers and its curves in windows, read in one pass.

Owns how cells are paired and averaged: one number per seed, over the same cells in every seed, so that
a difference between two levels is never one between different cells. Decides nothing, imputes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.descent import EPSILON
from analysis.descent.curves import epoch_windows, window_means
from analysis.load import Study
from analysis.load.arms import RANDOM_FROZEN, SCRATCH, SOURCE
from analysis.load.cells import CELL, grouped, selected
from study.store.schema import DONE


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """One Run's errors in windows of epochs: `epochs`, `test`, `train`, each (windows,); `start`: the
    test error before training, NaN where the rows do not begin there."""

    epochs: np.ndarray
    test: np.ndarray
    train: np.ndarray
    start: float = np.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class Measures:
    """A study's Runs, measured for the claims.

    - `lines`: the Runs that ended well, one line each, as `Study.cells`, with `test` and `train`
      (error, mean of the last window), `interpolated` (first evaluated epoch with train error ≤
      `epsilon`, inf if none), `spacing` (log10 between that evaluation and the one before) and `step`
      (the smallest difference between two test errors of the Run: one test image or a few; inf if none).
    - `absent`: the lines of the Runs that did not. `curves`: by run id.
    """

    epsilon: float
    lines: pd.DataFrame
    absent: pd.DataFrame
    curves: Mapping[str, Curves]


@dataclass(frozen=True)
class Term:
    """A weighted number of one cell and seed; those of one `group` are added up within each seed.

    `part` tells the terms of a group apart: a seed in which one is absent has no sum.
    """

    group: Hashable
    seed: int
    part: Hashable
    weight: float
    value: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contrast:
    """`values`: (seeds,), each the mean over the same `groups`; `dropped`: groups left out because a
    seed lacks them; `left_out`: seeds."""

    values: np.ndarray
    seeds: tuple[int, ...]
    groups: tuple[Hashable, ...]
    run_ids: tuple[str, ...]
    dropped: int
    left_out: tuple[int, ...]


def measure(study: Study, *, epsilon: float = EPSILON, **select: Any) -> Measures:
    """Reads the selected Runs once. Raises ValueError for two Runs of one cell and seed."""
    study.require_columns(["epoch", "test_error", "train_error"])
    cells = selected(study.cells, select)
    cells = cells[cells["arm"] != SOURCE]
    doubled = cells.duplicated([*CELL, "seed", "arm"])
    if doubled.any():
        raise ValueError(
            f"Run {cells.index[doubled][0]}: another Run has the same cell and seed (its source's "
            "seed differs, perhaps): select one, e.g. source_seed=0"
        )
    done = cells[cells["state"] == DONE]
    windows = {
        name: epoch_windows(study.evaluations[name].epochs) for name in done["evaluations"].unique()
    }
    name_of = done["evaluations"].to_dict()
    num_test = done["num_test"].to_dict()
    curves: dict[str, Curves] = {}
    numbers: dict[str, dict[str, float]] = {}

    def use(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        own = windows[name_of[run_id]]
        test, train = (window_means(columns[name], own) for name in ("test_error", "train_error"))
        epochs = study.evaluations[name_of[run_id]].epochs
        start = float(columns["test_error"][0]) if epochs[0] <= 0 else np.nan
        curves[run_id] = Curves(epochs=own.centres, test=test, train=train, start=start)
        at, spacing = _first(epochs, columns["train_error"] <= epsilon)
        numbers[run_id] = {
            "test": float(test[-1]),
            "train": float(train[-1]),
            "interpolated": at,
            "spacing": spacing,
            # Rows of an earlier format, and tables of others, do not say how many test images there are.
            "step": 1 / num_test[run_id] if num_test[run_id] else _step(columns["test_error"]),
        }

    study.read_values(list(done.index), ["test_error", "train_error"], use)
    columns = ["test", "train", "interpolated", "spacing", "step"]
    found = pd.DataFrame([numbers[i] for i in done.index], index=done.index, columns=columns)
    return Measures(
        epsilon=epsilon,
        lines=done.join(found),
        absent=cells[cells["state"] != DONE],
        curves=curves,
    )


def of_arm(lines: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The lines of an arm; random frozen layers end, where none is frozen, in the scratch arm."""
    names = (RANDOM_FROZEN, SCRATCH) if arm == RANDOM_FROZEN else (arm,)
    return lines[lines["arm"].isin(names)]


def groups(lines: pd.DataFrame, *without: str) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The lines by cell, the named coordinates left out of what makes a cell."""
    return grouped(lines, [name for name in CELL if name not in without])


def one_image(lines: pd.DataFrame) -> float:
    """The test error of one image; where the rows do not say it, as the errors' own steps do. Of several
    tasks the largest; 0 where no error ever changed."""
    steps = lines.groupby("task")["step"].min().astype(float)
    steps = steps[np.isfinite(steps)]
    return float(steps.max()) if len(steps) else 0.0


def contrast(terms: Iterable[Term]) -> Contrast | None:
    """One number per seed: the sum of a group's terms, averaged over the groups.

    Only groups whose terms are all there in every seed used; where the study has holes, as many
    seeds and groups are kept as leave the most cells. None where nothing is left.
    """
    sums: dict[tuple[Hashable, int], list[Term]] = defaultdict(list)
    for term in terms:
        sums[term.group, term.seed].append(term)
    names = list(dict.fromkeys(group for group, _ in sums))
    seeds = sorted({seed for _, seed in sums})
    if not names:
        return None
    whole: dict[Hashable, set[Hashable]] = defaultdict(set)
    for (name, _), parts in sums.items():
        whole[name] |= {part.part for part in parts}
    values = np.full((len(names), len(seeds)), np.nan)
    for (name, seed), parts in sums.items():
        assert len({part.part for part in parts}) == len(parts), (name, seed)
        if len(parts) == len(whole[name]):
            total = sum(part.weight * part.value for part in parts)
            values[names.index(name), seeds.index(seed)] = total
    kept_groups, kept_seeds = fullest(np.isfinite(values))
    if not kept_groups.any():
        return None
    used = [name for name, kept in zip(names, kept_groups, strict=True) if kept]
    used_seeds = [seed for seed, kept in zip(seeds, kept_seeds, strict=True) if kept]
    run_ids = {
        run_id: None
        for name in used
        for seed in used_seeds
        for part in sums[name, seed]
        for run_id in part.run_ids
    }
    return Contrast(
        values=values[np.ix_(kept_groups, kept_seeds)].mean(axis=0),
        seeds=tuple(used_seeds),
        groups=tuple(used),
        run_ids=tuple(run_ids),
        dropped=len(names) - len(used),
        left_out=tuple(seed for seed in seeds if seed not in used_seeds),
    )


def matrix(lines: pd.DataFrame, column: str, across: str) -> np.ndarray:
    """One column as (seeds, levels of `across`), both ascending, NaN where no Run is."""
    table = lines.pivot(index="seed", columns=across, values=column)
    return np.asarray(table, dtype=np.float64)


def fullest(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which groups and which seeds to use of (groups, seeds) bool, so that each is there in each."""
    # Chosen by what is there, never by its values: the fullest seeds first, as many as pay.
    order = np.argsort(-there.sum(axis=0), kind="stable")
    best = (-1, -1)
    kept = np.zeros(len(there), bool), np.zeros(there.shape[1], bool)
    for num in range(1, there.shape[1] + 1):
        complete = np.asarray(there[:, order[:num]].all(axis=1))
        # One seed gives no verdict, so any two outweigh it.
        score = (int(num > 1) * int(complete.any()), num * int(complete.sum()))
        if complete.any() and score >= best:
            seeds = np.zeros(there.shape[1], bool)
            seeds[order[:num]] = True
            best, kept = score, (complete, seeds)
    return kept


def _step(errors: np.ndarray) -> float:
    steps = np.diff(np.unique(errors[np.isfinite(errors)]))
    steps = steps[steps > 1e-9]  # less is rounding
    return float(steps.min()) if steps.size else np.inf


def _first(epochs: np.ndarray, reached: np.ndarray) -> tuple[float, float]:
    places = np.flatnonzero(reached & (epochs > 0))
    if not places.size:
        return np.inf, np.nan
    first = int(places[0])
    # The first epoch of all has no evaluation before it on a log axis: there the next one stands in.
    low = first - 1 if first > 0 and epochs[first - 1] > 0 else first
    high = min(low + 1, epochs.size - 1)
    return float(epochs[first]), float(np.log10(epochs[high] / epochs[low]))
