"""Store weights and predictions of Runs, each under its own digest.

If a Run was trained twice, both files exist. The rows contain the digest of their own (`Provenance`).
Predictions are the predicted labels of all test images at each evaluation, in an Arrow IPC file:

    epoch       float64                             as in the rows
    step        int64                               as in the rows
    predicted   fixed_size_list<uint16>[num_test]   labels, in the order of the task's test images

If class probabilities are kept, too, the file has one more column:

    probabilities   list<uint8>   255 × probability, rounded, image after image; only in the last row

The metadata hold format, Run id, task fingerprint, release, table digest, and a digest of these five.
The last digest distinguishes a later release's file from a damaged one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import numpy as np
import pyarrow as pa

from study.fields import digest_of
from study.store import arrow_file, layout
from study.store.atomic import Damaged, Newer
from study.store.layout import predictions_path, weights_path
from study.store.provenance import release
from study.store.rows import read_head
from study.store.store import Store, damaged_among

FORMAT: Final = "freezewise predictions 1"
WITH_PROBABILITIES: Final = "freezewise predictions and probabilities 1"

_FORMAT, _RUN_ID, _TASK = b"format", b"run_id", b"task_fingerprint"
_WRITTEN_BY, _DIGEST = b"written_by", b"predictions_digest"
_HEAD: Final = (_FORMAT, _RUN_ID, _TASK, _WRITTEN_BY, _DIGEST)


def publish_weights(store: Store, run_id: str, payload: bytes) -> str:
    """Publish a Run's weights, and return their digest (SHA-256, hex)."""
    digest = digest_of(payload)
    store.put(weights_path(run_id, digest), payload)
    return digest


def read_weights(store: Store, run_id: str, digest: str) -> bytes:
    """Return the weights with this digest. Raises FileNotFoundError, Damaged."""
    return _checked_weights(store, weights_path(run_id, digest), digest)


def read_weights_at(store: Store, path: str) -> bytes:
    """Return the weights at this path, checked against the digest in the file's name. Raises Damaged."""
    return _checked_weights(store, path, path.rpartition("-")[2].removesuffix(".safetensors"))


def _checked_weights(store: Store, path: str, digest: str) -> bytes:
    """Return the weights at this path; their digest must begin with `digest`."""
    payload = store.get(path)
    found = digest_of(payload)
    if not found.startswith(digest):
        raise Damaged(path, f"digest {found[:12]} of {len(payload)} bytes")
    return payload


def empty_weights(store: Store, among: Collection[str]) -> list[Damaged]:
    """Return a Damaged for each empty weights file (left by a power loss) of these Runs; list once."""
    found = []
    for entry in store.listed(layout.WEIGHTS):
        match = layout.WEIGHTS_NAME.fullmatch(entry.base_name)
        if match and match[1] in among and not entry.size:
            found.append(Damaged(f"{layout.WEIGHTS}/{entry.base_name}", "empty"))
    return found


def ids_with_weights(store: Store) -> frozenset[str]:
    """Return the ids of all Runs with weights that are not empty, in one listing."""
    names = (entry.base_name for entry in store.listed(layout.WEIGHTS) if entry.size)
    matches = (layout.WEIGHTS_NAME.fullmatch(name) for name in names)
    return frozenset(match[1] for match in matches if match)


_PROBABILITIES: Final = pa.field(
    "probabilities", pa.list_(pa.field("item", pa.uint8(), nullable=False)), nullable=False
)


def predictions_schema(num_test: int) -> pa.Schema:
    """Return the columns of predictions for this many test images, without metadata."""
    label = pa.field("item", pa.uint16(), nullable=False)
    return pa.schema(
        [
            pa.field("epoch", pa.float64(), nullable=False),
            pa.field("step", pa.int64(), nullable=False),
            pa.field("predicted", pa.list_(label, num_test), nullable=False),
        ]
    )


