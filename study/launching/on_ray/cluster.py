"""Start or join a Ray cluster, and check that its nodes have the same versions and see the store."""

from __future__ import annotations

import logging
import os
import platform
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import ray

from study.launching.on_ray.nodes import node_name
from study.launching.options import LOCAL, address_source, refuse_unreachable
from study.messages import UserError, last_line, show_message
from study.signals import raise_if_swallowed, retake_signals
from study.store import provenance

SECONDS_FOR_NODES: Final = 120.0  # to report; a process must start on each node


class RayNotStarted(OSError):
    """Ray did not start on this machine, although the user's input is valid."""


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect this process to Ray during the block. `address`: as in `LaunchOptions`, but not None.

    Raises UserError with the address if there is no cluster, or if the cluster rejects this process.
    Raises RayNotStarted if Ray does not start on this machine.
    """
    with _on_loopback() if address == LOCAL else nullcontext():
        try:
            if address == LOCAL:
                _start()
            else:
                _join(address)
            retake_signals()
            raise_if_swallowed()
            # If a node or worker is lost, Ray prints the last lines of its log on stdout, even with
            # log_to_driver=False. Ray has no setting for this; the store records what matters.
            ray._private.worker._worker_logs_enabled = False
            for name in ("ray.tune", "ray.train", "ray.air"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
        finally:
            _shut_down()


def _shut_down() -> None:
    """Disconnect from Ray, and end the processes of a local Ray; this process still handles signals.

    Ray resets SIGTERM to the system's default just before it ends its processes, which takes a second.
    """
    node = ray._private.worker._global_node
    if node is not None:
        end = node.kill_all_processes

        def retake_and_end(*given: Any, **how: Any) -> None:
            retake_signals()
            end(*given, **how)

        node.kill_all_processes = retake_and_end
    ray.shutdown()
    retake_signals()


@contextmanager
def _in_package_folder() -> Iterator[None]:
    # Ray puts the current folder first on every worker's import path, where a user's torch.py or timm.py
    # would replace the package.
    with chdir(Path(__file__).parents[2]):
        yield


def _start() -> None:
    try:
        with _in_package_folder():
            _init_own()
    # Ray raises many types of errors from its processes and files; a timeout is a bare Exception.
    except Exception as error:
        cause = last_line(str(error))
        variable = "RAY_TMPDIR" if os.environ.get("RAY_TMPDIR") else "TMPDIR"  # Ray's order
        if "path length" in cause:
            folder = os.environ.get(variable) or tempfile.gettempdir()
            raise RayNotStarted(
                f"{variable}={folder}: too long for Ray's sockets ({cause}). Choose a folder "
                "with a short path, or train without Ray: --inline"
            ) from error
        if isinstance(error, PermissionError):
            raise RayNotStarted(
                f"Ray did not start on this machine: {cause}\n"
                f"Set {variable} to a folder of yours with a short path, or train without Ray: --inline"
            ) from error
        raise RayNotStarted(
            f"Ray did not start on this machine: {cause}\n"
            "Its processes must start within half a minute, which fails on a busy machine or a full "
            "disk. Try again when less else runs, or train without Ray: --inline"
        ) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    # With support for clusters, Ray replaces the loopback address by the host's address, and its servers
    # listen on every interface. Without this support (the default on macOS and Windows) they listen on
    # loopback only. Ray's processes read the variable; this process has read it already.
    constants = ray._private.ray_constants
    name, before = constants.ENABLE_RAY_CLUSTERS_ENV_VAR, constants.ENABLE_RAY_CLUSTER
    variables = {name: "0"}
    if not _keeps_token():
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    given = {each: os.environ.get(each) for each in variables}
    constants.ENABLE_RAY_CLUSTER = False
    os.environ.update(variables)
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
        for each, value in given.items():
            if value is None:
                del os.environ[each]
            else:
                os.environ[each] = value


def _keeps_token() -> bool:
    """Return True if Ray has an access token, or can write one below the home directory."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return True
    folder = Path.home() / ".ray"
    if (folder / "auth_token").is_file():
        return True
    return os.access(folder if folder.is_dir() else folder.parent, os.W_OK | os.X_OK)


def _init_own() -> None:
    ray.init(
        address=LOCAL,
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
        # Ray's object store, by default a share of the machine's memory, would be unused.
        object_store_memory=128 * 2**20,
        # This address stays the same when a laptop changes its network.
        _node_ip_address="127.0.0.1",
    )


