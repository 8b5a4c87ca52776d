"""The first screen: the best cut on held-out seeds, double descent by the verdicts' rule, open claims."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis import load
from analysis.claims import claims
from analysis.claims.verdict import HOLDS, Condition, Verdict
from analysis.descent.intervals import mean_interval
from analysis.load.export import kept_names, kept_path
from analysis.report import slices
from analysis.report.answer import (
    best_choices,
    epoch_counts,
    first_screen,
    freezing_counts,
)
from analysis.report.slices import SliceSummary, distinguishing, summarise_slices
from analysis.surfaces.best_cut import held_out_errors
from tests import synthetic

Summarised = tuple[load.Study, list[SliceSummary]]


def summarised(root: Path, *, partial: bool = False) -> Summarised:
    study = load.open_study(root, partial=partial)
    return study, summarise_slices(study, slices.slices(study), 0.1)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Summarised:
    root = tmp_path_factory.mktemp("answer")
    axes = {"source_tasks": ("near",), "seeds": (0, 1, 2), "label_noises": (0.0, 0.2)}
    synthetic.write(root, synthetic.small(num_epochs=60, frozen=(0, 2, 4, 6, 8, 9), **axes))
    return summarised(root)


def verdict(claim: str, word: str) -> Verdict:
    return Verdict(answer=word, compared="", claim=claim, statement="", primary="", arm="transfer")


@pytest.mark.parametrize("name", kept_names())
def test_first_screen_of_bundled_study_agrees_with_its_verdicts(name: str) -> None:
    path = kept_path(name)
    assert path is not None
    study, summaries = summarised(path)
    verdicts = claims(study)
    screen = first_screen(study, summaries, list(verdicts.values()))
    c4 = verdicts["C4"].answer
    first = "C1" if "_epochs" in name else "C4"  # these have one cut only
    answer = verdicts[first].answer
    assert f"claim {first} {answer}" in screen.headline or f"{first}: {answer}" in screen.headline
    assert "face value" not in str(screen)
    # A circle of the map is a curve that the seeds show, and the counted curves are the circles.
    circles = sum(
        int(one.freezing["shown"].sel(source=[line.label for line in one.main]).sum())
        for one in summaries
    )
    counts = freezing_counts(summaries).values()
    assert sum(count.shown for count in counts) == circles
    if sum(count.could for count in counts) == 1:
        assert (circles == 1) == (c4 == HOLDS)
    elif c4 == HOLDS:
        assert circles > 0
    noises = {one.part.label_noise for one in summaries}
    if len(noises) == 1:
        (count,) = epoch_counts(summaries).values()
        assert f"{count.shown} of {count.could} curves over the epochs." in str(screen)


def test_held_out_errors_choose_on_the_other_seeds() -> None:
    errors = np.array([[0.1, 0.3], [0.3, 0.2], [0.3, 0.2]])
    # Seed 0: the others prefer choice 1; seeds 1 and 2: the others prefer choice 0 (0.2 against 0.25).
    assert held_out_errors(errors).tolist() == [0.3, 0.3, 0.3]
    # With equal choices, the lowest mean is too low.
    equal = np.random.default_rng(0).normal(0.5, 0.05, (400, 3, 20))
    assert np.mean([one.mean(axis=0).min() for one in equal]) < 0.46
    assert np.mean([held_out_errors(one).mean() for one in equal]) == pytest.approx(0.5, abs=0.01)


def test_first_screen_names_best_choice_and_baselines(tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.small(num_epochs=6, seeds=(0, 1, 2), controls=True))
    study, summaries = summarised(tmp_path)
    best = best_choices(summaries[0])[-1]
    assert " from near" in best.choice or " from far" in best.choice
    assert {"head only", "nothing frozen", "from scratch", "chance"} <= {
        *best.baselines,
        *best.choice.split(" from "),
    }
    assert best.baselines["chance"] == pytest.approx(0.9)
    end = summaries[0].end.sel(size=best.size)["test_error"]
    transfer = end.sel(source=[line.label for line in summaries[0].main]).mean("seed")
    assert best.error >= float(transfer.min())
    headline = first_screen(study, summaries, []).headline
    start = "Lowest test error of the transfer after the last epoch, with "
    assert headline.startswith(f"{start}{best.size:,} training images: {best.choice}, ")
    assert f"{best.error:.3f} ± {best.standard_error:.3f} on held-out seeds (" in headline
    assert "chance 0.900" in headline


@pytest.mark.parametrize(
    ("axes", "text", "absent"),
    [
        ({"seeds": (0,)}, "Which cut is best is not known from one seed.", "±"),
        # The count of a single curve is left to the verdict.
        ({"sizes": (250,), "frozen": (0, 4, 6, 8, 9)}, "test error", "over the frozen layers"),
    ],
)
def test_first_screen_omits_what_is_not_known(
    axes: dict[str, Any], text: str, absent: str, tmp_path: Path
) -> None:
    synthetic.write(tmp_path, synthetic.small(num_epochs=60, source_tasks=("near",), **axes))
    study, summaries = summarised(tmp_path)
    assert list(freezing_counts(summaries)) == [""]
    screen = str(first_screen(study, summaries, []))
    assert text in screen and absent not in screen


def test_first_screen_counts_curves_by_label_noise(noisy: Summarised) -> None:
    study, summaries = noisy
    text = str(first_screen(study, summaries, [verdict("C4", "cannot tell")]))
    counts = epoch_counts(summaries)
    assert set(counts) == {"without label noise", "with 20% label noise"}
    for name, one in counts.items():
        assert f"{one.shown} of {one.could} curves over the epochs {name}" in text
    assert sum(one.could for one in freezing_counts(summaries).values()) > 1


def test_first_screen_lists_decided_and_open_claims(noisy: Summarised) -> None:
    effect = mean_interval(np.array([0.02, 0.03, 0.025]))
    hint = "excluded so far: it still rises, so a peak may still come: more epochs would tell"
    so_far = Condition(what="", answer="cannot tell", tell=hint)
    open_claim = replace(verdict("C1", "cannot tell"), conditions=(so_far,))
    peak = replace(verdict("C4", "holds"), effect=effect, unit="error")
    given = [open_claim, verdict("C2", "cannot tell"), verdict("C3", "holds"), peak]
    screen = first_screen(*noisy, given)
    assert (
        "rises to a peak, near where the training set is just fitted, and falls again; the smaller of the "
        "two is 2.5 points, 95 % interval [1.3, 3.7] (claim C4 holds)."
    ) in screen.headline
    assert "Also decided: with fewer frozen layers, larger target sets are fitted (C3 holds)." in (
        screen.points
    )
    question = "whether the peak over the epochs is higher with more target images"
    assert f"Open: {question} (C1): no effect so far; more epochs would tell." in screen.points
    assert "C2" not in str(screen)  # the study has one source size


def test_first_screen_without_rows(tmp_path: Path) -> None:
    runs = synthetic.small()
    synthetic.write(tmp_path, runs, absent=runs)
    screen = first_screen(*summarised(tmp_path, partial=True), [])
    assert str(screen) == "No Run has rows yet: nothing can be said."


@pytest.mark.parametrize(
    ("titles", "words"),
    [
        (["cifar10, width 4, 400 epochs", "digits, width 8, 60 epochs"], ["cifar10", "digits"]),
        (["digits, width 4", "digits, width 8, noise 20%"], ["width 4", "width 8"]),
        (["a, width 4", "a, width 8", "b, width 4"], ["a, width 4", "a, width 8", "b, width 4"]),
        (["digits", "digits, noise 20%"], ["", "noise 20%"]),
        (["digits, width 4"], [""]),
    ],
)
def test_distinguishing_words_are_the_fewest_first_ones(
    titles: list[str], words: list[str]
) -> None:
    assert distinguishing([title.split(", ") for title in titles]) == words
