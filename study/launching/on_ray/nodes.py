"""The nodes of a cluster, as far as a user should hear of them: which was lost, with how many Runs, and
when those go on elsewhere.

Owns which trial is where. Asks nobody: it is told what Ray knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

NODE: Final = "node"  # of a trial's report: the id of its node


class Nodes:
    """What is known of the cluster's nodes; `here`: the id of the driver's own."""

    def __init__(self, here: str) -> None:
        self._here = here
        self._names: dict[str, str] = {}  # of the nodes that are alive, by id
        self._where: dict[str, str] = {}  # trial: node
        self._gone: dict[str, str] = {}  # trial that has lost its worker: the node that this was on
        self._again: dict[str, str] = {}  # the same, of trials that have begun again
        self._over: set[str] = set()  # of those, trials that have ended since the last look
        self._lost: dict[str, tuple[str, int]] = {}  # node: its name, and how many Runs it had
        self.is_here_lost = False

    def hears_of(self, trial_id: str, node: str | None) -> None:
        """This trial has reported from this node."""
        if node is not None:
            self._where[trial_id] = node

    def loses(self, trial_id: str) -> None:
        """This trial's worker is lost, with its node or without."""
        node = self._where.pop(trial_id, None)
        if node is not None:
            self._gone[trial_id] = node

    def look(self, nodes: Iterable[Mapping[str, Any]]) -> list[str]:
        """A line for each node that was lost since the last look.

        `nodes`: as Ray lists them, with "NodeID", "NodeName", "NodeManagerAddress" and "Alive".
        """
        alive = {node["NodeID"]: node_name(node) for node in nodes if node["Alive"]}
        lines = []
        for node in sorted(self._names.keys() - alive.keys()):
            name = self._names[node]
            for trial in [trial for trial, where in self._where.items() if where == node]:
                self.loses(trial)
            waiting = list(self._gone.values()).count(node)
            number = waiting + list(self._again.values()).count(node)
            if waiting:
                self._lost[node] = name, number
                lines.append(f"node {name} is lost; {_runs(number)} of it will go on elsewhere")
            elif number:
                lines.append(f"node {name} is lost; {_runs(number)} of it went on elsewhere")
            else:
                lines.append(f"node {name} is lost; no Run was on it")
        for trial in self._over:
            self._again.pop(trial, None)
        self._over.clear()
        self._names = alive
        self.is_here_lost = self._here not in alive
        return lines

    def begins(self, trial_id: str) -> str:
        """This trial has a worker; a line where it was the last of a lost node, else ""."""
        node = self._gone.pop(trial_id, None)
        if node is None:
            return ""
        self._again[trial_id] = node
        if node not in self._lost or node in self._gone.values():
            return ""
        name, number = self._lost.pop(node)
        return f"{_runs(number)} of node {name} went on elsewhere"

    def ends(self, trial_id: str) -> str:
        """This trial is over; a line as of `begins`."""
        self._where.pop(trial_id, None)
        line = self.begins(trial_id)
        if trial_id in self._again:
            self._over.add(trial_id)  # its node is named at the next look
        return line


def _runs(count: int) -> str:
    return "1 Run" if count == 1 else f"{count} Runs"


def node_name(node: Mapping[str, Any]) -> str:
    """A node for people, of what Ray lists."""
    # Several nodes of one machine share its address.
    address, name = node["NodeManagerAddress"], node.get("NodeName") or ""
    named = address if name in ("", address) else f"{name} ({address})"
    return f"{named}, {node['NodeID'][:6]}"
