"""Small studies made up, with a planted truth, as the claims read them: curves, or `Measures`.

Owns how such a study is made and how the answers to it are counted. A study has a few cells, each seed a
level of its own and white jitter of one standard deviation, `SD`, per window or cut; sizes of the effects
and the places were written down before the rules were run on them. `cases` says what is asked of which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.claims.contrasts import Measures, crossing
from analysis.claims.pooled_curves import OneCurve
from analysis.claims.verdict import CANNOT_TELL, DOES_NOT_HOLD, HOLDS
from analysis.descent import EPSILON
from analysis.descent.edges import Curve
from analysis.load.arms import TRANSFER
from analysis.load.cells import CELL

ANSWERS: Final = (HOLDS, DOES_NOT_HOLD, CANNOT_TELL)
SD: Final = 0.01
LEVEL_SD: Final = 0.02

# Windows of a quarter of a decade over 4,000 epochs; the train error comes under 0.1 at the seventh.
EPOCHS: Final = 10.0 ** (0.25 * np.arange(14))
EDGE: Final = 6
TRAIN: Final = np.interp(np.arange(14), [0, 2, 4, 6, 8], [0.9, 0.75, 0.4, 0.08, 0.0])
# Ten cuts a factor of two apart; a cell's edge lies at one of them.
CUTS: Final = 1_000.0 * 2.0 ** np.arange(10)

# Makes a study of so many seeds, and gives the answer to the question put to it.
Say = Callable[[np.random.Generator, int], str]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a study: its coordinates, and what is planted. `test`, `train`: over EPOCHS or over
    CUTS, or one number; `sd`: of the jitter."""

    where: Mapping[str, Any]
    test: np.ndarray | float
    train: np.ndarray | float = 0.0
    sd: float = SD
    arm: str = TRANSFER


@cache
def _frame(cells: tuple[tuple[tuple[str, Any], ...], ...], num_seeds: int) -> pd.DataFrame:
    plain: dict[str, Any] = dict.fromkeys(CELL, 0) | {"source_task": "near"}
    plain |= {"task": "target", "model": "resnet18", "width": 8}
    lines = []
    for place, cell in enumerate(cells):
        for seed in range(num_seeds):
            lines.append({**plain, **dict(cell), "seed": seed, "source_seed": seed, "cell": place})
    frame = pd.DataFrame(lines, index=[f"run{i}" for i in range(len(lines))])
    cuts = frame["frozen"].map("{} layers frozen".format)
    return frame.assign(
        cut=cuts,
        state="done",
        num_classes=10,
        last_epoch=float(EPOCHS[-1]),
        spacing=0.05,
        step=1e-4,
    ).rename_axis("run_id")


def _measures(
    lines: list[tuple[tuple[tuple[str, Any], ...], str]],
    num_seeds: int,
    numbers: dict[str, np.ndarray],
) -> Measures:
    frame = _frame(tuple(where for where, _ in lines), num_seeds)
    arms = np.repeat([arm for _, arm in lines], num_seeds)
    frame = frame.assign(arm=arms, **numbers)
    return Measures(
        epsilon=EPSILON, lines=frame, absent=frame.iloc[:0], curves={}, part_heads=frame.iloc[:0]
    )


def along_epochs(
    random: np.random.Generator, cells: Sequence[Cell], num_seeds: int
) -> list[OneCurve]:
    """The cells of a study as curves over EPOCHS."""
    level = LEVEL_SD * random.standard_normal((num_seeds, 1))
    return [_curve(random, cell, EPOCHS, level) for cell in cells]


def over_cuts(random: np.random.Generator, cells: Sequence[Cell], num_seeds: int) -> list[OneCurve]:
    """The cells of a study as curves over CUTS."""
    level = LEVEL_SD * random.standard_normal((num_seeds, 1))
    return [_curve(random, cell, CUTS, level) for cell in cells]


