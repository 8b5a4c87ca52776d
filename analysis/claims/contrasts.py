"""Measure each Run for the claims, and pair the cells that the claims compare.

A cell is a group of Runs that differ only in their seeds. A contrast is a difference between paired cells,
one number per seed. Every seed must cover the same cells: otherwise the numbers cannot be compared."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.descent import EPSILON
from analysis.descent.curves import epoch_windows, window_means
from analysis.load import Study
from analysis.load.arms import RANDOM_FROZEN, SCRATCH, SOURCE
from analysis.load.cells import CELL, grouped, selected
from analysis.load.rows import TableRows
from study.store.schema import DONE


@dataclass(frozen=True, eq=False, kw_only=True)
class Curves:
    """One Run's errors in windows of epochs.

    `epochs`, `test`, `train`: (windows,); `start`: the test error before training, NaN if unknown.
    """

    epochs: np.ndarray
    test: np.ndarray
    train: np.ndarray
    start: float = np.nan


@dataclass(frozen=True, eq=False, kw_only=True)
class Measures:
    """A study's Runs, measured for the claims.

    - `lines`: the rows of `Study.cells` for Runs in state DONE, with five more columns:
      `test` and `train` (mean error of the last window of epochs);
      `interpolated` (epoch at which the train error crosses `epsilon`, see `crossing`; inf if never);
      `spacing` (distance of the two evaluations around that epoch, in log10 of epochs);
      `step` (smallest difference between two test errors: one test image or a few; inf if none).
    - `absent`: the rows of all other Runs. `curves`: by run id.
    - `part_heads`: the rows of Runs whose head reads only some features, in any state. These Runs are not
      in `lines` and `absent`, because only C4b uses them.
    """

    epsilon: float
    lines: pd.DataFrame
    absent: pd.DataFrame
    curves: Mapping[str, Curves]
    part_heads: pd.DataFrame


@dataclass(frozen=True)
class Term:
    """A weighted number of one cell and seed. Within each seed, the terms of one `group` are added up.

    `part` identifies a term within its group. If a seed lacks a part of a group, it has no sum there.
    """

    group: Hashable
    seed: int
    part: Hashable
    weight: float
    value: float
    run_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contrast:
    """One number per seed: the mean difference over the same groups of cells for all seeds.

    `values`: (seeds,); `dropped`: number of groups that are not used, because a seed lacks them;
    `left_out`: seeds that are not used, because they lack too many groups.
    """

    values: np.ndarray
    seeds: tuple[int, ...]
    groups: tuple[Hashable, ...]
    run_ids: tuple[str, ...]
    dropped: int
    left_out: tuple[int, ...]


def measure(study: Study, *, epsilon: float = EPSILON, **select: Any) -> Measures:
    """Read the selected Runs once and measure them.

    Raises:
        ValueError: if two Runs have the same cell and seed.
    """
    study.require_columns(["epoch", "test_error", "train_error"])
    cells = selected(study.cells, select)
    cells = cells[cells["arm"] != SOURCE]
    doubled = cells.duplicated([*CELL, "seed", "arm"])
    if doubled.any():
        raise ValueError(
            f"Run {cells.index[doubled][0]}: another Run has the same cell and seed (its source's "
            "seed differs, perhaps): select one, e.g. source_seed=0"
        )
    if isinstance(study.rows, TableRows) and "source_seed" not in study.rows.known:
        cells = cells.assign(source_seed=np.nan)  # unknown in an external table
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
        at, spacing = crossing(epochs, columns["train_error"], epsilon)
        numbers[run_id] = {
            "test": float(test[-1]),
            "train": float(train[-1]),
            "interpolated": at,
            "spacing": spacing,
            # Rows of an earlier format and external tables lack the number of test images.
            "step": 1 / num_test[run_id] if num_test[run_id] else _step(columns["test_error"]),
        }

    study.read_values(list(done.index), ["test_error", "train_error"], use)
    columns = ["test", "train", "interpolated", "spacing", "step"]
    found = pd.DataFrame([numbers[i] for i in done.index], index=done.index, columns=columns)
    every = cells.join(found)
    is_whole, is_done = every["head_inputs"] == 0, every["state"] == DONE
    return Measures(
        epsilon=epsilon,
        lines=every[is_whole & is_done],
        absent=every[is_whole & ~is_done],
        curves=curves,
        part_heads=every[~is_whole],
    )


def of_arm(lines: pd.DataFrame, arm: str) -> pd.DataFrame:
    # With nothing frozen, the random frozen arm is the scratch arm.
    names = (RANDOM_FROZEN, SCRATCH) if arm == RANDOM_FROZEN else (arm,)
    return lines[lines["arm"].isin(names)]


def groups(lines: pd.DataFrame, *without: str) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """Group the rows by cell, ignoring the coordinates in `without`."""
    return grouped(lines, [name for name in CELL if name not in without])


def one_image(lines: pd.DataFrame) -> float:
    """Return the test error of one image: 1 / number of test images, the largest over tasks.

    If the number of test images is unknown, return the smallest difference between two test errors of a
    Run; 0 if no error ever changed.
    """
    steps = lines.groupby("task")["step"].min().astype(float)
    steps = steps[np.isfinite(steps)]
    return float(steps.max()) if len(steps) else 0.0


def contrast(terms: Iterable[Term]) -> Contrast | None:
    """Return one number per seed: the sum of a group's terms, averaged over the groups.

    A group counts only if it has all its terms in every seed used. If cells are missing, groups and seeds
    are left out (see `fullest`). Return None if nothing is left.
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


