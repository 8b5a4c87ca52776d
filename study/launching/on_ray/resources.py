"""What one trial claims of a cluster, and how many fit. Pure arithmetic: asks no cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"  # of a node: "H100"


def trial_resources(
    cluster: Mapping[str, float], *, gpus_per_trial: float | None, cpus_per_trial: float | None
) -> dict[str, float]:
    """What a trial claims, as {"cpu": …, "gpu": …}: by default a GPU where there is any, and a core.

    Less than a core where the cluster has fewer of them than trials fit on its GPUs.
    """
    gpus, cpus = cluster.get("GPU", 0.0), cluster.get("CPU", 0.0)
    gpu = (1.0 if gpus else 0.0) if gpus_per_trial is None else gpus_per_trial
    if cpus_per_trial is not None:
        cpu = cpus_per_trial
    elif gpu and gpus:
        cpu = min(1.0, max(0.01, int(100 * cpus * gpu / gpus) / 100))
    else:
        cpu = 1.0
    return {"cpu": cpu, "gpu": gpu} if gpu else {"cpu": cpu}


def num_slots(cluster: Mapping[str, float], claim: Mapping[str, float]) -> int:
    """How many trials of this claim the cluster holds at once, as if it were a single machine."""
    return min(int(cluster.get(name.upper(), 0.0) / share + 1e-6) for name, share in claim.items())


def resources_text(resources: Mapping[str, float]) -> str:
    """ "2 GPU and 1 CPU"."""
    return " and ".join(f"{value:g} {name.upper()}" for name, value in resources.items())


def nodes_with(
    nodes: Iterable[Mapping[str, Any]], accelerator: str | None
) -> list[Mapping[str, Any]]:
    """Of nodes as Ray lists them those that live and, unless it is None, have this accelerator."""
    return [
        node
        for node in nodes
        if node["Alive"] and accelerator in (None, node["Labels"].get(ACCELERATOR_LABEL))
    ]


def sum_of(nodes: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """The resources of these nodes together, as {"CPU": …, "GPU": …, …}."""
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(node["Resources"])
    return dict(total)


def no_room(
    nodes: Iterable[Mapping[str, Any]], claim: Mapping[str, float], accelerator: str | None
) -> str:
    """Why none of the living nodes can hold a trial; "" where one can.

    `nodes`: as Ray lists them, with "Alive", "Resources" and "Labels".
    """
    alive = nodes_with(nodes, None)
    fitting = nodes_with(alive, accelerator)
    if any(num_slots(node["Resources"], claim) for node in fitting):
        return ""
    if accelerator is not None and not fitting:
        labels = {node["Labels"].get(ACCELERATOR_LABEL) for node in alive} - {None}
        there = ", ".join(sorted(str(label) for label in labels)) or "none"
        return f"--accelerator={accelerator}: no node has one (there: {there})"
    largest = {
        name: max((node["Resources"].get(name.upper(), 0.0) for node in fitting), default=0.0)
        for name in claim
    }
    which = "no node" if accelerator is None else f"no node with {accelerator}"
    return (
        f"a trial claims {resources_text(claim)}, and {which} has as much "
        f"(at most {resources_text(largest)}): lower --gpus-per-trial or --cpus-per-trial"
    )
