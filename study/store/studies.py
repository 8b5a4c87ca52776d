"""Store each study's list of Runs and its registrations, as JSON with a checksum."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from study.fields import canonical_json, digest_of
from study.run import Run, from_dict
from study.store import layout
from study.store.atomic import Damaged, Newer
from study.store.layout import registration_path, study_path
from study.store.provenance import release
from study.store.store import Store

_MAGIC: Final = b"freezewise checkpoint 1\n"
_ANY_MAGIC: Final = re.compile(rb"freezewise checkpoint \d+\n")
_DIGEST_BYTES: Final = 64


def seal(content: dict[str, Any]) -> bytes:
    """Return plain values as JSON, with their digest and the release."""
    envelope = {
        "digest": digest_of(canonical_json(content)),
        "written_by": release(),
        "content": content,
    }
    return json.dumps(envelope, indent=1).encode()


def unseal(payload: bytes, path: str) -> tuple[Any, str]:
    """Return the content of a sealed file, and the release that wrote it ("" in old files).

    Raises Damaged.
    """
    try:
        envelope = json.loads(payload)
        content, digest = envelope["content"], envelope["digest"]
        found = digest_of(canonical_json(content))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(path, f"not a complete file of the store ({error})") from error
    if found != digest:
        raise Damaged(path, "its content does not match its checksum")
    return content, str(envelope.get("written_by", ""))


def frame(payload: bytes) -> bytes:
    """Return the header that precedes a checkpoint's payload."""
    return _MAGIC + digest_of(payload).encode() + b"\n"


def unframe(framed: bytes, path: str) -> bytes:
    """Return a checkpoint's payload. Raises Damaged, Newer."""
    size = len(_MAGIC) + _DIGEST_BYTES + 1
    payload = framed[size:]
    later = _ANY_MAGIC.match(framed)
    if later is not None and later[0] != _MAGIC:
        raise Newer(path, "", later[0].decode().strip())
    if len(framed) < size or not framed.startswith(_MAGIC):
        raise Damaged(path, f"{len(framed)} bytes that do not begin as a checkpoint")
    if frame(payload) != framed[:size]:
        raise Damaged(path, "its content does not match its checksum")
    return payload


def write_study(store: Store, name: str, runs: Sequence[Run]) -> None:
    """Store the Runs of a study, in their order, replacing an earlier list."""
    store.put(study_path(name), runs_sealed(runs))


def runs_sealed(runs: Iterable[Run]) -> bytes:
    return seal({"runs": [run.to_dict() for run in runs]})


def read_study(store: Store, name: str) -> list[Run]:
    """Return the Runs of a study. Raises FileNotFoundError, Damaged, Newer."""
    path = study_path(name)
    return runs_from(store.get(path), path)


def runs_from(payload: bytes, path: str) -> list[Run]:
    """Return the Runs in the content of a study's file. Raises Damaged, Newer."""
    content, written_by = unseal(payload, path)
    try:
        if further := [name for name in content if name != "runs"]:
            raise ValueError(f"{', '.join(map(repr, further))} beside its Runs")
        return [from_dict(plain) for plain in content["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        # The checksum matches, so another release wrote it in this form.
        raise Newer(path, written_by, str(error)) from error


def study_names(store: Store) -> list[str]:
    """Return the names of all studies, sorted."""
    return sorted(store.matching(layout.STUDIES, layout.STUDY_NAME))


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A registration of a study.

    - `registered_at`: ISO 8601, UTC.
    - `is_late`: a target Run already had rows, so its results may have influenced the registration.
    - `run_ids`: the Runs of the study, in their order.
    - `terms`: everything that determines the verdicts: contrasts, thresholds, RULES.
    """

    registered_at: str
    is_late: bool
    run_ids: tuple[str, ...]
    terms: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Return the first 12 hex digits of SHA-256 over Runs and terms."""
        return digest_of(canonical_json([list(self.run_ids), dict(self.terms)]))[:12]


def add_registration(store: Store, study: str, registration: Registration) -> None:
    """Append a registration to the study's earlier registrations. Raises Damaged, Newer."""
    every = [*read_registrations(store, study), registration]
    store.put(registration_path(study), seal({"registrations": [asdict(one) for one in every]}))


def read_registrations(store: Store, study: str) -> list[Registration]:
    """Return all registrations of a study, oldest first; [] if there are none. Raises Damaged, Newer."""
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
        # The checksum matches, so another release wrote it in this form.
        raise Newer(path, written_by, str(error)) from error
