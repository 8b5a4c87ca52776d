"""Decide whether a study's verdicts are confirmatory or exploratory, and why.

Verdicts are confirmatory if the study was registered before its first target row and if Runs, contrasts,
thresholds and rules are still those of the registration.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from analysis.claims import primary
from analysis.descent import EPSILON, FIRST_DESCENT, MIN_SHARE, SEARCH, SEARCH_LEVEL
from analysis.descent.curves import TIE, WINDOWS_PER_DECADE
from analysis.descent.edges import NEAR_DECADES, NEAR_FACTOR, NEAR_FITTED, NEAR_TRAIN_ERROR
from analysis.descent.intervals import LEVEL
from analysis.descent.judge import BORROWED
from analysis.load import Study, arms
from analysis.load.export import is_kept, kept_verdicts
from analysis.load.rows import ExportRows, StoreRows
from study.store.studies import Registration, read_registrations

CONFIRMATORY: Final = "confirmatory"
EXPLORATORY: Final = "exploratory"

# The version of the rules. Raise it by hand when a verdict could change: an answer or one of its numbers.
# tests/analysis/test_results.py fails if a bundled verdict changes under the same RULES.
RULES: Final = 2

# Registrations of 0.1.0 store 8 hex digits over the sources of claims, descent and load.
RULES_OF_CODE: Final[Mapping[str, int]] = {"9d0ac35d": 1}

# Time and digest of registrations of bundled studies whose store was lost, when exports did not contain
# registrations yet. Times and digests were noted three hours after the registrations.
LOST_REGISTRATIONS: Final[Mapping[str, tuple[str, str]]] = {
    "reduced": ("2026-11-25 04:23:33", "946660295e48"),
    "reduced_noise": ("2026-11-25 04:23:42", "512e8709fe01"),
    "reduced_sources": ("2026-11-25 04:23:47", "189cab073b84"),
    "reduced_controls": ("2026-11-25 04:23:52", "df94e5f11d53"),
    "reduced_rates": ("2026-11-25 04:23:58", "833f45d9f376"),
}

# All named constants that decide a verdict. The keys are stored in registrations: keep a key even if its
# constant is renamed or moved.
CONSTANTS: Final[Mapping[str, Any]] = {
    "STATEMENT": primary.STATEMENT,
    "PRIMARY": primary.PRIMARY,
    "RIVALS": primary.RIVALS,
    "ERROR": primary.ERROR,
    "EPSILONS": primary.EPSILONS,
    "SLOWER": primary.SLOWER,
    "DOUBLING": primary.DOUBLING,
    "SCRATCH": arms.SCRATCH,
    "RANDOM_FROZEN": arms.RANDOM_FROZEN,
    "SAME_TASK": arms.SAME_TASK,
    "REINITIALISED": arms.REINITIALISED,
    "MATCHED_STEPS": arms.MATCHED_STEPS,
    "MIN_SHARE": MIN_SHARE,
    "FIRST_DESCENT": FIRST_DESCENT,
    "SEARCH": SEARCH,
    "SEARCH_LEVEL": SEARCH_LEVEL,
    "LEVEL": LEVEL,
    "BORROWED": BORROWED,
    "TIE": TIE,
    "NEAR_TRAIN_ERROR": NEAR_TRAIN_ERROR,
    "NEAR_DECADES": NEAR_DECADES,
    "NEAR_FACTOR": NEAR_FACTOR,
    "NEAR_FITTED": NEAR_FITTED,
    "WINDOWS_PER_DECADE": WINDOWS_PER_DECADE,
}

# Stored for readers of a registration, but not compared: rewording a text does not change a rule, and a
# change of a rule raises RULES.
_TEXTS: Final = frozenset({"STATEMENT", "PRIMARY", "RIVALS"})

# 1e-9 is far above a float's last bit (1e-16), which depends on the CPU, and far below any real change.
_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, kw_only=True)
class RegistrationStatus:
    """Whether verdicts are confirmatory, and why. `word`: CONFIRMATORY or EXPLORATORY."""

    word: str
    sentences: tuple[str, ...]


def terms_now(
    *,
    epsilon: float = EPSILON,
    more_related: str | None = None,
    less_related: str | None = None,
) -> dict[str, Any]:
    """Return the terms that a registration stores, as plain values.

    The terms are RULES, CONSTANTS, and this study's `epsilon` and sources.
    """
    constants: dict[str, Any] = json.loads(json.dumps(CONSTANTS, allow_nan=False))
    return constants | {
        "epsilon": epsilon,
        "more_related": more_related,
        "less_related": less_related,
        "rules": RULES,
    }


def registration_status(
    study: Study,
    *,
    epsilon: float = EPSILON,
    more_related: str | None = None,
    less_related: str | None = None,
) -> RegistrationStatus:
    """Compare this study's verdicts with the registration in its store or export.

    Raises:
        Damaged, Newer: if the registration cannot be read.
    """
    rows = study.rows
    kept = is_kept(rows, study.name)
    if kept and study.name in LOST_REGISTRATIONS:
        at, digest = LOST_REGISTRATIONS[study.name]
        sentence = (
            f"It was registered at {at} UTC ({digest}), before its first row: confirmatory by RULES 1, "
            f"exploratory by RULES {RULES}; of the registration, only its time and digest are left."
        )
        return RegistrationStatus(
            word=EXPLORATORY, sentences=(sentence, *_earlier_answers(study.name, 1))
        )
    if isinstance(rows, StoreRows):
        noted: Sequence[Registration] = read_registrations(rows.store, study.name)
    elif isinstance(rows, ExportRows) and rows.registrations is not None:
        noted = rows.registrations
    else:
        return RegistrationStatus(
            word=EXPLORATORY,
            sentences=("Whether it was registered is not known: this table has no registrations.",),
        )
    terms = terms_now(epsilon=epsilon, more_related=more_related, less_related=less_related)
    found = compare_with_registration(noted, [run.id for run in study.wanted], terms)
    rules = _rules(noted[-1].terms) if noted else None
    if kept and rules not in (None, RULES):
        found = replace(found, sentences=(*found.sentences, *_earlier_answers(study.name, rules)))
    return found


def _earlier_answers(study: str, rules: int) -> tuple[str, ...]:
    """Return the primary answers of a bundled study by earlier RULES, as a sentence."""
    before = kept_verdicts(study, rules)
    if before is None:
        return ()
    primary_only = before[before["kind"] == "primary"]
    return (
        f"By RULES {rules}: {', '.join(primary_only['claim'] + ' ' + primary_only['answer'])}.",
    )


def compare_with_registration(
    registrations: Sequence[Registration], run_ids: Sequence[str], terms: Mapping[str, Any]
) -> RegistrationStatus:
    """Compare Runs and terms with the last registration.

    `run_ids`: the Runs of the study now; `terms`: see `terms_now`.
    """
    if not registrations:
        return RegistrationStatus(
            word=EXPLORATORY, sentences=("The study was not registered before its first row.",)
        )
    last = registrations[-1]
    said = f"registered at {last.registered_at} ({last.digest})"
    if last.is_late:
        return RegistrationStatus(
            word=EXPLORATORY,
            sentences=(f"It was {said}, too late: target rows already existed.",),
        )
    changed = _changed(last, run_ids, terms)
    if changed:
        sentences = [f"It was {said}. Changed since: {'; '.join(changed)}."]
        rules = _rules(last.terms)
        if rules is not None and not _changed(last, run_ids, {**terms, "rules": rules}):
            now = terms["rules"]
            sentences.append(f"Confirmatory by RULES {rules}, exploratory by RULES {now}.")
        return RegistrationStatus(word=EXPLORATORY, sentences=tuple(sentences))
    return RegistrationStatus(
        word=CONFIRMATORY, sentences=(f"It was {said}, before its first row.",)
    )


def _changed(
    registered: Registration, run_ids: Sequence[str], terms: Mapping[str, Any]
) -> list[str]:
    found = changed_terms(registered.terms, terms)
    added = len(set(run_ids) - set(registered.run_ids))
    gone = len(set(registered.run_ids) - set(run_ids))
    if added or gone:
        found.append(f"the Runs: {added} added, {gone} left out")
    return found


def changed_terms(registered: Mapping[str, Any], terms: Mapping[str, Any]) -> list[str]:
    """Return one phrase for each difference between the terms of a registration and `terms`.

    Rules are compared by RULES, numbers within a tolerance, texts not at all.
    """
    found = []
    if _rules(registered) != terms["rules"]:
        found.append(f"{_rules_text(registered)}, now {terms['rules']}")
    # Registrations of earlier releases lack later constants. RULES is raised if these change a verdict.
    for name in sorted(registered.keys() - _TEXTS - {"rules", "code"}):
        before, now = registered[name], terms.get(name)
        if not _same(before, now):
            found.append(f"{name}: {before!r}, now {now!r}")
    return found


def _rules(terms: Mapping[str, Any]) -> int | None:
    """Return the registered RULES; None if they are not stored and the digest of the code is unknown."""
    found: int | None = terms.get("rules", RULES_OF_CODE.get(terms.get("code", "")))
    return found


def _rules_text(terms: Mapping[str, Any]) -> str:
    rules = _rules(terms)
    if rules is None:
        return f"the rules: unknown (code {terms.get('code')})"
    return f"the rules: {rules}"


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(_same, before, now))
    if isinstance(before, int | float) and isinstance(now, int | float):
        return math.isclose(before, now, rel_tol=_TOLERANCE)
    return bool(before == now)
