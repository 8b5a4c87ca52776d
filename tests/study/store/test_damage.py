"""Each kind of object, damaged: reading it names the damage, or returns what was written."""

from __future__ import annotations

import errno
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from study.planning.integrity import KINDS, Kind
from study.store import (
    Damaged,
    Newer,
    Registration,
    Store,
    atomic,
    layout,
    read_failure,
    read_head,
    read_heads,
    read_rows,
    rows_path,
    similarity,
)
from study.store.artifacts import publish_predictions, publish_weights
from study.store.compacted import Copy
from study.store.compaction import compact
from study.store.processes import this_process
from study.store.rows import check_rows, publish_rows
from study.store.studies import add_registration, write_study
from study.store.unfinished import note_began, write_checkpoint, write_failure
from study.tasks import PreparedTask, load_info, prepared_file
from tests.stored import (
    SOURCE,
    a_failure,
    a_predictions,
    a_provenance,
    a_run,
    a_similarity,
    a_table,
)

# Every byte of these files is covered by a checksum.
SEALED = {layout.ROWS, layout.COMPACTED, layout.PREDICTIONS, layout.WEIGHTS}
OF_A_RUN = {layout.ROWS, layout.PREDICTIONS, layout.SIMILARITY}  # name their Run inside
FOREIGN = (b"\0", b"foreign", b"[" * 100_000, b'{"digest": "", "content": NaN}', b"[1]")


@pytest.fixture
def full(store: Store) -> Store:
    """A store with objects of every kind."""
    run = a_run()
    publish_rows(store, run, a_table(), a_provenance())
    publish_weights(store, SOURCE.id, b"weights" * 50)
    publish_predictions(store, run.id, a_predictions(), "f" * 64)
    similarity.publish(store, run, a_similarity(run))
    write_study(store, "a", [run, SOURCE])
    registration = Registration(
        registered_at="2026-01-01T00:00:00+00:00", is_late=False, run_ids=(run.id,), terms={"a": 1}
    )
    add_registration(store, "a", registration)
    write_checkpoint(store, run.id, b"checkpoint" * 50)
    note_began(store, run.id, this_process())
    write_failure(store, run.id, a_failure())
    compact(store)
    return store


