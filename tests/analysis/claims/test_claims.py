"""Verdicts of studies with planted effects, and how a verdict is put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from analysis import load
from analysis.claims import Decision, Verdicts, c1, c2, c3, c4, c5a, c5b, claims
from analysis.claims.contrasts import Measures, Term, contrast, measure
from analysis.claims.verdict import (
    CANNOT_TELL,
    DOES_NOT_HOLD,
    HOLDS,
    NOT_APPLICABLE,
    Answer,
    Condition,
    Verdict,
    bounded,
    conclude,
    condition,
)
from analysis.load.arms import MATCHED_STEPS, RANDOM_FROZEN, REINITIALISED, SAME_TASK, SCRATCH
from study.grid import with_starts
from study.run import Recipe, Run
from tests import synthetic
from tests.synthetic import NOTHING, Truth

# What is added to the test error of a Run with these columns.
Bump = Callable[[Run, synthetic.Columns], Any]
NEAR_FAR: dict[str, Any] = {"more_related": "near", "less_related": "far"}
C1_GRID: dict[str, Any] = {"sizes": (250, 4_000), "label_noises": (0.0, 0.2), "frozen": (0, 4)}
C2_GRID: dict[str, Any] = {"source_sizes": (500, 5_000), "frozen": (0, 2)}
C2_SMALL: dict[str, Any] = C2_GRID | {"source_sizes": (2, 20)}
C3_GRID: dict[str, Any] = {"sizes": (250, 500, 1_000, 2_000, 4_000, 8_000), "frozen": (0, 9)}
PAIR: dict[str, Any] = {"source_tasks": ("near", "far")}
C1_FLAT = Truth(capacity=1e6, epoch_peak=0.0)
ON_PAR = Truth(overfreezing=0.0, freezing_peak=0.0)
FAR_AT_PEAK = Truth(overfreezing=0.0, far_at_peak=0.06, freezing_peak=0.12)
BEFORE = "a bump before the edge of interpolation"
c5a_near, c5b_near = partial(c5a, **NEAR_FAR), partial(c5b, **NEAR_FAR)
c5a_far = partial(c5a, more_related="far")


def grid_of(**grid: Any) -> list[Run]:
    usual: dict[str, Any] = {
        "num_epochs": 60,
        "source_tasks": ("near",),
        "source_sizes": (500,),
        "sizes": (1_000,),
        "label_noises": (0.0,),
    }
    return synthetic.runs(**usual | grid)


def measured(
    root: Path, truth: Truth, *, bump: Bump | None = None, partial: bool = False, **grid: Any
) -> Measures:
    def columns(run: Run) -> synthetic.Columns:
        found = synthetic.measure(run, truth)
        added = bump(run, found) if bump else 0.0
        return found | {"test_error": np.minimum(found["test_error"] + added, 1.0)}

    synthetic.write(root, grid_of(**grid), measured=columns)
    return measure(load.open_study(root, partial=partial))


def control(verdict: Verdict, arm: str) -> Answer:
    return next(control.answer for control in verdict.controls if control.arm == arm)


def late_rise(run: Run, columns: synthetic.Columns) -> Any:
    return (run.size == 4_000) * 0.09 * np.maximum(0.0, (log_epoch(columns) - 0.7) / 0.3)


def early_bump(run: Run, columns: synthetic.Columns) -> Any:
    return (run.size == 4_000) * 0.3 * np.exp(-(((log_epoch(columns) - 0.2) / 0.07) ** 2))


def log_epoch(columns: synthetic.Columns) -> np.ndarray:
    return np.log(np.maximum(columns["epoch"], 1)) / np.log(60)


def cut_bump(run: Run, columns: synthetic.Columns) -> float:
    return 0.1 * (run.source is not None and run.frozen == 8)


def far_is_behind(run: Run, columns: synthetic.Columns) -> float:
    """The source "far" is 5 points worse, except with nearly all layers frozen."""
    return 0.05 * (run.source is not None and run.source.task == "far" and run.frozen < 8)


def far_is_behind_until_chance(run: Run, columns: synthetic.Columns) -> float:
    return far_is_behind(run, columns) + 0.3 * (run.frozen == 9)


# Claim, study, effects, bump, answer, range of the effect's interval, a phrase of the verdict.
PLANTED: list[tuple[Any, ...]] = [
    (c1, C1_GRID, Truth(capacity=1e6, epoch_peak=0.4), None, HOLDS, (0.05, inf), ""),
    (c1, C1_GRID, C1_FLAT, None, DOES_NOT_HOLD, None, ""),
    (c1, C1_GRID, Truth(capacity=10.0), None, CANNOT_TELL, None, "train error crosses"),
    (c1, C1_GRID, C1_FLAT, late_rise, CANNOT_TELL, None, "more epochs would tell"),
    (c1, C1_GRID, C1_FLAT, early_bump, DOES_NOT_HOLD, (-inf, 0.01), f"{BEFORE}: train error 0.5"),
    (c2, C2_GRID, Truth(slowdown=0.3), None, HOLDS, (0.2, 0.4), ""),
    (c2, C2_SMALL, Truth(slowdown=-0.3), None, DOES_NOT_HOLD, (-0.4, -0.2), ""),
    # Training ends before any Run interpolates.
    (c2, C2_GRID | {"num_epochs": 40}, Truth(slowdown=2.0), None, CANNOT_TELL, None, "no cell"),
    # From 4,000 images (ε allows twice the planted capacity) to less than the smallest size.
    (c3, C3_GRID, Truth(capacity=2_000.0), None, HOLDS, (1, 7), "are upper bounds"),
    # A hundredfold is planted; the sizes show a fall from "8,000 or more" to 2,000.
    (c3, C3_GRID, Truth(capacity=300_000.0), None, CANNOT_TELL, None, "are lower bounds"),
    (c3, C3_GRID, Truth(capacity=1e9), None, CANNOT_TELL, None, ""),
    (c3, {"frozen": (4,)}, Truth(), None, CANNOT_TELL, None, "one frozen count"),
    (c4, {}, NOTHING, None, DOES_NOT_HOLD, (-inf, 0.01), ""),
    # A peak one cut and two cuts from the two cuts between which the edge of interpolation is.
    (c4, {}, Truth(freezing_peak=0.0), cut_bump, HOLDS, None, ""),
    (c4, {}, Truth(freezing_peak=0.0, capacity=2e3), cut_bump, DOES_NOT_HOLD, None, BEFORE),
    (c4, {"frozen": (4,)}, Truth(), None, CANNOT_TELL, None, "three frozen counts"),
    (c5a_near, PAIR, Truth(overfreezing=0.03), None, HOLDS, (0.02, 0.04), ""),
    (c5a_far, PAIR, Truth(overfreezing=0.03), None, DOES_NOT_HOLD, None, ""),
    (c5a_near, PAIR, ON_PAR, far_is_behind, HOLDS, None, ""),
    (c5b_near, PAIR, FAR_AT_PEAK, None, HOLDS, None, ""),
    (c5b_near, PAIR, Truth(overfreezing=0.03), None, DOES_NOT_HOLD, None, ""),
]


@pytest.mark.parametrize(("claim", "grid", "truth", "bump", "answer", "effect", "phrase"), PLANTED)
def test_claim_planted_effect_gives_its_verdict(
    claim: Callable[[Measures], Verdict],
    grid: dict[str, Any],
    truth: Truth,
    bump: Bump | None,
    answer: str,
    effect: tuple[float, float] | None,
    phrase: str,
    tmp_path: Path,
) -> None:
    verdict = claim(measured(tmp_path, truth, bump=bump, **grid))
    assert verdict.answer == answer
    assert phrase in str(verdict.reasons) + str(verdict.conditions)
    assert answer != HOLDS or {one.answer for one in verdict.conditions} == {HOLDS}
    if effect:
        assert verdict.effect is not None
        assert effect[0] < verdict.effect.low <= verdict.effect.high < effect[1]


CEILING = (HOLDS, HOLDS, CANNOT_TELL, CANNOT_TELL)


@pytest.mark.parametrize(
    ("truth", "bump", "controls", "answers", "phrase"),
    [
        # Equal at every cut is no sign of freezing.
        (Truth(overfreezing=0.0), None, False, (HOLDS, CANNOT_TELL, HOLDS, HOLDS), ""),
        # With most layers frozen, both are as bad as random layers, or close to chance.
        (ON_PAR, far_is_behind, True, CEILING, "random frozen layers"),
        (ON_PAR, far_is_behind_until_chance, False, CEILING, "halfway from chance"),
    ],
)
def test_c5a_sources_on_par_for_other_reasons_are_undecided(
    truth: Truth,
    bump: Bump | None,
    controls: bool,
    answers: tuple[str, ...],
    phrase: str,
    tmp_path: Path,
) -> None:
    verdict = c5a_near(measured(tmp_path, truth, bump=bump, controls=controls, **PAIR))
    assert verdict.answer == CANNOT_TELL
    assert tuple(one.answer for one in verdict.conditions) == answers
    assert phrase in verdict.conditions[2].what
    assert ("equally bad" in verdict.conditions[2].tell) == (answers == CEILING)


def test_c4_pools_curves_at_their_own_edges_for_every_epsilon(tmp_path: Path) -> None:
    # 64,000 images never cross ε, so their curve cannot show a peak.
    verdict = c4(measured(tmp_path, Truth(freezing_peak=0.1), sizes=(1_000, 2_000, 64_000)))
    assert verdict.answer == HOLDS
    assert verdict.effect is not None and verdict.effect.low > 0.02
    assert "2 curves, each moved to its own edge" in verdict.compared
    assert "ε = 0.1" in verdict.compared
    assert any("1 curves do not cross ε" in reason for reason in verdict.reasons)
    assert len(verdict.exploratory) == 2
    assert [at.epsilon for at in verdict.by_epsilon] == [0.001, 0.01, 0.05, 0.1]
    last = verdict.by_epsilon[-1]
    assert (last.answer, last.effect) == (HOLDS, verdict.effect)
    assert "at ε = 0.01 " in str(Verdicts([verdict]))
    assert list(Verdicts([verdict]).to_dataframe()["kind"]).count("epsilon") == 4
    assert control(verdict, SCRATCH).reasons == ("the study has no such arm",)


def test_c4_is_judged_at_the_largest_label_noise(tmp_path: Path) -> None:
    def only_with_noise(run: Run) -> synthetic.Columns:
        return synthetic.measure(run, Truth(freezing_peak=0.1 if run.label_noise else 0.0))

    runs = grid_of(sizes=(1_000, 2_000), label_noises=(0.0, 0.2))
    synthetic.write(tmp_path, runs, measured=only_with_noise)
    verdict = c4(measure(load.open_study(tmp_path)))
    assert verdict.answer == HOLDS
    assert "label noise 0.2" in verdict.compared
    assert verdict.effect is not None and verdict.effect.low > 0.02
    (clean,) = [found for found in verdict.exploratory if found.what.startswith("the same at")]
    assert "label noise 0 " in clean.what and clean.effect.estimate < 0.02


def test_c4_small_test_set_is_a_caveat(tmp_path: Path) -> None:
    def rounding(run: Run, columns: synthetic.Columns) -> Any:
        test = columns["test_error"]
        return np.rint(test * 179) / 179 - test

    small = c4(measured(tmp_path / "small", NOTHING, bump=rounding))
    (caveat,) = [one for one in small.reasons if "test set" in one]
    assert "about 179 images" in caveat and "±1 image is 0.56 points" in caveat
    whole = c4(measured(tmp_path / "whole", NOTHING))
    assert not any("test set" in one for one in whole.reasons)


def test_c5a_needs_to_know_the_more_related_source(tmp_path: Path) -> None:
    measures = measured(tmp_path, Truth(overfreezing=0.03), **PAIR)
    verdict = c5a(measures, **NEAR_FAR)
    assert "near − far" in verdict.compared
    assert c5a(measures, similarity={"near": 0.9, "far": 0.1}) == verdict
    not_named = c5a(measures)
    assert not_named.answer == CANNOT_TELL
    assert "the more related source is not named" in not_named.reasons
    assert "if near is the more related: holds" in not_named.reasons
    assert "if far is the more related: does not hold" in not_named.reasons
    with pytest.raises(ValueError, match=r"more_related='dog': the study's sources are far, near"):
        c5a(measures, more_related="dog")
    with pytest.raises(ValueError, match="similarity"):
        c5a(measures, similarity={"near": 0.9})


def test_c2_is_repeated_with_sources_of_equally_many_steps(tmp_path: Path) -> None:
    runs = grid_of(source_sizes=(500, 5_000), sizes=(250, 1_000), frozen=(0, 2))
    matched = [
        replace(run, start=replace(run.source, recipe=Recipe(num_steps=200)))
        for run in runs
        if run.source is not None
    ]
    sources = dict.fromkeys(run.source for run in matched if run.source)
    synthetic.write(tmp_path, [*runs, *sources, *matched], truth=Truth(slowdown=1.0))
    measures = measure(load.open_study(tmp_path))
    assert set(measures.lines["arm"]) == {"transfer", MATCHED_STEPS}
    verdict = c2(measures)
    beside = control(verdict, MATCHED_STEPS)
    assert verdict.answer == HOLDS
    assert beside.effect is not None and beside.effect.num == 3
    text = str(Verdicts([verdict]))
    assert "with sources of equally many steps: holds" in text


def test_c2_compares_sources_of_which_each_size_has_its_own_recipe(tmp_path: Path) -> None:
    num_steps = {500: 100, 5_000: 900}  # as if their train errors were equal then
    cells = [
        replace(
            run,
            start=replace(run.source, recipe=Recipe(num_steps=num_steps[run.source.size])),
        )
        for run in grid_of(source_sizes=tuple(num_steps), sizes=(250, 1_000), frozen=(0, 2))
        if run.source is not None
    ]
    synthetic.write(tmp_path, with_starts(cells), truth=Truth(slowdown=1.0))
    verdict = c2(measure(load.open_study(tmp_path)))
    assert verdict.answer == HOLDS
    assert verdict.effect is not None
    assert verdict.effect.low > 0.3  # planted: 1, but some Runs end before they interpolate


@pytest.mark.slow
def test_claims_controls_are_answered_next_to_the_transfer(tmp_path: Path) -> None:
    measured(tmp_path, Truth(freezing_peak=0.1), controls=True, **PAIR)
    found = claims(load.open_study(tmp_path), **NEAR_FAR)
    for arm in (SAME_TASK, RANDOM_FROZEN, REINITIALISED):
        assert control(found["C4"], arm).answer == HOLDS
    assert control(found["C4"], SCRATCH).answer == NOT_APPLICABLE
    assert control(found["C2"], RANDOM_FROZEN).answer == NOT_APPLICABLE
    # Planted: "near" is as good as random frozen layers, and 0.02 worse than the same task.
    random, same = (control(found["C5a"], arm) for arm in (RANDOM_FROZEN, SAME_TASK))
    assert random.effect is not None and same.effect is not None
    assert random.effect.estimate == pytest.approx(0.0, abs=0.002)
    assert same.effect.estimate == pytest.approx(0.02, abs=0.002)
    assert "near with the most layers frozen" in random.compared


@pytest.mark.slow
def test_claims_one_seed_is_undecided(tmp_path: Path) -> None:
    grid = PAIR | {"sizes": (250, 1_000), "source_sizes": (500, 5_000), "controls": True}
    measured(tmp_path, Truth(freezing_peak=0.1, epoch_peak=0.4), seeds=(0,), **grid)
    for verdict in claims(load.open_study(tmp_path), **NEAR_FAR).values():
        answers = {control.answer.answer for control in verdict.controls}
        assert answers <= {CANNOT_TELL, NOT_APPLICABLE}
        assert verdict.answer == CANNOT_TELL
        assert all(np.isinf(result.effect.low) for result in verdict.exploratory)
        assert verdict.effect is None or np.isinf(verdict.effect.low)


def test_claims_study_without_transfer_is_undecided(tmp_path: Path) -> None:
    runs = [run for run in grid_of(num_epochs=5, frozen=(0,), seeds=(0, 1)) if not run.start]
    synthetic.write(tmp_path, runs)
    for verdict in claims(load.open_study(tmp_path), **NEAR_FAR).values():
        assert verdict.answer == CANNOT_TELL
        assert verdict.reasons == ("the study has no such arm",)


def test_c5a_missing_cell_leaves_its_seed_out(tmp_path: Path) -> None:
    runs = grid_of(frozen=(0, 9), sizes=(1_000, 2_000), **PAIR)
    absent, diverged = (
        run
        for run in runs
        if run.source and run.frozen == 9 and run.seed == 1 and run.source.task == "far"
    )
    synthetic.write(tmp_path, runs, truth=Truth(), absent=[absent], diverged=[diverged])
    verdict = c5a(measure(load.open_study(tmp_path, partial=True)), **NEAR_FAR)
    assert verdict.effect is not None and verdict.effect.num == 2
    assert "seeds 1 lack cells, and are left out" in verdict.missing
    assert {"1 Runs diverged", "1 Runs missing"} <= set(verdict.missing)
    assert not {absent.id, diverged.id} & set(verdict.run_ids)


def test_c4_fixed_source_seed_is_a_caveat(tmp_path: Path) -> None:
    runs = grid_of()
    source = runs[0]
    cells = [replace(run, start=source) for run in runs if run.source]
    synthetic.write(tmp_path, [source, *cells])
    verdict = c4(measure(load.open_study(tmp_path)))
    assert (
        "all cells use one source seed: the spread between sources is not included"
        in verdict.reasons
    )


def test_measure_two_runs_of_one_cell_need_a_source_seed(tmp_path: Path) -> None:
    runs = grid_of(num_epochs=5, sizes=(250,), frozen=(0,), seeds=(0, 1))
    cells = [run for run in runs if run.source]
    synthetic.write(tmp_path, [*runs, replace(cells[1], start=cells[0].source)])
    study = load.open_study(tmp_path)
    with pytest.raises(ValueError, match="the same cell and seed"):
        measure(study)
    assert len(measure(study, source_seed=0).lines) == 2


def test_contrast_averages_the_same_cells_in_every_seed() -> None:
    terms = [
        Term(group, seed, sign, sign, sign * group + (sign > 0) * seed, (f"{group}{seed}",))
        for group in (1, 2, 3)
        for seed in (0, 1, 2)
        for sign in (-1.0, 1.0)
        if (group, seed, sign) != (3, 2, 1.0)
    ]
    found = contrast(terms)
    assert found is not None
    # Three seeds over two groups are as many cells as two seeds over three: more seeds are better.
    assert found.groups == (1, 2) and found.seeds == (0, 1, 2)
    assert found.values.tolist() == [3.0, 4.0, 5.0]
    assert found.dropped == 1 and found.left_out == ()
    assert contrast([]) is None
    # Each side was measured in another seed, so no seed has the difference.
    assert contrast([Term(1, 0, "a", 1.0, 5.0, ("x",)), Term(1, 1, "b", -1.0, 5.0, ("y",))]) is None


@pytest.mark.parametrize(
    ("values", "options", "answer", "hint"),
    [
        ([0.02, 0.021, 0.019], {}, HOLDS, ""),
        ([0.001, 0.002, 0.0015], {}, DOES_NOT_HOLD, ""),  # above zero, but less than matters
        ([0.05, -0.03, 0.02], {}, CANNOT_TELL, "more seeds may not tell"),
        ([0.5], {}, CANNOT_TELL, "more seeds"),
        ([-0.002, 0.001, 0.0], {"above": -0.01, "matters": -0.01}, HOLDS, ""),
        (
            [0.001, 0.002, 0.0015],
            {"unfinished": "it rises"},
            CANNOT_TELL,
            "excluded so far: it rises",
        ),
    ],
)
def test_condition_is_decided_by_its_interval(
    values: list[float], options: dict[str, Any], answer: str, hint: str
) -> None:
    found = condition("", np.array(values), **{"unit": "error", "matters": 0.01} | options)
    assert found.answer == answer
    assert found.tell.startswith(hint) if hint else found.tell == ""


def test_condition_number_of_seeds_is_the_smallest_that_decides() -> None:
    values = [0.05, 0.02, 0.08, -0.01]
    found = condition("", np.array(values), unit="error", matters=0.01)
    num = int(found.tell.split()[1])
    sd = float(np.std(values, ddof=1))
    half, before = (stats.t.ppf(0.975, n - 1) * sd / np.sqrt(n) for n in (num, num - 1))
    assert half < np.mean(values) <= before  # then the interval leaves zero out


def test_conclude_one_failed_condition_decides() -> None:
    holds, fails, unknown = (
        Condition(what="", answer=answer) for answer in (HOLDS, DOES_NOT_HOLD, CANNOT_TELL)
    )
    assert conclude([holds, holds]) == HOLDS
    assert conclude([holds, unknown]) == CANNOT_TELL
    assert conclude([unknown, fails]) == DOES_NOT_HOLD
    assert conclude([]) == CANNOT_TELL


@pytest.mark.parametrize(
    ("answer", "understated", "overstated", "bound"),
    [
        (HOLDS, True, False, HOLDS),
        (HOLDS, False, True, CANNOT_TELL),
        (DOES_NOT_HOLD, True, False, CANNOT_TELL),
        (DOES_NOT_HOLD, False, True, DOES_NOT_HOLD),
        (HOLDS, True, True, CANNOT_TELL),
    ],
)
def test_bounded_is_no_evidence_in_the_direction_of_censoring(
    answer: str, understated: bool, overstated: bool, bound: str
) -> None:
    given = Condition(what="", answer=answer)
    found = bounded(given, understated=understated, overstated=overstated)
    assert found.answer == bound
    assert ("so far: censored values" in found.tell) == (found != given)


def test_verdicts_are_a_mapping_a_table_and_a_text() -> None:
    holds = Verdict(
        answer=Decision.HOLDS,
        compared="two sizes",
        run_ids=("a", "b"),
        claim="C1",
        statement="It is so.",
        primary="",
        arm="transfer",
    )
    found = Verdicts([holds, replace(holds, claim="C2", answer=Decision.CANNOT_TELL)])
    assert list(found) == ["C1", "C2"] and len(found) == 2 and "C3" not in found
    with pytest.raises(KeyError):
        found["C3"]
    table = found.to_dataframe().set_index("claim")
    assert table["answer"].to_dict() == {"C1": "holds", "C2": "cannot tell"}
    assert {type(word) for word in table["answer"]} == {str}
    assert table["num_runs"].tolist() == [2, 2]
    assert str(found) == "C1  holds        –  It is so.\nC2  cannot tell  –  It is so."
    # The enumeration equals and prints the words that are stored in files.
    assert [*Decision] == ["holds", "does not hold", "cannot tell", "not applicable"]
    assert {Decision.HOLDS: 1}["holds"] == 1
