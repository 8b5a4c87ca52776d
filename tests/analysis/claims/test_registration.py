"""Confirmatory is only what was said before a row was there, and has not changed since."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis import load
from analysis.claims import primary
from analysis.claims.registration import (
    CONFIRMATORY,
    EXPLORATORY,
    standing,
    standing_of,
    terms_now,
)
from analysis.load.export import export
from study.store import Registration, open_store
from study.store.registrations import add_registration
from tests import synthetic

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


def test_an_export_takes_the_registrations_along(tmp_path: Path) -> None:
    wanted = synthetic.small()
    synthetic.write(tmp_path / "store", wanted)
    store, file = open_store(tmp_path / "store"), tmp_path / "study.parquet"
    export(store, "synthetic", file)
    assert "not registered" in standing_of(load.open(file)).sentences[0]
    noted = replace(NOTED, run_ids=tuple(run.id for run in wanted), terms=terms_now())
    add_registration(store, "synthetic", noted)
    export(store, "synthetic", file)
    there, exported = (
        standing_of(load.open(root, "synthetic")) for root in (tmp_path / "store", file)
    )
    assert exported == there
    assert exported.word == CONFIRMATORY


def test_an_export_of_before_registrations_were_noted_does_not_know() -> None:
    old = load.open(Path(__file__).parents[2] / "fixtures" / "export-0.1.0.parquet", partial=True)
    assert standing_of(old).word == EXPLORATORY
    assert "not known here" in standing_of(old).sentences[0]
