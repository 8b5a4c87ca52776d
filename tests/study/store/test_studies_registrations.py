"""What a study is to be judged by: noted, read again, and damage named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from study.store import Damaged, Registration, Store, read_registrations, study_names
from study.store.studies import add_registration

FIRST = Registration(
    registered_at="2026-01-01T00:00:00+00:00",
    is_late=False,
    run_ids=("0" * 12, "1" * 12),
    terms={"epsilon": 0.1, "PRIMARY": {"C1": "a contrast"}},
)


def test_registrations_lie_beside_each_other_oldest_first(empty: Store) -> None:
    assert read_registrations(empty, "mine") == []
    later = replace(FIRST, is_late=True, run_ids=("0" * 12,))
    for one in (FIRST, later):
        add_registration(empty, "mine", one)
    assert read_registrations(empty, "mine") == [FIRST, later]
    assert study_names(empty) == []


def test_a_digest_is_of_runs_and_terms_alone() -> None:
    assert FIRST.digest == replace(FIRST, registered_at="later", is_late=True).digest
    assert FIRST.digest != replace(FIRST, run_ids=FIRST.run_ids[:1]).digest
    assert FIRST.digest != replace(FIRST, terms={**FIRST.terms, "epsilon": 0.2}).digest


def test_an_altered_registration_is_damaged(empty: Store) -> None:
    add_registration(empty, "mine", FIRST)
    file = Path(empty.base, "registrations", "mine.json")
    file.write_text(file.read_text().replace("0.1", "0.2"))
    with pytest.raises(Damaged, match=r"registrations/mine\.json"):
        read_registrations(empty, "mine")
