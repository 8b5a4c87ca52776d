"""The path of every object of a store, under its root:

    tasks/<task>.arrow                      decoded images (`study.tasks.prepared_file`)
    rows/<id>.arrow                         a finished Run; published last, it marks completion
    compacted/manifest.arrow                which rows files are copied where, by their checksums
    compacted/<digest>.parquet              copies of many rows files (`study.store.compacted`)
    weights/<id>-<digest>.safetensors       a Run's weights, if another Run starts from them
    predictions/<id>-<digest>.arrow         labels predicted for the test images at each evaluation, and
                                            class probabilities at the last one, if the study keeps them
    similarity/<id>.arrow                   similarity of a Run's start and target before training
    unfinished/<id>/<number>/checkpoint|began.json|failure.json
                                            of a Run in flight; <number>: the driver's lease number
    studies/<name>.json                     the Runs of a study
    registrations/<name>.json               how the study will be judged, stored before its first row
    reports/<name>/…                        report of a study that was run as a Ray job
    damaged/…                               quarantined objects
    lease/…                                 the current driver (`study.launching.lease`)

This module reads and writes nothing.
"""

from __future__ import annotations

import re
from typing import Final

TASKS: Final = "tasks"
ROWS: Final = "rows"
COMPACTED: Final = "compacted"
WEIGHTS: Final = "weights"
PREDICTIONS: Final = "predictions"
SIMILARITY: Final = "similarity"
UNFINISHED: Final = "unfinished"
STUDIES: Final = "studies"
REGISTRATIONS: Final = "registrations"
REPORTS: Final = "reports"
DAMAGED: Final = "damaged"
LEASE: Final = "lease"
# The folders in which every `study run` writes.
WRITTEN: Final = (ROWS, WEIGHTS, PREDICTIONS, SIMILARITY, UNFINISHED, STUDIES, LEASE)

_ID: Final = r"[0-9a-f]{12}"
ROWS_NAME: Final = re.compile(rf"({_ID})\.arrow")
COMPACTED_NAME: Final = re.compile(r"(manifest(?=\.arrow)|[0-9a-f]{12}(?=\.parquet))\.\w+")
WEIGHTS_NAME: Final = re.compile(rf"({_ID})-[0-9a-f]{{12}}\.safetensors")
PREDICTIONS_NAME: Final = re.compile(rf"({_ID}-[0-9a-f]{{12}}\.arrow)")
# A path without a number is of a Run trained without a lease, or by an earlier release.
# A lease number has eight digits; more only above 99,999,999.
_NUMBER: Final = r"\d{8}|[1-9]\d{8,}"
UNFINISHED_NAME: Final = re.compile(
    rf"({_ID})/(?:({_NUMBER})/)?(checkpoint|began\.json|failure\.json)"
)
LEASE_NAME: Final = re.compile(rf"({_NUMBER})\.json")
STUDY_NAME: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\.json")
TASK_NAME: Final = re.compile(r"([^/]+)\.arrow")


def task_path(name: str) -> str:
    return f"{TASKS}/{name}.arrow"


def rows_path(run_id: str) -> str:
    return f"{ROWS}/{checked_id(run_id)}.arrow"


def manifest_path() -> str:
    """Return the path of the list of copied rows files."""
    return f"{COMPACTED}/manifest.arrow"


def part_path(digest: str) -> str:
    """Return the path of a file of copied rows with this digest."""
    return f"{COMPACTED}/{_short(digest)}.parquet"


def weights_path(run_id: str, digest: str) -> str:
    return f"{WEIGHTS}/{checked_id(run_id)}-{_short(digest)}.safetensors"


def predictions_path(run_id: str, digest: str) -> str:
    return f"{PREDICTIONS}/{checked_id(run_id)}-{_short(digest)}.arrow"


def similarity_path(run_id: str) -> str:
    return f"{SIMILARITY}/{checked_id(run_id)}.arrow"


def unfinished_folder(run_id: str) -> str:
    return f"{UNFINISHED}/{checked_id(run_id)}"


def unfinished_path(run_id: str, name: str, lease_number: int = 0) -> str:
    """Return the path of a file of a Run in flight: checkpoint, began.json, failure.json.

    `lease_number`: the lease number of the driver that trains the Run; 0 without a lease.
    """
    number = f"{lease_number:08d}/" if lease_number else ""
    return f"{unfinished_folder(run_id)}/{number}{name}"


def lease_path(number: int) -> str:
    return f"{LEASE}/{number:08d}.json"


def study_path(name: str) -> str:
    """Return the path of a study's list of Runs. Raises ValueError for an invalid name."""
    return f"{STUDIES}/{_study_file(name)}"


def registration_path(name: str) -> str:
    """Return the path of a study's registrations. Raises ValueError for an invalid name."""
    return f"{REGISTRATIONS}/{_study_file(name)}"


def report_folder(name: str) -> str:
    """Return the folder of a study's report in the store. Raises ValueError for an invalid name."""
    return f"{REPORTS}/{_study_file(name).removesuffix('.json')}"


def is_study_name(name: str) -> bool:
    """Return True if `name` can be a study's name, and so one component of a path."""
    return STUDY_NAME.fullmatch(f"{name}.json") is not None


def _study_file(name: str) -> str:
    if not is_study_name(name):
        raise ValueError(f"study={name!r}: use letters, digits, '.', '_' and '-' only")
    return f"{name}.json"


def damaged_path(path: str, stamp: str) -> str:
    return f"{DAMAGED}/{path}.{stamp}"


def checked_id(run_id: str) -> str:
    """Return `run_id`. Raises ValueError if it cannot be a Run's id."""
    if not re.fullmatch(_ID, run_id):
        raise ValueError(f"run id {run_id!r}: an id is 12 hex digits")
    return run_id


def _short(digest: str) -> str:
    assert re.fullmatch(r"[0-9a-f]{64}", digest), digest
    return digest[:12]
