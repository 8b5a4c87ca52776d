"""After a power loss at any system call, every published object exists and is whole."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from study.launching.lease import acquire
from study.launching.options import LaunchOptions
from study.launching.train_run import execute
from study.run import Recipe, Run
from study.store import Store, open_store
from tests.faults import calls as disk
from tests.faults.calls import Call, Disk

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for a file's name")

RUN = Run(
    task="digits-low",
    size=16,
    model="resnet18",
    width=2,
    recipe=Recipe(num_steps=3, batch_size=8),
    seed=0,
)


def publish(root: Path) -> list[Call]:
    """Publish in every way, and replace an object."""
    store = open_store(root)
    finished = root / ".finished.tmp"
    with disk.recording(root) as calls:
        store.put("rows/a.arrow", b"first", b" version")
        store.put("rows/a.arrow", b"second version, longer")
        assert store.create("lease/1.json", b"held")
        assert not store.create("lease/1.json", b"by another")
        finished.write_bytes(b"of this machine")
        store.put_file("tasks/t.arrow", finished)
        store.put("unfinished/r/00000001/checkpoint", b"0" * 1000)
        store.put("weights/w", b"weights")
        store.remove_folder("unfinished/r")
        store.quarantine("weights/w")
    return calls


def test_publishing_survives_a_power_loss_at_any_call(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    calls = publish(tmp_path / "root")
    assert [call.path for call in calls if call.kind == "published"] == [
        "rows/a.arrow",
        "rows/a.arrow",
        "lease/1.json",
        "tasks/t.arrow",
        "unfinished/r/00000001/checkpoint",
        "weights/w",
    ]
    assert disk.problems(calls, {}) == []


@pytest.mark.parametrize("left_out", [("sync", "flush"), ("sync",), ("flush",)])
def test_power_loss_missing_flush_or_sync_is_found(
    left_out: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    calls = [call for call in publish(tmp_path / "root") if call.kind not in left_out]
    found = disk.problems(calls, {})
    assert any(problem.startswith("rows/a.arrow is ") for problem in found)
    assert ("sync" in left_out) == any("is torn, 0 bytes (eager)" in each for each in found)


def test_power_loss_write_in_place_is_found(tmp_path: Path) -> None:
    first, second = b"first version", b"second version"
    calls = [
        Call("publish", "a", content=first),
        Call("sync", "a", content=first),
        Call("flush", "."),
        Call("published", "a"),
        Call("publish", "a", content=second),
        Call("sync", "a", content=second[:5]),
        Call("sync", "a", content=second),
        Call("published", "a"),
    ]
    assert disk.problems(calls[:5] + calls[6:], {}) == []
    assert len(disk.problems(calls, {})) == 2  # on either disk


def test_power_loss_unflushed_removal_is_undone() -> None:
    disk = Disk.holding({"rows/a": b"1"})
    disk.do(Call("remove", "rows/a"))
    disk.do(Call("unlink", "rows/a"))
    assert disk.after_power_loss("strict") == {"rows/a": b"1"}
    assert disk.after_power_loss("eager") == {}
    assert not disk.broken_promises("strict") + disk.broken_promises("eager")


def test_execute_survives_a_power_loss_at_any_call(store: Store) -> None:
    root = Path(store.base)
    before = disk.files_of(root)
    with disk.recording(root) as calls, acquire(root) as lease:
        held = replace(store, lease_number=lease.number)
        execute(RUN, held, LaunchOptions(checkpoint_seconds=0.0), keep_weights=True)
    published = {call.path for call in calls if call.kind == "published"}
    assert {path.split("/")[0] for path in published} >= {"lease", "unfinished", "weights", "rows"}
    assert disk.problems(calls, before) == []
