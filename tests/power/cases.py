"""The nulls and the planted effects that every verdict is tried on, and which answers are false there.

Owns what is planted and what may not be said of it; `studies` makes the studies. The null of "does not
hold" is an effect exactly as large as matters; that of "holds" is no effect, or one at another place.
Neither may be said of a curve that is not finished: one that still rises at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis.claims.contrasts import Measures
from analysis.claims.one_source import ask_c2, ask_c3, decide_c1, decide_c4
from analysis.claims.pooled_curves import pooled
from analysis.claims.primary import ERROR, SLOWER
from analysis.claims.two_sources import ask_c5a, ask_c5b
from analysis.claims.verdict import DOES_NOT_HOLD, HOLDS, Answer
from analysis.descent import EPSILON, Rule
from analysis.descent.edges import EPOCHS as ALONG_EPOCHS
from analysis.load.arms import RANDOM_FROZEN, TRANSFER
from tests.power.studies import (
    CUTS,
    EDGE,
    EPOCHS,
    SD,
    TRAIN,
    Cell,
    Say,
    along_epochs,
    capacities,
    measured_cuts,
    over_cuts,
    paces,
)

# As TRAIN, but ε = 0.1 is reached 0.75 decades of epochs before the labels are fitted.
SLOWLY_FITTED: Final = np.interp(
    np.arange(EPOCHS.size), [0, 2, 4, 6, 9], [0.9, 0.75, 0.4, 0.08, 0.0]
)
# One test image of 10,000.
STEP: Final = 1e-4
FALL: Final = np.interp(np.arange(EPOCHS.size), [0, 4, 13], [0.8, 0.3, 0.3])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A study made and judged, and the words that are false of it."""

    claim: str
    what: str
    say: Say
    false: tuple[str, ...]


def bump(size: int, at: float, height: float, width: float = 1.5) -> np.ndarray:
    """A triangle over `size` points, `height` at `at`, 0 from `width` points beside it on."""
    return height * np.maximum(0.0, 1 - np.abs(np.arange(size) - at) / width)


def _c1(what: str, larger: np.ndarray, false: Sequence[str], **how: Any) -> Case:
    smaller = how.get("smaller", FALL)
    sd = how.get("sd", SD)
    sds = (how.get("sd_smaller", sd), sd)
    cells = [
        Cell(where={}, test=test, train=how.get("train", TRAIN), sd=spread)
        for _ in range(2)
        for test, spread in zip((smaller, larger), sds, strict=True)
    ]
    return Case(claim="C1", what=what, say=partial(_say_c1, cells=cells), false=tuple(false))


def _say_c1(random: np.random.Generator, num_seeds: int, cells: Sequence[Cell]) -> str:
    curves = along_epochs(random, cells, num_seeds)
    rule = Rule(min_height=ERROR, resolution=STEP)
    found = pooled([curves[:2], curves[2:]], rule, axis=ALONG_EPOCHS)
    assert found is not None
    return decide_c1(found[0], found[1], "", epsilon=EPSILON, step=STEP).answer


def _say_c4(random: np.random.Generator, num_seeds: int, cells: Sequence[Cell]) -> str:
    return decide_c4(over_cuts(random, cells, num_seeds), EPSILON, STEP, "").answer


def _say_c2(
    random: np.random.Generator,
    num_seeds: int,
    slower: float,
    sd: float = 0.05,
    spacing: float = 0.0,
) -> str:
    measures = paces(random, slower, num_seeds, sd, spacing)
    return ask_c2(measures, measures.lines, TRANSFER).answer


def _say_c3(random: np.random.Generator, num_seeds: int, fewest: float, most: float) -> str:
    measures = capacities(random, fewest, most, num_seeds, 0.02)
    return ask_c3(measures, measures.lines, TRANSFER).answer


def _say_c5(
    random: np.random.Generator,
    num_seeds: int,
    cells: Sequence[Cell],
    ask: Callable[[Measures, pd.DataFrame, str, str], Answer],
) -> str:
    measures = measured_cuts(random, cells, num_seeds)
    lines = measures.lines[measures.lines["arm"] == TRANSFER]
    return ask(measures, lines, "near", "far").answer


