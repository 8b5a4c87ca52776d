"""Where everything lies, and how it is published and found again (see study/README.md).

One file for each kind of object under a root; this page hands on what the rest of the project, and
scripts of users, need of them.
"""

from study.store.atomic import Damaged
from study.store.layout import rows_path, study_path, unfinished_path, weights_path
from study.store.provenance import Provenance
from study.store.rows import Finished, Head
from study.store.store import Failure, Store, Unfinished, open_store

__all__ = [
    "Damaged",
    "Failure",
    "Finished",
    "Head",
    "Provenance",
    "Store",
    "Unfinished",
    "open_store",
    "rows_path",
    "study_path",
    "unfinished_path",
    "weights_path",
]
