"""`--log`: the tools receive the values of the rows."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study.cli.main import main
from study.run import Recipe, to_json
from study.store import Store, finished_ids, read_rows
from tests import made_up
from tests.processes import run_python
from tests.studies import ONE_RUN, write_space

MEASURED = ("train_loss", "train_error", "test_loss", "test_error")
Point = tuple[str, int, float]  # name, step, value


def of_tensorboard(path: Path) -> Iterator[Point]:
    """Read an event file: records of a length, its checksum, the event, its checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    payload, at = path.read_bytes(), 0
    while at < len(payload):
        (length,) = struct.unpack_from("<Q", payload, at)
        event = event_pb2.Event.FromString(payload[at + 12 : at + 12 + length])
        at += 12 + length + 4
        for value in event.summary.value:
            if value.HasField("simple_value"):
                yield value.tag.removeprefix("ray/tune/"), event.step, value.simple_value


def of_wandb(path: Path) -> Iterator[Point]:
    """Read an offline run: LevelDB's log, 7 bytes, then chunks of a checksum, a length, a kind."""
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    payload, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(payload):
        if 32768 - at % 32768 < 7:  # no header fits into what is left of a block
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", payload, at + 4)
        record += payload[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            items = internal.Record.FromString(record).history.item
            row = {item.key or item.nested_key[0]: float(item.value_json) for item in items}
            yield from ((name, int(row["_step"]), row[name]) for name in MEASURED if name in row)
            record = b""


def of_mlflow(database: Path, experiment: str) -> Iterator[Point]:
    """Read all runs of the experiment with MLflow's client."""
    client = mlflow_client(database)
    for run in mlflow_runs(database, experiment):
        for name in MEASURED:
            for point in client.get_metric_history(run.info.run_id, name):
                yield name, point.step, point.value


def mlflow_client(database: Path) -> Any:
    return pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{database}")


def mlflow_runs(database: Path, experiment: str) -> Any:
    client = mlflow_client(database)
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.mark.slow
@pytest.mark.ray
def test_loggers_receive_the_values_of_the_rows(store: Store, tmp_path: Path) -> None:
    for package in ("wandb", "mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    recipe = Recipe(num_steps=20, batch_size=8, learning_rate=1e-3)
    write_space(tmp_path / "tiny.py", **ONE_RUN, recipe=recipe)
    flags = ["--root", store.root, "--gpus-per-trial", "0"]
    flags += [f"--log={tool}" for tool in ("tensorboard", "wandb", "mlflow")]
    tools = {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": ""}
    words = ("-m", "study", "run", "tiny.py", *flags)
    _, error = run_python(*words, folder=tmp_path, **tools)
    (run_id,) = finished_ids(store)
    rows = {row["step"]: row for row in read_rows(store, run_id).table.to_pylist()}
    logs = tmp_path / "logs" / "tiny"
    (events,) = (logs / run_id).iterdir()
    (offline,) = (logs / "wandb").glob(f"offline-run-*-{run_id}-*/*.wandb")
    for tool, where, points in (
        ("tensorboard", f"--logdir {logs}", of_tensorboard(events)),
        ("wandb", f"wandb sync {logs}/wandb/offline-run-*", of_wandb(offline)),
        ("mlflow", f"tiny of sqlite:///{logs}/mlflow.db", of_mlflow(logs / "mlflow.db", "tiny")),
    ):
        assert where in error, (tool, error)
        logged = [point for point in points if point[0] in MEASURED]
        for name in MEASURED:
            steps = [step for logged_name, step, _ in logged if logged_name == name]
            assert (steps[0], steps[-1]) == (min(rows), max(rows)), (tool, name, steps)
            assert steps == sorted(set(steps)), (tool, name, "a step is logged twice")
        for name, step, value in logged:
            assert value == pytest.approx(rows[step][name], rel=1e-6), (tool, name, step)
    (run,) = mlflow_runs(logs / "mlflow.db", "tiny")
    assert run.info.status == "FINISHED" and run.data.params["size"] == "40"


@dataclass(frozen=True)
class Trial:
    """The attributes of a trial that callbacks read."""

    trial_id: str
    config: Any

    def __hash__(self) -> int:
        return hash(self.trial_id)


@pytest.mark.slow
def test_mlflow_resumed_run_is_one_run_without_repeated_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from study.launching.on_ray.log_mlflow import MlflowRuns

    remarks: list[str] = []
    logs = tmp_path / "logs" / "twice"

    def trial(name: str, width: int = 1) -> Trial:
        return Trial(name, {"run": to_json(made_up.run(width=width))})

    def drive(trial: Trial, *steps: int) -> MlflowRuns:
        callback = MlflowRuns(logs, remarks.append)
        callback.log_trial_start(trial)
        for step in steps:
            result = {"step": step, "epoch": step, **dict.fromkeys(MEASURED, 1 / (1 + step))}
            callback.log_trial_result(1, trial, result)
        return callback

    drive(trial("a"), 0, 5, 10).close()  # interrupted
    (run,) = mlflow_runs(logs / "mlflow.db", "twice")
    assert run.info.status == "KILLED"
    later = drive(trial("b"), 5, 10, 15)
    later.log_trial_result(1, trial("b"), {"outcome": "finished", "error": ""})
    later.log_trial_end(trial("b"))
    (run,) = mlflow_runs(logs / "mlflow.db", "twice")
    assert run.info.status == "FINISHED"
    logged = [(step, value) for _, step, value in of_mlflow(logs / "mlflow.db", "twice")]
    assert sorted(logged) == sorted([(step, 1 / (1 + step)) for step in (0, 5, 10, 15)] * 4)

    # A database that fails is reported once, and stops nothing.
    drive(trial("c", width=4))
    (logs / "mlflow.db").unlink()
    (logs / "mlflow.db").mkdir()
    assert remarks == []
    later.log_trial_start(trial("d", width=2))
    later.log_trial_start(trial("e", width=3))
    (remark,) = remarks
    assert remark.startswith("MLflow gets no more metrics, the study goes on: ")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--inline", "--log", "tensorboard"], ["--log=tensorboard: requires Ray"]),
        (["--log", "wandb"], ["--log wandb needs packages that are not", "pip install ", "wandb"]),
        (
            ["--log", "mlflow"],
            ["--log mlflow needs packages that are not", "pip install ", "mlflow"],
        ),
    ],
)
def test_run_log_that_is_not_possible_is_an_error_before_the_start(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    parts: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in flags else object()
    )
    write_space(tmp_path / "tiny.py", **ONE_RUN)
    assert main(["run", "tiny.py", *flags, "--root", "store"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("study: --log") and all(part in error for part in parts), error
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.py"]
