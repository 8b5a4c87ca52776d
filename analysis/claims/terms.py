"""The numbers that the claims compare, cell by cell: paces, capacities, paired differences.

Owns which cells can show an effect at all, by their train error, and what is done with a number
that is only bounded. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.measures import Measures, Term, groups
from analysis.load.cells import grouped

Group = tuple[Any, ...]


@dataclass(frozen=True)
class Bound:
    """A capacity that is only bounded: `above` (the largest size is interpolated) or below the
    smallest; `fewest`: the one with the fewest frozen layers, else that with the most."""

    group: Group
    seed: int
    fewest: bool
    above: bool


def pace_terms(lines: pd.DataFrame) -> tuple[list[Term], Mapping[str, frozenset[str]], float]:
    """log10 of the first epoch with train error ≤ ε, largest source size − smallest.

    Also the Runs that never got there, "larger" and "smaller", which count with their last epoch, and
    the mean distance between evaluations (log10). A cell in which neither got there, in some seed,
    is left out: it bounds nothing.
    """
    smallest, largest = lines["source_size"].min(), lines["source_size"].max()
    if smallest == largest:
        return [], {"larger": frozenset(), "smaller": frozenset()}, 0.0
    terms: list[Term] = []
    for key, cell in groups(lines[lines["source_size"].isin([smallest, largest])], "source_size"):
        if (~np.isfinite(cell["interpolated"])).groupby(cell["seed"]).sum().max() > 1:
            continue
        if cell["source_size"].nunique() < 2:
            continue
        epochs = np.minimum(cell["interpolated"], cell["last_epoch"].astype(float))
        weights = np.where(cell["source_size"] == largest, 1.0, -1.0)
        terms += [
            Term(key, int(seed), weight, float(weight), float(np.log10(epoch)), (str(run_id),))
            for run_id, seed, weight, epoch in zip(
                cell.index, cell["seed"], weights, epochs, strict=True
            )
        ]
    never = lines[~np.isfinite(lines["interpolated"])]
    censored = {
        "larger": frozenset(never.index[never["source_size"] == largest]),
        "smaller": frozenset(never.index[never["source_size"] == smallest]),
    }
    spacing = lines["spacing"].mean()
    return terms, censored, 0.0 if np.isnan(spacing) else float(spacing)


def capacity_terms(lines: pd.DataFrame) -> tuple[list[Term], list[Bound], float]:
    """log2 of the largest target size that is interpolated, fewest frozen layers − most.

    Also those that are only bounded (none interpolated counts as the smallest size), and the widest
    step between sizes (log2). A seed without all the sizes that its cell has in any is left out.
    Cells bounded on the same side at both counts, in every seed, are left out: no size studied tells
    the two apart.
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
        for (seed, frozen), seen in grouped(some, ["seed", "frozen"]):
            if len(seen) < len(sizes):
                continue
            reached = seen.loc[np.isfinite(seen["interpolated"]), "size"]
            largest = reached.max() if len(reached) else sizes[0]
            weight = 1.0 if frozen == fewest else -1.0
            capacity = float(np.log2(largest))
            own.append(Term(key, int(seed), frozen, weight, capacity, tuple(seen.index)))
            is_bound = not len(reached) or largest == sizes[-1]
            bound = Bound(key, int(seed), bool(frozen == fewest), bool(len(reached)))
            sides.append(bound if is_bound else None)
        if len({term.part for term in own}) < 2:
            continue
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
    """Test error of the more related source − the less related, per cell and seed, at places on the
    freezing axis: "end" (most layers frozen), "low" (mean over the frozen counts up to half of that),
    "edge" (mean of the two at the edge of interpolation) and "edge − end".

    The edge is where the train error, mean over both sources and all seeds, first comes under ε; cells
    in which it touches the end of the axis have no "edge".
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
    """How far the test error of a source lies under a floor, with the most layers frozen; and which floor
    that is.

    The floor is what frozen layers that learnt nothing give: the random frozen arm (`control`) at the
    same cut. Where the study has none, it is halfway from chance to the best cut of the source: an error
    above that has lost most of what is learnt, and two such errors are alike because both are bad.
    """
    own = lines[lines["source_task"] == source]
    found = against_terms(measures, own, control, unfrozen=False)
    if found:
        opposite = [replace(term, weight=-term.weight) for term in found]
        return opposite, "random frozen layers"
    terms = []
    for key, cell in groups(own, "frozen"):
        if cell["num_classes"].isna().any():
            continue
        by_cut = cell.groupby("frozen")["test"].mean()
        end, best = by_cut.index.max(), by_cut.idxmin()
        tests = {cut: cell[cell["frozen"] == cut].set_index("seed")["test"] for cut in (end, best)}
        ids = {int(seed): str(i) for i, seed in cell.loc[cell["frozen"] == end, "seed"].items()}
        chance = 1 - 1 / float(cell["num_classes"].iloc[0])
        for seed in tests[end].index.intersection(tests[best].index):
            under = (chance + tests[best][seed]) / 2 - tests[end][seed]
            terms.append(Term(key, int(seed), "under", 1.0, float(under), (ids[int(seed)],)))
    return terms, "halfway from chance to its best cut"


def against_terms(
    measures: Measures, lines: pd.DataFrame, control: pd.DataFrame, *, unfrozen: bool
) -> list[Term]:
    """Test error with the most layers frozen: each cell of `lines` − the control's of the same target.

    The control at the same frozen count, or, `unfrozen`, with nothing frozen; of several of its source
    sizes the largest. Cells without a counterpart are left out.
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