def epoch_cases() -> list[Case]:
    peak = partial(bump, EPOCHS.size, EDGE)
    late = np.arange(EPOCHS.size) / (EPOCHS.size - 1)
    return [
        _c1("flat noise", np.full(EPOCHS.size, 0.3), [HOLDS], smaller=np.full(EPOCHS.size, 0.3)),
        _c1("a fall, then a long plateau", FALL, [HOLDS]),
        _c1("flat noise, twice as large at the smaller size", FALL, [HOLDS], sd_smaller=2 * SD),
        _c1(
            "a rise by 9 points to the last epoch",
            FALL + 0.09 * np.maximum(0, (late - 0.5) / 0.5),
            [HOLDS, DOES_NOT_HOLD],
        ),
        _c1(
            "a U: a rise by 4 points to the last epoch, ever slower",
            FALL + 0.09 * np.sqrt(late),
            [HOLDS, DOES_NOT_HOLD],
        ),
        _c1(
            "a rise by 5 points at the edge, then a long plateau",
            FALL + 0.05 * (np.arange(EPOCHS.size) >= EDGE),
            [HOLDS],
        ),
        _c1(
            "a peak of 8 points at the larger, a rise by 5 points, then a plateau at the smaller",
            FALL + peak(0.08),
            [DOES_NOT_HOLD],
            smaller=FALL + 0.05 * (np.arange(EPOCHS.size) >= EDGE),
        ),
        _c1(
            "a bump of 8 points where the train error is 0.75",
            np.linspace(0.5, 0.3, EPOCHS.size) + bump(EPOCHS.size, 2, 0.08),
            [HOLDS],
            smaller=np.linspace(0.5, 0.3, EPOCHS.size),
        ),
        _c1(
            "the same peak of 5 points at both",
            FALL + peak(0.05),
            [HOLDS],
            smaller=FALL + peak(0.05),
        ),
        _c1(
            "the same peak of 5 points, twice the noise at the smaller",
            FALL + peak(0.05),
            [HOLDS],
            smaller=FALL + peak(0.05),
            sd_smaller=2 * SD,
        ),
        _c1("a peak of just 1 point at the larger", FALL + peak(ERROR), [DOES_NOT_HOLD]),
        _c1(
            "peaks of 6 and 5 points",
            FALL + peak(0.05 + ERROR),
            [DOES_NOT_HOLD],
            smaller=FALL + peak(0.05),
        ),
        _c1("a peak of 3 points at the larger", FALL + peak(0.03), [DOES_NOT_HOLD]),
        _c1("a peak of 5 points at the larger", FALL + peak(0.05), [DOES_NOT_HOLD]),
        _c1("the same, jitter of 2 points", FALL + peak(0.05), [DOES_NOT_HOLD], sd=0.02),
        _c1("no peak, jitter of 0.3 points", FALL, [HOLDS], sd=0.003),
        _c1(
            "a peak of 8 points at the larger, where the labels are just fitted: 0.75 decades past ε",
            FALL + bump(EPOCHS.size, EDGE + 3, 0.08),
            [DOES_NOT_HOLD],
            train=SLOWLY_FITTED,
        ),
    ]


FALLING: Final = np.linspace(0.40, 0.30, CUTS.size)
EDGES: Final = (4, 5, 6)


def _c4(what: str, test: Callable[[int], np.ndarray], false: Sequence[str], **how: Any) -> Case:
    cells = [
        Cell(
            where={"size": 1_000 * 2**place},
            test=test(edge),
            train=np.where(np.arange(CUTS.size) < edge, 0.4, 0.0),
            sd=how.get("sd", SD),
        )
        for place, edge in enumerate(how.get("edges", EDGES))
    ]
    return Case(claim="C4", what=what, say=partial(_say_c4, cells=cells), false=tuple(false))


def _textbook(what: str, train: Sequence[float], false: Sequence[str]) -> Case:
    """A model-wise curve whose peak lies at the seventh width."""
    test = np.array([0.40, 0.34, 0.29, 0.27, 0.30, 0.34, 0.35, 0.30, 0.25, 0.22])
    cells = [Cell(where={}, test=test, train=np.array(train))]
    return Case(claim="C4", what=what, say=partial(_say_c4, cells=cells), false=tuple(false))


