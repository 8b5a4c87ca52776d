"""Planted effects are found, planted nothing is not, and a verdict says no more than its cells allow."""

from __future__ import annotations

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
from analysis.load.arms import RANDOM_FROZEN, REINITIALISED, SAME_TASK, SCRATCH
from study.run import Run
from tests import synthetic
from tests.synthetic import NOTHING, Truth

FIELDS = [
    "task",
    "size",
    "model",
    "recipe",
    "seed",
    "part",
    "label_noise",
    "width",
    "start",
    "frozen",
]
NEAR_FAR: dict[str, Any] = {"more_related": "near", "less_related": "far"}


def measured(
    root: Path,
    truth: Truth,
    *,
    partial: bool = False,
    write: dict[str, Any] | None = None,
    **grid: Any,
) -> Measures:
    every: dict[str, Any] = {
        "num_epochs": 60,
        "source_tasks": ("near",),
        "source_sizes": (500,),
        "sizes": (1_000,),
        "label_noises": (0.0,),
        "frozen": (0, 2, 4, 6, 8, 9),
    }
    synthetic.write(root, synthetic.runs(**every | grid), truth=truth, **(write or {}))
    return measure(load.open_study(root, partial=partial))


def control(verdict: Verdict, arm: str) -> Answer:
    return next(control.answer for control in verdict.controls if control.arm == arm)


C1_GRID: dict[str, Any] = {"sizes": (250, 4_000), "label_noises": (0.0, 0.2), "frozen": (0, 4)}


def test_c1_a_peak_that_grows_with_the_target_set(tmp_path: Path) -> None:
    verdict = c1(measured(tmp_path, Truth(capacity=1e6, epoch_peak=0.4), **C1_GRID))
    assert verdict.answer == HOLDS
    assert verdict.effect is not None and verdict.effect.low > 0.05 and verdict.unit == "error"
    assert [one.answer for one in verdict.conditions] == [HOLDS, HOLDS]
    assert len(verdict.run_ids) == 2 * 2 * 3  # sizes, frozen counts, seeds
    assert {result.what for result in verdict.exploratory} == {
        "the same with nothing frozen",
        "the same with 4 layers frozen",
        "the same with label noise 0",
        "height of the peak, label noise 0.2 − 0, all sizes",
    }
    assert control(verdict, SAME_TASK).reasons == ("the study has no such arm",)


def test_c1_without_a_peak_does_not_hold(tmp_path: Path) -> None:
    verdict = c1(measured(tmp_path, Truth(capacity=1e6, epoch_peak=0.0), **C1_GRID))
    assert verdict.answer == DOES_NOT_HOLD


def test_c1_cannot_tell_where_nothing_interpolates(tmp_path: Path) -> None:
    verdict = c1(measured(tmp_path, Truth(capacity=10.0, epoch_peak=0.4), **C1_GRID))
    assert verdict.answer == CANNOT_TELL
    assert "train error crosses" in verdict.reasons[0]


def planted(bump: str) -> Any:
    """Measures in which the test error at the larger size carries a bump, over a falling curve."""

    def change(run: Run) -> synthetic.Columns:
        columns = synthetic.measure(run, Truth(capacity=1e6, epoch_peak=0.0))
        u = np.log(np.maximum(columns["epoch"], 1)) / np.log(60)
        where = {
            "rises to the end": 0.09 * np.maximum(0.0, (u - 0.7) / 0.3),
            "far": 0.3 * np.exp(-(((u - 0.2) / 0.07) ** 2)),
        }[bump]
        larger = run.size == 4_000
        return columns | {"test_error": columns["test_error"] + larger * where}

    return change


def test_c1_a_curve_that_still_rises_cannot_tell(tmp_path: Path) -> None:
    grid = C1_GRID | {"write": {"measured": planted("rises to the end")}}
    verdict = c1(measured(tmp_path, NOTHING, **grid))
    assert verdict.answer == CANNOT_TELL
    assert any("more epochs would tell" in reason for reason in verdict.reasons)