def predictions_table(
    epochs: Iterable[float],
    steps: Iterable[int],
    predicted: np.ndarray,
    probabilities: np.ndarray | None = None,
) -> pa.Table:
    """Return one Run's predictions.

    `predicted`: whole numbers, shape (evaluations, test images). `probabilities`: of the last evaluation,
    255 × probability as uint8, shape (test images, classes).
    """
    schema = predictions_schema(predicted.shape[1])
    labels = pa.array(np.ascontiguousarray(predicted, np.uint16).reshape(-1))
    table = pa.table(
        [
            pa.array(epochs, pa.float64()),
            pa.array(steps, pa.int64()),
            pa.FixedSizeListArray.from_arrays(labels, type=schema.field("predicted").type),
        ],
        schema=schema,
    )
    if probabilities is None:
        return table
    assert probabilities.dtype == np.uint8, probabilities.dtype
    offsets = np.zeros(len(table) + 1, np.int32)
    offsets[-1] = probabilities.size
    column = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(probabilities.reshape(-1)), type=_PROBABILITIES.type
    )
    return table.append_column(_PROBABILITIES, column)


def labels_of(table: pa.Table) -> np.ndarray:
    """Return the predicted labels without a copy: uint16, shape (evaluations, test images)."""
    column = table["predicted"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=True)
    labels: np.ndarray = flat.reshape(len(column), column.type.list_size)
    return labels


def probabilities_of(table: pa.Table) -> np.ndarray | None:
    """Return the class probabilities at the last evaluation: float32, shape (test images, classes).

    They are multiples of 1/255. None if only labels were kept.
    """
    if _PROBABILITIES.name not in table.column_names:
        return None
    probabilities = _in_8_bits(table) / np.float32(255)
    return probabilities.reshape(labels_of(table).shape[1], -1)


def _in_8_bits(table: pa.Table) -> np.ndarray:
    values: np.ndarray = table[_PROBABILITIES.name].combine_chunks().flatten().to_numpy()
    return values


def predictions_digest(table: pa.Table) -> str:
    """Return SHA-256 hex over the shape of the labels and the little-endian bytes of all columns."""
    labels = labels_of(table)
    total = hashlib.sha256(b"%d evaluations of %d images:" % labels.shape)
    total.update(table["epoch"].to_numpy().astype("<f8", copy=False).tobytes())
    total.update(table["step"].to_numpy().astype("<i8", copy=False).tobytes())
    total.update(labels.astype("<u2", copy=False).data)
    if _PROBABILITIES.name in table.column_names:
        total.update(b"probabilities:" + _in_8_bits(table).tobytes())
    return total.hexdigest()


def publish_predictions(store: Store, run_id: str, table: pa.Table, task_fingerprint: str) -> str:
    """Publish a Run's predictions (`predictions_table`), and return their digest (SHA-256, hex)."""
    digest = predictions_digest(table)
    store.put(
        predictions_path(run_id, digest), predictions_to_bytes(run_id, table, task_fingerprint)
    )
    return digest


def read_predictions(store: Store, run_id: str, digest: str | None = None) -> pa.Table:
    """Read and check the predictions of a Run.

    Args:
        digest: The digest of the predictions; by default, the digest in the Run's rows.

    Returns:
        One row for each evaluation; see `labels_of`, `probabilities_of`. The metadata contain Run id and
        task fingerprint.

    Raises:
        FileNotFoundError: The Run has no rows, or the Run's predictions were not kept.
        Damaged, Newer: The file is corrupted or of a later release.
    """
    if digest is None:
        digest = read_head(store, run_id).provenance.predictions_digest
        if digest is None:
            raise FileNotFoundError(
                f"run_id={run_id!r}: no predictions were kept. Train it in a search space with "
                "KEEP_PREDICTIONS = True."
            )
    path = predictions_path(run_id, digest)
    return _predictions_from(store.get(path), run_id, digest, path)


def read_predictions_at(store: Store, path: str) -> pa.Table:
    """Return the predictions at this path, checked against Run id and digest in the file's name.

    Raises as `read_predictions`.
    """
    run_id, _, short = path.removeprefix(f"{layout.PREDICTIONS}/")[: -len(".arrow")].partition("-")
    return _predictions_from(store.get(path), run_id, short, path)


