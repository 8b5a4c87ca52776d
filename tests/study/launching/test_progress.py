"""What is known of a launch while it runs: counts, time left, dearest Run, last error, lost nodes."""

from __future__ import annotations

import pytest

from study.launching.nodes import Nodes
from study.launching.progress import Progress
from study.launching.queue import RunQueue
from study.run import Recipe, Run


def test_time_left_follows_the_work_done_here_and_not_what_was_there_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 100.0
    monkeypatch.setattr("study.launching.progress.time.monotonic", lambda: clock)
    first, second, third = (
        Run(task="digits", size=100, model="resnet18", width=4, recipe=Recipe(num_steps=10), seed=s)
        for s in range(3)
    )
    runs = [first, second, third]
    queue = RunQueue(runs, done=(), cost={run.id: 6.0 for run in runs})
    progress = Progress(queue)
    assert progress.seconds_left() is None
    taken_up = queue.next()
    assert taken_up is not None
    progress.saw(taken_up, 5)
    clock = 130.0
    progress.saw(taken_up, 10)
    queue.finish(taken_up.id)
    progress.ended(taken_up, finished=True)
    assert progress.seconds_left() == pytest.approx(30 / 3 * 12), "3 of cost in 30 s, 12 are left"
    assert progress.look().text() == (
        "1 done, 0 running, 2 waiting, 0 failed, 2 a minute, about 2 min left"
    )


def test_what_is_going_on_is_said_from_the_first_worker_on() -> None:
    recipe = Recipe(num_epochs=10, batch_size=50)
    runs = [
        Run(task="digits", size=100, model="resnet18", width=4, recipe=recipe, seed=s)
        for s in range(4)
    ]
    queue = RunQueue(runs, done=(), cost={run.id: 1.0 + run.seed for run in runs})
    progress = Progress(queue)
    dear, cheap = queue.next(), queue.next()
    assert dear is not None
    assert cheap is not None
    progress.starts(dear)
    progress.starts(cheap)
    assert progress.look().text() == (
        "0 done, 2 workers starting, 2 waiting, 0 failed, estimating the time left"
    )
    progress.began(cheap)
    progress.saw(dear, 7)
    seen = progress.look()
    assert "2 running, 2 waiting" in seen.text()
    assert (
        seen.dearest
        == (
            "digits n=100, resnet18 width 4, frozen 0, seed 3: epoch 4 of 10"  # 7 steps of 20, 2 an epoch
        )
    )
    assert seen.share == pytest.approx(0.35 * 4 / 10)
    progress.failed(cheap, "ValueError: no")
    progress.lost(cheap)
    seen = progress.look()
    assert seen.last_error.startswith("ValueError: no (digits n=100")
    assert "1 running, 1 worker starting, 2 waiting" in seen.text()


def node(number: int, *, alive: bool = True) -> dict[str, object]:
    name = f"n{number}"
    return {"NodeID": f"{number}" * 8, "NodeName": name, "NodeManagerAddress": name, "Alive": alive}


def test_a_lost_node_is_told_once_and_again_when_its_runs_go_on() -> None:
    nodes = Nodes("11111111")
    assert nodes.look([node(1), node(2), node(3)]) == []
    for trial, where in {"a": "22222222", "b": "22222222", "c": "11111111"}.items():
        nodes.hears_of(trial, where)
    there = [node(1), node(2, alive=False), node(3)]
    assert nodes.look(there) == ["node n2, 222222 is lost; 2 Runs of it will go on elsewhere"]
    assert nodes.look(there) == []
    assert nodes.begins("d") == ""
    assert nodes.begins("a") == "", "one of two"
    assert nodes.begins("b") == "2 Runs of node n2, 222222 went on elsewhere"
    assert nodes.ends("b") == ""
    assert nodes.look([node(1)]) == ["node n3, 333333 is lost; no Run was on it"]
    assert not nodes.is_here_lost
    nodes.look([node(1, alive=False)])
    assert nodes.is_here_lost
