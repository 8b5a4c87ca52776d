"""The benchmarks' arithmetic on known numbers, and their smallest run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from study.run import Recipe, Run
from study.training import loop
from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import day_one, epochs
from tests.benchmarks.cells import SHARES, cell_lines, grid_lines
from tests.benchmarks.epochs import FIVE_CUTS, Measured, Sample, Seconds, measure
from tests.benchmarks.runs import Launch, inline_lines, ray_lines
from tests.benchmarks.schedule import lower_bound, makespan
from tests.benchmarks.surfaces import surface_lines
from tests.benchmarks.table import Line, missed, number, rendered
from tests.processes import environment


def test_line_shows_if_its_goal_was_reached() -> None:
    reached = Line(group="g", case="a", unit="s", baseline=9.0, ours=2.0, at_least=4.5)
    short = Line(group="g", case="b", unit="s", baseline=8.9, ours=2.0, at_least=4.5)
    over = Line(group="g", case="c", unit="ms", ours=31.0, at_most=30.0)
    absent = Line(group="g", case="d", missing="no GPU here")
    plain = Line(group="g", case="e", unit="s", ours=0.0)
    assert [line.is_reached for line in (reached, short, over, absent, plain)] == [
        True,
        False,
        False,
        None,
        None,
    ]
    assert missed([reached, short, over, absent, plain]) == 2
    header, rule, *rows = rendered([reached, over, absent]).splitlines()
    assert {len(line) for line in (header, rule, *rows)} == {len(header)}
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        ["g", "a", "s", "9.00", "2.00", "", "4.50", "≥ 4.50"],
        ["g", "c", "ms", "", "31.0", "", "", "≤ 30.0: missed"],
        ["g", "d", "not measured: no GPU here", "", "", "", "", ""],
    ]


def test_line_without_a_number_shows_the_reason() -> None:
    with pytest.raises(AssertionError):
        Line(group="g", case="nothing at all")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5123.4, "5,123"),
        (31.44, "31.4"),
        (0.9416, "0.942"),
        (0.00123, "0.00123"),
        (0, "0"),
        (None, ""),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


EACH = Seconds(step=2.0, evaluation=0.5, feature=4.0)


def test_an_epoch_and_a_run_are_put_together_of_images() -> None:
    assert EACH.epoch(num_train=10, num_test=100) == 10 * 2 + 110 * 0.5
    # Three epochs, four evaluations, and an eighth of the pass over all 110 images.
    assert EACH.run(3, 4, 8, num_train=10, num_test=100) == 3 * 20 + 4 * 55 + 110 * 4 / 8


def test_ratios_are_of_pairs_and_medians_over_rounds() -> None:
    slow = [Seconds(step=0.0, evaluation=each) for each in (10.0, 40.0, 30.0)]
    fast = [Seconds(step=0.0, evaluation=e, feature=2.0, again=2_200.0) for e in (5.0, 8.0, 10.0)]
    each = Measured(cut=0, baseline=slow, ours=fast, floor=fast)
    assert each.ratio(Seconds.epoch) == 3.0
    lines = list(cell_lines("resnet18", [each] * len(SHARES)))
    assert [line.ratio for line in lines[:5]] == [3.0] * 5
    assert [line.is_reached for line in lines[:5]] == [None, True, None, False, False]
    assert (lines[0].baseline, lines[0].ours) == (30.0 * 11_000, 8.0 * 11_000)
    assert {line.ours for line in lines[5::2]} == {2.0 * 11_000}
    assert [(line.ours, line.is_reached) for line in lines[6::2]] == [(0.1, False)] * 4
    every, spaced = grid_lines("resnet18", [each, each])
    assert every.ours == pytest.approx((1_001 * 8 + 2 / 8) * 11_000 / 3600)
    assert spaced.baseline == pytest.approx(151 * 30 * 11_000 / 3600)


def launch(num: int, wall: float, cpu: float, workers: tuple[float, ...], driver: float) -> Launch:
    said = {"wall": wall, "cpu": cpu, "bare_cpu": 0.01, "bare_wall": 0.02}
    return Launch(num=num, said=said, workers=workers, driver_cpu=driver, driver_bytes=2**30)


def test_what_runs_cost_beside_their_training() -> None:
    cpu, wall = inline_lines("source", [launch(100, 8.0, 5.5, (), 0.0)])
    assert cpu.ours == pytest.approx(45.0) and cpu.is_reached is False
    assert wall.ours == pytest.approx(60.0)


def test_what_a_launch_takes_whatever_its_runs_is_not_the_runs() -> None:
    few = launch(200, 20.0, 0.0, (10.0, 10.0), 8.0)
    many = launch(1_200, 60.0, 0.0, (35.0, 35.0, 6.0), 18.0)
    by_clock, by_cpu, driver, *each = ray_lines(few, many, bare=0.01)
    assert by_clock.ours == pytest.approx(80.0)
    assert by_cpu.ours == pytest.approx(46.0)
    assert driver.ours == pytest.approx(10.0)
    workers = [line for line in each if line.case.endswith("workers started")]
    assert [line.ours for line in workers] == [2.0, 3.0]


def test_a_schedule_is_that_of_the_real_queue() -> None:
    start = Run(task="a", size=10, model="resnet18", width=2, seed=0, recipe=Recipe(num_epochs=1))
    cells = [
        Run(
            task="b",
            size=10,
            model="resnet18",
            width=2,
            seed=seed,
            start=start,
            recipe=Recipe(num_epochs=1),
        )
        for seed in (0, 1)
    ]
    alone = [Run(**{**vars(start), "seed": seed}) for seed in (1, 2)]
    runs = [start, *cells, *alone]
    seconds = {run.id: 3.0 if run == start else 2.0 for run in runs}
    # The start and one alone; then the cells and the other one: 3 + 2 + 2 beside 2 + 2 + …
    assert lower_bound(runs, seconds, 2) == 5.5
    assert makespan(runs, seconds, 2, seconds) == 6.0
    assert makespan(runs, seconds, 1, seconds) == 11.0
    # Believing that the start is nothing and its cells too, the others come first.
    late = {run.id: 100.0 if run in alone else 0.1 for run in runs}
    assert makespan(runs, seconds, 2, late) == 7.0


def test_surfaces_without_a_baseline_have_no_ratio() -> None:
    ours = {"wall": 2.0, "cpu": 3.0, "gib": 1.0, "rows": 10}
    assert [line.ratio for line in surface_lines("all", ours, None)] == [None] * 3
    theirs = {"wall": 4.0, "cpu": 3.0, "gib": 8.0, "rows": 10}
    assert [line.ratio for line in surface_lines("all", ours, theirs)] == [2.0, 1.0, 8.0]


@pytest.mark.slow
def test_the_smallest_cells_are_measured(tmp_path: Path) -> None:
    found = measure("resnet18", (0, 5, 9), Sample(4, 12, 2), tmp_path, width=2)
    assert [each.cut for each in found] == [0, 5, 9]
    for each in found:
        assert len(each.baseline) == len(each.ours) == len(each.floor) == 2
        assert all(one.step > 0 and one.evaluation > 0 for one in (*each.baseline, *each.ours))
    assert [each.ours[0].feature > 0 for each in found] == [False, True, True]
    assert [each.ours[0].again > 0 for each in found] == [False, True, True]
    assert set(FIVE_CUTS) == {"resnet18", "densenet121", "vit_tiny"}


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


def test_measure_on_a_gpu_times_replays_only_against_torchs_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(loop, "capture_on", lambda *_, **__: recorder)
    seen: list[tuple[int, int]] = []
    defaults: list[tuple[bool, bool, str]] = []
    seconds, evaluate = epochs._Way.seconds, epochs.Plain.evaluate

    def counted(way: epochs._Way) -> Seconds:
        before = recorder.num_captured, recorder.num_replayed
        try:
            return seconds(way)
        finally:
            seen.append((recorder.num_captured - before[0], recorder.num_replayed - before[1]))

    def noted(plain: epochs.Plain) -> None:
        evaluate(plain)
        cudnn = torch.backends.cudnn
        switches = cudnn.allow_tf32, cudnn.benchmark, torch.get_float32_matmul_precision()
        defaults.append(switches)

    monkeypatch.setattr(epochs._Way, "seconds", counted)
    monkeypatch.setattr(epochs.Plain, "evaluate", noted)
    measure("resnet18", (0,), Sample(4, 12, 3), tmp_path, width=2)
    assert seen == [(0, 1)] * 3
    assert set(defaults) == {(True, False, "highest")}


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
    # Two full batches and then the epoch's smaller one, which is not captured.
    assert timings == [(2, 2), (0, 1)] * 3
    assert eager == (0, 2)


@pytest.mark.slow
def test_groups_are_named_on_the_command_line() -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--quick"]
    root = Path(__file__).parents[1]
    said = subprocess.run([*command, "schedule"], cwd=root, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "torch" in said.stdout
    assert "| schedule |" in said.stdout and "| cells" not in said.stdout
    wrong = subprocess.run([*command, "shedule"], cwd=root, capture_output=True, text=True)
    assert wrong.returncode == 2 and "choose of cells, grid" in wrong.stderr


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


def test_a_group_that_fails_is_said_and_the_table_still_comes(
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
    said = capsys.readouterr().out
    assert "first" in said and "not measured: failed: no Ray" in said
