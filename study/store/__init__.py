"""Read a store from scripts. Functions that write are in the submodules."""

from typing import TYPE_CHECKING

from study.deprecation import renamed
from study.store.artifacts import labels_of, probabilities_of, read_predictions, read_weights
from study.store.atomic import Damaged, Newer
from study.store.layout import predictions_path, rows_path, study_path, weights_path
from study.store.provenance import Provenance
from study.store.rows import Finished, Head, finished_ids, read_head, read_heads, read_rows
from study.store.store import Store, open_store
from study.store.studies import Registration, read_registrations, read_study, study_names
from study.store.unfinished import Failure, read_failure, read_failures

__all__ = [
    "Damaged",
    "Failure",
    "Finished",
    "Head",
    "Newer",
    "Provenance",
    "Registration",
    "Store",
    "finished_ids",
    "labels_of",
    "open_store",
    "predictions_path",
    "probabilities_of",
    "read_failure",
    "read_failures",
    "read_head",
    "read_heads",
    "read_predictions",
    "read_registrations",
    "read_rows",
    "read_study",
    "read_weights",
    "rows_path",
    "study_names",
    "study_path",
    "weights_path",
]

# Names that 0.1.0 exported here, by their submodule.
_MOVED = {
    "artifacts": [
        "check_predictions",
        "empty_weights",
        "ids_with_weights",
        "predictions_table",
        "predictions_there",
        "publish_predictions",
        "publish_weights",
    ],
    "layout": ["unfinished_path"],
    "prepared_tasks": ["repeated_text"],
    "rows": ["check_rows", "publish_rows"],
    "studies": ["add_registration", "write_study"],
    "unfinished": [
        "Unfinished",
        "clear_failure",
        "drop_outdated",
        "drop_unfinished",
        "find_unfinished",
        "highest_number",
        "list_unfinished",
        "note_began",
        "read_began",
        "read_checkpoint",
        "sweep",
        "trained_by",
        "write_checkpoint",
        "write_failure",
    ],
}
DEPRECATED = {
    name: f"study.store.{module}.{name}" for module, names in _MOVED.items() for name in names
}

if not TYPE_CHECKING:  # to mypy, a module with __getattr__ has every name
    __getattr__ = renamed(__name__, DEPRECATED)
