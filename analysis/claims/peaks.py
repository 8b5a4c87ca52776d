"""Double descent, cell by cell: the epoch-wise peaks and the freezing-wise curves of a study.

Owns which cells could show a peak at all, by their train error, and which freezing curve is looked
at first. The verdict on a curve is `descent`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.measures import Measures, Term, groups, matrix
from analysis.descent import FIRST_DESCENT, STRONG, WEAK, Judgement, judge, judge_freezing
from analysis.descent.intervals import Interval
from analysis.load.cells import CELL

Group = tuple[Any, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class FreezingCurve:
    """One cell's test error over its frozen counts, in order of trained parameters, ascending.

    `edge`: the first of `frozen` whose mean train error is ≤ ε, None where none or all are.
    """

    group: Group
    name: str
    frozen: np.ndarray
    judgement: Judgement
    edge: int | None
    run_ids: tuple[str, ...]

    @property
    def height(self) -> Interval | None:
        """The smaller of rise and fall."""
        rise, fall = self.judgement.rise, self.judgement.fall
        if rise is None or fall is None:
            return None
        return min(rise, fall, key=lambda height: height.estimate)


def _judged(
    measures: Measures, lines: pd.DataFrame, *without: str, min_height: float
) -> Iterator[tuple[Group, Any, Judgement, dict[int, str]]]:
    """Each cell's epoch curves, judged: the key without some coordinates, the value of the first of
    these, the verdict, and its Runs by seed."""
    for _, cell in groups(lines):
        ids = {int(seed): str(run_id) for run_id, seed in cell["seed"].items()}
        curves = [measures.curves[run_id] for run_id in ids.values()]
        verdict = judge(
            curves[0].epochs,
            np.stack([curve.test for curve in curves]),
            axis="epochs",
            train_errors=np.stack([curve.train for curve in curves]),
            epsilon=measures.epsilon,
            min_height=min_height,
            first_descent=FIRST_DESCENT,
        )
        first = cell.iloc[0]
        key = tuple(first[name] for name in CELL if name not in without)
        yield key, first[without[0]], verdict, ids


def height_terms(
    measures: Measures,
    lines: pd.DataFrame,
    across: str,
    *,
    min_height: float,
    matched: bool = False,
) -> list[Term]:
    """Height of the epoch-wise peak, at the largest level of `across` (+1) and the smallest (−1).

    Only levels at which the train error crosses ε within the curve: elsewhere no second descent could
    be seen. `matched`: the smallest and largest level of all, or none; else of those that a cell has.
    """
    extremes = {lines[across].min(), lines[across].max()}
    cells: dict[Group, list[tuple[Any, Judgement, dict[int, str]]]] = {}
    for key, level, verdict, ids in _judged(measures, lines, across, min_height=min_height):
        if verdict.interpolates == "some" and (not matched or level in extremes):
            cells.setdefault(key, []).append((level, verdict, ids))
    terms = []
    for key, levels in cells.items():
        levels.sort(key=lambda one: one[0])
        if len(levels) < 2:
            continue
        for weight, (_, verdict, ids) in ((-1.0, levels[0]), (1.0, levels[-1])):
            group = (*key, levels[0][0], levels[-1][0])
            used = [seed for seed, kept in zip(ids, verdict.used, strict=True) if kept]
            terms += [
                Term(group, seed, weight, weight, float(height), (ids[seed],))
                for seed, height in zip(used, verdict.height, strict=True)
            ]
    return terms


def peak_terms(measures: Measures, lines: pd.DataFrame, *, min_height: float) -> list[Term]:
    """log10 epoch of the peak, largest source size − smallest, where both cells show a peak."""
    smallest, largest = lines["source_size"].min(), lines["source_size"].max()
    cells: dict[Group, dict[int, tuple[Judgement, dict[int, str]]]] = {}
    some = lines[lines["source_size"].isin([smallest, largest])]
    for key, level, verdict, ids in _judged(measures, some, "source_size", min_height=min_height):
        if verdict.status in (WEAK, STRONG):
            cells.setdefault(key, {})[level] = (verdict, ids)
    return [
        Term(key, seed, weight, weight, float(np.log10(peak)), (ids[seed],))
        for key, levels in cells.items()
        if len(levels) == 2
        for weight, size in ((-1.0, smallest), (1.0, largest))
        for verdict, ids in [levels[size]]
        for seed, peak in zip(ids, verdict.peaks, strict=True)
    ]


def freezing_curves(
    measures: Measures, lines: pd.DataFrame, *, min_height: float
) -> list[FreezingCurve]:
    """The curves over frozen counts, three points or more: the one whose mean train error crosses ε
    most centrally first, then (in ties) more label noise, larger sizes; those that do not cross last.
    """
    found: list[tuple[tuple[Any, ...], FreezingCurve]] = []
    for key, cell in groups(lines, "frozen"):
        at = cell.groupby("frozen")["parameters_trained"].first().astype(float)
        if len(at) < 3:
            continue
        order = np.argsort(at.to_numpy(), kind="stable")
        test, train = (matrix(cell, name, "frozen")[:, order] for name in ("test", "train"))
        if np.isnan(test).any(axis=1).all():
            continue
        # In the order of `matrix`: by seed.
        whole = np.sort(cell["seed"].unique())[~np.isnan(test).any(axis=1)]
        reached = np.nanmean(train, axis=0) <= measures.epsilon
        share = float(reached.mean())
        first = cell.iloc[0]
        curve = FreezingCurve(
            group=key,
            name=_name(first),
            frozen=at.index.to_numpy()[order],
            judgement=judge_freezing(
                at.to_numpy()[order],
                test,
                train_errors=train,
                epsilon=measures.epsilon,
                min_height=min_height,
            ),
            edge=int(reached.argmax()) if 0 < share < 1 else None,
            run_ids=tuple(cell.index[cell["seed"].isin(whole)]),
        )
        rank = (
            curve.edge is None,
            abs(share - 0.5),
            -first["label_noise"],
            -first["size"],
            -first["source_size"],
            curve.name,
        )
        found.append((rank, curve))
    return [curve for _, curve in sorted(found, key=lambda one: one[0])]


def _name(line: pd.Series) -> str:
    source = "" if line["source_task"] == "none" else f"{line['source_task']} "
    source += f"n={line['source_size']:,} → " if source and line["source_size"] else ""
    noise = f" noise {line['label_noise']:g}" if line["label_noise"] else ""
    model = line["model"] + (f" width {line['width']}" if line["width"] else "")
    return f"{source}{line['task']} n={line['size']:,}{noise}, {model}"
