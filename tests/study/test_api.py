"""The functions for a notebook: arguments, results, errors, and imports."""

from __future__ import annotations

import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import study
from analysis import load
from study import plan_study, run_study, study_status
from study.grid import grid
from study.launching import inline
from study.messages import UserError
from study.run import Recipe, Run
from study.signals import stop_on_signals
from study.store import Store
from tests.processes import run_python


def some_runs() -> list[Run]:
    return grid(
        source_task="digits-low",
        source_size=40,
        target_task="digits-high",
        target_size=30,
        model="resnet18",
        width=1,
        frozen=[0, 9],
        seed=0,
        recipe=Recipe(num_epochs=2, batch_size=16, learning_rate=1e-3),
    )


@pytest.mark.parametrize(
    "modules",
    [
        "study, analysis, analysis.load",
        "study.tasks, study.tasks.draws",
        "study.networks.catalogue",
    ],
)
def test_import_loads_neither_torch_nor_ray(modules: str) -> None:
    code = (
        f"import sys, study, {modules}; study.run_study, study.plan_study, study.study_status; "
        "from study.run import Run; assert study.run.Run is Run; assert 'run_study' in dir(study); "
        "print({'torch', 'torchvision', 'timm', 'sklearn', 'ray'} & set(sys.modules))"
    )
    out, _ = run_python("-c", code)
    assert out == "set()\n"
    with pytest.raises(AttributeError, match="no_such"):
        study.no_such  # noqa: B018


@pytest.mark.slow
def test_run_study_of_runs_can_be_opened_by_the_analysis(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = some_runs()
    planned = plan_study(runs, "tiny", store.root)
    assert planned.counts == {"absent": 3}
    assert str(planned).startswith("tiny: 3 Runs, 1 of them are starts")

    ran = run_study(runs, "tiny", store.root, inline=True)
    assert (ran.root, ran.study, ran.counts) == (store.root, "tiny", {"done": 3})
    opened = load.open_study(ran.root, ran.study)
    assert [run.id for run in opened.wanted] == [run.id for run in runs]
    assert "3 done" in capsys.readouterr().err

    # Cells alone include their starts, and finished Runs are found again.
    again = run_study((run for run in runs if run.source), "tiny", store.root, inline=True)
    assert again == ran
    assert study_status("tiny", root=store.root) == ran
    assert study_status(runs, "tiny", store.root) == ran


def test_plan_study_of_a_file_or_packaged_space_needs_no_name(store: Store, tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from study.grid import grid\nfrom study.run import Recipe\n"
        "RUNS = grid(target_task='digits', target_size=30, model='resnet18', width=1, frozen=9,\n"
        "            recipe=Recipe(num_epochs=1, learning_rate=1e-3), seed=0)\n"
    )
    assert run_study(own, root=store.root, inline=True).counts == {"done": 1}
    assert study_status(own, root=store.root).study == "own"
    assert study_status("quickstart", root=store.root).counts == {"absent": 88}


@pytest.mark.parametrize(
    ("study", "fields", "message"),
    [
        (some_runs(), {}, "name=None"),
        ("quickstart", {"name": "mine"}, r"name='mine'.*quickstart"),
        (some_runs(), {"name": "not a name"}, "name='not a name'"),
        (["resnet18"], {"name": "tiny"}, r"study 'tiny': RUNS\[0\]=.* is not a Run"),
        (
            some_runs(),
            {"name": "tiny", "related": ("digits-low", "moon")},
            "RELATED=.*two of digits",
        ),
    ],
)
def test_plan_study_wrong_argument_is_named(
    store: Store, study: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        plan_study(study, root=store.root, **fields)


def test_run_study_interrupted_continues_when_called_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = inline.attempt

    def interrupted(*args: Any, **kwargs: Any) -> object:
        ended = trained(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGINT)  # after the first Run
        return ended

    with monkeypatch.context() as patched:
        patched.setattr(inline, "attempt", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"1 done.*(?s:.)*same call again"):
            run_study(some_runs(), "tiny", store.root, inline=True)
    with ThreadPoolExecutor() as threads:  # signals cannot be handled in a thread
        again = threads.submit(run_study, some_runs(), "tiny", store.root, inline=True).result()
    assert again.counts == {"done": 3}


def test_run_study_second_interrupt_ends_the_call_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    with stop_on_signals("go on so") as request:
        os.kill(os.getpid(), signal.SIGINT)
        assert request.is_set
        with pytest.raises(KeyboardInterrupt, match="go on so"):
            os.kill(os.getpid(), signal.SIGINT)
