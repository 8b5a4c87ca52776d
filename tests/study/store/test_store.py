"""The store in a directory: what is written comes back, or is named as damaged, and nothing is torn."""

from __future__ import annotations

import errno
import os
import random
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from study.run import Run
from study.store import (
    Damaged,
    Store,
    atomic,
    open_store,
    provenance,
    rows,
    rows_path,
    schema,
    study_path,
    unfinished_path,
    weights_path,
)
from study.store.processes import this_process
from tests.stored import SOURCE, a_failure, a_provenance, a_run, a_table


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return open_store(tmp_path / "root")


@pytest.mark.parametrize("run", [a_run(), SOURCE, replace(SOURCE, start="pretrained", frozen=9)])
def test_rows_come_back(empty: Store, run: Run) -> None:
    table = a_table(run)
    empty.publish_rows(run, table, a_provenance())
    found = empty.read_rows(run.id)
    assert found.table.equals(table, check_metadata=True)
    assert (found.run, found.provenance) == (run, a_provenance())
    head = empty.read_head(run.id)
    assert (head.run, head.provenance) == (run, a_provenance())
    assert head.rows_digest == rows.digest(table)
    assert empty.finished() == {run.id}
    assert empty.check_rows([run.id]) == {}


def test_a_directory_of_rows_is_one_dataset(empty: Store) -> None:
    for run in (a_run(), SOURCE):
        empty.publish_rows(run, a_table(run), a_provenance())
    folder = Path(empty.base) / "rows"
    atomic.temporary_beside(folder / "x.arrow").write_bytes(b"torn")
    whole = pyarrow.dataset.dataset(folder, format="ipc").to_table()
    assert whole.num_rows == 6
    assert set(whole["run_id"].to_pylist()) == {a_run().id, SOURCE.id} == empty.finished()


def test_nothing_is_made_before_the_first_write(empty: Store) -> None:
    assert empty.finished() == empty.weights() == frozenset()
    assert empty.unfinished() == empty.failures() == {}
    assert empty.studies() == empty.sweep() == []
    assert not Path(empty.base).exists()
    with pytest.raises(FileNotFoundError):
        empty.read_rows("0" * 12)


