"""Store the rows of each finished Run as one Arrow IPC file, published once, after all its artifacts.

The head (format, Run, provenance, digest of the rows, and a digest of these four) has the same form in
every format, so that a later release's file is not mistaken for a damaged file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from study import run as runs
from study.fields import digest_of
from study.run import Run
from study.store import arrow_file, layout, schema
from study.store import provenance as prov
from study.store.arrow_file import table_digest
from study.store.atomic import Damaged, Newer
from study.store.layout import rows_path
from study.store.provenance import Provenance
from study.store.store import Store, concurrently, damaged_among

_NAME: Final = "freezewise rows "  # followed by the number of the format
_FORMAT, _RUN, _PROVENANCE, _DIGEST = b"format", b"run", b"provenance", b"rows_digest"
_HEAD: Final = (_FORMAT, _RUN, _PROVENANCE, _DIGEST)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of a rows file, read without its rows; `format`: the number of its format."""

    run: Run
    provenance: Provenance
    rows_digest: str
    format: int


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished or diverged Run; `table` has the columns schema.ROWS and one row per evaluation.

    `is_sealed`: True if every byte was checked. In files of earlier releases, only the decoded parts can
    be checked.
    """

    run: Run
    table: pa.Table
    provenance: Provenance
    is_sealed: bool


def finished_ids(store: Store) -> frozenset[str]:
    """Return the ids of all finished and diverged Runs, in one listing, without opening files."""
    return frozenset(finished_etags(store))


def finished_etags(store: Store) -> dict[str, str]:
    """Return the ETags of all rows files by Run id, in one listing; "" in a directory."""
    found = {}
    for entry in store.listed(layout.ROWS):
        if match := layout.ROWS_NAME.fullmatch(entry.base_name):
            found[match[1]] = entry.etag
    return found


def publish_rows(
    store: Store, run: Run, table: pa.Table, provenance: Provenance, *, replace: bool = False
) -> bool:
    """Publish a Run's rows (schema.ROWS), which marks the Run as finished; return True.

    If undamaged rows exist and `replace` is False, keep them and return False.
    """
    path, payload = rows_path(run.id), to_bytes(run, table, provenance)
    if not replace and store.publish(path, payload):
        return True
    if not replace:
        try:
            read_rows(store, run.id)
            return False
        except (FileNotFoundError, Damaged):
            pass  # the rows are missing or damaged, so they are replaced
    store.put(path, payload)
    return True


def read_rows(store: Store, run_id: str) -> Finished:
    """Return a finished Run with verified digests. Raises FileNotFoundError, Damaged, Newer."""
    path = rows_path(run_id)
    return from_bytes(store.get(path), run_id, path)


def read_head(store: Store, run_id: str) -> Head:
    """Return the Head of a finished Run, without reading or checking its rows."""
    path = rows_path(run_id)
    try:
        with store.opened(path) as source:
            return head_from(source, run_id, path)
    except FileNotFoundError:
        raise
    except OSError:  # a disk error: read the whole file, with retries
        return head_from(pa.BufferReader(store.get(path)), run_id, path)


def read_heads(store: Store, run_ids: Iterable[str]) -> dict[str, Head | Damaged]:
    """Return the Head of each Run, or a Damaged, by id; Runs without a rows file are left out."""
    return concurrently(lambda run_id: read_head(store, run_id), run_ids)


def check_rows(store: Store, run_ids: Iterable[str]) -> dict[str, Damaged]:
    """Return a Damaged for each rows file that fails a check of `read_rows`, by Run id."""
    return damaged_among(lambda run_id: read_rows(store, run_id), run_ids)


def to_bytes(run: Run, table: pa.Table, provenance: Provenance) -> bytes:
    """Return the bytes of a rows file, with one record batch, so one dictionary per column."""
    assert table.schema.equals(schema.ROWS), f"{run.id}: {table.schema.names} is not schema.ROWS"
    assert table.num_rows > 0, f"{run.id}: a Run has at least the row of epoch 0"
    for field in schema.ROWS:
        assert field.nullable or table[field.name].null_count == 0, f"{run.id}: null {field.name}"
    assert pc.unique(table["run_id"].cast(pa.string())).to_pylist() == [run.id], run.id
    head = {
        _FORMAT: f"{_NAME}{schema.FORMAT}".encode(),
        _RUN: runs.to_json(run).encode(),
        _PROVENANCE: prov.to_json(provenance).encode(),
        _DIGEST: table_digest(table).encode(),
    }
    return arrow_file.to_bytes(table.unify_dictionaries(), head)


def from_bytes(payload: bytes, run_id: str, path: str) -> Finished:
    """Return the Run in the bytes of a rows file. `run_id`: the id in the file's name.

    A file of an older format is checked against its own digest, then gets the columns of later formats,
    with its Run's values. Raises Damaged if anything differs from what was written, and Newer for a file
    of a later release.
    """
    found = _decoded(payload, run_id, path, trust_seal=False)
    if why := _impossible([found]):
        raise Damaged(path, why)
    return found


def read_many(payloads: Mapping[str, bytes], *, trust_seal: bool) -> dict[str, Finished | Damaged]:
    """Return the Finished in each file, or a Damaged, by id; faster than `from_bytes` for each file.

    `trust_seal`: if the digest of a file's bytes matches, the digest of its values is not compared.
    """
    found: dict[str, Finished | Damaged] = {}
    whole: list[Finished] = []
    for run_id, payload in payloads.items():
        try:
            one = _decoded(payload, run_id, rows_path(run_id), trust_seal=trust_seal)
        except Damaged as damaged:
            found[run_id] = damaged
        else:
            found[run_id] = one
            whole.append(one)
    if whole and _impossible(whole):
        for one in whole:
            if why := _impossible([one]):
                found[one.run.id] = Damaged(rows_path(one.run.id), why)
    return found


def _impossible(found: Sequence[Finished]) -> str | None:
    table = pa.concat_tables([one.table for one in found]).unify_dictionaries()
    num_rows = [one.table.num_rows for one in found]
    why = schema.fault_in_rows(table, [one.run for one in found], num_rows)
    return f"{why}, although its checksum fits" if why else None


def _decoded(payload: bytes, run_id: str, path: str, *, trust_seal: bool) -> Finished:
    is_sealed = arrow_file.is_sealed(payload, path)
    with arrow_file.opened(pa.BufferReader(payload), path) as reader:
        head = _checked_head(reader.schema, run_id, path)
        is_current = head.format == schema.FORMAT
        columns = schema.ROWS if is_current else schema.schema_of(head.format)
        if not reader.schema.equals(columns, check_metadata=False):
            raise Damaged(path, "its columns are not those of a study's table")
        table = arrow_file.read_table(reader)
    if not (trust_seal and is_sealed) and (found := table_digest(table)) != head.rows_digest:
        raise Damaged(path, f"rows digest {found[:12]}, written as {head.rows_digest[:12]}")
    rows = schema.completed(table, head.run, head.format)
    return Finished(run=head.run, table=rows, provenance=head.provenance, is_sealed=is_sealed)


def head_from(source: pa.NativeFile, run_id: str, path: str) -> Head:
    """Read only the header of a rows file; see `from_bytes`. Raises the same errors."""
    with arrow_file.opened(source, path) as reader:
        return _checked_head(reader.schema, run_id, path)


def provenance_from(payload: bytes, run_id: str, path: str) -> Provenance:
    """Check all bytes of a rows file; return its provenance. Raises the errors of `from_bytes`.

    A file without a digest of all its bytes is decoded.
    """
    if not arrow_file.is_sealed(payload, path):
        return from_bytes(payload, run_id, path).provenance
    with arrow_file.opened(pa.BufferReader(payload), path) as reader:
        metadata, _ = _metadata(reader.schema, path)
        if digest_of(metadata[_RUN])[:12] != run_id:  # not canonical, or of another Run
            return _checked_head(reader.schema, run_id, path).provenance
    try:
        return prov.from_json(metadata[_PROVENANCE].decode())
    except ValueError as error:
        raise Newer(path, _written_by(metadata), str(error)) from error


def _metadata(file_schema: pa.Schema, path: str) -> tuple[Mapping[bytes, bytes], int]:
    """Return the checked metadata of a rows file, and the number of its format."""
    metadata = arrow_file.checked(file_schema.metadata, _HEAD, path, "rows file")
    number = metadata[_FORMAT].decode().removeprefix(_NAME)
    if not number.isdigit() or not 1 <= int(number) <= schema.FORMAT:
        raise Newer(path, _written_by(metadata), metadata[_FORMAT].decode())
    return metadata, int(number)


def _checked_head(file_schema: pa.Schema, run_id: str, path: str) -> Head:
    metadata, number = _metadata(file_schema, path)
    try:
        run = runs.from_json(metadata[_RUN].decode())
        provenance = prov.from_json(metadata[_PROVENANCE].decode())
    except ValueError as error:
        # The checksum matches, so a release with other fields wrote it.
        raise Newer(path, _written_by(metadata), str(error)) from error
    if run.id != run_id:
        raise Damaged(path, f"it holds Run {run.id}, which is not the Run in its name")
    return Head(
        run=run,
        provenance=provenance,
        rows_digest=metadata[_DIGEST].decode(),
        format=number,
    )


def _written_by(metadata: Mapping[bytes, bytes]) -> str:
    try:
        return str(json.loads(metadata[_PROVENANCE])["code_version"])
    except (ValueError, KeyError, TypeError):
        return ""
