"""The resources of a trial, and the message if no node has them."""

from __future__ import annotations

from typing import Any

import pytest

from study.launching.on_ray.nodes import (
    ACCELERATOR_LABEL,
    no_room,
    nodes_with,
    num_slots,
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


L4 = sum_of(nodes_with([node(0), node(4, "L4")], "L4"))


@pytest.mark.parametrize(
    ("there", "gpus", "claim"),
    [
        ({"CPU": 4.0}, None, {"cpu": 1.0}),
        ({"CPU": 16.0, "GPU": 2.0}, None, {"cpu": 1.0, "gpu": 1.0}),
        ({"CPU": 16.0, "GPU": 2.0}, 0, {"cpu": 1.0}),
        ({"CPU": 4.0, "GPU": 2.0}, 0.25, {"cpu": 0.5, "gpu": 0.25}),
        (L4, None, {"cpu": 1.0, "gpu": 1.0}),
    ],
)
def test_trial_resources_share_cpus_between_trials(
    there: dict[str, float], gpus: float | None, claim: dict[str, float]
) -> None:
    assert trial_resources(there, gpus_per_trial=gpus, cpus_per_trial=None) == claim


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