def freezing_cases() -> list[Case]:
    # On a falling curve a triangle stands out by 2.2 points less: by 3, 5 and 8 of 5.2, 7.2 and 10.2.
    def at(offset: float, height: float) -> Callable[[int], np.ndarray]:
        return lambda edge: FALLING + bump(CUTS.size, edge + offset, height)

    def rising(edge: int) -> np.ndarray:
        return 0.30 + 0.09 * ((np.arange(CUTS.size) - 3) / 6) ** 2

    def plateau(edge: int) -> np.ndarray:
        return 0.30 + 0.05 * (np.arange(CUTS.size) >= edge)

    def just(edge: int) -> np.ndarray:
        return 0.30 + bump(CUTS.size, edge, ERROR, 1.0)

    def second(extra: float) -> Callable[[int], np.ndarray]:
        """A peak of 5 points at the edge, and a bump three cuts past it that is higher by `extra`."""

        def test(edge: int) -> np.ndarray:
            places = [0, edge, edge + 1, edge + 2, edge + 3, CUTS.size - 1]
            values = [0.30, 0.35, 0.345, 0.34, 0.35 + extra, 0.30]
            return np.interp(np.arange(CUTS.size), places, values)

        return test

    def flank(edge: int) -> np.ndarray:
        return 0.30 + bump(CUTS.size, edge + 3, 0.10, 4)

    def level(edge: int) -> np.ndarray:
        values = [0.30, 0.35, 0.35, 0.30]
        return np.interp(np.arange(CUTS.size), [0, edge, edge + 3, CUTS.size - 1], values)

    early: dict[str, Any] = {"edges": (3, 4, 5)}
    return [
        _c4(
            "a peak of 5 points at the edge, a bump past it 0.2 points lower",
            second(-0.002),
            [DOES_NOT_HOLD],
            **early,
        ),
        _c4("the same, the bump as high", second(0.0), [DOES_NOT_HOLD], **early),
        _c4("the same, the bump 0.2 points higher", second(0.002), [DOES_NOT_HOLD], **early),
        _c4("the same, the bump 3 points higher", second(0.03), [HOLDS], **early),
        _c4("the flank of a bump of 10 points past the edge", flank, [HOLDS], **early),
        _c4(
            "level from the edge to three cuts past it, then a fall",
            level,
            [DOES_NOT_HOLD],
            **early,
        ),
        _c4("flat noise", lambda edge: np.full(CUTS.size, 0.3), [HOLDS]),
        _c4("a fall", lambda edge: FALLING, [HOLDS]),
        _c4("a fall, one curve", lambda edge: FALLING, [HOLDS], edges=(5,)),
        _c4("a U: a rise to nothing frozen", rising, [HOLDS, DOES_NOT_HOLD]),
        _c4("a rise by 5 points at the edge, then a plateau", plateau, [HOLDS]),
        _c4("a peak of 8 points three cuts past the edge", at(3, 0.102), [HOLDS]),
        _c4("a peak of 8 points four cuts before the edge", at(-4, 0.102), [HOLDS]),
        _c4("a peak of just 1 point at the edge", just, [DOES_NOT_HOLD]),
        _c4("a peak of just 1 point at the edge, one curve", just, [DOES_NOT_HOLD], edges=(5,)),
        _c4("a peak of 8 points one cut past the edge", at(1, 0.102), [DOES_NOT_HOLD]),
        _c4("a peak of 8 points two cuts before the edge", at(-2, 0.102), [DOES_NOT_HOLD]),
        _textbook(
            "model-wise, the peak one width past ε = 0.1",
            [0.7, 0.6, 0.4, 0.25, 0.15, 0.08, 0.02, 0.0, 0.0, 0.0],
            [DOES_NOT_HOLD],
        ),
        _textbook(
            "model-wise, the peak where the set is fitted, three widths past ε = 0.1",
            [0.7, 0.6, 0.4, 0.09, 0.05, 0.02, 0.0, 0.0, 0.0, 0.0],
            [DOES_NOT_HOLD],
        ),
        _c4("a peak of 3 points at the edge", at(0, 0.052), [DOES_NOT_HOLD]),
        _c4("a peak of 5 points at the edge", at(0, 0.072), [DOES_NOT_HOLD]),
        _c4("the same, one curve", at(0, 0.072), [DOES_NOT_HOLD], edges=(5,)),
        _c4(
            "no peak, jitter of 0.3 points", lambda edge: np.full(CUTS.size, 0.3), [HOLDS], sd=0.003
        ),
    ]


