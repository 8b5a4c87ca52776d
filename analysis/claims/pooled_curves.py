"""Pool epoch-wise and freezing-wise curves over many cells.

Curves are shifted so that their edges of interpolation coincide, then averaged seed by seed
(`descent.edges.aligned`). No curve is selected. Noise averages out before the search for a peak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims.contrasts import Measures, fullest, groups, matrix, one_image
from analysis.claims.primary import ERROR
from analysis.descent import Judgement, Rule, judge
from analysis.descent.edges import (
    EPOCHS,
    PARAMETERS,
    SOME,
    Curve,
    aligned,
    edge_of,
    extent,
    mean_train,
)
from analysis.load.cells import CELL


@dataclass(frozen=True, eq=False, kw_only=True)
class OneCurve:
    """The curve of one cell, and the Runs of each seed in it."""

    name: str
    curve: Curve
    run_ids: Mapping[int, tuple[str, ...]]  # by seed, in the order of the curve's rows


@dataclass(frozen=True, eq=False, kw_only=True)
class Pooled:
    """The judgement on the mean of several curves (see `pooled`).

    `seeds`: in the order of the judgement's heights; `dropped`: number of bundles left out, because they
    lack a seed or do not cross ε; `left_out`: seeds left out.
    """

    judgement: Judgement
    names: tuple[str, ...]
    seeds: tuple[int, ...]
    run_ids: tuple[str, ...]
    dropped: int
    left_out: tuple[int, ...]


def pooled(bundles: Sequence[Sequence[OneCurve]], rule: Rule, *, axis: str) -> list[Pooled] | None:
    """Pool the first curves of all bundles, then their second curves, and so on.

    A bundle has curves to compare, e.g. of a smaller and a larger size. All curves use the same seeds.
    If a curve of a bundle does not cross ε, the bundle is left out. Return None if no bundle is left.
    """
    seeds = sorted({seed for bundle in bundles for one in bundle for seed in one.run_ids})
    there = np.array(
        [[all(seed in one.run_ids for one in bundle) for seed in seeds] for bundle in bundles]
    ).reshape(len(bundles), len(seeds))
    kept_bundles, kept_seeds = fullest(there)
    used = [seed for seed, kept in zip(seeds, kept_seeds, strict=True) if kept]
    chosen = [
        [_of_seeds(one, used) for one in bundle]
        for bundle, kept in zip(bundles, kept_bundles, strict=True)
        if kept
    ]
    chosen = [
        bundle
        for bundle in chosen
        if all(edge_of(mean_train(one.curve.train), rule.epsilon) is not None for one in bundle)
    ]
    if not chosen:
        return None
    found = []
    for place in zip(*chosen, strict=True):
        curve = aligned([one.curve for one in place], rule.epsilon)
        found.append(
            Pooled(
                judgement=judge(
                    curve.x,
                    curve.test,
                    rule,
                    axis=axis,
                    train_errors=curve.train,
                    start=curve.start,
                ),
                names=tuple(one.name for one in place),
                seeds=tuple(used),
                run_ids=tuple(i for one in place for seed in used for i in one.run_ids[seed]),
                dropped=len(bundles) - len(chosen),
                left_out=tuple(seed for seed in seeds if seed not in used),
            )
        )
    return found


def height_pair(
    measures: Measures, lines: pd.DataFrame, across: str, *, matched: bool = False
) -> tuple[Pooled, Pooled] | None:
    """Pool epoch-wise curves over cells, at the smallest and at the largest level of `across`.

    `matched`: use only cells that have the smallest and the largest level of all cells. If False, use each
    cell's own smallest and largest level. Return None if nothing can be pooled.
    """
    extremes = {lines[across].min(), lines[across].max()}
    cells: dict[Hashable, list[tuple[Any, OneCurve]]] = {}
    for _, cell in groups(lines):
        one, first = _epoch_curve(measures, cell), cell.iloc[0].to_dict()
        level = first[across]
        # No second descent can be seen if the mean train error does not cross ε within the curve.
        crosses = extent(mean_train(one.curve.train), measures.epsilon) == SOME
        if crosses and (not matched or level in extremes):
            key = tuple(first[name] for name in CELL if name != across)
            cells.setdefault(key, []).append((level, one))
    bundles = []
    for levels in cells.values():
        levels.sort(key=lambda one: one[0])
        if len(levels) > 1:
            bundles.append((levels[0][1], levels[-1][1]))
    if not bundles:
        return None
    rule = Rule(epsilon=measures.epsilon, min_height=ERROR, resolution=one_image(lines))
    found = pooled(bundles, rule, axis=EPOCHS)
    return None if found is None else (found[0], found[1])


def freezing_curves(lines: pd.DataFrame) -> list[OneCurve]:
    """Return curves over trained parameters, from head only to nothing frozen, one for each cell.

    Curves of fewer than three points are left out. A seed with a gap is left out of its curve.
    """
    found = []
    has_recipes = lines["recipe"].nunique() > 1
    for _, cell in groups(lines, "frozen"):
        at = np.sort(cell["parameters_trained"].astype(float).unique())
        if len(at) < 3:
            continue
        test, train = (matrix(cell, name, "parameters_trained") for name in ("test", "train"))
        seeds = np.sort(cell["seed"].unique())
        whole = np.isfinite(test).all(axis=1) & np.isfinite(train).all(axis=1)
        if not whole.any():
            continue
        run_ids: dict[int, list[str]] = defaultdict(list)
        for run_id, seed in zip(cell.index, cell["seed"], strict=True):
            run_ids[int(seed)].append(str(run_id))
        found.append(
            OneCurve(
                name=_name(cell.iloc[0])
                + (f", recipe {cell['recipe'].iloc[0]}" if has_recipes else ""),
                curve=Curve(
                    x=at,
                    test=test[whole],
                    train=train[whole],
                    start=np.full(int(whole.sum()), np.nan),
                ),
                run_ids={int(seed): tuple(run_ids[int(seed)]) for seed in seeds[whole]},
            )
        )
    return found


def freezing_peak(curves: Sequence[OneCurve], epsilon: float, *, step: float) -> Pooled | None:
    """Pool all curves whose mean train error crosses ε; None if none does. `step`: as in `decide_c4`."""
    crossing = [(one,) for one in curves if extent(mean_train(one.curve.train), epsilon) == SOME]
    if not crossing:
        return None
    rule = Rule(epsilon=epsilon, min_height=ERROR, resolution=step)
    found = pooled(crossing, rule, axis=PARAMETERS)
    return None if found is None else found[0]


def _epoch_curve(measures: Measures, cell: pd.DataFrame) -> OneCurve:
    ids = {int(seed): str(run_id) for run_id, seed in cell["seed"].items()}
    curves = [measures.curves[run_id] for run_id in ids.values()]
    return OneCurve(
        name=_name(cell.iloc[0]),
        curve=Curve(
            x=curves[0].epochs,
            test=np.stack([curve.test for curve in curves]),
            train=np.stack([curve.train for curve in curves]),
            start=np.array([curve.start for curve in curves]),
        ),
        run_ids={seed: (run_id,) for seed, run_id in ids.items()},
    )


def _of_seeds(one: OneCurve, seeds: Sequence[int]) -> OneCurve:
    rows = [list(one.run_ids).index(seed) for seed in seeds]
    curve = one.curve
    return OneCurve(
        name=one.name,
        curve=Curve(
            x=curve.x, test=curve.test[rows], train=curve.train[rows], start=curve.start[rows]
        ),
        run_ids={seed: one.run_ids[seed] for seed in seeds},
    )


def _name(line: pd.Series) -> str:
    source = "" if line["source_task"] == "none" else f"{line['source_task']} "
    source += f"n={line['source_size']:,} → " if source and line["source_size"] else ""
    noise = f" noise {line['label_noise']:g}" if line["label_noise"] else ""
    model = line["model"] + (f" width {line['width']}" if line["width"] else "")
    return f"{source}{line['task']} n={line['size']:,}{noise}, {model}"
