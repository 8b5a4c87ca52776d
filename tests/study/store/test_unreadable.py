"""What a disk cannot read any more is damaged; what it merely does not give just now is not."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from study import tasks
from study.store import (
    Damaged,
    Store,
    atomic,
    open_store,
    read_failure,
    read_head,
    read_heads,
    read_rows,
    read_study,
    read_weights,
    rows_path,
    study_path,
    weights_path,
)
from study.store.artifacts import publish_weights
from study.store.layout import unfinished_path
from study.store.rows import check_rows, publish_rows
from study.store.studies import write_study
from study.store.unfinished import read_checkpoint, write_checkpoint, write_failure
from tests.stored import a_failure, a_provenance, a_run, a_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem gives EIO")
RUN = a_run()


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return replace(open_store(tmp_path / "root"), waits=(0.0,) * 5)


def lose(store: Store, path: str) -> None:
    """Reading this file fails with EIO from now on, as where its sectors cannot be read."""
    file = Path(store.base) / path
    file.unlink()
    file.symlink_to("/proc/self/mem")


def test_rows_are_damaged_set_aside_and_made_anew(empty: Store) -> None:
    publish_rows(empty, RUN, a_table(), a_provenance())
    lose(empty, rows_path(RUN.id))
    with pytest.raises(Damaged, match=rf"{rows_path(RUN.id)} .*\(3 tries\): Input/output error"):
        read_rows(empty, RUN.id)
    with pytest.raises(Damaged):
        read_head(empty, RUN.id)
    assert isinstance(read_heads(empty, [RUN.id])[RUN.id], Damaged)
    assert list(check_rows(empty, [RUN.id])) == [RUN.id]
    assert empty.quarantine(rows_path(RUN.id)) == empty.quarantined()[0]
    publish_rows(empty, RUN, a_table(), a_provenance())
    assert read_rows(empty, RUN.id).run == RUN


def test_weights_checkpoint_study_and_note_are(empty: Store) -> None:
    digest = publish_weights(empty, RUN.id, b"weights")
    write_checkpoint(empty, RUN.id, b"state")
    write_study(empty, "mine", [RUN])
    write_failure(empty, RUN.id, a_failure())
    for path in (
        weights_path(RUN.id, digest),
        unfinished_path(RUN.id, "checkpoint"),
        study_path("mine"),
        unfinished_path(RUN.id, "failure.json"),
    ):
        lose(empty, path)
    for read in (
        lambda: read_weights(empty, RUN.id, digest),
        lambda: read_checkpoint(empty, RUN.id),
        lambda: read_study(empty, "mine"),
    ):
        with pytest.raises(Damaged, match="Input/output error"):
            read()
    assert read_failure(empty, RUN.id) is None, "it can fail again, and is noted then"


def test_a_prepared_task_is_damaged_not_the_end_of_the_process(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.prepared_file, "WAITS", ())
    store = replace(store, waits=())
    lose(store, "tasks/digits-low.arrow")
    for read in (tasks.load, tasks.load_info):
        with pytest.raises(Damaged, match=r"tasks/digits-low.arrow .*Input/output error"):
            read("digits-low", store)
    tasks.prepare(tasks.BUILTIN["digits-low"], store, None, progress=False)
    assert tasks.load("digits-low", store).info.num_classes == 5
    assert len(store.quarantined()) == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EPERM])
def test_what_is_merely_not_given_is_left_where_it_is(
    empty: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    publish_rows(empty, RUN, a_table(), a_provenance())

    def refused(self: Path) -> bytes:
        raise OSError(number, "not now")

    def not_opened(*_: object) -> None:
        raise OSError(number, "not now")

    monkeypatch.setattr(Path, "read_bytes", refused)
    monkeypatch.setattr(atomic.pa, "OSFile", not_opened)
    for read in (read_rows, read_head):
        with pytest.raises(OSError, match=r"cannot read.*not now"):
            read(empty, RUN.id)


def test_what_cannot_be_moved_stays_and_can_be_written_over(empty: Store) -> None:
    publish_rows(empty, RUN, a_table(), a_provenance())
    lose(empty, rows_path(RUN.id))
    Path(empty.base, "damaged").write_text("no folder")
    assert empty.quarantine(rows_path(RUN.id)) is None
    assert list(check_rows(empty, [RUN.id])) == [RUN.id]
    publish_rows(empty, RUN, a_table(), a_provenance())
    assert check_rows(empty, [RUN.id]) == {}
