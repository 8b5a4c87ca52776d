"""What watching tools are told: the files of `--log tensorboard`, read back, hold what the rows say."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.command.cli import main
from study.store import Store, finished_ids, read_rows
from tests.processes import environment

SPACE = """
from study.run import Recipe, Run

RUNS = [
    Run(
        task="digits-low", size=40, model="resnet18", width=1, seed=0,
        recipe=Recipe(num_steps=20, batch_size=8, learning_rate=1e-3),
    )
]
"""


def scalars(path: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value of each scalar in an event file: records of a length, its check, the event, its
    check."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    payload, at = path.read_bytes(), 0
    while at < len(payload):
        (length,) = struct.unpack_from("<Q", payload, at)
        event = event_pb2.Event.FromString(payload[at + 12 : at + 12 + length])
        at += 12 + length + 4
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag, event.step, value.simple_value


@pytest.mark.slow
@pytest.mark.ray
def test_tensorboards_files_hold_what_the_rows_say(store: Store, tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(SPACE)
    flags = ["--root", store.root, "--gpus-per-trial", "0", "--log", "tensorboard"]
    ran = subprocess.run(
        [sys.executable, "-m", "study", "run", "tiny.py", *flags],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert ran.returncode == 0, ran.stderr
    (run_id,) = finished_ids(store)
    (folder,) = (tmp_path / "logs" / "tiny").iterdir()
    assert folder.name == run_id
    (file,) = folder.iterdir()
    rows = {row["step"]: row for row in read_rows(store, run_id).table.to_pylist()}
    told = list(scalars(file))
    for name in ("train_loss", "train_error", "test_loss", "test_error"):
        points = {step: value for tag, step, value in told if tag == f"ray/tune/{name}"}
        assert points, name
        for step, value in points.items():
            assert value == pytest.approx(rows[step][name], rel=1e-6), (name, step)


def test_without_ray_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(SPACE)
    assert main(["run", "tiny.py", "--inline", "--log", "tensorboard", "--root", "store"]) == 2
    assert "--log tensorboard: that is Ray's to do" in capsys.readouterr().err
    assert not Path("store").exists() and not Path("logs").exists()
