"""Finished Runs: the rows that each leaves, published once and last (`rows_file` is the bytes).

Owns where they lie and how many are read at a time.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from study.run import Run
from study.store import layout, rows_file
from study.store.atomic import Damaged
from study.store.layout import rows_path
from study.store.provenance import Provenance
from study.store.rows_file import Finished, Head
from study.store.store import Store, concurrently


def finished_ids(store: Store) -> frozenset[str]:
    """Ids of all finished and diverged Runs: one listing, no file is opened."""
    return store.matching(layout.ROWS, layout.ROWS_NAME)


def publish_rows(store: Store, run: Run, table: pa.Table, provenance: Provenance) -> None:
    """Publish a Run's rows (schema.ROWS): from here on it is finished."""
    store.put(rows_path(run.id), rows_file.to_bytes(run, table, provenance))


def read_rows(store: Store, run_id: str) -> Finished:
    """A finished Run, its digests checked. Raises FileNotFoundError, Damaged, Newer."""
    path = rows_path(run_id)
    return rows_file.from_bytes(store.get(path), run_id, path)


def read_head(store: Store, run_id: str) -> Head:
    """Run and provenance of a finished Run; its rows are not checked (and in a directory not read)."""
    path = rows_path(run_id)
    with store.opened(path) as source:
        return rows_file.head_from(source, run_id, path)


def read_heads(store: Store, run_ids: Iterable[str]) -> dict[str, Head | Damaged]:
    """`read_head` of many at once, by id; a damaged one gives its Damaged, an absent one nothing."""
    return concurrently(lambda run_id: read_head(store, run_id), run_ids)


def check_rows(store: Store, run_ids: Iterable[str]) -> dict[str, Damaged]:
    """Those whose rows file fails a check of `read_rows`, and why."""

    def check(run_id: str) -> None:
        read_rows(store, run_id)  # and let go: thousands of tables are not held at once

    checked = concurrently(check, run_ids)
    return {run_id: found for run_id, found in checked.items() if found is not None}
