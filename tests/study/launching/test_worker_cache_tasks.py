"""Prepared tasks copied to a node's own disk: once, and replaced if damaged."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from study.launching import worker_cache
from study.launching.worker_cache import load_task
from study.store import Damaged, Store
from study.store.layout import task_path
from study.tasks import prepared_file

NAME = "digits-low"


def copies(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.arrow"))


def test_load_task_without_a_cache_reads_the_store(store: Store) -> None:
    assert load_task(NAME, store, None) is prepared_file.load(NAME, store)


def test_load_task_copies_once_and_reads_the_copy(store: Store, tmp_path: Path) -> None:
    own = prepared_file.load(NAME, store)
    first = load_task(NAME, store, tmp_path / "node")
    (copy,) = copies(tmp_path / "node")
    made_at = copy.stat().st_mtime_ns
    assert load_task(NAME, store, tmp_path / "node") is first, "mapped and checked once"
    assert first.fingerprint == own.fingerprint
    np.testing.assert_array_equal(first.train_images, own.train_images)
    assert copy.stat().st_mtime_ns == made_at
    with pytest.raises(ValueError, match="not prepared in"):
        load_task("nowhere", store, tmp_path / "node")


def test_load_task_damaged_copy_is_replaced_and_a_damaged_original_raises(
    store: Store, tmp_path: Path
) -> None:
    load_task(NAME, store, tmp_path / "node")
    (copy,) = copies(tmp_path / "node")
    whole = copy.read_bytes()
    middle = len(whole) // 2
    copy.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert load_task(NAME, store, tmp_path / "node").info.name == NAME
    assert copy.read_bytes() == whole

    own = Path(store.root, task_path(NAME))
    own.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    copy.unlink()
    with pytest.raises(Damaged, match=NAME):
        load_task(NAME, store, tmp_path / "node")


def test_load_task_full_disk_reads_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker_cache.shutil, "copyfile", full)
    assert load_task(NAME, store, tmp_path / "node") is prepared_file.load(NAME, store)
    assert not copies(tmp_path / "node")
    assert not list(tmp_path.rglob("*.tmp"))