def test_c1_does_not_inherit_a_bump_far_from_interpolation(tmp_path: Path) -> None:
    verdict = c1(measured(tmp_path, NOTHING, **C1_GRID | {"write": {"measured": planted("far")}}))
    assert verdict.answer in (DOES_NOT_HOLD, CANNOT_TELL)
    assert any(
        "a bump before the edge of interpolation: train error 0.5" in one for one in verdict.reasons
    )
    assert verdict.effect is not None and verdict.effect.estimate < 0.01


def test_a_small_test_set_is_said(tmp_path: Path) -> None:
    def coarse(run: Run) -> synthetic.Columns:
        columns = synthetic.measure(run, NOTHING)
        return columns | {"test_error": np.rint(columns["test_error"] * 179) / 179}

    verdict = c4(measured(tmp_path, NOTHING, write={"measured": coarse}))
    (caveat,) = [one for one in verdict.reasons if "test set" in one]
    assert "about 179 images" in caveat and "±1 image is 0.56 points" in caveat
    whole = c4(measured(tmp_path / "whole", NOTHING))
    assert not any("test set" in one for one in whole.reasons)


C2_GRID: dict[str, Any] = {"source_sizes": (500, 5_000), "frozen": (0, 2)}


@pytest.mark.parametrize(
    ("slowdown", "source_sizes", "answer"),
    [(0.3, (500, 5_000), HOLDS), (-0.3, (2, 20), DOES_NOT_HOLD)],
)
def test_c2_a_larger_source_slows_the_target(
    tmp_path: Path, slowdown: float, source_sizes: tuple[int, int], answer: str
) -> None:
    grid = C2_GRID | {"source_sizes": source_sizes}
    verdict = c2(measured(tmp_path, Truth(slowdown=slowdown), **grid))
    assert verdict.answer == answer
    assert verdict.effect is not None
    assert verdict.effect.estimate == pytest.approx(slowdown, abs=0.1)


def test_c2_cannot_tell_where_training_ended_before(tmp_path: Path) -> None:
    verdict = c2(measured(tmp_path, Truth(slowdown=2.0), num_epochs=40, **C2_GRID))
    assert verdict.answer == CANNOT_TELL  # no Run with either source interpolates
    assert "no cell" in verdict.reasons[0]


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
def test_a_bound_decides_nothing_towards_the_true_value(
    answer: str, understated: bool, overstated: bool, bound: str
) -> None:
    given = Condition(what="", answer=answer)
    found = bounded(given, understated=understated, overstated=overstated)
    assert found.answer == bound
    assert ("so far: censored values" in found.tell) == (found != given)


C3_GRID: dict[str, Any] = {"sizes": (250, 500, 1_000, 2_000, 4_000, 8_000), "frozen": (0, 9)}


def test_c3_freezing_lowers_the_capacity(tmp_path: Path) -> None:
    verdict = c3(measured(tmp_path, Truth(capacity=2_000.0), **C3_GRID))
    assert verdict.answer == HOLDS and verdict.unit == "doublings"
    # From 4,000 (ε allows twice the planted capacity) to less than 250.
    assert verdict.effect is not None and verdict.effect.estimate == 4
    # All seeds agree, but the sizes studied hide half a step.
    assert verdict.effect.low < 4 < verdict.effect.high
    assert "not even the smallest size" in verdict.reasons[0]


def test_c3_says_when_the_largest_size_censors(tmp_path: Path) -> None:
    verdict = c3(measured(tmp_path, Truth(capacity=300_000.0), **C3_GRID))
    assert verdict.answer == CANNOT_TELL  # true: 100 times; seen: from 2,000 to "8,000 or more"
    assert any("censor" in reason for reason in verdict.reasons)
    everything = c3(measured(tmp_path / "all", Truth(capacity=1e9), **C3_GRID))
    assert everything.answer == CANNOT_TELL and everything.effect is None


