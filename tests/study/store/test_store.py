"""The store in a directory: objects are read back, later formats are named, and nothing is torn."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study import run as runs
from study.run import Run
from study.store import (
    Damaged,
    Newer,
    Registration,
    Store,
    arrow_file,
    artifacts,
    atomic,
    finished_ids,
    labels_of,
    open_store,
    predictions_path,
    provenance,
    read_failure,
    read_failures,
    read_head,
    read_heads,
    read_predictions,
    read_registrations,
    read_rows,
    read_study,
    read_weights,
    rows,
    rows_path,
    schema,
    studies,
    study_names,
    study_path,
)
from study.store.arrow_file import table_digest
from study.store.artifacts import (
    ids_with_weights,
    predictions_there,
    publish_predictions,
    publish_weights,
)
from study.store.layout import unfinished_path
from study.store.rows import check_rows, publish_rows
from study.store.studies import add_registration, write_study
from study.store.unfinished import (
    clear_failure,
    list_unfinished,
    read_began,
    read_checkpoint,
    sweep,
    write_checkpoint,
    write_failure,
)
from tests.stored import SOURCE, a_failure, a_predictions, a_provenance, a_run, a_table


@pytest.mark.parametrize("run", [a_run(), SOURCE, replace(SOURCE, start="pretrained", frozen=9)])
def test_read_rows_returns_what_was_published(empty: Store, run: Run) -> None:
    table = a_table(run)
    publish_rows(empty, run, table, a_provenance())
    found = read_rows(empty, run.id)
    assert found.table.equals(table, check_metadata=True)
    assert (found.run, found.provenance) == (run, a_provenance())
    head = read_head(empty, run.id)
    assert (head.run, head.provenance) == (run, a_provenance())
    assert head.rows_digest == table_digest(table)
    assert finished_ids(empty) == {run.id}
    assert check_rows(empty, [run.id]) == {}


def test_rows_folder_is_one_dataset(empty: Store) -> None:
    for run in (a_run(), SOURCE):
        publish_rows(empty, run, a_table(run), a_provenance())
    folder = Path(empty.base) / "rows"
    atomic.temporary_beside(folder / "x.arrow").write_bytes(b"torn")
    whole = pyarrow.dataset.dataset(folder, format="ipc").to_table()
    assert whole.num_rows == 6
    assert set(whole["run_id"].to_pylist()) == {a_run().id, SOURCE.id} == finished_ids(empty)


def test_store_reading_creates_no_folder(empty: Store) -> None:
    assert finished_ids(empty) == ids_with_weights(empty) == frozenset()
    assert list_unfinished(empty) == read_failures(empty) == {}
    assert study_names(empty) == sweep(empty) == []
    assert not Path(empty.base).exists()
    with pytest.raises(FileNotFoundError):
        read_rows(empty, "0" * 12)


finite = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(finite, min_size=1, max_size=20), cut=st.integers(0, 20))
def test_table_digest_depends_only_on_values(values: list[float], cut: int) -> None:
    table = a_table(values=values)
    in_chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut), table.slice(0, 0)])
    assert table_digest(in_chunks) == table_digest(table)
    decoded = [
        column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    assert table_digest(pa.table(decoded, names=table.column_names)) == table_digest(table)
    payload = rows.to_bytes(a_run(), in_chunks, a_provenance())
    with arrow_file.opened(pa.BufferReader(payload), "x") as reader:
        assert table_digest(arrow_file.read_table(reader)) == table_digest(table)


def test_table_digest_changes_with_every_column() -> None:
    table = a_table()
    digests = {table_digest(table)}
    for number, field in enumerate(schema.ROWS):
        if pa.types.is_dictionary(field.type):
            other = pa.array(["other", "target", None], pa.string()).dictionary_encode()
        else:
            other = pa.array([7, 8, None], field.type)
        digests.add(table_digest(table.set_column(number, field.name, other)))
        digests.add(table_digest(table.set_column(number, field.name, other.take([1, 0, 2]))))
    assert len(digests) == 1 + 2 * len(schema.ROWS)
    assert table_digest(a_table(values=[0.0])) != table_digest(a_table(values=[-0.0]))


def test_table_digest_is_pinned() -> None:
    # Files written by earlier versions carry it: a change would make them look damaged.
    table = pa.table(
        {
            "name": pa.array(["b", "a", None, "b"]).dictionary_encode(),
            "width": pa.array([4, None, 0, -1], pa.int32()),
            "loss": pa.array([0.1, -0.0, float("inf"), None], pa.float64()),
        }
    )
    assert table_digest(table) == "16f55f0b7a3fde4f083352ece45a63a3263c5c7e63d3b7cd6eca09da8d016b38"


def test_rows_without_a_file_digest_are_read_as_unsealed() -> None:
    run = a_run()
    good = rows.to_bytes(run, a_table(), a_provenance())
    with pa.ipc.open_file(good) as reader:
        plain = reader.read_all()
    kept = {k: v for k, v in plain.schema.metadata.items() if k != b"file_digest"}
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, plain.replace_schema_metadata(kept).schema) as writer:
        writer.write_table(plain.replace_schema_metadata(kept))
    found = rows.from_bytes(sink.getvalue().to_pybytes(), run.id, "x")
    assert not found.is_sealed
    assert found.table.equals(a_table())


def test_read_rows_other_columns_are_damaged(empty: Store) -> None:
    # As a flipped bit in the file's schema makes them, with metadata that are whole.
    run = a_run()
    good = rows.to_bytes(run, a_table(), a_provenance())
    head = pa.ipc.open_file(good).schema.metadata
    del head[b"file_digest"]
    for column in (pa.array([{}], pa.struct([])), pa.array([1])):
        table = pa.table({"run_id": column}).replace_schema_metadata(head)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        empty.put(rows_path(run.id), sink.getvalue().to_pybytes())
        with pytest.raises(Damaged, match="its columns are not those"):
            read_rows(empty, run.id)


def test_read_rows_later_format_raises_newer(empty: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(schema, "FORMAT", schema.FORMAT + 1)
        made_by = replace(a_provenance(), code_version="7.0.0+01234567")
        publish_rows(empty, a_run(), a_table(), made_by)
    newer = rf"rows/{a_run().id}.arrow was written by freezewise 7.0.0\+01234567 \(freezewise rows "
    for read in (read_rows, read_head):
        with pytest.raises(Newer, match=newer):
            read(empty, a_run().id)
    with pytest.raises(Newer, match=newer):
        check_rows(empty, [a_run().id])


def test_read_rows_earlier_format_gets_later_columns(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    publish_rows(empty, run, a_table(), a_provenance())
    before = a_table(run).to_pylist()
    # As if the next release had a further coordinate, which a Run of this one has in its first value.
    number = schema.FORMAT + 1
    depth = runs.Coordinate(
        name="depth", kind="count", group="cut", of=lambda _: 7, meaning="of it", since=number
    )
    column = schema.Column("depth", pa.int32(), "", "of it", since=number)
    monkeypatch.setattr(runs, "COORDINATES", (*runs.COORDINATES, depth))
    monkeypatch.setattr(schema, "COLUMNS", (*schema.COLUMNS, column))
    monkeypatch.setattr(schema, "FORMAT", number)
    monkeypatch.setattr(schema, "ROWS", schema.schema_of(number))
    table = read_rows(empty, run.id).table
    assert table.schema == schema.ROWS
    assert table["depth"].to_pylist() == [7] * table.num_rows
    assert table.drop_columns("depth").to_pylist() == before
    assert not check_rows(empty, [run.id])


def test_failure_is_written_read_and_cleared(empty: Store) -> None:
    run = a_run()
    write_failure(empty, run.id, a_failure())
    write_failure(empty, SOURCE.id, replace(a_failure(), kind="start failed"))
    assert read_failures(empty)[run.id] == a_failure()
    assert list_unfinished(empty)[run.id].files == {"failure.json"}
    Path(empty.base, unfinished_path(SOURCE.id, "failure.json")).write_text("{")
    assert set(read_failures(empty)) == {run.id}
    clear_failure(empty, run.id)
    clear_failure(empty, run.id)
    assert read_failures(empty) == {}


def test_read_study_and_failure_of_a_later_release_raise_newer(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    monkeypatch.setattr(studies, "release", lambda: "7.0.0")
    later = {"runs": [{**run.to_dict(), "depth": 7}]}
    empty.put(study_path("later"), studies.seal(later))
    with pytest.raises(Newer, match=r"studies/later.json was written by freezewise 7.0.0 .*depth"):
        read_study(empty, "later")
    empty.put(study_path("later"), studies.seal({"runs": [run.to_dict()], "because": "of it"}))
    with pytest.raises(
        Newer, match=r"studies/later.json was .* 7.0.0 \('because' beside its Runs\)"
    ):
        read_study(empty, "later")
    note = {**vars(a_failure()), "node": "n7"}
    empty.put(unfinished_path(run.id, "failure.json"), studies.seal(note))
    for read in (lambda: read_failure(empty, run.id), lambda: read_failures(empty)):
        with pytest.raises(Newer, match=r"failure.json was written by freezewise 7.0.0 .*node"):
            read()


def test_read_heads_vanished_run_is_skipped(empty: Store) -> None:
    # `study status` looks while trials finish.
    assert read_heads(empty, [a_run().id]) == check_rows(empty, [a_run().id]) == {}
    assert read_began(empty, a_run().id) is None


def test_sweep_removes_files_of_dead_processes_and_finished_runs(empty: Store) -> None:
    run = a_run()
    write_checkpoint(empty, run.id, b"of a finished Run")
    write_checkpoint(empty, SOURCE.id, b"of a Run in flight")
    publish_rows(empty, run, a_table(), a_provenance())
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    ours = atomic.temporary_beside(Path(empty.base, "rows", "x.arrow"))
    theirs = ours.with_name(ours.name.replace(f"~{os.getpid()}~", f"~{int(dead.stdout)}~"))
    old = ours.with_name(".of-somebody.tmp")
    for path in (ours, theirs, old):
        path.write_bytes(b"torn")
    os.utime(old, (0, 0))
    assert set(sweep(empty)) == {
        f"rows/{theirs.name}",
        f"rows/{old.name}",
        f"unfinished/{run.id}",
    }
    assert ours.exists()
    assert set(list_unfinished(empty)) == {SOURCE.id}


def test_weights_with_other_content_have_another_path(empty: Store) -> None:
    first, second = (publish_weights(empty, SOURCE.id, made) for made in (b"first", b"second"))
    assert read_weights(empty, SOURCE.id, first) == b"first"
    assert read_weights(empty, SOURCE.id, second) == b"second"
    assert ids_with_weights(empty) == {SOURCE.id}


def test_read_predictions_returns_what_was_published(empty: Store) -> None:
    table = a_predictions()
    made = publish_predictions(empty, SOURCE.id, table, "f" * 64)
    found = read_predictions(empty, SOURCE.id, made)
    assert found.equals(table)
    np.testing.assert_array_equal(labels_of(found), labels_of(table))
    assert found.schema.metadata[b"run_id"] == SOURCE.id.encode()
    assert found.schema.metadata[b"task_fingerprint"] == b"f" * 64
    assert (
        pyarrow.dataset.dataset(Path(empty.base, "predictions"), format="ipc")
        .to_table()
        .equals(table)
    )
    other = publish_predictions(empty, SOURCE.id, table.slice(1), "f" * 64)
    paths = sorted(predictions_path(SOURCE.id, digest) for digest in (made, other))
    assert predictions_there(empty) == {SOURCE.id: paths}
    with pytest.raises(FileNotFoundError):
        read_predictions(empty, a_run().id, made)


def test_predictions_digest_depends_only_on_values() -> None:
    table = a_predictions()
    made = artifacts.predictions_digest(table)
    in_chunks = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert artifacts.predictions_digest(in_chunks) == made
    # Files written by earlier versions carry it: a change would make them look damaged.
    assert made == "6c4d95f5f9245a992cb9686f653d54901197e526457ce0910057f9dc636dba6e"
    labels = labels_of(table).copy()
    labels[2, 7] += 1
    epochs, steps = (table[name].to_pylist() for name in ("epoch", "step"))
    others = [
        artifacts.predictions_table(epochs, steps, labels),
        artifacts.predictions_table([0, 1, 3], steps, labels_of(table)),
        artifacts.predictions_table(epochs, [0, 10, 30], labels_of(table)),
        artifacts.predictions_table(epochs, steps, labels_of(table)[:, ::-1]),
    ]
    assert len({made, *map(artifacts.predictions_digest, others)}) == 5


def test_read_predictions_checks_probabilities(
    empty: Store,
) -> None:
    labels = labels_of(a_predictions())
    kept = np.random.default_rng(0).integers(0, 256, (labels.shape[1], 7), np.uint8)
    table = artifacts.predictions_table([0, 1, 2], [0, 10, 20], labels, kept)
    made = publish_predictions(empty, SOURCE.id, table, "f" * 64)
    found = read_predictions(empty, SOURCE.id, made)
    assert found.equals(table)
    read = artifacts.probabilities_of(found)
    assert read is not None and (np.round(255 * read) == kept).all()
    assert artifacts.check_predictions(empty, {SOURCE.id: made}) == {}
    assert artifacts.probabilities_of(a_predictions()) is None
    other = artifacts.predictions_table([0, 1, 2], [0, 10, 20], labels, kept ^ 1)
    assert len({made, *map(artifacts.predictions_digest, (other, a_predictions()))}) == 3
    one_too_many = np.append(kept, np.uint8(1))
    wrong = artifacts.predictions_table([0, 1, 2], [0, 10, 20], labels, one_too_many)
    with pytest.raises(Damaged, match="columns do not match"):
        read_predictions(empty, SOURCE.id, publish_predictions(empty, SOURCE.id, wrong, "f" * 64))


def test_read_predictions_later_format_or_other_content_raises(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = a_predictions()
    with monkeypatch.context() as later:
        later.setattr(artifacts, "FORMAT", "freezewise predictions 2")
        later.setattr(artifacts, "release", lambda: "7.0.0")
        made = publish_predictions(empty, SOURCE.id, table, "f" * 64)
    with pytest.raises(Newer, match=r"by freezewise 7.0.0 \(freezewise predictions 2\)"):
        read_predictions(empty, SOURCE.id, made)
    empty.put(
        predictions_path(SOURCE.id, made),
        artifacts.predictions_to_bytes(SOURCE.id, table.slice(1), "f" * 64),
    )
    with pytest.raises(Damaged, match="its predictions do not match its name"):
        read_predictions(empty, SOURCE.id, made)


def test_open_store_wrong_root_names_the_problem_without_secrets(empty: Store) -> None:
    with pytest.raises(ValueError, match=r"run id '\.\./x'"):
        read_rows(empty, "../x")
    with pytest.raises(ValueError, match="study='a/b'"):
        write_study(empty, "a/b", [])
    for root, why in (
        ("foo://x", "unknown scheme. Choose a directory, s3://bucket/folder, gs://bucket/folder"),
        ("s3://", "it names no bucket"),
        ("s3:///x", "it names no bucket"),
        ("s3://b/x?zone=1", "unknown option 'zone'. Choose from scheme, endpoint_override, region"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"root='{root}': {why}")):
            open_store(root)
    with pytest.raises(ValueError) as refused:
        open_store("s3://key:SECRET@b/r?token=SECRET")
    assert "SECRET" not in str(refused.value)
    assert open_store("s3://key:secret@b/r?region=us-east-1").shown.startswith("s3://b/r")


def test_write_checkpoint_too_large_fails_and_leaves_no_file(empty: Store) -> None:
    run = a_run()
    empty.put("weights/kept", b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write: File too large.*checkpoint") as failed:
            write_checkpoint(empty, run.id, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.errno == errno.EFBIG
    assert [p for p in Path(empty.base).rglob("*") if p.is_file()] == [
        Path(empty.base, "weights/kept")
    ]


KILLED = """
import hashlib, os, random, signal, sys, time
from pathlib import Path
from study.store import open_store
from study.store.unfinished import sweep