finite = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(finite, min_size=1, max_size=20), cut=st.integers(0, 20))
def test_the_rows_digest_depends_on_the_values_alone(values: list[float], cut: int) -> None:
    table = a_table(values=values)
    in_chunks = pa.concat_tables([table.slice(0, cut), table.slice(cut), table.slice(0, 0)])
    assert rows.digest(in_chunks) == rows.digest(table)
    decoded = [
        column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    assert rows.digest(pa.table(decoded, names=table.column_names)) == rows.digest(table)
    payload = rows.to_bytes(a_run(), in_chunks, a_provenance())
    assert rows.digest(rows.from_bytes(payload, a_run().id, "x").table) == rows.digest(table)


def test_every_value_counts_in_the_rows_digest() -> None:
    table = a_table()
    digests = {rows.digest(table)}
    for number, field in enumerate(schema.ROWS):
        if pa.types.is_dictionary(field.type):
            other = pa.array(["other", "target", None], pa.string()).dictionary_encode()
        else:
            other = pa.array([7, 8, None], field.type)
        digests.add(rows.digest(table.set_column(number, field.name, other)))
        digests.add(rows.digest(table.set_column(number, field.name, other.take([1, 0, 2]))))
    assert len(digests) == 1 + 2 * len(schema.ROWS)
    assert rows.digest(a_table(values=[0.0])) != rows.digest(a_table(values=[-0.0]))


def test_the_rows_digest_is_pinned() -> None:
    # Files written by earlier versions carry it: a change would make them look damaged.
    table = pa.table(
        {
            "name": pa.array(["b", "a", None, "b"]).dictionary_encode(),
            "width": pa.array([4, None, 0, -1], pa.int32()),
            "loss": pa.array([0.1, -0.0, float("inf"), None], pa.float64()),
        }
    )
    assert rows.digest(table) == "16f55f0b7a3fde4f083352ece45a63a3263c5c7e63d3b7cd6eca09da8d016b38"


def everything(store: Store) -> dict[str, Callable[[], object]]:
    """Writes one object of each kind; how each is read, by path."""
    run = a_run()
    digest = store.publish_weights(run.id, b"weights" * 50)
    store.publish_rows(run, a_table(), a_provenance())
    store.write_checkpoint(run.id, b"checkpoint" * 50)
    store.began(run.id, this_process())
    store.write_study("a", [run, SOURCE])
    return {
        rows_path(run.id): lambda: store.read_rows(run.id),
        weights_path(run.id, digest): lambda: store.read_weights(run.id, digest),
        unfinished_path(run.id, "checkpoint"): lambda: store.read_checkpoint(run.id),
        unfinished_path(run.id, "began.json"): lambda: store.read_began(run.id),
        study_path("a"): lambda: store.read_study("a"),
    }


def test_damage_is_named_or_changes_nothing(empty: Store) -> None:
    chance = random.Random(0)
    for path, read in everything(empty).items():
        file, good, value = Path(empty.base) / path, empty.get(path), read()
        assert read() == value
        damages = [b"", b"\0", b"foreign", good[:-1], good[1:], good + b"\0", good[::-1]]
        for _ in range(50):
            place = chance.randrange(len(good))
            flipped = bytearray(good)
            flipped[place] ^= 1 << chance.randrange(8)
            holed = bytearray(good)
            holed[place : place + 512] = bytes(len(holed[place : place + 512]))
            damages += [bytes(flipped), bytes(holed), good[:place]]
        for damage in damages:
            file.write_bytes(damage)
            try:
                assert read() == value
            except Damaged as damaged:
                assert damaged.path == path
                assert damaged.why
                assert path in str(damaged)
        assert empty.get(empty.set_aside(path)) == damages[-1]
        assert not file.exists()


def test_damage_is_not_overlooked(empty: Store) -> None:
    for path, read in everything(empty).items():
        file, good = Path(empty.base) / path, empty.get(path)
        foreign = [b"foreign", b"[" * 100_000, b'{"digest": "", "content": NaN}', b"[1]"]
        for damage in (b"", good[: len(good) // 2], *foreign):
            file.write_bytes(damage)
            with pytest.raises(Damaged, match=re.escape(path)):
                read()
    assert list(empty.check_rows(empty.finished())) == [a_run().id]


def test_rows_under_the_name_of_another_run_are_damaged(empty: Store) -> None:
    empty.put(rows_path(SOURCE.id), rows.to_bytes(a_run(), a_table(), a_provenance()))
    with pytest.raises(Damaged, match=f"it holds Run {a_run().id}"):
        empty.read_rows(SOURCE.id)
    with pytest.raises(Damaged, match=f"it holds Run {a_run().id}"):
        empty.read_head(SOURCE.id)


def test_rows_with_other_columns_are_damaged(empty: Store) -> None:
    # As a flipped bit in the file's schema makes them, with metadata that are whole.
    run = a_run()
    good = rows.to_bytes(run, a_table(), a_provenance())
    head = pa.ipc.open_file(good).schema.metadata
    for column in (pa.array([{}], pa.struct([])), pa.array([1])):
        table = pa.table({"run_id": column}).replace_schema_metadata(head)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        empty.put(rows_path(run.id), sink.getvalue().to_pybytes())
        with pytest.raises(Damaged, match="its columns are not those"):
            empty.read_rows(run.id)


def test_rows_of_a_later_format_are_refused_not_set_aside(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as later:
        later.setattr(rows, "FORMAT", "freezewise rows 2")
        empty.publish_rows(a_run(), a_table(), a_provenance())
    with pytest.raises(ValueError, match=r"freezewise rows 2.*freezewise rows 1"):
        empty.read_rows(a_run().id)


def test_a_failure_is_noted_and_forgotten(empty: Store) -> None:
    run = a_run()
    empty.write_failure(run.id, a_failure())
    empty.write_failure(SOURCE.id, replace(a_failure(), kind="start failed"))
    assert empty.failures()[run.id] == a_failure()
    assert empty.unfinished()[run.id].files == {"failure.json"}
    Path(empty.base, unfinished_path(SOURCE.id, "failure.json")).write_text("{")
    assert set(empty.failures()) == {run.id}
    empty.clear_failure(run.id)
    empty.clear_failure(run.id)
    assert empty.failures() == {}


def test_what_vanishes_while_it_is_read_is_absent(empty: Store) -> None:
    # `study status` looks while trials finish.
    assert empty.read_heads([a_run().id]) == empty.check_rows([a_run().id]) == {}
    assert empty.read_began(a_run().id) is None


def test_sweep_removes_what_the_dead_left(empty: Store) -> None:
    run = a_run()
    empty.write_checkpoint(run.id, b"of a finished Run")
    empty.write_checkpoint(SOURCE.id, b"of a Run in flight")
    empty.publish_rows(run, a_table(), a_provenance())
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=-1)
    ours = atomic.temporary_beside(Path(empty.base, "rows", "x.arrow"))
    theirs = ours.with_name(ours.name.replace(f"~{os.getpid()}~", f"~{int(dead.stdout)}~"))
    old = ours.with_name(".of-somebody.tmp")
    for path in (ours, theirs, old):
        path.write_bytes(b"torn")
    os.utime(old, (0, 0))
    assert set(empty.sweep()) == {
        f"rows/{theirs.name}",
        f"rows/{old.name}",
        f"unfinished/{run.id}",
    }
    assert ours.exists()
    assert set(empty.unfinished()) == {SOURCE.id}


def test_weights_made_twice_lie_beside_each_other(empty: Store) -> None:
    first, second = (empty.publish_weights(SOURCE.id, made) for made in (b"first", b"second"))
    assert empty.read_weights(SOURCE.id, first) == b"first"
    assert empty.read_weights(SOURCE.id, second) == b"second"
    assert empty.weights() == {SOURCE.id}


def test_a_file_is_moved_into_the_store(empty: Store, tmp_path: Path) -> None:
    (tmp_path / "grown").write_bytes(b"task")
    empty.put_file("tasks/t.arrow", tmp_path / "grown")
    assert empty.get("tasks/t.arrow") == b"task"
    assert empty.local_path("tasks/t.arrow") == Path(empty.base, "tasks/t.arrow")


def test_user_mistakes_are_named(empty: Store) -> None:
    with pytest.raises(ValueError, match=r"run id '\.\./x'"):
        empty.read_rows("../x")
    with pytest.raises(ValueError, match="study='a/b'"):
        empty.write_study("a/b", [])
    for root in ("foo://x", "s3://", "s3:///x"):
        with pytest.raises(ValueError, match=f"root='{root}'"):
            open_store(root)
    assert open_store("s3://key:secret@b/r?region=us-east-1").shown.startswith("s3://b/r")


def test_a_disk_that_is_full_is_an_error_at_once_and_leaves_nothing(empty: Store) -> None:
    run = a_run()
    empty.put("weights/kept", b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write: File too large.*checkpoint") as failed:
            empty.write_checkpoint(run.id, bytes(1_000_000))
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
assert len(store.sweep()) == left and not list(Path(sys.argv[1]).rglob(".*.tmp"))
print(seen, left)
"""


def test_a_killed_writer_publishes_nothing_torn(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    num_seen, num_left = map(int, done.stdout.split())
    assert num_seen > 0
    assert num_left > 0, "no writer was killed in the middle of writing: the test shows nothing"


def test_provenance_comes_back_and_passes_over_later_fields() -> None:
    text = provenance.to_json(a_provenance())
    assert provenance.from_json(text) == a_provenance()
    assert provenance.from_json(text.replace("{", '{"later":1,', 1)) == a_provenance()
    with pytest.raises(ValueError, match="code_version"):
        provenance.from_json("{}")


def test_the_code_version_has_its_form() -> None:
    assert re.fullmatch(r"[\w.]+\+[0-9a-f]{8}", provenance.code_version())
    assert set(provenance.packages()) <= set(provenance.PACKAGES)
    assert "pyarrow" in provenance.packages()