def test_c4_a_peak_at_the_edge_of_interpolation(tmp_path: Path) -> None:
    verdict = c4(measured(tmp_path, Truth(freezing_peak=0.1), sizes=(1_000, 2_000, 64_000)))
    assert verdict.answer == HOLDS
    # All curves together; 64,000 never crosses ε, and could have shown nothing.
    assert "2 curves, each moved to its own edge" in verdict.compared
    assert "ε = 0.1" in verdict.compared
    assert any("1 curves do not cross ε" in reason for reason in verdict.reasons)
    assert verdict.effect is not None and verdict.effect.low > 0.02
    assert len(verdict.exploratory) == 2
    assert [at.epsilon for at in verdict.by_epsilon] == [0.001, 0.01, 0.05, 0.1]
    assert verdict.by_epsilon[-1].answer == HOLDS
    assert verdict.by_epsilon[-1].effect == verdict.effect
    assert "at ε = 0.01 " in str(Verdicts([verdict]))
    assert list(Verdicts([verdict]).to_dataframe()["kind"]).count("epsilon") == 4
    assert control(verdict, SCRATCH).answer == CANNOT_TELL


@pytest.mark.parametrize(("capacity", "answer"), [(8_000.0, HOLDS), (2_000.0, DOES_NOT_HOLD)])
def test_c4_a_peak_elsewhere_is_not_the_claim(tmp_path: Path, capacity: float, answer: str) -> None:
    """Planted at 8 frozen layers, one cut beside the two between which the edge lies, and two."""

    def away(run: Run) -> synthetic.Columns:
        columns = synthetic.measure(run, Truth(freezing_peak=0.0, capacity=capacity))
        bump = 0.1 * (run.frozen == 8) if run.source else 0.0
        return columns | {"test_error": np.minimum(columns["test_error"] + bump, 1.0)}

    verdict = c4(measured(tmp_path, NOTHING, write={"measured": away}))
    assert verdict.answer == answer
    if answer == DOES_NOT_HOLD:
        assert "a bump before the edge of interpolation" in verdict.conditions[0].what
        assert "because: double descent, its peak near" in str(Verdicts([verdict]))


def test_c4_is_judged_where_the_labels_are_noisiest(tmp_path: Path) -> None:
    def only_with_noise(run: Run) -> synthetic.Columns:
        return synthetic.measure(run, Truth(freezing_peak=0.1 if run.label_noise else 0.0))

    grid = {"sizes": (1_000, 2_000), "label_noises": (0.0, 0.2)}
    verdict = c4(measured(tmp_path, NOTHING, write={"measured": only_with_noise}, **grid))
    assert verdict.answer == HOLDS
    assert "label noise 0.2" in verdict.compared
    assert verdict.effect is not None and verdict.effect.low > 0.02
    (clean,) = [found for found in verdict.exploratory if found.what.startswith("the same at")]
    assert "label noise 0 " in clean.what and clean.effect.estimate < 0.02


def test_c4_without_a_peak_does_not_hold(tmp_path: Path) -> None:
    verdict = c4(measured(tmp_path, NOTHING))
    assert verdict.answer == DOES_NOT_HOLD
    assert verdict.effect is not None and verdict.effect.high < 0.01


PAIR: dict[str, Any] = {"source_tasks": ("near", "far")}


