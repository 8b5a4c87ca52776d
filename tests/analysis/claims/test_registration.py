"""Confirmatory is only what was said before a row was there, and has not changed since."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from analysis.claims import primary
from analysis.claims.registration import CONFIRMATORY, EXPLORATORY, standing, terms_now
from study.store import Registration

IDS = ("0" * 12, "1" * 12)
TERMS = terms_now(more_related="near", less_related="far")
NOTED = Registration(
    registered_at="2026-01-01T00:00:00+00:00", is_late=False, run_ids=IDS, terms=TERMS
)


def test_what_was_registered_and_has_not_changed_is_confirmatory() -> None:
    found = standing([NOTED], IDS, terms_now(more_related="near", less_related="far"))
    assert found.word == CONFIRMATORY
    assert NOTED.registered_at in found.sentences[0] and NOTED.digest in found.sentences[0]


def test_without_a_registration_or_with_a_late_one_all_is_exploratory() -> None:
    assert standing([], IDS, TERMS).word == EXPLORATORY
    late = standing([NOTED, replace(NOTED, is_late=True)], IDS, TERMS)
    assert late.word == EXPLORATORY and "late" in late.sentences[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epsilon": 0.01}, "epsilon: 0.1, now 0.01"),
        ({"less_related": "other"}, "less_related: 'far', now 'other'"),
        ({"code": "x"}, "the code that decides"),
        ({"PRIMARY": {**primary.PRIMARY, "C4": "another"}}, "PRIMARY of C4"),
        ({"ERROR": 0.02}, "ERROR: 0.01, now 0.02"),
    ],
)
def test_what_changed_since_is_named(change: dict[str, Any], said: str) -> None:
    found = standing([NOTED], IDS, {**TERMS, **change})
    assert found.word == EXPLORATORY
    assert any(said in sentence for sentence in found.sentences)


def test_added_and_dropped_runs_are_counted() -> None:
    found = standing([NOTED], (*IDS[1:], "2" * 12, "3" * 12), TERMS)
    assert found.word == EXPLORATORY
    assert "the Runs: 2 added, 1 left out" in found.sentences


def test_the_terms_hold_every_threshold_of_the_claims() -> None:
    assert {"PRIMARY", "ERROR", "SLOWER", "DOUBLING", "epsilon", "code"} <= TERMS.keys()
