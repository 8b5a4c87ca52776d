"""Messages about lost nodes and their Runs."""

from __future__ import annotations

from study.launching.on_ray.nodes import Nodes


def node(number: int, *, alive: bool = True) -> dict[str, object]:
    name = f"n{number}"
    return {"NodeID": f"{number}" * 8, "NodeName": name, "NodeManagerAddress": name, "Alive": alive}


def test_nodes_lost_node_is_reported_once_and_when_its_runs_go_on() -> None:
    nodes = Nodes("11111111")
    assert nodes.look([node(1), node(2), node(3)]) == []
    for trial, where in {"a": "22222222", "b": "22222222", "c": "11111111"}.items():
        nodes.record_node(trial, where)
    there = [node(1), node(2, alive=False), node(3)]
    nodes.on_worker_lost("a")
    assert nodes.look(there) == ["node n2, 222222 is lost; its 2 Runs will go on elsewhere"]
    assert nodes.look(there) == []
    assert nodes.on_worker_started("d") == ""
    assert nodes.on_worker_started("a") == "", "one of two"
    assert nodes.on_worker_started("b") == "2 Runs of node n2, 222222 went on elsewhere"
    assert nodes.on_trial_ended("b") == ""
    assert nodes.look([node(1)]) == ["node n3, 333333 is lost; no Run was on it"]
    assert not nodes.is_here_lost
    nodes.look([node(1, alive=False)])
    assert nodes.is_here_lost


def test_nodes_runs_restarted_early_are_reported_with_their_node() -> None:
    nodes = Nodes("11111111")
    nodes.look([node(1), node(2)])
    for trial in "ab":
        nodes.record_node(trial, "22222222")
        nodes.on_worker_lost(trial)
        assert nodes.on_worker_started(trial) == ""
        nodes.record_node(trial, "11111111")
    assert nodes.on_trial_ended("b") == "", "it may even end before"
    assert nodes.look([node(1)]) == ["node n2, 222222 is lost; its 2 Runs went on elsewhere"]
    assert nodes.on_trial_ended("a") == ""
    nodes.look([node(1), node(3)])
    assert nodes.look([node(1)]) == ["node n3, 333333 is lost; no Run was on it"]
