"""Which Runs each study asked for, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from study.fields import canonical_json
from study.run import Run, from_json
from study.store import layout
from study.store.atomic import Newer
from study.store.layout import study_path
from study.store.sealed import seal, unseal
from study.store.store import Store


def write_study(store: Store, name: str, runs: Sequence[Run]) -> None:
    """Note which Runs a study asks for, in their order, in place of an earlier note."""
    store.put(study_path(name), seal({"runs": [run.plain for run in runs]}))


def read_study(store: Store, name: str) -> list[Run]:
    """The Runs that a study asked for. Raises FileNotFoundError, Damaged, Newer."""
    path = study_path(name)
    content, written_by = unseal(store.get(path), path)
    try:
        if further := [name for name in content if name != "runs"]:
            raise ValueError(f"{', '.join(map(repr, further))} beside its Runs")
        return [from_json(canonical_json(plain)) for plain in content["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        # The checksum fits, so this was written so.
        raise Newer(path, written_by, str(error)) from error


def study_names(store: Store) -> list[str]:
    """Names of all studies, sorted."""
    return sorted(store.matching(layout.STUDIES, layout.STUDY_NAME))
