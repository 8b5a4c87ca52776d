"""Where everything lies, and how it is published and found again (study/README.md, "Store layout").

One file for each kind of object under a root; this page hands on what the rest of the project, and
scripts of users, need. No pickle is ever loaded, and nothing is handed out that fails its checksum.
"""

from study.store.atomic import Damaged, Newer
from study.store.layout import (
    predictions_path,
    rows_path,
    study_path,
    unfinished_path,
    weights_path,
)
from study.store.predictions import (
    check_predictions,
    check_predictions_at,
    labels_of,
    predictions_table,
    predictions_there,
    publish_predictions,
    read_predictions,
)
from study.store.prepared_tasks import repeated_text
from study.store.provenance import Provenance
from study.store.rows import (
    Finished,
    Head,
    check_rows,
    finished_ids,
    publish_rows,
    read_head,
    read_heads,
    read_rows,
)
from study.store.store import Store, open_store
from study.store.studies import (
    Registration,
    add_registration,
    read_registrations,
    read_study,
    study_names,
    write_study,
)
from study.store.unfinished import (
    Failure,
    Unfinished,
    check_unfinished_at,
    clear_failure,
    drop_outdated,
    drop_unfinished,
    find_unfinished,
    highest_number,
    list_unfinished,
    note_began,
    read_began,
    read_checkpoint,
    read_failure,
    read_failures,
    sweep,
    trained_by,
    write_checkpoint,
    write_failure,
)
from study.store.weights import (
    check_weights_at,
    empty_weights,
    ids_with_weights,
    publish_weights,
    read_weights,
)

__all__ = [
    "Damaged",
    "Failure",
    "Finished",
    "Head",
    "Newer",
    "Provenance",
    "Registration",
    "Store",
    "Unfinished",
    "add_registration",
    "check_predictions",
    "check_predictions_at",
    "check_rows",
    "check_unfinished_at",
    "check_weights_at",
    "clear_failure",
    "drop_outdated",
    "drop_unfinished",
    "empty_weights",
    "find_unfinished",
    "finished_ids",
    "highest_number",
    "ids_with_weights",
    "labels_of",
    "list_unfinished",
    "note_began",
    "open_store",
    "predictions_path",
    "predictions_table",
    "predictions_there",
    "publish_predictions",
    "publish_rows",
    "publish_weights",
    "read_began",
    "read_checkpoint",
    "read_failure",
    "read_failures",
    "read_head",
    "read_heads",
    "read_predictions",
    "read_registrations",
    "read_rows",
    "read_study",
    "read_weights",
    "repeated_text",
    "rows_path",
    "study_names",
    "study_path",
    "sweep",
    "trained_by",
    "unfinished_path",
    "weights_path",
    "write_checkpoint",
    "write_failure",
    "write_study",
]