def replicates(terms: Iterable[Term], found: Contrast) -> dict[tuple[Hashable, int], float]:
    """Return the sum of terms by (group, seed), for the groups and seeds that `found` uses."""
    sums: dict[tuple[Hashable, int], float] = defaultdict(float)
    for term in terms:
        if term.group in found.groups and term.seed in found.seeds:
            sums[term.group, term.seed] += term.weight * term.value
    return sums


def matrix(lines: pd.DataFrame, column: str, across: str) -> np.ndarray:
    """Return one column as a matrix (seeds, levels of `across`), both ascending; NaN without a Run."""
    table = lines.pivot(index="seed", columns=across, values=column)
    return np.asarray(table, dtype=np.float64)


def fullest(there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Choose groups and seeds that keep the most cells, such that every chosen group has all chosen seeds.

    Args:
        there: (groups, seeds) bool, True if the group has the seed.

    Returns:
        Which groups and which seeds are chosen: (groups,) bool and (seeds,) bool.
    """
    # The choice depends only on which cells exist, never on their values. The fullest seeds come first.
    order = np.argsort(-there.sum(axis=0), kind="stable")
    best = (-1, -1)
    kept = np.zeros(len(there), bool), np.zeros(there.shape[1], bool)
    for num in range(1, there.shape[1] + 1):
        complete = np.asarray(there[:, order[:num]].all(axis=1))
        # One seed gives no verdict, so two seeds are preferred even if they keep fewer cells.
        score = (int(num > 1) * int(complete.any()), num * int(complete.sum()))
        if complete.any() and score >= best:
            seeds = np.zeros(there.shape[1], bool)
            seeds[order[:num]] = True
            best, kept = score, (complete, seeds)
    return kept


def _step(errors: np.ndarray) -> float:
    steps = np.diff(np.unique(errors[np.isfinite(errors)]))
    steps = steps[steps > 1e-9]  # smaller differences are rounding errors
    return float(steps.min()) if steps.size else np.inf


def crossing(epochs: np.ndarray, train: np.ndarray, epsilon: float) -> tuple[float, float]:
    """Return the epoch at which the train error crosses ε, and the spacing of evaluations there (log10).

    Between two evaluations, log epoch is interpolated linearly in the train error. If the train error
    stays above ε, return (inf, NaN).
    """
    places = np.flatnonzero((train <= epsilon) & (epochs > 0))
    if not places.size:
        return np.inf, np.nan
    first = int(places[0])
    # Without an evaluation before it on the log axis, nothing can be interpolated.
    low = first - 1 if first > 0 and epochs[first - 1] > 0 else first
    high = min(low + 1, epochs.size - 1)
    spacing = float(np.log10(epochs[high] / epochs[low])) if high > low else 0.0
    # All seeds are evaluated at the same epochs, so the error of rounding up would not average out.
    share = (train[low] - epsilon) / (train[low] - train[first]) if low < first else 0.0
    return float(epochs[low] * 10 ** (spacing * share)), spacing


Group = tuple[Any, ...]


@dataclass(frozen=True)
class Bound:
    """A capacity (largest interpolated target size) that is outside the sizes studied.

    `above`: True if the largest size is interpolated, False if the smallest size is not.
    `fewest`: True for the fewest frozen layers, False for the most.
    """

    group: Group
    seed: int
    fewest: bool
    above: bool


def pace_terms(lines: pd.DataFrame) -> tuple[list[Term], Mapping[str, frozenset[str]], float]:
    """Return terms of log10 of the epoch at which the train error crosses ε, largest − smallest source.

    Runs that never cross ε count with their last epoch. Also return these Runs, by "larger" and "smaller"
    source, and the mean distance between evaluations (log10).

    Sources of the two sizes must have the same recipe; or each size a recipe of its own, for example the
    number of steps at which their train errors are equal.
    """
    smallest, largest = lines["source_size"].min(), lines["source_size"].max()
    if smallest == largest:
        return [], {"larger": frozenset(), "smaller": frozenset()}, 0.0
    compared = lines[lines["source_size"].isin([smallest, largest])]
    has_one_recipe = compared.groupby("source_size")["source_recipe"].nunique().max() == 1
    terms: list[Term] = []
    for key, cell in groups(
        compared, "source_size", *(["source_recipe"] if has_one_recipe else [])
    ):
        # If in some seed neither Run crosses ε, the difference has no bound.
        columns = ("seed", "source_size", "interpolated", "last_epoch")
        seeds, sizes, at, last = (cell[name].to_numpy() for name in columns)
        _, num_never = np.unique(seeds[~np.isfinite(at)], return_counts=True)
        if num_never.max(initial=0) > 1 or (sizes == sizes[0]).all():
            continue
        epochs = np.minimum(at, last.astype(float))
        weights = np.where(sizes == largest, 1.0, -1.0)
        terms += [
            Term(key, int(seed), weight, float(weight), float(np.log10(epoch)), (str(run_id),))
            for run_id, seed, weight, epoch in zip(cell.index, seeds, weights, epochs, strict=True)
        ]
    never = lines[~np.isfinite(lines["interpolated"])]
    censored = {
        "larger": frozenset(never.index[never["source_size"] == largest]),
        "smaller": frozenset(never.index[never["source_size"] == smallest]),
    }
    spacing = lines["spacing"].mean()
    return terms, censored, 0.0 if np.isnan(spacing) else float(spacing)


def capacity_terms(lines: pd.DataFrame) -> tuple[list[Term], list[Bound], float]:
    """Return terms of log2 of the largest interpolated target size, fewest − most frozen layers.

    Also return the capacities that are only bounded, and the widest step between sizes (log2). If no
    size is interpolated, the smallest size counts. A seed is left out of a cell if it lacks a size there.
    """
    terms: list[Term] = []
    bounds: list[Bound] = []
    step = 0.0
    for key, cell in groups(lines, "size", "frozen"):
        fewest, most = cell["frozen"].min(), cell["frozen"].max()
        sizes = np.sort(cell["size"].unique())
        if fewest == most or len(sizes) < 2:
            continue
        own: list[Term] = []
        sides: list[Bound | None] = []
        some = cell[cell["frozen"].isin([fewest, most])]
        columns = ("seed", "frozen", "size", "interpolated")
        seeds, cuts, own_sizes, at = (some[name].to_numpy() for name in columns)
        # Arrays, because a DataFrame for each seed and cut would take most of the time of all claims.
        order = np.lexsort((cuts, seeds))
        is_next = (np.diff(seeds[order]) != 0) | (np.diff(cuts[order]) != 0)
        for seen in np.split(order, np.flatnonzero(is_next) + 1):
            if len(seen) < len(sizes):
                continue
            seed, frozen = seeds[seen[0]], cuts[seen[0]].item()
            reached = own_sizes[seen][np.isfinite(at[seen])]
            largest = reached.max() if len(reached) else sizes[0]
            weight = 1.0 if frozen == fewest else -1.0
            capacity = float(np.log2(largest))
            own.append(Term(key, int(seed), frozen, weight, capacity, tuple(some.index[seen])))
            is_bound = not len(reached) or largest == sizes[-1]
            bound = Bound(key, int(seed), bool(frozen == fewest), bool(len(reached)))
            sides.append(bound if is_bound else None)
        if len({term.part for term in own}) < 2:
            continue
        # All capacities are bounded on the same side, so no size studied distinguishes the two counts.
        if len({None if side is None else side.above for side in sides} - {None}) == 1 and all(
            sides
        ):
            continue
        terms += own
        bounds += [side for side in sides if side is not None]
        step = max(step, float(np.diff(np.log2(sizes)).max()))
    return terms, bounds, step


def difference_terms(
    lines: pd.DataFrame, more: str, less: str, *, epsilon: float
) -> dict[str, list[Term]]:
    """Return terms of the test error of the more related source − the less related, per cell and seed.

    Keys are places on the freezing axis: "end" (the most frozen layers), "low" (mean over at most half as
    many frozen layers), "edge" (mean of the first count that interpolates, from the most frozen layers on,
    and the count before), "edge − end". A count interpolates if the mean train error over both sources and
    all seeds is at most ε. A cell has no "edge" if no count or one of the first two interpolates.
    """
    terms: dict[str, list[Term]] = {"end": [], "low": [], "edge": [], "edge − end": []}
    pair = lines[lines["source_task"].isin([more, less])]
    for key, cell in groups(pair, "source_task", "frozen"):
        both = cell.groupby("frozen")["source_task"].nunique()
        counts = sorted(both.index[both == 2], reverse=True)
        if not counts:
            continue
        cell = cell[cell["frozen"].isin(counts)]
        train = cell.groupby("frozen")["train"].mean().loc[counts].to_numpy()
        reached = train <= epsilon
        edge = int(reached.argmax()) if reached.any() else 0
        places = {"end": {counts[0]: 1.0}}
        low = [count for count in counts[1:] if count <= counts[0] / 2]
        if low:
            places["low"] = dict.fromkeys(low, 1 / len(low))
        if edge >= 2:
            places["edge"] = {counts[edge - 1]: 0.5, counts[edge]: 0.5}
            places["edge − end"] = {**places["edge"], counts[0]: -1.0}
        columns = (cell[name] for name in ("source_task", "frozen", "seed", "test"))
        for run_id, source, frozen, seed, test in zip(cell.index, *columns, strict=True):
            sign = 1.0 if source == more else -1.0
            for place, weights in places.items():
                if frozen in weights:
                    terms[place].append(
                        Term(
                            key,
                            int(seed),
                            (source, frozen),
                            sign * weights[frozen],
                            float(test),
                            (run_id,),
                        )
                    )
    return terms


def floor_terms(
    measures: Measures, lines: pd.DataFrame, source: str, control: pd.DataFrame
) -> tuple[list[Term], str]:
    """Return terms of a floor − the source's test error, with the most layers frozen; and a name for it.

    The floor is the error of the random frozen arm (`control`) at the same cut. Without such an arm, the
    floor is halfway from the error of chance to the error at the source's best cut.
    """
    own = lines[lines["source_task"] == source]
    found = against_terms(measures, own, control, unfrozen=False)
    if found:
        opposite = [replace(term, weight=-term.weight) for term in found]
        return opposite, "random frozen layers"
    # Above halfway, most of what was learnt is lost: two such errors are alike because both are bad.
    terms = []
    for key, cell in groups(own, "frozen"):
        if cell["num_classes"].isna().any():
            continue
        by_cut = cell.groupby("frozen")["test"].mean()
        end, best = by_cut.index.max(), by_cut.idxmin()
        at_end, at_best = (cell[cell["frozen"] == cut] for cut in (end, best))
        of_best = dict(zip(at_best["seed"], at_best["test"], strict=True))
        chance = 1 - 1 / float(cell["num_classes"].iloc[0])
        for run_id, seed, test in zip(at_end.index, at_end["seed"], at_end["test"], strict=True):
            if seed in of_best:
                under = (chance + of_best[seed]) / 2 - test
                terms.append(Term(key, int(seed), "under", 1.0, float(under), (str(run_id),)))
    return terms, "halfway from chance to its best cut"


def against_terms(
    measures: Measures, lines: pd.DataFrame, control: pd.DataFrame, *, unfrozen: bool
) -> list[Term]:
    """Return terms of the test error of `lines` − the control's, with the most layers frozen.

    A Run is compared with the control Run of the same target, seed and frozen count (with `unfrozen`:
    nothing frozen), at the control's largest source size. Runs without such a control are left out.
    """
    same = ["task", "size", "label_noise", "model", "width", "recipe", "seed"]
    if control.empty or lines.empty:
        return []
    control = control[control["source_size"] == control["source_size"].max()]
    deepest = lines[lines["frozen"] == lines["frozen"].max()]
    control = control[control["frozen"] == (0 if unfrozen else deepest["frozen"].iloc[0])]
    names = (control[name] for name in same)
    counterpart = dict(zip(zip(*names, strict=True), control.index, strict=True))
    test = measures.lines["test"].to_dict()
    terms = []
    for key, cell in groups(deepest):
        for run_id, *place in zip(cell.index, *(cell[name] for name in same), strict=True):
            other = counterpart.get(tuple(place))
            if other is not None:
                for weight, one in ((1.0, run_id), (-1.0, other)):
                    seed, value = int(place[-1]), float(test[one])
                    terms.append(Term(key, seed, weight, weight, value, (one,)))
    return terms


def first_descent_terms(lines: pd.DataFrame) -> list[Term]:
    """Return terms of the test error of head only, with the fewest features − with all features."""
    terms: list[Term] = []
    for key, cell in groups(lines, "frozen"):
        few = cell[cell["head_inputs"] > 0]
        if few.empty:
            continue
        fewest = few[few["head_inputs"] == few["head_inputs"].min()]
        # `frozen` of a head that reads all features is the whole number below that of a smaller head.
        head = cell[cell["frozen"] == np.floor(fewest["frozen"].iat[0])]
        for some, weight in ((fewest, 1.0), (head, -1.0)):
            terms += [
                Term(key, int(line.seed), weight, weight, float(line.test), (str(line.Index),))
                for line in some.itertuples()
            ]
    return terms
