"""The report's first sentence: made from verdicts, and from what single curves show at face value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import load
from analysis.claims.verdict import Verdict
from analysis.report import slices
from analysis.report.overview import answer
from analysis.report.slices import SliceSummary, summarise_slices
from tests import synthetic


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> tuple[load.Study, list[SliceSummary]]:
    root = tmp_path_factory.mktemp("answer")
    axes = {"source_tasks": ("near",), "seeds": (0, 1, 2), "label_noises": (0.0, 0.2)}
    synthetic.write(root, synthetic.small(num_epochs=60, frozen=(0, 2, 4, 6, 8, 9), **axes))
    study = load.open_study(root)
    return study, summarise_slices(study, slices.slices(study), 0.1)


def verdict(claim: str, word: str) -> Verdict:
    return Verdict(answer=word, compared="", claim=claim, statement="", primary="", arm="transfer")


def test_what_nothing_decides_is_said_at_face_value(
    summaries: tuple[load.Study, list[SliceSummary]],
) -> None:
    text = answer(*summaries, [verdict("C1", "cannot tell"), verdict("C4", "cannot tell")])
    assert text.startswith("At face value, over the frozen layers ")
    assert text.endswith("; with three seeds nothing is decided.")
    assert text.count(".") == 1


def test_the_counts_are_those_of_the_peaks(
    summaries: tuple[load.Study, list[SliceSummary]],
) -> None:
    could = face = 0
    for one in summaries[1]:
        for place in np.ndindex(one.freezing["at"].shape):
            peak = one.freezing.isel(dict(zip(one.freezing["at"].dims, place, strict=True)))
            could += bool(peak["could"])
            face += bool(peak["could"]) and bool(np.isfinite(peak["at"]))
    assert could > 0
    said = f"over the frozen layers {face or 'none'} of {could} curves peak near the edge"
    assert said in answer(*summaries, [verdict("C4", "cannot tell")])
    assert "without label noise and " in answer(*summaries, [])


def test_what_is_decided_is_said_in_words_with_its_claim(
    summaries: tuple[load.Study, list[SliceSummary]],
) -> None:
    words = [("C3", "holds"), ("C4", "does not hold"), ("C2", "cannot tell"), ("C9", "holds")]
    text = answer(*summaries, [verdict(*one) for one in words])
    assert text.startswith("Over the frozen layers the error does not descend twice near the edge")
    assert "; fewer frozen layers interpolate more images (C3); C9 holds; " in text
    assert text.endswith("; three seeds cannot tell C2.")


def test_without_rows_nothing_is_said(tmp_path: Path) -> None:
    runs = synthetic.small()
    synthetic.write(tmp_path, runs, absent=runs)
    study = load.open_study(tmp_path, partial=True)
    parts = summarise_slices(study, slices.slices(study), 0.1)
    assert answer(study, parts, []) == "No Run has rows yet: nothing can be said."
