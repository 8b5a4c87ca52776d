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
        self._names: dict[str, str] = {}
        self._where: dict[str, str] = {}  # trial: node
        self._homeless: dict[str, str] = {}  # trial: name of the node that it was on
        self._num_lost: dict[str, int] = {}  # by the node's name
        self.is_here_lost = False

    def hears_of(self, trial_id: str, node: str | None) -> None:
        """This trial has reported from this node."""
        if node is not None:
            self._where[trial_id] = node

    def look(self, nodes: Iterable[Mapping[str, Any]]) -> list[str]:
        """A line for each node that was lost since the last look.

        `nodes`: as Ray lists them, with "NodeID", "NodeName", "NodeManagerAddress" and "Alive".
        """
        alive = {node["NodeID"]: node_name(node) for node in nodes if node["Alive"]}
        lost = self._names.keys() - alive.keys()
        lines = []
        for node in sorted(lost):
            name = self._names.pop(node)
            theirs = [trial for trial, where in self._where.items() if where == node]
            self._homeless |= dict.fromkeys(theirs, name)
            for trial in theirs:
                del self._where[trial]
            if theirs:
                self._num_lost[name] = len(theirs)
                lines.append(
                    f"node {name} is lost; {_runs(len(theirs))} of it will go on elsewhere"
                )
            else:
                lines.append(f"node {name} is lost; no Run was on it")
        self._names = alive
        self.is_here_lost = self._here not in alive
        return lines

    def begins(self, trial_id: str) -> str:
        """This trial has a worker; a line where it was the last of a lost node, else ""."""
        return self._found(trial_id)

    def ends(self, trial_id: str) -> str:
        """This trial is over; a line as of `begins`."""
        self._where.pop(trial_id, None)
        return self._found(trial_id)

    def _found(self, trial_id: str) -> str:
        name = self._homeless.pop(trial_id, None)
        if name is None or name in self._homeless.values():
            return ""
        return f"{_runs(self._num_lost.pop(name))} of node {name} went on elsewhere"


def _runs(count: int) -> str:
    return "1 Run" if count == 1 else f"{count} Runs"


def node_name(node: Mapping[str, Any]) -> str:
    """A node for people, of what Ray lists."""
    # Several nodes of one machine share its address.
    address, name = node["NodeManagerAddress"], node.get("NodeName") or ""
    named = address if name in ("", address) else f"{name} ({address})"
    return f"{named}, {node['NodeID'][:6]}"
