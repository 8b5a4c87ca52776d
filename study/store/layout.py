"""The name of every object of a store, under its root:

    tasks/<task>.arrow                      decoded images (`study.tasks.prepared_file`)
    rows/<id>.arrow                         a finished Run; published last, it is the mark of completion
    weights/<id>-<digest>.safetensors       where another Run starts from it
    predictions/<id>-<digest>.arrow         where a study asks for them: labels predicted for the test
                                            images at each evaluation
    similarity/<id>.arrow                   how a Run's start saw its target before training
    unfinished/<id>/<number>/checkpoint|began.json|failure.json
                                            of a Run in flight, by the driver whose lease has the number:
                                            what one writes that was passed over lies beside, not over
    studies/<name>.json                     which Runs a study asked for
    registrations/<name>.json               by what it is to be judged, noted before its first row
    reports/<name>/…                        of a study that was run as a Ray job: its report
    damaged/…                               what was set aside
    lease/…                                 which driver is at work here (`study.launching.lease`)

Owns these names and nothing else; reads and writes nothing.
"""

from __future__ import annotations

import re
from typing import Final

TASKS: Final = "tasks"
ROWS: Final = "rows"
WEIGHTS: Final = "weights"
PREDICTIONS: Final = "predictions"
SIMILARITY: Final = "similarity"
UNFINISHED: Final = "unfinished"
STUDIES: Final = "studies"
REGISTRATIONS: Final = "registrations"
REPORTS: Final = "reports"
DAMAGED: Final = "damaged"
LEASE: Final = "lease"

_ID: Final = r"[0-9a-f]{12}"
ROWS_NAME: Final = re.compile(rf"({_ID})\.arrow")
WEIGHTS_NAME: Final = re.compile(rf"({_ID})-[0-9a-f]{{12}}\.safetensors")
PREDICTIONS_NAME: Final = re.compile(rf"({_ID}-[0-9a-f]{{12}}\.arrow)")
# Without a number: of a Run trained without a lease, or by an earlier release.
UNFINISHED_NAME: Final = re.compile(
    rf"({_ID})/(?:(\d{{8}})/)?(checkpoint|began\.json|failure\.json)"
)
LEASE_NAME: Final = re.compile(r"(\d{8})\.json")
STUDY_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\.json")
TASK_NAME: Final = re.compile(r"([^/]+)\.arrow")


def task_path(name: str) -> str:
    """Where a prepared task lies."""
    return f"{TASKS}/{name}.arrow"


def rows_path(run_id: str) -> str:
    """Where a finished Run's rows lie."""
    return f"{ROWS}/{checked_id(run_id)}.arrow"


def weights_path(run_id: str, digest: str) -> str:
    """Where a Run's weights with this digest lie."""
    return f"{WEIGHTS}/{checked_id(run_id)}-{_short(digest)}.safetensors"


def predictions_path(run_id: str, digest: str) -> str:
    """Where a Run's predictions with this digest lie."""
    return f"{PREDICTIONS}/{checked_id(run_id)}-{_short(digest)}.arrow"


def similarity_path(run_id: str) -> str:
    """Where a Run's similarity lies."""
    return f"{SIMILARITY}/{checked_id(run_id)}.arrow"


def unfinished_folder(run_id: str) -> str:
    """Where all lies that there is of a Run in flight."""
    return f"{UNFINISHED}/{checked_id(run_id)}"


def unfinished_path(run_id: str, name: str, lease_number: int = 0) -> str:
    """Where a file of a Run in flight lies: checkpoint, began.json, failure.json.

    `lease_number`: of the driver that has it trained, 0 where none holds the store.
    """
    number = f"{lease_number:08d}/" if lease_number else ""
    return f"{unfinished_folder(run_id)}/{number}{name}"


def lease_path(number: int) -> str:
    """Where the lease with this number lies."""
    return f"{LEASE}/{number:08d}.json"


def study_path(name: str) -> str:
    """Where it is noted what a study asked for. ValueError if the name is no file's name."""
    return f"{STUDIES}/{_study_file(name)}"


def registration_path(name: str) -> str:
    """Where it is noted by what a study is to be judged. ValueError if the name is no file's name."""
    return f"{REGISTRATIONS}/{_study_file(name)}"


def report_folder(name: str) -> str:
    """Where a study's report lies that has no better place. ValueError if the name is no file's name."""
    return f"{REPORTS}/{_study_file(name).removesuffix('.json')}"


def is_study_name(name: str) -> bool:
    """Return True if `name` can be a study's name, and so one component of a path."""
    return STUDY_NAME.fullmatch(f"{name}.json") is not None


def _study_file(name: str) -> str:
    if not is_study_name(name):
        raise ValueError(f"study={name!r}: use letters, digits, '.', '_' and '-' only")
    return f"{name}.json"


def damaged_path(path: str, stamp: str) -> str:
    """Where an object goes that is set aside."""
    return f"{DAMAGED}/{path}.{stamp}"


def checked_id(run_id: str) -> str:
    """The id itself; ValueError if it is none."""
    if not re.fullmatch(_ID, run_id):
        raise ValueError(f"run id {run_id!r}: an id is 12 hex digits")
    return run_id


def _short(digest: str) -> str:
    assert re.fullmatch(r"[0-9a-f]{64}", digest), digest
    return digest[:12]
