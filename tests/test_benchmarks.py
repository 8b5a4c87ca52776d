"""The arithmetic of the benchmarks on known numbers, and their smallest runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from study.run import Recipe, Run
from study.training import loop
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import day_one, training
from tests.benchmarks.studies import lower_bound, makespan, ray_lines
from tests.benchmarks.table import Line, rendered
from tests.benchmarks.training import Seconds, narrow_lines, wide_lines
from tests.processes import Watched, environment


def test_table_shows_ratios_missed_goals_and_errors() -> None:
    lines = [
        Line(group="g", case="a", unit="s", baseline=9.0, ours=2.0, at_least=4.5),
        Line(
            group="g", case="b", unit="s", baseline=5123.4, ours=1234.0, floor=0.9416, at_least=4.5
        ),
        Line(group="g", case="c", unit="ms", ours=31.44, at_most=30.0),
        Line(group="g", case="d", unit="s", ours=0.00123),
        Line(group="g", case="e", error="no Ray"),
    ]
    header, rule, *rows = rendered(lines).splitlines()
    assert {len(line) for line in (header, rule, *rows)} == {len(header)}
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        ["g", "a", "s", "9.00", "2.00", "", "4.50", "≥ 4.50"],
        ["g", "b", "s", "5,123", "1,234", "0.942", "4.15", "≥ 4.50: missed"],
        ["g", "c", "ms", "", "31.4", "", "", "≤ 30.0: missed"],
        ["g", "d", "s", "", "0.00123", "", "", ""],
        ["g", "e", "not measured: no Ray", "", "", "", "", ""],
    ]


def test_narrow_lines_compare_with_both_scripts() -> None:
    plain, caching, together = narrow_lines(8, [30.0, 12.0, 10.0, 6.0])
    assert [line.ratio for line in (plain, caching, together)] == [3.0, 1.2, 2.0]
    assert [line.is_reached for line in (plain, caching, together)] == [None, True, True]


def test_wide_lines_are_put_together_of_images() -> None:
    script, ours, floor = Seconds(2.0, 0.5), Seconds(1.0, 0.25, 4.0), Seconds(0.5, 0.125)
    lines = list(wide_lines("resnet18", [(script, ours, floor)] * 3))
    epochs = [line for line in lines if line.baseline and "script" in line.case]
    # 1,000 images trained, 11,000 evaluated.
    assert [(line.baseline, line.ours, line.floor) for line in epochs] == [(7500, 3750, 1875)] * 3
    spaced, features = lines[2:4]
    assert spaced.baseline == pytest.approx(1_000 * 3750 / 3600)
    assert spaced.ours == pytest.approx((1_000 * 1_000 + 150 * 2_750) / 3600)
    assert features.ours == 44_000


def test_ray_lines_leave_out_the_costs_of_a_launch() -> None:
    few, many = (
        Watched(0, own_cpu_seconds=driver, own_peak_bytes=2**30, workers=workers)
        for driver, workers in ((8.0, {(1, 0.0): 20.0}), (18.0, {(1, 0.0): 70.0, (2, 0.0): 6.0}))
    )
    worker, driver, peak = ray_lines({1_200: many, 200: few}, bare=0.01)
    assert worker.ours == pytest.approx(46.0)
    assert driver.ours == pytest.approx(10.0)
    assert peak.ours == 1.0


def test_makespan_is_that_of_the_real_queue() -> None:
    start = Run(task="a", size=10, model="resnet18", width=2, seed=0, recipe=Recipe(num_epochs=1))
    cells = [replace(start, task="b", seed=seed, start=start) for seed in (0, 1)]
    runs = [start, *cells, *(replace(start, seed=seed) for seed in (1, 2))]
    seconds = {run.id: 3.0 if run == start else 2.0 for run in runs}
    # The start and a Run without a start; then the cells and the other Run: 3 + 2 + 2 beside 2 + 2 + …
    assert lower_bound(runs, seconds, 2) == 5.5
    assert makespan(runs, seconds, 2) == 6.0
    assert makespan(runs, seconds, 1) == 11.0


@pytest.mark.slow
def test_smallest_trainings_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for script, ours, floor in training.measure("resnet18", 2, 4, 1):
        assert min(script.step, script.evaluation, ours.step, ours.evaluation, floor.step) > 0
    recipe = replace(training.NARROW_RECIPE, num_epochs=4, num_evaluations=2)
    store = training.store_of_pictures(tmp_path, training.SIZE, training.NUM_TEST, training.SIDE)
    monkeypatch.setenv("STUDY_FEATURES", str(tmp_path / "features"))
    assert min(training._narrow_seconds(store, 1, 9, recipe)) > 0


class Recorder:
    """In place of a CUDA graph: counts captures and replays, and takes the step at each replay."""

    def __init__(self) -> None:
        self.num_captured = self.num_replayed = 0

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.num_captured += 1

        def replay() -> None:
            self.num_replayed += 1
            step()

        return replay


def test_day_one_times_replays_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setattr(loop, "capture_on", lambda *_, **__: recorder)
    day = day_one.Day(torch.device("cpu"), 100, tmp_path, tiny=True)
    timed = day.timed
    replays: list[tuple[int, int]] = []  # of each timing of steps: those made, and those asked for

    def counted(call: Callable[[], object], num: int) -> float:
        before = recorder.num_captured, recorder.num_replayed
        spent = timed(call, num)
        if getattr(call, "__name__", "") == "_train_step":
            assert recorder.num_captured == before[0]
            replays.append((recorder.num_replayed - before[1], num))
        return spent

    monkeypatch.setattr(day, "timed", counted)
    day_one.speed(day, ("resnet18", 4, 0.5, "float32", None, False))
    *timings, eager = replays  # the last is of eager steps, on purpose
    # The smaller batch at the end of an epoch is not captured.
    assert timings == [(2, 3)] * 3
    assert eager == (0, 2)


@pytest.mark.slow
def test_groups_are_named_on_the_command_line() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick"]
    root = Path(__file__).parents[1]
    found = subprocess.run([*command, "schedule"], cwd=root, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "torch" in found.stdout
    assert "| schedule |" in found.stdout and "| narrow" not in found.stdout
    wrong = subprocess.run([*command, "shedule"], cwd=root, capture_output=True, text=True)
    assert wrong.returncode == 2 and "choose from narrow, wide" in wrong.stderr


def test_group_that_fails_is_a_line_of_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: object) -> Iterator[Line]:
        yield Line(group="runs", case="first", unit="s", ours=1.0)
        raise RuntimeError("no Ray")

    groups = {"runs": fails, "schedule": lambda **_: iter(())}
    monkeypatch.setattr(benchmarks, "GROUPS", groups)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--quick"])
    monkeypatch.setenv("STUDY_FEATURES", "")
    assert benchmarks.main() == 1
    shown = capsys.readouterr().out
    assert "first" in shown and "not measured: no Ray" in shown


WITHOUT_AN_INSTALLATION = """
import runpy, sys
for name in ("ray", "obstore", "typer", "matplotlib", "xarray", "rich", "tensorboardX"):
    sys.modules[name] = None
sys.argv[1:] = ["--device", "cpu", "--tiny", "--out", sys.argv[1]]
runpy.run_module("tests.benchmarks.day_one", run_name="__main__")
"""


@pytest.mark.slow
def test_day_one_runs_through_on_a_cpu_without_ray(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_AN_INSTALLATION, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "day_one.json").read_text())
    lines = written["lines"]
    assert [line["case"] for line in lines if line["ok"] is False] == []
    phases = {"ceilings", "correct", "speed", "killed", "many", "processes", "failing"}
    assert {line["phase"] for line in lines} == phases
    assert all("skipped" not in line for line in lines)
    speeds = [line for line in lines if line["phase"] == "speed"]
    assert all(line["runs_an_hour"] > 0 and line["over_floor"] > 1 for line in speeds)
    text = (tmp_path / "day_one.md").read_text()
    assert f"torch {written['versions']['torch']}" in text.splitlines()[0]
    assert all(line["case"] in text for line in lines)
