"""Whether a study was registered before it was looked at: confirmatory, or exploratory and why.

Owns what counts as the terms of a verdict: every named constant of `primary`, the thresholds of
interpolation, the two sources that are compared, and the version of the code that decides (claims,
descent, load). The registration itself lies in the store, and in an export of it; the verb
`study register` writes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from analysis.claims import primary
from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.rows import ExportRows, StoreRows
from study.fields import canonical_json, digest_of
from study.store.registrations import Registration, read_registrations

CONFIRMATORY: Final = "confirmatory"
EXPLORATORY: Final = "exploratory"

# What decides a verdict, of this package.
DECIDE: Final = ("claims", "descent", "load")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a reader must know of when the rules were written. `word`: CONFIRMATORY or EXPLORATORY."""

    word: str
    sentences: tuple[str, ...]


def terms_now(
    *,
    epsilon: float = EPSILON,
    more_related: str | None = None,
    less_related: str | None = None,
) -> dict[str, Any]:
    """By what a study would be judged today, as plain values."""
    constants = {name: value for name, value in vars(primary).items() if name.isupper()}
    plain: dict[str, Any] = json.loads(json.dumps(constants, allow_nan=False))
    return plain | {
        "epsilon": epsilon,
        "more_related": more_related,
        "less_related": less_related,
        "code": _code(),
    }


def standing_of(
    study: Study,
    *,
    epsilon: float = EPSILON,
    more_related: str | None = None,
    less_related: str | None = None,
) -> Standing:
    """How verdicts on this study stand to what its store, or its export, says of its registration.

    Raises Damaged, Newer where the registration cannot be read.
    """
    rows = study.rows
    if isinstance(rows, StoreRows):
        noted: Sequence[Registration] = read_registrations(rows.store, study.name)
    elif isinstance(rows, ExportRows) and rows.registrations is not None:
        noted = rows.registrations
    else:
        return Standing(
            word=EXPLORATORY,
            sentences=("Whether it was registered is not known here: that stands in its store.",),
        )
    terms = terms_now(epsilon=epsilon, more_related=more_related, less_related=less_related)
    return standing(noted, [run.id for run in study.wanted], terms)


def standing(
    registrations: Sequence[Registration], run_ids: Sequence[str], terms: Mapping[str, Any]
) -> Standing:
    """How these verdicts stand to what was registered: the last registration counts.

    `run_ids`: the Runs that the study wants now; `terms`: as `terms_now` gives them.
    """
    if not registrations:
        return Standing(
            word=EXPLORATORY, sentences=("The study was not registered before its first row.",)
        )
    last = registrations[-1]
    said = f"registered at {last.registered_at} ({last.digest})"
    if last.is_late:
        return Standing(
            word=EXPLORATORY,
            sentences=(f"It was {said}, when targets of it had rows already: late.",),
        )
    changed = _changed(last, run_ids, terms)
    if changed:
        return Standing(
            word=EXPLORATORY, sentences=(f"It was {said}; since then changed:", *changed)
        )
    return Standing(word=CONFIRMATORY, sentences=(f"It was {said}, before its first row.",))


def _changed(
    registered: Registration, run_ids: Sequence[str], terms: Mapping[str, Any]
) -> list[str]:
    found = []
    for name in sorted(registered.terms.keys() | terms.keys()):
        before, now = registered.terms.get(name), terms.get(name)
        if canonical_json(before) != canonical_json(now):
            found.append(_change(name, before, now))
    added = len(set(run_ids) - set(registered.run_ids))
    gone = len(set(registered.run_ids) - set(run_ids))
    if added or gone:
        found.append(f"the Runs: {added} added, {gone} left out")
    return found


def _change(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
        return f"{name} of {', '.join(keys)}"
    if name == "code":
        return f"the code that decides: {before}, now {now}"
    return f"{name}: {before!r}, now {now!r}"


def _code() -> str:
    """8 hex digits over the sources of DECIDE."""
    folder = Path(__file__).parents[1]
    sources = {
        path.relative_to(folder).as_posix(): digest_of(path.read_bytes().replace(b"\r\n", b"\n"))
        for name in DECIDE
        for path in sorted((folder / name).rglob("*.py"))
    }
    return digest_of(canonical_json(sources))[:8]