def _curve(random: np.random.Generator, cell: Cell, x: np.ndarray, level: np.ndarray) -> OneCurve:
    num_seeds = len(level)
    noise = cell.sd * random.standard_normal((num_seeds, x.size))
    return OneCurve(
        name="",
        curve=Curve(
            x=x,
            test=cell.test + noise + level,
            train=np.tile(cell.train, (num_seeds, 1)),
            start=np.full(num_seeds, 0.9 if x is EPOCHS else np.nan),
        ),
        run_ids=dict.fromkeys(range(num_seeds), ()),
    )


def measured_cuts(random: np.random.Generator, cells: Sequence[Cell], num_seeds: int) -> Measures:
    """The same as `Measures`, with several sources and arms."""
    lines, tests, trains, parameters = [], [], [], []
    level = LEVEL_SD * random.standard_normal(num_seeds)
    for cell in cells:
        test, train = np.atleast_1d(cell.test), np.atleast_1d(cell.train)
        for cut in range(test.size):
            where = {**cell.where, "frozen": CUTS.size - 1 - cut}
            lines.append((tuple(where.items()), cell.arm))
            tests.append(test[cut] + level + cell.sd * random.standard_normal(num_seeds))
            trains.append(np.full(num_seeds, train[min(cut, train.size - 1)]))
            parameters.append(np.full(num_seeds, CUTS[cut]))
    numbers = {
        "test": np.concatenate(tests),
        "train": np.concatenate(trains),
        "parameters_trained": np.concatenate(parameters),
        "interpolated": np.full(len(lines) * num_seeds, EPOCHS[EDGE]),
    }
    return _measures(lines, num_seeds, numbers)


def paces(
    random: np.random.Generator, slower: float, num_seeds: int, sd: float, spacing: float = 0.0
) -> Measures:
    """A study of two source sizes: the larger one interpolates later by `slower`, in log10 epochs.

    `spacing`: of the evaluated epochs, in log10; 0: the epochs are known exactly.
    """
    wheres: list[tuple[tuple[tuple[str, Any], ...], str]] = [
        ((("source_size", size), ("size", target)), TRANSFER)
        for size in (100, 1_000)
        for target in (200, 400)
    ]
    later = np.repeat([0.0, 0.0, slower, slower], num_seeds)
    log = 2 + later + sd * random.standard_normal(later.size)
    if spacing:
        epochs = 10.0 ** np.arange(1, 3.5, spacing)
        trains = [1 / (1 + 9 * (epochs / 10**one) ** 2) for one in log]
        log = np.log10([crossing(epochs, train, EPSILON)[0] for train in trains])
    zeros = np.zeros(later.size)
    numbers = {"test": zeros, "train": zeros, "interpolated": 10**log, "parameters_trained": zeros}
    return _measures(wheres, num_seeds, numbers)


def capacities(
    random: np.random.Generator, fewest: float, most: float, num_seeds: int, sd: float
) -> Measures:
    """A study of two frozen counts and seven target sizes, a factor of two apart.

    `fewest`, `most`: the capacities at 0 and 9 frozen layers; `sd`: over seeds, in doublings.
    """
    sizes = 125 * 2 ** np.arange(7)
    lines: list[tuple[tuple[tuple[str, Any], ...], str]] = []
    interpolated = []
    for frozen, capacity in ((0, fewest), (9, most)):
        of_seeds = capacity * 2 ** (sd * random.standard_normal(num_seeds))
        for size in sizes:
            lines.append(((("frozen", frozen), ("size", int(size))), TRANSFER))
            interpolated.append(np.where(size <= of_seeds, 100.0, np.inf))
    zeros = np.zeros(len(lines) * num_seeds)
    numbers = {"test": zeros, "train": zeros, "parameters_trained": zeros}
    return _measures(lines, num_seeds, numbers | {"interpolated": np.concatenate(interpolated)})


def shares(say: Say, *, num_seeds: int, num: int, seed: int = 0) -> dict[str, float]:
    """Share of `num` studies with each answer."""
    random = np.random.default_rng([seed, num_seeds])
    found = Counter(say(random, num_seeds) for _ in range(num))
    return {word: found[word] / num for word in ANSWERS}
