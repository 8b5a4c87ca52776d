"""The resources of a trial, and the message if no node has them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from study.launching.display import Screen
from study.launching.on_ray.nodes import (
    ACCELERATOR_LABEL,
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


def test_nodes_with_returns_live_nodes_with_the_accelerator() -> None:
    assert nodes_with(NODES, None) == NODES[:3]
    assert nodes_with(NODES, "A100") == NODES[1:3]
    assert nodes_with(NODES, "H100") == []
    assert sum_of(nodes_with(NODES, "A100")) == {"CPU": 16.0, "GPU": 6.0}


@pytest.mark.parametrize(
    ("there", "gpus", "claim"),
    [
        ({"CPU": 4.0}, None, {"cpu": 1.0}),
        ({"CPU": 16.0, "GPU": 2.0}, None, {"cpu": 1.0, "gpu": 1.0}),
        ({"CPU": 16.0, "GPU": 2.0}, 0, {"cpu": 1.0}),
        ({"CPU": 4.0, "GPU": 2.0}, 0.25, {"cpu": 0.5, "gpu": 0.25}),
    ],
)
def test_trial_resources_share_cpus_between_trials(
    there: dict[str, float], gpus: float | None, claim: dict[str, float]
) -> None:
    nodes = [{"Resources": there}]
    assert trial_resources(nodes, gpus_per_trial=gpus, cpus_per_trial=None) == claim


def test_trial_resources_of_an_accelerator_claims_a_gpu() -> None:
    there = nodes_with([node(0), node(4, "L4")], "L4")
    claim = trial_resources(there, gpus_per_trial=None, cpus_per_trial=None)
    assert claim == {"cpu": 1.0, "gpu": 1.0}


@pytest.mark.parametrize(
    ("cpus", "gpus", "claim", "num"),
    [
        (4, 2, {"cpu": 0.5, "gpu": 0.25}, 8),
        (3, 0, {"cpu": 1.0}, 3),
        (3, 0, {"cpu": 1.0, "gpu": 1.0}, 0),
        (10, 0, {"cpu": 0.1}, 100),
    ],
)
def test_num_slots_is_limited_by_every_resource(
    cpus: float, gpus: float, claim: dict[str, float], num: int
) -> None:
    assert num_slots({"CPU": cpus, "GPU": gpus}, claim) == num


@pytest.mark.parametrize(
    ("nodes", "cpu"),
    [
        ([node(0), node(0), node(8)], 0.25),  # the cores of nodes without a GPU are of no use
        ([node(1), node(16)], 0.12),  # each node can use all of its GPUs
        ([node(0)], 0.25),  # no node with a GPU yet: a core per GPU
        ([node(1)], 1.0),
    ],
)
def test_trial_resources_count_the_cores_of_gpu_nodes_only(
    nodes: list[dict[str, Any]], cpu: float
) -> None:
    claim = trial_resources(nodes, gpus_per_trial=0.25, cpus_per_trial=None)
    assert claim == {"cpu": cpu, "gpu": 0.25}
    for each in nodes:
        gpus = each["Resources"]["GPU"]
        assert num_slots(each["Resources"], claim) == 4 * gpus


@pytest.mark.parametrize(
    ("nodes", "gpus", "claim", "plan", "run"),
    [
        # An elastic cluster before its first GPU node.
        (
            [node(0)],
            0.25,
            {"cpu": 0.25, "gpu": 0.25},
            "0 Runs at a time now",
            "waits until an auto",
        ),
        ([node(0)], None, {"cpu": 1.0}, "give --gpus-per-trial 1", "give --gpus-per-trial 1"),
        ([node(0)], 0.0, {"cpu": 1.0}, "8 Runs at a time, of 1 CPU each", ""),
        # And with one.
        ([node(0), node(1)], 0.25, {"cpu": 1.0, "gpu": 0.25}, "4 Runs at a time", ""),
    ],
)
def test_plan_and_run_say_the_same_of_an_elastic_cluster(
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
    claim = trial_resources([node(0)], gpus_per_trial=None, cpus_per_trial=None)
    remark = no_gpu_claimed([node(0)], claim, None)
    assert "claims 1 CPU" in remark and "give --gpus-per-trial 1" in remark
    assert no_gpu_claimed([node(0)], claim, 0.0) == ""
    assert no_gpu_claimed([node(1)], {"cpu": 1.0, "gpu": 1.0}, None) == ""


def test_no_room_names_the_claim_and_the_largest_node() -> None:
    assert no_room(NODES, {"cpu": 1, "gpu": 4}, None) == ""
    assert no_room(NODES, {"cpu": 1, "gpu": 4}, "A100") == ""
    assert no_room(NODES, {"cpu": 1, "gpu": 1}, "H100") == (
        "--accelerator=H100: no node has one (there: A100)"
    )
    assert no_room([node(1)], {"cpu": 1, "gpu": 1}, "L4") == (
        "--accelerator=L4: no node has one (there: none)"
    )
    said = no_room(NODES, {"cpu": 1, "gpu": 6}, None)
    assert "claims 1 CPU and 6 GPU" in said and "at most 8 CPU and 4 GPU" in said
    assert "no node with A100" in no_room(NODES, {"cpu": 1, "gpu": 6}, "A100")
