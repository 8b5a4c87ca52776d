"""By what a study is to be judged, noted before its first row: its registrations, oldest first.

Owns the file. What the terms are is the analysis'; they are plain values here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from study.fields import canonical_json, digest_of
from study.store.atomic import Newer
from study.store.layout import registration_path
from study.store.sealed import seal, unseal
from study.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What was said of a study at one moment.

    - `registered_at`: ISO 8601, UTC.
    - `is_late`: a target had rows by then, so that a look at them may have led the hand.
    - `run_ids`: the Runs that the study asked for, in their order.
    - `terms`: what decides its verdicts: contrasts, thresholds, the code's version.
    """

    registered_at: str
    is_late: bool
    run_ids: tuple[str, ...]
    terms: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """First 12 hex digits of SHA-256 over Runs and terms."""
        return digest_of(canonical_json([list(self.run_ids), dict(self.terms)]))[:12]


def add_registration(store: Store, study: str, registration: Registration) -> None:
    """Adds a registration behind the earlier ones. Raises Damaged, Newer."""
    every = [*read_registrations(store, study), registration]
    store.put(registration_path(study), seal({"registrations": [asdict(one) for one in every]}))


def read_registrations(store: Store, study: str) -> list[Registration]:
    """All registrations of a study, oldest first; [] where there is none. Raises Damaged, Newer."""
    path = registration_path(study)
    try:
        content, written_by = unseal(store.get(path), path)
    except FileNotFoundError:
        return []
    try:
        return [
            Registration(**{**one, "run_ids": tuple(one["run_ids"])})
            for one in content["registrations"]
        ]
    except (KeyError, TypeError) as error:
        # The checksum fits, so this was written so.
        raise Newer(path, written_by, str(error)) from error
