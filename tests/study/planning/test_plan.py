"""Faults and warnings of a plan, before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from study.cli.status import plan_text
from study.grid import grid, with_starts
from study.planning.estimate import price
from study.planning.plan import Plan, make_plan
from study.planning.spaces import Space
from study.run import Recipe, Run
from study.store import Store, buckets, open_store
from study.tasks import BUILTIN, Digits, Task
from tests import s3_server
from tests.processes import environment
from tests.stored import a_bucket_in

RECIPE = Recipe(num_epochs=2)
TOGETHER = Recipe(num_epochs=2, seeds_together=4)


def run(**changed: object) -> Run:
    values: dict[str, object] = {
        "task": "digits",
        "size": 100,
        "model": "resnet18",
        "width": 4,
        "recipe": RECIPE,
        "seed": 0,
    }
    return Run(**{**values, **changed})  # type: ignore[arg-type]


def planned(store: Store, *runs: Run, tasks: tuple[Task, ...] = (), name: str = "mine") -> Plan:
    known = dict(BUILTIN) | {task.name: task for task in tasks}
    space = Space(
        name=name, path=Path(f"{name}.py"), runs=tuple(with_starts(runs)), tasks=known, doc=""
    )
    return make_plan(space, store, None)


@pytest.fixture
def absent(tmp_path: Path) -> Store:
    """A store that does not exist yet."""
    return open_store(tmp_path / "absent")


def test_make_plan_writes_nothing(absent: Store) -> None:
    plan = planned(absent, run())
    assert plan.wrong == ()
    assert plan.warnings == ()
    assert plan.unprepared == ("digits",)
    assert not Path(absent.root).exists()


def test_make_plan_bucket_without_conditional_writes_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "client_of", lambda *_: a_bucket_in(tmp_path))
    plan = planned(open_store("s3://key:secret@bucket/root"), run())
    (warning,) = plan.warnings
    assert warning.startswith("root=s3://bucket/root: start one driver at a time.")
    assert "not yet implemented" in warning
    assert "secret" not in warning


@pytest.mark.s3
def test_make_plan_bucket_with_conditional_writes_has_no_warning(
    s3_port: int, s3_credentials: None
) -> None:
    assert planned(open_store(s3_server.root(s3_port, "plan")), run()).warnings == ()


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"task": "digit"}, ["'digit'", "digits-high", "TASKS"]),
        ({"size": 1439}, ["size=1439", "1438"]),
        ({"size": 720, "part": "b"}, ["size=720", "half b", "719"]),
        ({"model": "resnet20"}, ["'resnet20'", "resnet18", "vit_tiny"]),
        ({"width": None}, ["width=None", "resnet18"]),
        ({"frozen": 10}, ["frozen=10", "10 layers", "0 to 9"]),
        ({"frozen_pieces": 1}, ["frozen_pieces=1 with frozen=0", "stem", "choose 0"]),
        ({"model": "densenet121", "width": 4, "task": "small"}, ["image_shape", "densenet121"]),
        ({"start": "pretrained"}, ["start='pretrained'", "resnet18"]),
        (
            {"model": "densenet121", "frozen": 10, "recipe": TOGETHER},
            ["seeds_together=4 with frozen=10", "densenet121", "seeds_together=1, or frozen=11"],
        ),
        (
            {
                "model": "vit_tiny",
                "width": 12,
                "frozen": 13,
                "trained_channels": 2,
                "recipe": TOGETHER,
            },
            ["seeds_together=4 with frozen=13, trained_channels=2", "vit_tiny"],
        ),
        (
            {"recipe": Recipe(num_epochs=2, seeds_together=10**7)},
            ["seeds_together=10000000", "GiB at once", "or fewer"],
        ),
        ({"start": run(task="small")}, ["(3, 16, 16)", "(3, 4, 4)", "image_size"]),
    ],
)
def test_make_plan_wrong_field_names_the_choices(
    absent: Store, changed: dict[str, object], says: list[str]
) -> None:
    small = Task(name="small", images=Digits(), image_size=4)
    plan = planned(absent, run(**changed), tasks=(small,))
    assert len(plan.wrong) == 1, plan.wrong
    for part in says:
        assert part in plan.wrong[0]


def test_make_plan_finds_all_faults_and_lists_each_once(absent: Store) -> None:
    plan = planned(
        absent, run(size=9999), run(size=9999, seed=1), run(frozen=10), run(task="unknown")
    )
    assert len(plan.wrong) == 3
    assert any("2 Runs, the first" in each for each in plan.wrong)


def test_make_plan_invalid_study_name_is_a_fault(absent: Store) -> None:
    assert "my study" in planned(absent, run(), name="my study").wrong[0]


def test_make_plan_shared_images_are_a_warning_except_in_halves(
    absent: Store,
) -> None:
    assert "share images" in planned(absent, run(start=run())).warnings[0]
    assert planned(absent, run(part="b", start=run(part="a"))).warnings == ()
    assert planned(absent, run(part="a", start=run(part="a"))).warnings != ()


def test_make_plan_seeds_that_fill_less_than_half_of_their_blocks_are_a_warning(
    absent: Store,
) -> None:
    runs = [run(seed=seed, recipe=TOGETHER) for seed in (3, 4, 5)]
    assert planned(absent, *runs[1:]).warnings == ()
    (warning,) = planned(absent, *runs).warnings
    assert "3 of 8 places" in warning


@pytest.mark.slow
def test_plan_of_a_timm_network_loads_torch_once(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from study.grid import grid\n"
        "from study.run import Recipe\n"
        "RUNS = grid(target_task='digits-32px', target_size=90, model='timm/resnet10t', seed=0,\n"
        "            recipe=Recipe(num_epochs=2))\n"
        "from study.tasks import Digits, Task\n"
        "TASKS = [Task(name='digits-32px', images=Digits(), image_size=32)]\n"
    )
    plan = (
        "import sys; from study.cli.main import main; main(['plan', 'mine.py']);"
        "print('torch' in sys.modules)"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", plan],
            cwd=tmp_path,
            env=environment(STUDY_CACHE=str(tmp_path / "cache")),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.splitlines()
        for _ in range(2)
    )
    assert first[:-1] == second[:-1]
    assert any("floating-point operations" in line for line in first)
    assert [first[-1], second[-1]] == ["True", "False"]


def test_plan_text_shows_states_and_price(store: Store) -> None:
    plan = planned(store, run(), run(seed=1))
    assert plan.unprepared == ()
    assert plan.inventory.counts() == {"absent": 2}
    text = plan_text(plan, price(plan.space.runs, plan.infos))
    assert "2 absent" in text
    assert "(prepared)" in text
    assert " of this machine" in text
    assert "a process: Python and libraries" in text


def test_make_plan_thousands_of_runs_have_no_faults(absent: Store) -> None:
    runs = grid(
        source_task="digits-low",
        source_size=[100, 200],
        target_task="digits-high",
        target_size=list(range(50, 250)),
        model="resnet18",
        width=4,
        recipe=RECIPE,
        seed=[0, 1],
    )
    plan = planned(absent, *runs)
    assert plan.wrong == ()
    assert len(plan.inventory.states) == len(runs) == 8004
