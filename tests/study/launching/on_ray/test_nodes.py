"""The resources of a trial, and messages about missing resources and lost nodes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from study.launching.display import Screen
from study.launching.on_ray.nodes import (
    ACCELERATOR_LABEL,
    Nodes,
    no_gpu_claimed,
    no_room,
    nodes_with,
    num_slots,
    sum_of,
    trial_resources,
)
from study.launching.options import LaunchOptions


def node(gpus: float, accelerator: str | None = None, *, alive: bool = True) -> dict[str, Any]:
    labels = {} if accelerator is None else {ACCELERATOR_LABEL: accelerator}
    return {"Alive": alive, "Resources": {"CPU": 8.0, "GPU": gpus}, "Labels": labels}


NODES = [node(0), node(4, "A100"), node(2, "A100"), node(8, "H100", alive=False)]
ONE_CPU = {"cpu": 1.0}


def test_nodes_with_returns_live_nodes_with_the_accelerator() -> None:
    assert nodes_with(NODES, None) == NODES[:3]
    assert nodes_with(NODES, "A100") == NODES[1:3]
    assert nodes_with(NODES, "H100") == []
    assert sum_of(nodes_with(NODES, "A100")) == {"CPU": 16.0, "GPU": 6.0}


@pytest.mark.parametrize(
    ("nodes", "gpus", "claim"),
    [
        ([node(0)], None, ONE_CPU),
        ([node(2)], None, {"cpu": 1.0, "gpu": 1.0}),
        ([node(2)], 0, ONE_CPU),
        ([node(16)], 0.25, {"cpu": 0.12, "gpu": 0.25}),
        ([node(1), node(16)], 0.25, {"cpu": 0.12, "gpu": 0.25}),
        ([node(0), node(8)], 0.25, {"cpu": 0.25, "gpu": 0.25}),  # cores beside GPUs only
        ([node(0)], 0.25, {"cpu": 0.25, "gpu": 0.25}),  # no GPU yet: a core per GPU
        ([node(1)], 0.25, {"cpu": 1.0, "gpu": 0.25}),
    ],
)
def test_trial_resources_use_all_gpus_of_every_node(
    nodes: list[dict[str, Any]], gpus: float | None, claim: dict[str, float]
) -> None:
    assert trial_resources(nodes, gpus_per_trial=gpus, cpus_per_trial=None) == claim
    if "gpu" in claim:
        for resources in (each["Resources"] for each in nodes):
            assert num_slots(resources, claim) == resources["GPU"] / claim["gpu"]


@pytest.mark.parametrize(
    ("cpus", "gpus", "claim", "num"),
    [
        (4, 2, {"cpu": 0.5, "gpu": 0.25}, 8),
        (3, 0, ONE_CPU, 3),
        (3, 0, {"cpu": 1.0, "gpu": 1.0}, 0),
        (10, 0, {"cpu": 0.1}, 100),
    ],
)
def test_num_slots_is_limited_by_every_resource(
    cpus: float, gpus: float, claim: dict[str, float], num: int
) -> None:
    assert num_slots({"CPU": cpus, "GPU": gpus}, claim) == num


@pytest.mark.parametrize(
    ("nodes", "gpus", "claim", "plan", "run"),
    [
        # An elastic cluster before its first GPU node, and with one.
        (
            NODES[:1],
            0.25,
            {"cpu": 0.25, "gpu": 0.25},
            "0 Runs at a time now",
            "waits until an auto",
        ),
        (NODES[:1], None, ONE_CPU, "give --gpus-per-trial 1", "give --gpus-per-trial 1"),
        (NODES[:1], 0.0, ONE_CPU, "8 Runs at a time, of 1 CPU each", ""),
        ([node(0), node(1)], 0.25, {"cpu": 1.0, "gpu": 0.25}, "4 Runs at a time", ""),
    ],
)
def test_plan_and_run_agree_about_an_elastic_cluster(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    nodes: list[dict[str, Any]],
    gpus: float | None,
    claim: dict[str, float],
    plan: str,
    run: str,
) -> None:
    from study.launching.on_ray import tuner

    monkeypatch.setattr(tuner, "connected", lambda _: nullcontext())
    monkeypatch.setattr(tuner, "refuse_other_nodes", lambda root: None)
    monkeypatch.setattr(tuner.ray, "nodes", lambda: nodes)
    options = LaunchOptions(address="10.0.0.1:6379", gpus_per_trial=gpus)
    assert plan in tuner.look_at_cluster(options)
    assert tuner._claim_with_room(options, Screen()) == claim
    remarks = capsys.readouterr().err
    assert run in remarks and bool(run) == bool(remarks)


def test_no_gpu_claimed_names_the_claim_and_the_flag() -> None:
    remark = no_gpu_claimed([node(0)], ONE_CPU, None)
    assert "claims 1 CPU" in remark and "give --gpus-per-trial 1" in remark
    assert no_gpu_claimed([node(0)], ONE_CPU, 0.0) == ""
    assert no_gpu_claimed([node(1)], {"cpu": 1.0, "gpu": 1.0}, None) == ""


@pytest.mark.parametrize(
    ("gpus", "accelerator", "parts"),
    [
        (4, None, []),
        (4, "A100", []),
        (1, "H100", ["--accelerator=H100: no node has one (there: A100)"]),
        (6, None, ["claims 1 CPU and 6 GPU, and no node has", "at most 8 CPU and 4 GPU"]),
        (6, "A100", ["no node with A100"]),
    ],
)
def test_no_room_names_the_claim_and_the_largest_node(
    gpus: int, accelerator: str | None, parts: list[str]
) -> None:
    text = no_room(NODES, {"cpu": 1, "gpu": gpus}, accelerator)
    assert bool(text) == bool(parts)
    assert all(part in text for part in parts), text


def test_no_room_without_any_accelerator_says_none() -> None:
    assert no_room([node(1)], ONE_CPU, "L4") == "--accelerator=L4: no node has one (there: none)"


# Lost nodes


def named(*numbers: int, dead: int = 0) -> list[dict[str, object]]:
    """Return nodes as Ray lists them."""
    return [
        {
            "NodeID": f"{i}" * 8,
            "NodeName": f"n{i}",
            "NodeManagerAddress": f"n{i}",
            "Alive": i != dead,
        }
        for i in numbers
    ]


def test_nodes_lost_node_is_reported_once_and_when_its_runs_go_on() -> None:
    nodes = Nodes("11111111", named(1, 2, 3, 4, dead=4))
    assert nodes.look(named(1, 2, 3, 4, dead=4)) == [], "n4 was lost before the start"
    for trial, where in {"a": "22222222", "b": "22222222", "c": "11111111"}.items():
        nodes.record_node(trial, where)
    there = named(1, 2, 3, dead=2)
    nodes.on_worker_lost("a")
    assert nodes.look(there) == ["node n2, 222222 is lost; its 2 Runs will go on elsewhere"]
    assert nodes.look(there) == []
    assert nodes.on_worker_started("d") == ""
    assert nodes.on_worker_started("a") == "", "one of two"
    assert nodes.on_worker_started("b") == "2 Runs of node n2, 222222 went on elsewhere"
    assert nodes.on_trial_ended("b") == ""
    assert nodes.look(named(1)) == ["node n3, 333333 is lost; no Run was on it"]
    assert not nodes.is_here_lost
    nodes.look(named(1, dead=1))
    assert nodes.is_here_lost


def test_nodes_runs_restarted_early_are_reported_with_their_node() -> None:
    nodes = Nodes("11111111", named(1, 2))
    for trial in "ab":
        nodes.record_node(trial, "22222222")
        nodes.on_worker_lost(trial)
        assert nodes.on_worker_started(trial) == ""
        nodes.record_node(trial, "11111111")
    assert nodes.on_trial_ended("b") == "", "it may even end before"
    assert nodes.look(named(1)) == ["node n2, 222222 is lost; its 2 Runs went on elsewhere"]
    assert nodes.on_trial_ended("a") == ""
    nodes.look(named(1, 3))
    assert nodes.look(named(1)) == ["node n3, 333333 is lost; no Run was on it"]


def test_nodes_lost_before_the_first_look_or_between_two_looks_is_reported() -> None:
    nodes = Nodes("11111111", named(1, 2))
    nodes.record_node("a", "22222222")
    nodes.on_worker_lost("a")
    nodes.on_worker_started("a")
    assert nodes.look(named(1, 2, dead=2)) == [
        "node n2, 222222 is lost; its 1 Run went on elsewhere"
    ]
    nodes.record_node("a", "33333333")
    came_and_went = named(1, 2, 3, dead=3)
    came_and_went[1]["Alive"] = False
    assert nodes.look(came_and_went) == ["node n3, 333333 is lost; its 1 Run will go on elsewhere"]
    assert nodes.look(came_and_went) == []