def test_c5a_overfreezing(tmp_path: Path) -> None:
    measures = measured(tmp_path, Truth(overfreezing=0.03), **PAIR)
    verdict = c5a(measures, **NEAR_FAR)
    assert verdict.answer == HOLDS
    assert verdict.effect is not None
    assert verdict.effect.estimate == pytest.approx(0.03, abs=0.005)
    assert "near − far" in verdict.compared
    reverse = c5a(measures, more_related="far")
    assert reverse.answer == DOES_NOT_HOLD
    assert c5a(measures, similarity={"near": 0.9, "far": 0.1}) == verdict
    untold = c5a(measures)
    assert untold.answer == CANNOT_TELL
    assert "the more related source is not named" in untold.reasons
    assert "if near is the more related: holds" in untold.reasons
    assert "if far is the more related: does not hold" in untold.reasons
    assert c5b(measures, **NEAR_FAR).answer == DOES_NOT_HOLD  # the flip is at the end, not the edge
    with pytest.raises(ValueError, match=r"more_related='dog': the study's sources are far, near"):
        c5a(measures, more_related="dog")
    with pytest.raises(ValueError, match="similarity"):
        c5a(measures, similarity={"near": 0.9})


def test_c5a_on_par_everywhere_is_no_sign_of_freezing(tmp_path: Path) -> None:
    verdict = c5a(measured(tmp_path, Truth(overfreezing=0.0), **PAIR), **NEAR_FAR)
    assert [one.answer for one in verdict.conditions] == [HOLDS, CANNOT_TELL, HOLDS, HOLDS]
    assert verdict.answer == CANNOT_TELL


@pytest.mark.parametrize("with_control", [False, True])
def test_c5a_a_ceiling_is_not_on_par(tmp_path: Path, with_control: bool) -> None:
    """Far is worse with few frozen layers; with the most both are equally bad, as random layers are."""

    def equally_bad(run: Run) -> synthetic.Columns:
        columns = synthetic.measure(run, Truth(overfreezing=0.0, freezing_peak=0.0))
        test = columns["test_error"]
        if run.source and run.source.task == "far" and run.frozen < 8:
            test = test + 0.05
        if run.frozen == 9:
            test = test + (0.0 if with_control else 0.3)
        return columns | {"test_error": np.minimum(test, 1.0)}

    grid = PAIR | {"controls": with_control}
    verdict = c5a(measured(tmp_path, NOTHING, write={"measured": equally_bad}, **grid), **NEAR_FAR)
    assert [one.answer for one in verdict.conditions] == [HOLDS, HOLDS, CANNOT_TELL, CANNOT_TELL]
    assert verdict.answer == CANNOT_TELL
    floor = "random frozen layers" if with_control else "halfway from chance"
    assert floor in verdict.conditions[2].what
    assert "a ceiling" in verdict.conditions[2].tell


def test_c5a_on_par_and_good_holds(tmp_path: Path) -> None:
    def gap_closes(run: Run) -> synthetic.Columns:
        columns = synthetic.measure(run, Truth(overfreezing=0.0, freezing_peak=0.0))
        behind = 0.05 * (run.frozen < 8) if run.source and run.source.task == "far" else 0.0
        return columns | {"test_error": columns["test_error"] + behind}

    verdict = c5a(measured(tmp_path, NOTHING, write={"measured": gap_closes}, **PAIR), **NEAR_FAR)
    assert verdict.answer == HOLDS


def test_c5b_a_flip_near_the_peak(tmp_path: Path) -> None:
    truth = Truth(overfreezing=0.0, far_at_peak=0.06, freezing_peak=0.12)
    verdict = c5b(measured(tmp_path, truth, **PAIR), **NEAR_FAR)
    assert verdict.answer == HOLDS
    assert all(one.answer == HOLDS for one in verdict.conditions)


@pytest.mark.slow
def test_controls_answer_beside(tmp_path: Path) -> None:
    found = _all(tmp_path, Truth(freezing_peak=0.1), controls=True, **PAIR)
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
def test_one_seed_can_never_tell(tmp_path: Path) -> None:
    truth = Truth(freezing_peak=0.1, epoch_peak=0.4)
    grid = PAIR | {"sizes": (250, 1_000), "source_sizes": (500, 5_000), "controls": True}
    for verdict in _all(tmp_path, truth, seeds=(0,), **grid).values():
        answers = [verdict, *(control.answer for control in verdict.controls)]
        assert {one.answer for one in answers} <= {CANNOT_TELL, NOT_APPLICABLE}
        assert verdict.answer == CANNOT_TELL
        assert all(np.isinf(result.effect.low) for result in verdict.exploratory)
        assert verdict.effect is None or np.isinf(verdict.effect.low)


