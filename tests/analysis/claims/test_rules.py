"""The rules of RULES 2 on planted curves, and how stable the verdict of C4 is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import load
from analysis.claims.contrasts import crossing, measure, of_arm, one_image
from analysis.claims.one_source import ask_c2, ask_c3, c2, decide_c1, decide_c4
from analysis.claims.pooled_curves import OneCurve, freezing_curves, pooled
from analysis.claims.primary import ERROR
from analysis.claims.verdict import CANNOT_TELL, DOES_NOT_HOLD, HOLDS, Answer, condition
from analysis.claims.verdicts import condition_text
from analysis.descent import EPSILON, Rule
from analysis.descent.edges import EPOCHS as ALONG_EPOCHS
from analysis.descent.edges import Curve
from analysis.load.arms import TRANSFER
from analysis.load.export import kept_path
from tests.power.studies import CUTS, Cell, capacities, over_cuts, paces

STEP = 1e-4


def answers_c4(test: np.ndarray, edge: int, *, num: int, num_seeds: int, sd: float) -> list[Answer]:
    random = np.random.default_rng(0)
    train = np.where(np.arange(CUTS.size) < edge, 0.4, 0.0)
    cells = [Cell(where={}, test=test, train=train, sd=sd)]
    return [decide_c4(over_cuts(random, cells, num_seeds), EPSILON, STEP, "") for _ in range(num)]


def with_second_bump(extra: float) -> np.ndarray:
    """A peak of 5 points at the fifth cut, and a bump three cuts past it that is higher by `extra`."""
    curve = np.array([0.30, 0.30, 0.32, 0.34, 0.35, 0.345, 0.34, 0.35, 0.32, 0.30])
    curve[7] += extra
    return curve


@pytest.mark.parametrize(
    ("extra", "num_seeds", "sd", "answer", "share", "phrase"),
    [
        (-0.002, 5, 0.005, HOLDS, 0.97, ""),
        (0.0, 5, 0.005, HOLDS, 0.97, ""),
        (0.002, 5, 0.005, HOLDS, 0.97, ""),
        (0.03, 5, 0.005, DOES_NOT_HOLD, 0.75, "higher than any peak near the edge by 0.0"),
        (0.02, 3, 0.01, CANNOT_TELL, 0.6, "the seeds cannot tell whether its peak"),
    ],
)
def test_c4_second_bump_far_from_the_edge_counts_if_it_is_higher(
    extra: float, num_seeds: int, sd: float, answer: str, share: float, phrase: str
) -> None:
    """A peak of 5 points at the fifth cut, and a bump three cuts past it, higher by `extra`."""
    curve = np.array([0.30, 0.30, 0.32, 0.34, 0.35, 0.345, 0.34, 0.35 + extra, 0.32, 0.30])
    found = answers_c4(curve, 4, num=60, num_seeds=num_seeds, sd=sd)
    words = Counter(one.answer for one in found)
    assert words[answer] >= share * 60
    assert extra != 0.03 or words[HOLDS] == 0
    texts = [str(one.reasons) + str(one.conditions) for one in found if one.answer == answer]
    assert any(phrase in text for text in texts)


def test_c4_level_stretch_is_reported_as_a_plateau() -> None:
    curve = np.array([0.30, 0.30, 0.32, 0.33, 0.35, 0.35, 0.35, 0.35, 0.32, 0.30])
    (found,) = answers_c4(curve, 4, num=1, num_seeds=5, sd=0.002)
    level = "level from 16,000 to 128,000 trained parameters, then it falls"
    assert found.answer == HOLDS
    assert level in found.conditions[0].what


EPOCHS = 10.0 ** np.arange(0, 4.51, 0.25)


def answer_c1(smaller: np.ndarray, larger: np.ndarray, *, num_seeds: int, sd: float) -> Answer:
    """C1 from one cell of two sizes whose train errors are 0.1 at epoch 100."""
    random = np.random.default_rng(0)
    train = np.interp(np.log10(EPOCHS), [0, 1, 2, 2.5], [0.9, 0.5, 0.1, 0.0])
    train = np.tile(train, (num_seeds, 1))
    pair = []
    for test in (smaller, larger):
        values = test + sd * random.standard_normal((num_seeds, EPOCHS.size))
        curve = Curve(x=EPOCHS, test=values, train=train, start=np.full(num_seeds, 0.9))
        pair.append(OneCurve(name="", curve=curve, run_ids=dict.fromkeys(range(num_seeds), ())))
    found = pooled([pair], Rule(min_height=ERROR, resolution=STEP), axis=ALONG_EPOCHS)
    assert found is not None
    return decide_c1(*found, "", epsilon=EPSILON, step=STEP)


def over(epochs: list[float], errors: list[float]) -> np.ndarray:
    return np.interp(np.log10(EPOCHS), np.log10(epochs), errors)


DESCENT = over([1, 20, 100, 3_000, 30_000], [0.9, 0.30, 0.40, 0.32, 0.32])
LEVEL = over([1, 20, 100, 30_000], [0.9, 0.40, 0.45, 0.45])
RISING = over([1, 20, 100, 30_000], [0.9, 0.40, 0.45, 0.55])


@pytest.mark.parametrize(
    ("smaller", "larger", "sd", "answer", "phrase"),
    [
        (LEVEL, DESCENT, 0.004, HOLDS, ""),
        (RISING, DESCENT, 0.004, CANNOT_TELL, "its test error still rises at its end"),
        (LEVEL, LEVEL, 0.001, DOES_NOT_HOLD, ""),
        (LEVEL, RISING, 0.001, CANNOT_TELL, "excluded so far: it still rises at its end"),
    ],
)
def test_c1_is_decided_only_if_no_curve_rises_at_its_end(
    smaller: np.ndarray, larger: np.ndarray, sd: float, answer: str, phrase: str
) -> None:
    found = answer_c1(smaller, larger, num_seeds=5, sd=sd)
    assert found.answer == answer, found.reasons
    assert phrase in found.conditions[0].tell
    if answer != HOLDS:
        assert found.effect is not None and (found.effect.high < ERROR) == (smaller is LEVEL)


def test_crossing_interpolates_log_epoch_between_evaluations() -> None:
    epochs, train = np.array([0.0, 1, 10, 100]), np.array([0.9, 0.5, 0.3, 0.1])
    assert crossing(epochs, train, 0.2) == (pytest.approx(10**1.5), pytest.approx(1.0))
    assert crossing(epochs, train, 0.1)[0] == pytest.approx(100)
    assert crossing(epochs, train, 0.6)[0] == 1.0  # no evaluation before it on the log axis
    assert crossing(epochs, train, 0.05)[0] == np.inf


def words_c2(times: float) -> Counter[str]:
    """C2 in 25 studies of ten seeds whose evaluations are 12 % apart."""
    random = np.random.default_rng(0)
    found = [paces(random, float(np.log10(times)), 10, 0.005, 0.05) for _ in range(25)]
    return Counter(ask_c2(one, one.lines, TRANSFER).answer for one in found)


def test_c2_coarse_evaluations_do_not_decide() -> None:
    assert words_c2(1.02)[HOLDS] == 0
    assert words_c2(1.12)[DOES_NOT_HOLD] == 0


@pytest.mark.parametrize(
    ("larger", "smaller", "answer", "interval", "phrase"),
    [
        # On two sides of a size, but not a doubling apart.
        (505.0, 495.0, CANNOT_TELL, (0, 1, 2), ""),
        (90_000.0, 1_100.0, HOLDS, None, "≥ 3 doublings in 10 of 10 replicates"),
    ],
)
def test_c3_sizes_studied_limit_what_is_known_of_capacities(
    larger: float, smaller: float, answer: str, interval: tuple[int, ...] | None, phrase: str
) -> None:
    measures = capacities(np.random.default_rng(0), larger, smaller, 10, 0.002)
    found = ask_c3(measures, measures.lines, TRANSFER)
    assert found.answer == answer and phrase in " ".join(found.reasons)
    if interval:
        effect = found.effect
        assert effect is not None
        assert (effect.low, effect.estimate, effect.high) == interval


@given(st.lists(st.floats(-0.1, 0.1), min_size=1, max_size=8), st.sampled_from([0.0, 0.5]))
def test_condition_text_has_no_infinity_or_hopeless_seeds(values: list[float], grid: float) -> None:
    found = condition("", np.array(values), unit="error", matters=0.01, grid=grid)
    text = condition_text(found)
    assert "inf" not in text and "not even" not in text
    assert found.interval is not None
    is_near = abs(found.interval.estimate - 0.01) <= found.interval.standard_error
    assert not (is_near and "about" in found.tell)


@pytest.mark.parametrize(("last", "warned"), [(0.97, True), (0.6, False)])
def test_c2_rising_error_above_090_warns_of_an_accuracy(last: float, warned: bool) -> None:
    test = np.interp(np.arange(30), [0, 8, 29], [0.4, last, last])
    columns = {"test_error": test, "train_error": np.linspace(0.5, 0.0, 30)}
    one = pd.DataFrame(columns | {"epoch": np.arange(1, 31), "source_task": "photos"})
    frame = pd.concat(one.assign(seed=seed, test_error=test + seed / 1_000) for seed in range(5))
    named = {name: name for name in frame.columns}
    study = load.from_dataframe(frame, named, constants={"task": "digits", "source_size": 1_000})
    reasons = str(c2(measure(study)).reasons)
    assert ("Check that it is no accuracy" in reasons) == warned
    assert "seed is fixed" not in reasons  # this table does not contain the source's seed


def of_seeds(one: OneCurve, seeds: list[int]) -> OneCurve:
    rows = [list(one.run_ids).index(seed) for seed in seeds]
    test, train, start = (
        values[rows] for values in (one.curve.test, one.curve.train, one.curve.start)
    )
    curve = Curve(x=one.curve.x, test=test, train=train, start=start)
    return OneCurve(name=one.name, curve=curve, run_ids={seed: one.run_ids[seed] for seed in seeds})


def test_c4_random_halves_of_the_seeds_of_reduced_agree() -> None:
    path = kept_path("reduced")
    assert path is not None
    lines = of_arm(measure(load.open_study(path)).lines, TRANSFER)
    lines = lines[lines["label_noise"] == lines["label_noise"].max()]
    curves, step = freezing_curves(lines), one_image(lines)
    random, words = np.random.default_rng(0), Counter[str]()
    for _ in range(60):
        half = random.choice(list(curves[0].run_ids), 5, replace=False).tolist()
        words[decide_c4([of_seeds(one, half) for one in curves], EPSILON, step, "").answer] += 1
    assert max(words.values()) >= 57