def _pair(what: str, claim: str, far: np.ndarray, false: Sequence[str], **how: Any) -> Case:
    near = how.get("near", np.full(CUTS.size, 0.3))
    train = np.where(np.arange(CUTS.size) < 5, 0.4, 0.0)
    cells = [
        Cell(
            where={"source_task": task, "size": 1_000}, test=test, train=train, sd=how.get("sd", SD)
        )
        for task, test in (("near", near), ("far", far))
    ]
    if "random" in how:
        cells.append(
            Cell(
                where={"source_task": "none", "size": 1_000},
                test=how["random"],
                train=train,
                arm=RANDOM_FROZEN,
            )
        )
    ask = ask_c5a if claim == "C5a" else ask_c5b
    return Case(
        claim=claim, what=what, say=partial(_say_c5, cells=cells, ask=ask), false=tuple(false)
    )


def pair_cases() -> list[Case]:
    index = np.arange(CUTS.size)
    behind = 0.3 + 0.05 * (index >= 2)  # with few frozen layers, not with many
    end = 1.0 * (index == 0)
    peak = 0.3 + bump(CUTS.size, 4.5, 0.12, 3)
    bad = {"near": 0.3 + 0.5 * end}
    return [
        _pair(
            "a ceiling: both worse by 50 points at head only",
            "C5a",
            behind + 0.5 * end,
            [HOLDS],
            **bad,
        ),
        _pair(
            "a ceiling: both as bad as random frozen layers",
            "C5a",
            behind + 0.1 * end,
            [HOLDS],
            near=0.3 + 0.1 * end,
            random=np.full(CUTS.size, 0.4),
        ),
        _pair(
            "far worse by just 1 point at head only",
            "C5a",
            behind + ERROR * end,
            [HOLDS, DOES_NOT_HOLD],
        ),
        _pair("on par at every cut", "C5a", np.full(CUTS.size, 0.3), [HOLDS]),
        _pair(
            "on par at head only, far behind by 5 points else",
            "C5a",
            behind,
            [DOES_NOT_HOLD],
            sd=0.004,
        ),
        _pair("far better by 3 points at head only", "C5a", behind - 0.03 * end, [DOES_NOT_HOLD]),
        _pair("far worse by 5 points at head only", "C5a", behind + 0.05 * end, [HOLDS]),
        _pair("no difference, a peak of 10 points", "C5b", peak, [HOLDS], near=peak),
        _pair(
            "far better by just 1 point at the edge",
            "C5b",
            peak - ERROR * (index > 0),
            [DOES_NOT_HOLD],
            near=peak,
        ),
        _pair(
            "far better by 4 points at the edge",
            "C5b",
            peak - 0.04 * ((index == 4) | (index == 5)),
            [DOES_NOT_HOLD],
            near=peak,
        ),
    ]


def pace_cases() -> list[Case]:
    return [
        Case(
            claim="C2",
            what=what,
            say=partial(_say_c2, slower=slower),
            false=(false,),
        )
        for what, slower, false in (
            ("no later", 0.0, HOLDS),
            ("later by just a tenth", SLOWER, DOES_NOT_HOLD),
            ("later by half", float(np.log10(1.5)), DOES_NOT_HOLD),
            ("earlier by half", -float(np.log10(1.5)), HOLDS),
        )
    ]


def grid_cases() -> list[Case]:
    """Epochs and sizes that are known to a grid only, which all seeds share."""
    paces_on_grid = [
        Case(
            claim="C2",
            what=f"{times:g} times the epochs, evaluations 12 % apart",
            say=partial(_say_c2, slower=float(np.log10(times)), sd=0.005, spacing=0.05),
            false=(false,),
        )
        for times, false in ((1.02, HOLDS), (1.12, DOES_NOT_HOLD), (1.3, DOES_NOT_HOLD))
    ]
    on_sizes = [
        Case(
            claim="C3",
            what=f"capacities of {fewest:,} and {most:,}, sizes a factor of two apart",
            say=partial(_say_c3, fewest=fewest, most=most),
            false=tuple(false),
        )
        for fewest, most, false in (
            (505, 495, [HOLDS]),
            (750, 750, [HOLDS]),
            (990, 510, [DOES_NOT_HOLD, HOLDS]),
            (1_010, 495, [DOES_NOT_HOLD]),
            (3_000, 750, [DOES_NOT_HOLD]),
            (750, 3_000, [HOLDS]),
        )
    ]
    return paces_on_grid + on_sizes


def all_cases() -> list[Case]:
    return [*epoch_cases(), *freezing_cases(), *pair_cases(), *pace_cases(), *grid_cases()]
