"""If any system call fails while a Run is published, the error names it, and a second attempt succeeds.

The calls of a driver without training; `tests.faults`, "io-call-fails", runs whole studies.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from study.launching.lease import acquire
from study.store import (
    Damaged,
    errors,
    open_store,
    read_predictions,
    read_rows,
    read_study,
    read_weights,
)
from study.store.artifacts import publish_predictions, publish_weights
from study.store.processes import Process, this_process
from study.store.rows import publish_rows
from study.store.studies import write_study
from study.store.unfinished import (
    drop_unfinished,
    list_unfinished,
    note_began,
    read_checkpoint,
    sweep,
    write_checkpoint,
)
from tests.faults import calls as disk
from tests.faults.calls import files_of
from tests.stored import a_predictions, a_provenance, a_run, a_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for a file's name")

RUN = a_run()
PAYLOAD = b"weights" * 100


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "time", SimpleNamespace(sleep=lambda _: None))


def drive(root: Path) -> None:
    """Publish one Run as a driver does, without training it."""
    with acquire(root, expiry_seconds=1e6) as lease:
        store = replace(open_store(root), lease_number=lease.number)
        sweep(store)
        write_study(store, "mine", [RUN])
        note_began(store, RUN.id, this_process())
        for payload in (b"first", b"second"):
            write_checkpoint(store, RUN.id, payload)
        assert read_checkpoint(store, RUN.id) == b"second"
        weights = publish_weights(store, RUN.id, PAYLOAD)
        predictions = publish_predictions(store, RUN.id, a_predictions(), "f" * 64)
        made_by = replace(a_provenance(), weights_digest=weights, predictions_digest=predictions)
        publish_rows(store, RUN, a_table(), made_by)
        drop_unfinished(store, RUN.id)


def check_whole(root: Path) -> None:
    """Raise Damaged if an object is not whole, FileNotFoundError if rows name a missing one."""
    store = open_store(root)
    if (root / "rows").is_dir() and any((root / "rows").glob("*.arrow")):
        made_by = read_rows(store, RUN.id).provenance
        assert made_by.weights_digest is not None
        assert made_by.predictions_digest is not None
        assert read_weights(store, RUN.id, made_by.weights_digest) == PAYLOAD
        read_predictions(store, RUN.id, made_by.predictions_digest)
    assert read_checkpoint(store, RUN.id) in (None, b"first", b"second")
    if any((root / "studies").glob("*.json")):
        read_study(store, "mine")


def kept(root: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_of(root).items() if name[:5] != "lease"}


@pytest.mark.slow
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EINTR], ids=errno.errorcode.get)
def test_publishing_any_failing_call_leaves_whole_objects_and_can_be_repeated(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with disk.counted(tmp_path / "whole") as calls:
        drive(tmp_path / "whole")
    whole = kept(tmp_path / "whole")
    assert calls.num > 100
    num_told = 0
    for number in range(1, calls.num + 1):
        root = tmp_path / f"{number}"
        with disk.counted(root, number, error) as failing:
            try:
                drive(root)
            except (OSError, Damaged) as failure:
                num_told += 1
                assert os.strerror(error) in str(failure), failing.failed
        assert failing.failed, number
        check_whole(root)
        with monkeypatch.context() as patch:
            patch.setattr(Process, "is_alive", lambda _: False)  # that driver has ended
            drive(root)
        assert kept(root) == whole, failing.failed
        assert not list_unfinished(open_store(root))
    # Some are no failure: what may pass is tried again, and what merely tidies is left.
    assert 0 < num_told < calls.num