def test_a_study_that_cannot_put_the_question_can_never_tell(tmp_path: Path) -> None:
    one_cut = measured(tmp_path, Truth(), frozen=(4,))
    for verdict, why in ((c3(one_cut), "one frozen count"), (c4(one_cut), "three frozen counts")):
        assert verdict.answer == CANNOT_TELL
        assert any(why in reason for reason in verdict.reasons)


def test_a_study_without_transfer_can_never_tell(tmp_path: Path) -> None:
    runs = [run for run in synthetic.runs(num_epochs=5, frozen=(0,), seeds=(0, 1)) if not run.start]
    synthetic.write(tmp_path, runs)
    for verdict in claims(load.open_study(tmp_path), **NEAR_FAR).values():
        assert verdict.answer == CANNOT_TELL
        assert verdict.reasons == ("the study has no such arm",)


def test_what_is_missing_is_left_out_in_every_cell_it_is_paired_with(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"frozen": (0, 9), "sizes": (1_000, 2_000)} | PAIR
    cells = [
        run
        for run in synthetic.runs(num_epochs=60, source_sizes=(500,), label_noises=(0.0,), **grid)
        if run.source and run.frozen == 9 and run.seed == 1 and run.source.task == "far"
    ]
    write = {"absent": cells[:1], "diverged": cells[1:2]}
    verdict = c5a(measured(tmp_path, Truth(), partial=True, write=write, **grid), **NEAR_FAR)
    assert verdict.effect is not None and verdict.effect.num == 2
    assert "seeds 1 lack cells, and are left out" in verdict.missing
    assert {"1 Runs diverged", "1 Runs missing"} <= set(verdict.missing)
    assert not {run.id for run in cells} & set(verdict.run_ids)


def test_a_fixed_source_seed_is_said(tmp_path: Path) -> None:
    runs = synthetic.runs(num_epochs=60, source_sizes=(500,), sizes=(1_000,), label_noises=(0.0,))
    first = {run.source.task: run.source for run in runs if run.source and run.source.seed == 0}
    fixed = [
        Run(**{name: getattr(run, name) for name in FIELDS} | {"start": first[run.source.task]})
        for run in runs
        if run.source
    ]
    synthetic.write(tmp_path, [*first.values(), *fixed])
    verdict = c4(measure(load.open_study(tmp_path)))
    assert "the source's seed is fixed: the spread leaves the sources out" in verdict.reasons


def test_two_runs_of_one_cell_and_seed_are_refused(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"num_epochs": 5, "source_tasks": ("near",), "source_sizes": (500,)}
    runs = synthetic.runs(sizes=(250,), label_noises=(0.0,), frozen=(0,), seeds=(0, 1), **grid)
    cells = [run for run in runs if run.source]
    doubled = Run(**{name: getattr(cells[1], name) for name in FIELDS} | {"start": cells[0].source})
    synthetic.write(tmp_path, [*runs, doubled])
    study = load.open_study(tmp_path)
    with pytest.raises(ValueError, match="the same cell and seed"):
        measure(study)
    assert len(measure(study, source_seed=0).lines) == 2


