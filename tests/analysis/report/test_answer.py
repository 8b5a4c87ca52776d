"""The report's first sentence: made from verdicts, and from what single curves show at face value."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis import load
from analysis.claims.verdict import Verdict
from analysis.report import slices
from analysis.report.overview import answer
from analysis.report.slices import Seen, seen
from tests import synthetic


@pytest.fixture(scope="module")
def sights(tmp_path_factory: pytest.TempPathFactory) -> tuple[load.Study, list[Seen]]:
    root = tmp_path_factory.mktemp("answer")
    axes = {"source_tasks": ("near",), "seeds": (0, 1, 2), "label_noises": (0.0, 0.2)}
    synthetic.write(root, synthetic.small(num_epochs=60, frozen=(0, 2, 4, 6, 8, 9), **axes))
    study = load.open_study(root)
    return study, seen(study, slices.slices(study), 0.1)


def verdict(claim: str, word: str) -> Verdict:
    return Verdict(answer=word, compared="", claim=claim, statement="", primary="", arm="transfer")


def test_what_nothing_decides_is_said_at_face_value(
    sights: tuple[load.Study, list[Seen]],
) -> None:
    text = answer(*sights, [verdict("C1", "cannot tell"), verdict("C4", "cannot tell")])
    assert text.startswith("At face value, over the frozen layers ")
    assert text.endswith("; with three seeds nothing is decided.")
    assert text.count(".") == 1


def test_the_counts_are_those_of_the_peaks(sights: tuple[load.Study, list[Seen]]) -> None:
    could = face = 0
    for one in sights[1]:
        for place in np.ndindex(one.freezing["at"].shape):
            peak = one.freezing.isel(dict(zip(one.freezing["at"].dims, place, strict=True)))
            could += bool(peak["could"])
            face += bool(peak["could"]) and bool(np.isfinite(peak["at"]))
    assert could > 0
    said = f"over the frozen layers {face or 'none'} of {could} curves peak near the edge"
    assert said in answer(*sights, [verdict("C4", "cannot tell")])
    assert "without label noise and " in answer(*sights, [])


def test_what_is_decided_is_said_in_words_with_its_claim(
    sights: tuple[load.Study, list[Seen]],
) -> None:
    words = [("C3", "holds"), ("C4", "does not hold"), ("C2", "cannot tell"), ("C9", "holds")]
    text = answer(*sights, [verdict(*one) for one in words])
    assert text.startswith("Over the frozen layers the error does not descend twice near the edge")
    assert "; fewer frozen layers interpolate more images (C3); C9 holds; " in text
    assert text.endswith("; three seeds cannot tell C2.")


def test_without_rows_nothing_is_said(tmp_path: Path) -> None:
    runs = synthetic.small()
    synthetic.write(tmp_path, runs, absent=runs)
    study = load.open_study(tmp_path, partial=True)
    parts = seen(study, slices.slices(study), 0.1)
    assert answer(study, parts, []) == "No Run has rows yet: nothing can be said."
