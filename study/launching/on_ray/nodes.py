"""Compute the resources of a trial, and report lost nodes with their Runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

NODE: Final = "node"  # key of a node's id in a trial's report


class Nodes:
    """The cluster's nodes and the trials on them.

    `here`: the id of the driver's node. `nodes`: Ray's list at the start, as for `look`; those that are
    lost already are not reported.
    """

    def __init__(self, here: str, nodes: Sequence[Mapping[str, Any]]) -> None:
        self._here = here
        self._names = {node["NodeID"]: node_name(node) for node in nodes}
        self._reported = {node["NodeID"] for node in nodes if not node["Alive"]}  # as lost
        self._where: dict[str, str] = {}  # trial: node
        self._gone: dict[str, str] = {}  # trial that has lost its worker: its last node
        self._again: dict[str, str] = {}  # restarted trial: its last node
        self._over: set[str] = set()  # restarted trials that have ended since the last look
        self._lost: dict[str, tuple[str, int]] = {}  # node: its name and number of Runs
        self.is_here_lost = False

    def record_node(self, trial_id: str, node: str | None) -> None:
        """Record the node from which this trial has reported."""
        if node is not None:
            self._where[trial_id] = node

    def on_worker_lost(self, trial_id: str) -> None:
        """Record that this trial's worker is lost; its node may still be alive."""
        node = self._where.pop(trial_id, None)
        if node is not None:
            self._gone[trial_id] = node

    def look(self, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return a line for each node that was lost since the last call.

        `nodes`: from Ray, with "NodeID", "NodeName", "NodeManagerAddress" and "Alive". Ray lists lost
        nodes, too, so that a node which came and went between two calls is reported.
        """
        self._names |= {node["NodeID"]: node_name(node) for node in nodes}
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        lines = []
        for node in sorted(self._names.keys() - alive - self._reported):
            name = self._names[node]
            for trial in [trial for trial, where in self._where.items() if where == node]:
                self.on_worker_lost(trial)
            waiting = list(self._gone.values()).count(node)
            number = waiting + list(self._again.values()).count(node)
            if waiting:
                self._lost[node] = name, number
                lines.append(f"node {name} is lost; its {_runs(number)} will go on elsewhere")
            elif number:
                lines.append(f"node {name} is lost; its {_runs(number)} went on elsewhere")
            else:
                lines.append(f"node {name} is lost; no Run was on it")
        for trial in self._over:
            self._again.pop(trial, None)
        self._over.clear()
        self._reported = self._names.keys() - alive
        self.is_here_lost = self._here not in alive
        return lines

    def on_worker_started(self, trial_id: str) -> str:
        """Record a worker of this trial; return a line if all Runs of a lost node run again, else ""."""
        node = self._gone.pop(trial_id, None)
        if node is None:
            return ""
        self._again[trial_id] = node
        if node not in self._lost or node in self._gone.values():
            return ""
        name, number = self._lost.pop(node)
        return f"{_runs(number)} of node {name} went on elsewhere"

    def on_trial_ended(self, trial_id: str) -> str:
        """Record the end of this trial; return a line as `on_worker_started` does."""
        self._where.pop(trial_id, None)
        line = self.on_worker_started(trial_id)
        if trial_id in self._again:
            self._over.add(trial_id)  # kept until the next `look`, which counts it
        return line


def _runs(count: int) -> str:
    return "1 Run" if count == 1 else f"{count} Runs"


def node_name(node: Mapping[str, Any]) -> str:
    """Return a node's name for messages."""
    # Several nodes of one machine share its address.
    address, name = node["NodeManagerAddress"], node.get("NodeName") or ""
    named = address if name in ("", address) else f"{name} ({address})"
    return f"{named}, {node['NodeID'][:6]}"


ACCELERATOR_LABEL: Final = "ray.io/accelerator-type"  # label of a node, e.g. "H100"


def trial_resources(
    nodes: Iterable[Mapping[str, Any]],
    *,
    gpus_per_trial: float | None,
    cpus_per_trial: float | None,
) -> dict[str, float]:
    """Return the resources of a trial, {"cpu": …, "gpu": …}; default: a core, and a GPU if a node has any.

    If more trials fit on a node's GPUs than the node has cores, the default is a fraction of a core. If no
    node has a GPU yet, one core per GPU is assumed.
    """
    with_gpu = [each for each in (node["Resources"] for node in nodes) if each.get("GPU")]
    gpu = (1.0 if with_gpu else 0.0) if gpus_per_trial is None else gpus_per_trial
    if cpus_per_trial is not None:
        cpu = cpus_per_trial
    elif gpu:
        # Nodes without a GPU cannot hold these trials, so their cores do not count.
        per_gpu = min((each.get("CPU", 0.0) / each["GPU"] for each in with_gpu), default=1.0)
        cpu = min(1.0, max(0.01, int(100 * per_gpu * gpu) / 100))
    else:
        cpu = 1.0
    return {"cpu": cpu, "gpu": gpu} if gpu else {"cpu": cpu}


def num_slots(cluster: Mapping[str, float], claim: Mapping[str, float]) -> int:
    """Return how many trials that need `claim` fit on the cluster, as if it were a single machine."""
    return min(int(cluster.get(name.upper(), 0.0) / share + 1e-6) for name, share in claim.items())


def resources_text(resources: Mapping[str, float]) -> str:
    """Return resources as text: "2 GPU and 1 CPU"."""
    return " and ".join(f"{value:g} {name.upper()}" for name, value in resources.items())


def nodes_with(
    nodes: Iterable[Mapping[str, Any]], accelerator: str | None
) -> list[Mapping[str, Any]]:
    """Return the living nodes that have this accelerator (None: any)."""
    return [
        node
        for node in nodes
        if node["Alive"] and accelerator in (None, node["Labels"].get(ACCELERATOR_LABEL))
    ]


def sum_of(nodes: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the total resources of these nodes as {"CPU": …, "GPU": …, …}."""
    total: Counter[str] = Counter()
    for node in nodes:
        total.update(node["Resources"])
    return dict(total)


def no_room(
    nodes: Iterable[Mapping[str, Any]], claim: Mapping[str, float], accelerator: str | None
) -> str:
    """Return the reason why no living node can hold a trial; "" if a node can.

    `nodes`: from Ray, with "Alive", "Resources" and "Labels".
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


def no_gpu_claimed(
    nodes: Iterable[Mapping[str, Any]], claim: Mapping[str, float], gpus_per_trial: float | None
) -> str:
    """Return a remark if trials claim no GPU only because no node has one at the moment; else ""."""
    if gpus_per_trial is not None or "gpu" in claim:
        return ""
    num = sum(1 for node in nodes if node["Alive"])
    return (
        f"none of {num} nodes has a GPU, and --gpus-per-trial is not given: each Run claims "
        f"{resources_text(claim)}, also on GPU nodes that join later. To train on those, give "
        "--gpus-per-trial 1"
    )