def _join(address: str) -> None:
    given = address_source(address)
    try:
        found = ray._private.services.canonicalize_bootstrap_address(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise UserError(f"{given}={address}: no Ray cluster is found ({error})") from error
    where = found if found == address else f"{address}, which is {found}"
    refuse_unreachable(found, f"{given}={where}")
    try:
        # Ray itself would try for 20 s, and then report a rejection as an unreachable cluster.
        ray._raylet.GcsClient(address=found)
    except ray.exceptions.AuthenticationError as error:
        raise UserError(
            f"{given}={where}: the Ray cluster there rejected this process ({error.message})\n"
            "If it is yours, give its token in RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN, with "
            "RAY_AUTH_MODE=token; if not, name your own by --address host:port"
        ) from error
    except ray.exceptions.RpcError as error:
        raise UserError(f"{given}={where}: no Ray cluster answers there ({error})") from error
    try:
        with _in_package_folder():
            ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise UserError(f"{given}={where}: no Ray cluster answers there ({error})") from error
    except RuntimeError as error:  # another version of Ray or Python
        raise UserError(f"{given}={where}: {error}") from error


def refuse_other_nodes(root: Path | None) -> None:
    """Raise UserError if a node has other versions, cannot import this package, or does not see the store.

    `root`: the store's directory; None: a bucket. If a node does not answer, a message names it.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    asked = {_ask(node["NodeID"], root): node for node in others}
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=SECONDS_FOR_NODES)
    wrong = [fault for answer in answered for fault in _faults(answer, asked[answer], root)]
    if wrong:
        raise UserError("\n".join(sorted(wrong)))
    for answer in silent:
        ray.cancel(answer)
        show_message(
            f"node {node_name(asked[answer])} did not report its versions within "
            f"{SECONDS_FOR_NODES:.0f} s"
        )


class NewNodes:
    """Checks nodes that join during a launch as `refuse_other_nodes` does, without waiting for them.

    `root`: as for `refuse_other_nodes`. `nodes`: Ray's list of the nodes that are already checked.
    """

    def __init__(self, root: Path | None, nodes: Iterable[Mapping[str, Any]]) -> None:
        self._root = root
        self._known = {node["NodeID"] for node in nodes if node["Alive"]}
        self._asked: dict[Any, Mapping[str, Any]] = {}

    def look(self, nodes: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return a line for each fault found in new nodes since the last call; `nodes`: from Ray."""
        alive = {node["NodeID"]: node for node in nodes if node["Alive"]}
        for node_id in alive.keys() - self._known:
            self._known.add(node_id)
            self._asked[_ask(node_id, self._root)] = alive[node_id]
        if not self._asked:
            return []
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        faults = []
        for answer in answered:
            node = self._asked.pop(answer)
            if node["NodeID"] in alive:  # a node that is lost again has no fault
                faults += _faults(answer, node, self._root)
        return faults


def _faults(answer: Any, node: Mapping[str, Any], root: Path | None) -> list[str]:
    name = node_name(node)
    try:
        found = ray.get(answer)
    except ray.exceptions.RayError as error:
        return [f"node {name} cannot run this package: {last_line(str(error))}"]
    faults = differences(name, found["versions"], versions())
    if not found["sees_root"]:
        faults.append(
            f"node {name} cannot read root={root}: give a folder that all nodes share, or a bucket"
        )
    return faults


def _ask(node_id: str, root: Path | None) -> Any:
    there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_about_this_node)
    return task.remote(None if root is None else str(root))


def _about_this_node(root: str | None) -> dict[str, Any]:
    return {"versions": versions(), "sees_root": root is None or Path(root).is_dir()}


def versions() -> dict[str, str]:
    """Return the versions, by name, that must be equal on all nodes."""
    installed = provenance.packages()
    return {
        "python": platform.python_version(),
        "freezewise": provenance.code_version(),
        **{name: installed.get(name, "none") for name in provenance.PACKAGES},
    }


def differences(node: str, there: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """Return a line with the versions that differ on a node, or []; "+cpu" and "+cu128" count as equal."""
    other = [
        f"{name} {there.get(name, 'none')} (here {version})"
        for name, version in here.items()
        if _plain(name, there.get(name, "none")) != _plain(name, version)
    ]
    if not other:
        return []
    return [f"node {node} has {', '.join(other)}: install the same on every node"]


def _plain(name: str, version: str) -> str:
    # In freezewise's version, the part after the + identifies the sources that determine a row.
    return version if name == "freezewise" else version.partition("+")[0]
