"""Verdicts are confirmatory if they were registered before the first row and nothing changed."""

from __future__ import annotations

import ast
import importlib
import json
import math
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import analysis.claims
import analysis.descent
from analysis import load
from analysis.claims import primary
from analysis.claims.registration import (
    CONFIRMATORY,
    CONSTANTS,
    EXPLORATORY,
    RULES,
    compare_with_registration,
    registration_status,
    terms_now,
)
from analysis.load.export import export, kept_path
from analysis.load.rows import ExportRows
from study.store import Registration, open_store
from study.store.studies import add_registration
from tests import synthetic

IDS = ("0" * 12, "1" * 12)
TERMS = terms_now(more_related="near", less_related="far")
NOTED = Registration(
    registered_at="2026-01-01T00:00:00+00:00", is_late=False, run_ids=IDS, terms=TERMS
)


def test_registration_without_changes_is_confirmatory() -> None:
    found = compare_with_registration([NOTED], IDS, TERMS)
    assert found.word == CONFIRMATORY
    assert NOTED.registered_at in found.sentences[0] and NOTED.digest in found.sentences[0]


def test_registration_missing_or_late_is_exploratory() -> None:
    assert compare_with_registration([], IDS, TERMS).word == EXPLORATORY
    late = compare_with_registration([NOTED, replace(NOTED, is_late=True)], IDS, TERMS)
    assert late.word == EXPLORATORY and "late" in late.sentences[0]


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"epsilon": 0.01}, "epsilon: 0.1, now 0.01"),
        ({"less_related": "other"}, "less_related: 'far', now 'other'"),
        ({"rules": RULES + 1}, f"the rules: {RULES}, now {RULES + 1}"),
        ({"SEARCH": 3.5}, "SEARCH: 3.75, now 3.5"),
        ({"ERROR": 0.02}, "ERROR: 0.01, now 0.02"),
        ({"SLOWER": 0.0414}, "SLOWER"),
        ({"SLOWER": math.nextafter(TERMS["SLOWER"], 1)}, ""),  # another CPU's last bit
        ({"EPSILONS": [math.nextafter(each, 1) for each in TERMS["EPSILONS"]]}, ""),
        ({"PRIMARY": {**primary.PRIMARY, "C4": "the same in other words"}}, ""),
    ],
)
def test_registration_changed_term_is_named(change: dict[str, Any], phrase: str) -> None:
    found = compare_with_registration([NOTED], IDS, {**TERMS, **change})
    assert found.word == (EXPLORATORY if phrase else CONFIRMATORY)
    assert any(phrase in sentence for sentence in found.sentences)


def test_registration_added_and_dropped_runs_are_counted() -> None:
    found = compare_with_registration([NOTED], (*IDS[1:], "2" * 12, "3" * 12), TERMS)
    assert found.word == EXPLORATORY
    assert found.sentences[0].endswith("Changed since: the Runs: 2 added, 1 left out.")


# Raise RULES in analysis/claims/registration.py before any of these numbers changes.
NUMBERS = {
    "ERROR": 0.01,
    "EPSILONS": (0.001, 0.01, 0.05, 0.1),
    "SLOWER": 0.04139268515822507,
    "DOUBLING": 1.0,
    "MIN_SHARE": 0.02,
    "FIRST_DESCENT": 0.1,
    "SEARCH": 3.75,
    "SEARCH_LEVEL": 0.98,
    "LEVEL": 0.95,
    "BORROWED": 2,
    "TIE": 1e-9,
    "NEAR_TRAIN_ERROR": 0.3,
    "NEAR_DECADES": 0.5,
    "NEAR_FACTOR": 1.5,
    "NEAR_FITTED": 0.002,
    "WINDOWS_PER_DECADE": 4,
}
# They are used to plan a study or in a hint; no answer and no interval depends on them.
OF_NO_VERDICT = {
    "MAX_ERROR",
    "MAX_SEEDS",
    "POWER",
    "SURE",
    "MOST",
    "PARTS_PER_DECADE",  # strong or weak, by `judge_epochs`
    "NAMED",
    "RULES",
    "RULES_OF_CODE",
}


