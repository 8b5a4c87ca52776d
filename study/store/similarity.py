"""Store the similarity of a start and a target as a small Arrow file with a checksum.

Must stay importable without torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import pyarrow as pa

from study.run import HEAD, Run
from study.store import arrow_file
from study.store.arrow_file import table_digest
from study.store.atomic import Damaged
from study.store.layout import similarity_path
from study.store.schema import Column, arrow_schema
from study.store.store import Store

CUT: Final = "cut"
PLACES: Final = (CUT, HEAD)

FORMAT: Final = "freezewise similarity 2"
BEFORE: Final = "freezewise similarity 1"  # without the effective rank

RANK: Final = "effective_rank"

MEASURES: Final = (
    Column(
        "logme",
        pa.float64(),
        "nats per image",
        "LogME: maximum log evidence of a linear map from features to one class against the rest, "
        "mean over the classes",
        nullable=True,
    ),
    Column(
        "linear_cka",
        pa.float64(),
        "",
        "linear CKA of features and one-hot labels, from 0 to 1; biased upwards for few images",
        nullable=True,
    ),
    Column(
        "linear_cka_debiased",
        pa.float64(),
        "",
        "linear CKA from unbiased estimates of HSIC (a kernel measure of dependence): about 0 for "
        "features that are independent of the labels",
        nullable=True,
    ),
    Column(
        RANK,
        pa.float64(),
        "dimensions",
        "effective rank of the centred features: e to the entropy of their singular values, from 1 to "
        "the number of features; of no labels; it grows with the images as long as they are few",
        nullable=True,
    ),
)

COLUMNS: Final = (
    Column("run_id", pa.string(), "", "the Run whose start is measured"),
    Column("start_digest", pa.string(), "", "SHA-256 of the start's weights"),
    Column(
        "place",
        pa.string(),
        "",
        "cut: output of the frozen layers, averaged over positions or tokens (the normalised pixels "
        "if nothing is frozen); head: input of the start's classifier, as its own head pools it",
    ),
    Column("num_images", pa.int32(), "images", "drawn training images of the target"),
    Column("num_classes", pa.int32(), "classes", "classes among them"),
    Column("num_features", pa.int32(), "features", "features of an image"),
    *MEASURES,
    Column("code_version", pa.string(), "", "of the code that measured"),
)

TABLE: Final = arrow_schema(COLUMNS)

_FORMAT, _DIGEST = b"format", b"digest"


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Measures at one place; the fields are columns. A measure is None if it is not defined:

    - all: if features are not finite; CKA and rank: if all features are alike;
    - LogME and CKA: for fewer than two classes;
    - debiased CKA: for fewer than four images, or if no two have the same class.
    """

    place: str
    num_images: int
    num_classes: int
    num_features: int
    logme: float | None
    linear_cka: float | None
    linear_cka_debiased: float | None
    effective_rank: float | None


def table_of(
    run: Run, start_digest: str, measured: Sequence[Similarity], code_version: str
) -> pa.Table:
    """Return the table (TABLE) of one Run, one row per place."""
    assert [each.place for each in measured] == list(PLACES), measured
    rows = [
        {"run_id": run.id, "start_digest": start_digest, "code_version": code_version}
        | asdict(each)
        for each in measured
    ]
    assert all(
        value is None or math.isfinite(value)
        for row in rows
        for value in (row[column.name] for column in MEASURES)
    ), rows
    return pa.Table.from_pylist(rows, schema=TABLE)


def publish(store: Store, run: Run, table: pa.Table) -> None:
    """Publish a Run's similarity (TABLE), replacing an earlier one."""
    assert set(table["run_id"].to_pylist()) == {run.id}, run.id
    store.put(similarity_path(run.id), to_bytes(table))


def read(store: Store, run_id: str) -> pa.Table:
    """Return a Run's similarity (TABLE), checked. Raises FileNotFoundError, Damaged."""
    path = similarity_path(run_id)
    return from_bytes(store.get(path), run_id, path)


def to_bytes(table: pa.Table) -> bytes:
    """Return the bytes of the Arrow IPC file, with a digest over the columns' values."""
    assert table.schema.equals(TABLE), table.schema.names
    whole = table.combine_chunks().replace_schema_metadata(
        {_FORMAT: FORMAT.encode(), _DIGEST: table_digest(table).encode()}
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, whole.schema) as writer:
        writer.write_table(whole)
    return bytes(sink.getvalue())


def from_bytes(payload: bytes, run_id: str, path: str) -> pa.Table:
    """Return the table in the bytes of a file. `run_id`: the id in the file's name.

    Raises Damaged if anything differs from what was written, or for an unknown format: measuring again is
    cheap.
    """
    with arrow_file.opened(pa.BufferReader(payload), path) as reader:
        table = arrow_file.read_table(reader)
    metadata = table.schema.metadata or {}
    if _FORMAT not in metadata or _DIGEST not in metadata:
        raise Damaged(path, "no similarity file of a study: its metadata lack format or digest")
    if metadata[_FORMAT] not in (FORMAT.encode(), BEFORE.encode()):
        raise Damaged(path, f"its format is {metadata[_FORMAT]!r}, this version reads {FORMAT!r}")
    index = TABLE.get_field_index(RANK)
    form = TABLE if metadata[_FORMAT] == FORMAT.encode() else TABLE.remove(index)
    if not table.schema.equals(form, check_metadata=False):
        raise Damaged(path, "its columns are not those of similarity")
    if table_digest(table).encode() != metadata[_DIGEST]:
        raise Damaged(path, "its values do not match their digest")
    if set(table["run_id"].to_pylist()) != {run_id}:
        raise Damaged(path, f"it is not that of Run {run_id}")
    if form is not TABLE:
        table = table.add_column(
            index, TABLE.field(index), [pa.nulls(table.num_rows, pa.float64())]
        )
    return pa.Table.from_arrays(table.columns, schema=TABLE)