def check_predictions(store: Store, digests: Mapping[str, str]) -> dict[str, Damaged]:
    """Return a Damaged for each Run with damaged predictions, by id. `digests`: expected, by Run id.

    If the checksum of all bytes matches, the values are not decoded.
    """

    def check(run_id: str) -> None:
        path = predictions_path(run_id, digests[run_id])
        payload = store.get(path)
        if arrow_file.is_sealed(payload, path):
            with arrow_file.opened(pa.BufferReader(payload), path) as reader:
                _check_name(reader.schema.metadata, run_id, digests[run_id], path)
        else:
            _predictions_from(payload, run_id, digests[run_id], path)

    return damaged_among(check, digests)


def predictions_there(store: Store) -> dict[str, list[str]]:
    """Return the paths of all predictions by Run id, in one listing."""
    paths: dict[str, list[str]] = {}
    for name in sorted(store.matching(layout.PREDICTIONS, layout.PREDICTIONS_NAME)):
        paths.setdefault(name[:12], []).append(f"{layout.PREDICTIONS}/{name}")
    return paths


def predictions_to_bytes(run_id: str, table: pa.Table, task_fingerprint: str) -> bytes:
    """Return a file of predictions, as one record batch."""
    is_larger = _PROBABILITIES.name in table.column_names
    head = {
        _FORMAT: (WITH_PROBABILITIES if is_larger else FORMAT).encode(),
        _RUN_ID: run_id.encode(),
        _TASK: task_fingerprint.encode(),
        _WRITTEN_BY: release().encode(),
        _DIGEST: predictions_digest(table).encode(),
    }
    return arrow_file.to_bytes(table, head)


def _predictions_from(payload: bytes, run_id: str, digest: str, path: str) -> pa.Table:
    """Return the predictions in the bytes of a file.

    `run_id`, `digest`: the expected values; the first digits of the digest are enough.

    Raises Damaged if anything differs from what was written, and Newer for a file of a later release.
    """
    arrow_file.is_sealed(payload, path)
    with arrow_file.opened(pa.BufferReader(payload), path) as reader:
        written = _check_name(reader.schema.metadata, run_id, digest, path)
        table = arrow_file.read_table(reader)
    if not _has_columns(table):
        raise Damaged(path, "its columns do not match the format of predictions")
    found = predictions_digest(table)
    if found != written:
        raise Damaged(path, f"predictions digest {found[:12]}, written as {written[:12]}")
    return table


def _has_columns(table: pa.Table) -> bool:
    """Return True if the table has rows, the columns of `predictions_schema` and no nulls."""
    if table.num_rows == 0 or "predicted" not in table.column_names:
        return False
    kind = table.schema.field("predicted").type
    if not isinstance(kind, pa.FixedSizeListType):
        return False
    schema = predictions_schema(kind.list_size)
    is_larger = _PROBABILITIES.name in table.column_names
    if not table.schema.equals(
        schema.append(_PROBABILITIES) if is_larger else schema, check_metadata=False
    ):
        return False
    labels = table["predicted"].combine_chunks()
    columns = [*table.columns, labels.flatten()]
    if is_larger:
        kept = table[_PROBABILITIES.name].combine_chunks()
        sizes = kept.value_lengths().to_pylist()
        if any(sizes[:-1]) or not sizes[-1] or sizes[-1] % kind.list_size:
            return False
        columns.append(kept.flatten())
    return not any(column.null_count for column in columns)


def _check_name(given: Mapping[bytes, bytes] | None, run_id: str, digest: str, path: str) -> str:
    """Return the metadata's digest. Raises Damaged for another Run or other first digits than `digest`."""
    metadata = arrow_file.checked(given, _HEAD, path, "predictions")
    if metadata[_FORMAT].decode() not in (FORMAT, WITH_PROBABILITIES):
        raise Newer(path, metadata[_WRITTEN_BY].decode(), metadata[_FORMAT].decode())
    if metadata[_RUN_ID] != run_id.encode():
        raise Damaged(
            path, f"it holds Run {metadata[_RUN_ID].decode()}, which is not the Run in its name"
        )
    written = metadata[_DIGEST].decode()
    if not written.startswith(digest):
        raise Damaged(path, "its predictions do not match its name")
    return written