def test_terms_are_the_constants_under_the_same_rules() -> None:
    assert RULES == 2, "RULES was raised: set the numbers above and here to those of the new rules"
    assert {name: value for name, value in CONSTANTS.items() if _is_number(value)} == NUMBERS
    # No term depends on the source code, so an edited docstring changes nothing.
    of_the_study = {"epsilon": 0.1, "more_related": "near", "less_related": "far", "rules": RULES}
    assert json.loads(json.dumps(CONSTANTS)) | of_the_study == TERMS


def _is_number(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_number, value))
    if isinstance(value, Mapping):
        return all(map(_is_number, value.values()))
    return isinstance(value, int | float)


def _named_numbers() -> Iterator[str]:
    for package in (analysis.claims, analysis.descent):
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            assert module.__file__ is not None
            for line in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    name = line.target.id
                    if name.isupper() and not name.startswith("_"):
                        yield from [name] if _is_number(vars(module)[name]) else []


def test_terms_hold_every_named_number_of_the_rules() -> None:
    assert set(_named_numbers()) - OF_NO_VERDICT - {"EPSILON"} == NUMBERS.keys()


@pytest.mark.parametrize("name", ["reduced_densenet", "reduced_vit"])
def test_registration_of_rules_1_reports_both_verdicts(name: str) -> None:
    path = kept_path(name)
    assert path is not None
    study = load.open_study(path)
    assert isinstance(study.rows, ExportRows) and study.rows.registrations
    assert study.rows.registrations[-1].terms["code"] == "9d0ac35d"
    found = registration_status(study)
    assert found.word == EXPLORATORY
    assert found.sentences[0].endswith(f"Changed since: the rules: 1, now {RULES}.")
    assert found.sentences[1] == f"{BY_RULES} RULES {RULES}."
    assert "By RULES 1: C1 cannot tell, C2 cannot tell, C3" in found.sentences[2]


BY_RULES = "Confirmatory by RULES 1, exploratory by"


@pytest.mark.parametrize(
    ("code", "rules", "sentences"),
    [
        ("9d0ac35d", 1, [", before its first row."]),
        ("9d0ac35d", 2, ["Changed since: the rules: 1, now 2.", f"{BY_RULES} RULES 2."]),
        ("01234567", 2, ["Changed since: the rules: unknown (code 01234567), now 2."]),
    ],
)
def test_registration_of_0_1_0_has_the_rules_of_its_digest(
    code: str, rules: int, sentences: list[str]
) -> None:
    stored = [*vars(primary), "epsilon", "more_related", "less_related"]
    terms = {name: value for name, value in TERMS.items() if name in stored} | {"code": code}
    found = compare_with_registration([replace(NOTED, terms=terms)], IDS, TERMS | {"rules": rules})
    assert found.word == (CONFIRMATORY if rules == 1 else EXPLORATORY)
    for sentence, end in zip(found.sentences, sentences, strict=True):
        assert sentence.endswith(end)


def test_export_contains_the_registrations(tmp_path: Path) -> None:
    wanted = synthetic.small()
    synthetic.write(tmp_path / "store", wanted)
    store, file = open_store(tmp_path / "store"), tmp_path / "study.parquet"
    export(store, "synthetic", file)
    assert "not registered" in registration_status(load.open_study(file)).sentences[0]
    noted = replace(NOTED, run_ids=tuple(run.id for run in wanted), terms=terms_now())
    add_registration(store, "synthetic", noted)
    export(store, "synthetic", file)
    there, exported = (
        registration_status(load.open_study(root, "synthetic"))
        for root in (tmp_path / "store", file)
    )
    assert exported == there
    assert exported.word == CONFIRMATORY


def test_export_of_0_1_0_has_no_registrations() -> None:
    old = load.open_study(
        Path(__file__).parents[2] / "fixtures" / "export-0.1.0.parquet", partial=True
    )
    assert registration_status(old).word == EXPLORATORY
    assert "not known" in registration_status(old).sentences[0]
