"""The resources of a trial, and the message if no node has them."""

from __future__ import annotations

from typing import Any

from study.launching.on_ray.nodes import (
    ACCELERATOR_LABEL,
    no_room,
    nodes_with,
    sum_of,
    trial_resources,
)


def node(gpus: float, accelerator: str | None = None, *, alive: bool = True) -> dict[str, Any]:
    labels = {} if accelerator is None else {ACCELERATOR_LABEL: accelerator}
    return {"Alive": alive, "Resources": {"CPU": 8.0, "GPU": gpus}, "Labels": labels}


NODES = [node(0), node(4, "A100"), node(2, "A100"), node(8, "H100", alive=False)]


def test_nodes_with_returns_live_nodes_with_the_accelerator() -> None:
    assert nodes_with(NODES, None) == NODES[:3]
    assert nodes_with(NODES, "A100") == NODES[1:3]
    assert nodes_with(NODES, "H100") == []
    assert sum_of(nodes_with(NODES, "A100")) == {"CPU": 16.0, "GPU": 6.0}


def test_trial_resources_of_an_accelerator_claims_a_gpu() -> None:
    there = sum_of(nodes_with([node(0), node(4, "L4")], "L4"))
    claim = trial_resources(there, gpus_per_trial=None, cpus_per_trial=None)
    assert claim == {"cpu": 1.0, "gpu": 1.0}


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