store = open_store(sys.argv[1])
chance = random.Random(0)
seen = 0
for number in range(25):
    writer = os.fork()
    if writer == 0:
        while True:
            for name in ("a", "b"):
                payload = os.urandom(random.randrange(1_000_000))
                store.put(f"x/{name}", hashlib.sha256(payload).digest() + payload)
    time.sleep(0.005 + 0.04 * chance.random())
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    for info in store.listed("x"):
        whole = store.get(f"x/{info.base_name}")
        assert hashlib.sha256(whole[32:]).digest() == whole[:32], f"torn in round {number}"
        seen += 1
left = len(list(Path(sys.argv[1]).rglob(".*.tmp")))
assert len(sweep(store)) == left and not list(Path(sys.argv[1]).rglob(".*.tmp"))
print(seen, left)
"""


@pytest.mark.slow
def test_put_killed_writer_leaves_whole_objects(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    num_seen, num_left = map(int, done.stdout.split())
    assert num_seen > 0
    assert num_left > 0, "no writer was killed in the middle of writing: the test shows nothing"


def test_provenance_from_json_ignores_later_fields() -> None:
    text = provenance.to_json(a_provenance())
    assert provenance.from_json(text) == a_provenance()
    assert provenance.from_json(text.replace("{", '{"later":1,', 1)) == a_provenance()
    of_0_1_0 = {name: value for name, value in json.loads(text).items() if name != "trainer"}
    assert provenance.from_json(json.dumps(of_0_1_0)).trainer == 1
    with pytest.raises(ValueError, match="code_version"):
        provenance.from_json("{}")


def test_code_version_is_a_release_and_a_hash() -> None:
    assert re.fullmatch(r"[\w.]+\+[0-9a-f]{8}", provenance.code_version())
    assert set(provenance.packages()) <= set(provenance.PACKAGES)
    assert "pyarrow" in provenance.packages()


def test_read_checkpoint_later_format_raises_newer(empty: Store) -> None:
    path = unfinished_path(a_run().id, "checkpoint")
    empty.put(path, b"freezewise checkpoint 2\n" + b"whatever that is")
    with pytest.raises(Newer, match=rf"{path} .*freezewise checkpoint 2"):
        read_checkpoint(empty, a_run().id)


# Registrations

FIRST = Registration(
    registered_at="2026-01-01T00:00:00+00:00",
    is_late=False,
    run_ids=("0" * 12, "1" * 12),
    terms={"epsilon": 0.1, "PRIMARY": {"C1": "a contrast"}},
)


def test_read_registrations_returns_all_oldest_first(empty: Store) -> None:
    assert read_registrations(empty, "mine") == []
    later = replace(FIRST, is_late=True, run_ids=("0" * 12,))
    for one in (FIRST, later):
        add_registration(empty, "mine", one)
    assert read_registrations(empty, "mine") == [FIRST, later]
    assert study_names(empty) == []


def test_registration_digest_depends_only_on_runs_and_terms() -> None:
    assert FIRST.digest == replace(FIRST, registered_at="later", is_late=True).digest
    assert FIRST.digest != replace(FIRST, run_ids=FIRST.run_ids[:1]).digest
    assert FIRST.digest != replace(FIRST, terms={**FIRST.terms, "epsilon": 0.2}).digest
