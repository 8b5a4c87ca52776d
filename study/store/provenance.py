"""Record what produced a Run's rows: trainer, code, packages, device, host, times and input digests.

Must stay importable without torch and ray.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from study.fields import canonical_json

PACKAGES: Final = ("torch", "torchvision", "timm", "numpy", "pyarrow", "ray")

# The version of the trainer. Raise it by hand when the rows of some Run could change.
# tests/study/training/test_trainer.py fails if pinned losses change under the same TRAINER.
TRAINER: Final = 1

# The trainer of all rows of 0.1.0, which do not store the number.
FIRST_TRAINER: Final = 1

# Files and folders of `study` whose hash is part of the code version, for tracing only.
DECIDE_A_ROW: Final = ("run.py", "recipe.py", "seeds.py", "networks", "tasks", "training")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What produced the rows of one Run.

    - `began_at`, `ended_at`: ISO 8601, UTC; `num_resumes`: number of continuations from a checkpoint.
    - `weights_digest`, `predictions_digest`: digests of published weights and predictions, None if not
      kept; `start_digest`: of the start's weights; `task_fingerprint`: of the task's images and labels.
    - `has_probabilities`: the predictions contain class probabilities at the last evaluation.
    - `diverged_step`: the step at which a loss was not finite, None for a finished Run.
    - `not_captured`: why a GPU's steps were not captured as a CUDA graph; None if they were, or on a CPU.
    - `code_version`: release and source hash, for tracing. `trainer`: TRAINER, which decides whether two
      Runs were made by the same version of the code.
    - `trained_together`: ids of all Runs that were trained as one network, this Run included; empty if
      this Run was trained alone (`Recipe.seeds_together` of 1).
    """

    code_version: str
    packages: dict[str, str]
    device: str
    host: str
    began_at: str
    ended_at: str
    num_resumes: int = 0
    weights_digest: str | None = None
    start_digest: str | None = None
    task_fingerprint: str | None = None
    diverged_step: int | None = None
    predictions_digest: str | None = None
    has_probabilities: bool = False
    trainer: int = FIRST_TRAINER
    not_captured: str | None = None
    trained_together: list[str] = field(default_factory=list)


def to_json(provenance: Provenance) -> str:
    return canonical_json(asdict(provenance))


def from_json(text: str) -> Provenance:
    """Read the output of `to_json`, skipping unknown fields. Raises ValueError if a field is missing."""
    plain = json.loads(text)
    if not isinstance(plain, dict):
        raise ValueError(f"Provenance: {plain!r} is not a JSON object")
    try:
        return Provenance(**{f.name: plain[f.name] for f in fields(Provenance) if f.name in plain})
    except TypeError as error:
        raise ValueError(f"Provenance from JSON: {error}") from error


@cache
def code_version() -> str:
    """Return the release and 8 hex digits of a hash of DECIDE_A_ROW, for tracing: "0.1.0+1f2e3d4c"."""
    folder = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in _deciding(folder):
        source = path.read_bytes().replace(b"\r\n", b"\n")
        name = path.relative_to(folder).as_posix().encode()
        digest.update(b"%d %s %d " % (len(name), name, len(source)) + source)
    return f"{release()}+{digest.hexdigest()[:8]}"


def _deciding(folder: Path) -> list[Path]:
    found: list[Path] = []
    for name in DECIDE_A_ROW:
        path = folder / name
        assert path.exists(), path
        found += [path] if path.is_file() else path.rglob("*.py")
    return sorted(found)


def release() -> str:
    """Return the version of this package, "0" if it is not installed."""
    return _version("freezewise") or "0"


def packages() -> dict[str, str]:
    """Return the versions of the installed packages of PACKAGES by name."""
    return {name: version for name in PACKAGES if (version := _version(name)) is not None}


def now() -> str:
    """Return the current time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _version(name: str) -> str | None:
    # Cached: a later installation does not change the code that this process imported.
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