def objects(store: Store, kind: Kind) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the path of each object of this kind, and a call that reads it."""
    for entry in store.listed(kind.folder, recursive=True):
        path = store.relative(entry.path)
        match = kind.name.fullmatch(path.removeprefix(f"{kind.folder}/"))
        assert match, path
        yield path, partial(kind.read, store, path, match[1])


def replace_file(store: Store, path: str, content: bytes) -> None:
    file = Path(store.base) / path
    file.unlink(missing_ok=True)  # an earlier one may be memory-mapped
    file.write_bytes(content)
    prepared_file._opened.cache_clear()


def is_same(found: Any, written: Any) -> bool:
    if isinstance(written, Copy):
        return bool(found.lines.equals(written.lines))
    if not isinstance(written, PreparedTask):
        return bool(found == written)
    return (found.info, found.definition) == (written.info, written.definition) and all(
        np.array_equal(getattr(found, name), getattr(written, name))
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    )


def all_kinds(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.folder)(test)


@all_kinds
def test_object_torn_emptied_or_foreign_is_damaged(full: Store, kind: Kind) -> None:
    paths = []
    for path, read in objects(full, kind):
        good = full.get(path)
        for damage in (b"", good[:-1], good[1:], good[: len(good) // 2], good[::-1], *FOREIGN):
            replace_file(full, path, damage)
            with pytest.raises(Damaged, match=re.escape(path)) as raised:
                read()
            assert (raised.value.path, bool(raised.value.why)) == (path, True)
        assert full.get(full.quarantine(path)) == FOREIGN[-1]
        assert not full.exists(path)
        paths.append(path)
    assert paths


@all_kinds
def test_object_with_changed_bytes_is_damaged_or_read_as_written(full: Store, kind: Kind) -> None:
    chance = random.Random(0)
    for path, read in objects(full, kind):
        good, value = full.get(path), read()
        assert is_same(read(), value)
        damages = [good + b"\0"]
        step = 1 + len(good) // 150
        for place in range(0, len(good), 1 if kind.folder in SEALED else step):
            flipped = bytearray(good)
            flipped[place] ^= 1 << chance.randrange(8)
            damages.append(bytes(flipped))
        for place in range(0, len(good), step):
            holed = bytearray(good)
            holed[place : place + 512] = bytes(len(holed[place : place + 512]))
            damages += [bytes(holed), good[:place]]
        for damage in damages:
            if damage == good:
                continue
            replace_file(full, path, damage)
            try:
                found = read()
            except Damaged as damaged:
                assert damaged.path == path
            except Newer:  # the number of a checkpoint's format
                assert path.endswith("checkpoint")
            else:
                assert kind.folder not in SEALED, "every byte is covered by a checksum"
                assert is_same(found, value)


def lose(store: Store, path: str) -> None:
    """Make each later read of this file fail with EIO."""
    file = Path(store.base) / path
    file.unlink()
    file.symlink_to("/proc/self/mem")
    prepared_file._opened.cache_clear()


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem gives EIO")


@linux
@all_kinds
def test_object_unreadable_on_the_disk_is_damaged_and_can_be_quarantined(
    full: Store, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared_file, "WAITS", ())
    full = replace(full, waits=(0.0,) * 5)
    for path, read in [*objects(full, kind)]:
        lose(full, path)
        with pytest.raises(Damaged, match="Input/output error") as raised:
            read()
        assert raised.value.path == path
        if kind.folder == layout.ROWS:
            run_id = Path(path).stem
            with pytest.raises(Damaged):
                read_head(full, run_id)
            assert isinstance(read_heads(full, [run_id])[run_id], Damaged)
            assert list(check_rows(full, [run_id])) == [run_id]
        elif kind.folder == layout.TASKS:
            with pytest.raises(Damaged, match="Input/output error"):
                load_info(Path(path).stem, full)
        elif path.endswith("failure.json"):
            assert read_failure(full, path.split("/")[1]) is None, "the Run can be tried again"
        assert full.quarantine(path) in full.quarantined()
        assert not full.exists(path)


@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind.folder in (layout.ROWS, layout.PREDICTIONS, layout.SIMILARITY)],
    ids=lambda kind: kind.folder,
)
def test_object_under_the_name_of_another_run_is_damaged(full: Store, kind: Kind) -> None:
    [(path, _)] = objects(full, kind)
    renamed = path.replace(a_run().id, SOURCE.id)
    full.put(renamed, full.get(path))
    with pytest.raises(
        Damaged, match=a_run().id if kind.folder != layout.SIMILARITY else SOURCE.id
    ):
        kind.read(full, renamed, SOURCE.id)
    if kind.folder == layout.ROWS:
        with pytest.raises(Damaged, match=f"it holds Run {a_run().id}"):
            read_head(full, SOURCE.id)


@pytest.mark.parametrize("number", [errno.EACCES, errno.ESTALE, errno.ETIMEDOUT, errno.EPERM])
def test_object_of_a_failing_server_is_an_os_error_not_damaged(
    full: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def failing(*_: object) -> Any:
        raise OSError(number, "not now")

    full = replace(full, waits=(0.0,) * 5)
    monkeypatch.setattr(Path, "read_bytes", failing)
    monkeypatch.setattr(atomic.pa, "OSFile", failing)
    for read in (read_rows, read_head):
        with pytest.raises(OSError, match=r"cannot read.*not now"):
            read(full, a_run().id)


@linux
def test_object_that_cannot_be_moved_stays_and_can_be_replaced(full: Store) -> None:
    full, path = replace(full, waits=(0.0,) * 5), rows_path(a_run().id)
    lose(full, path)
    Path(full.base, "damaged").write_text("no folder")
    assert full.quarantine(path) is None
    assert list(check_rows(full, [a_run().id])) == [a_run().id]
    publish_rows(full, a_run(), a_table(), a_provenance())
    assert check_rows(full, [a_run().id]) == {}