def test_a_contrast_averages_the_same_cells_in_every_seed() -> None:
    terms = [
        Term(group, seed, sign, sign, sign * group + (sign > 0) * seed, (f"{group}{seed}",))
        for group in (1, 2, 3)
        for seed in (0, 1, 2)
        for sign in (-1.0, 1.0)
        if (group, seed, sign) != (3, 2, 1.0)
    ]
    found = contrast(terms)
    assert found is not None
    # All seeds over two groups are as many cells as two seeds over three: the more seeds win.
    assert found.groups == (1, 2) and found.seeds == (0, 1, 2)
    assert found.values.tolist() == [3.0, 4.0, 5.0]
    assert found.dropped == 1 and found.left_out == ()
    assert contrast([]) is None
    # One side in one seed, the other in another: no seed has the difference.
    assert contrast([Term(1, 0, "a", 1.0, 5.0, ("x",)), Term(1, 1, "b", -1.0, 5.0, ("y",))]) is None


def test_what_would_tell_is_said() -> None:
    values = [0.05, 0.02, 0.08, -0.01]
    unknown = condition("", np.array(values), unit="error", matters=0.01)
    assert unknown.tell.startswith("about ")
    num = int(unknown.tell.split()[1])
    sd = float(np.std(values, ddof=1))
    half = stats.t.ppf(0.975, num - 1) * sd / np.sqrt(num)
    before = stats.t.ppf(0.975, num - 2) * sd / np.sqrt(num - 1)
    assert half < np.mean(values) <= before  # then the interval leaves zero out
    assert condition("", np.array([0.02]), unit="", matters=0.01).tell.startswith("more seeds")
    assert condition("", np.array([0.02, 0.021, 0.019]), unit="", matters=0.01).tell == ""


def test_conditions_and_conclusions() -> None:
    def ask(values: list[float]) -> str:
        return condition("", np.array(values), unit="error", matters=0.01).answer

    assert ask([0.02, 0.021, 0.019]) == HOLDS
    assert ask([0.001, 0.002, 0.0015]) == DOES_NOT_HOLD  # above zero, but less than matters
    assert ask([0.05, -0.03, 0.02]) == CANNOT_TELL
    assert ask([0.5]) == CANNOT_TELL
    on_par = condition("", np.array([-0.002, 0.001, 0.0]), unit="error", above=-0.01, matters=-0.01)
    assert on_par.answer == HOLDS
    holds, fails, unknown = (
        Condition(what="", answer=a) for a in (HOLDS, DOES_NOT_HOLD, CANNOT_TELL)
    )
    assert conclude([holds, holds]) == HOLDS
    assert conclude([holds, unknown]) == CANNOT_TELL
    assert conclude([unknown, fails]) == DOES_NOT_HOLD
    assert conclude([]) == CANNOT_TELL


def a_verdict(claim: str, answer: Decision) -> Verdict:
    named = {"claim": claim, "statement": "It is so.", "primary": "a contrast", "arm": "transfer"}
    return Verdict(answer=answer, compared="two sizes", run_ids=("a", "b"), **named)


def test_verdicts_by_claim_are_a_mapping_a_table_and_a_text() -> None:
    found = Verdicts([a_verdict("C1", HOLDS), a_verdict("C2", CANNOT_TELL)])
    assert list(found) == ["C1", "C2"] and len(found) == 2 and "C3" not in found
    assert found["C2"].claim == "C2"
    with pytest.raises(KeyError):
        found["C3"]
    table = found.to_dataframe().set_index("claim")
    assert table["answer"].to_dict() == {"C1": "holds", "C2": "cannot tell"}
    assert {type(word) for word in table["answer"]} == {str}
    assert table["num_runs"].tolist() == [2, 2]
    assert str(found).splitlines() == [
        "C1  holds        –  It is so.",
        "C2  cannot tell  –  It is so.",
    ]


def test_decision_equals_and_prints_the_stored_word() -> None:
    assert [*Decision] == ["holds", "does not hold", "cannot tell", "not applicable"]
    assert {Decision.HOLDS: 1}["holds"] == 1 and f"{Decision.CANNOT_TELL}" == "cannot tell"


def _all(root: Path, truth: Truth, **grid: Any) -> Verdicts:
    measured(root, truth, **grid)
    return claims(load.open_study(root), **NEAR_FAR)
