"""Errors if Ray cannot be started or joined, and the versions of a cluster's nodes."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from study.cli.main import main
from study.launching.options import refuse_unreachable
from study.messages import UserError
from tests.processes import run_python
from tests.studies import ONE_RUN, write_space


def test_refuse_unreachable_closed_port_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"mine, which is {address}: no Ray cluster"):
            refuse_unreachable(address, f"mine, which is {address}")
    refuse_unreachable("auto")  # for Ray to find


def test_run_and_plan_for_ray_without_a_home_name_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # no account
    for words in (["run", "quickstart"], ["plan", "quickstart", "--cpus-per-trial", "1"]):
        assert main(words) == 2
        assert "HOME: not set, and user 54321 has no account" in capsys.readouterr().err


def test_differences_names_versions_that_differ() -> None:
    from study.launching.on_ray.cluster import differences, versions

    here = {"python": "3.11.7", "torch": "2.14.1+cpu", "ray": "2.60.0", "freezewise": "0.1.0+aa"}
    assert {*here} <= {*versions()}
    assert differences("n", here | {"torch": "2.14.1+cu128"}, here) == [], "for another device"
    there = {"python": "3.11.7", "torch": "2.13.0+cu128", "freezewise": "0.1.0+bb"}
    assert differences("10.0.0.2, 7c685f", there, here) == [
        "node 10.0.0.2, 7c685f has torch 2.13.0+cu128 (here 2.14.1+cpu), ray none (here 2.60.0), "
        "freezewise 0.1.0+bb (here 0.1.0+aa): install the same on every node"
    ]


@pytest.mark.ray
def test_run_ray_that_does_not_start_is_one_message(tmp_path: Path) -> None:
    """Ray raises a bare exception if the names of its sockets are too long."""
    write_space(tmp_path / "one.py", **ONE_RUN)
    long = tmp_path / ("x" * 120)
    long.mkdir()
    words = ("-m", "study", "run", "one.py", "--root", "store")
    _, error = run_python(*words, status=1, folder=tmp_path, RAY_TMPDIR=str(long))
    assert f"study: RAY_TMPDIR={long}: too long for Ray's sockets" in error
    assert "--inline" in error and "Traceback" not in error


LISTENING = """
import psutil, ray
from study.launching.on_ray.cluster import connected

with connected("local"):
    ray.get(ray.remote(lambda: None).remote())
    this = psutil.Process()
    for each in [this, *this.children(recursive=True)]:
        for socket in each.net_connections(kind="inet"):
            if socket.status == psutil.CONN_LISTEN:
                print("listens", socket.laddr.ip, each.name())
"""


@pytest.mark.slow
@pytest.mark.ray
def test_connected_local_ray_without_a_writable_home_listens_on_loopback_only() -> None:
    printed, _ = run_python("-c", LISTENING, HOME=os.devnull)
    addresses = re.findall(r"^listens (\S+)", printed, re.MULTILINE)
    assert len(addresses) > 5
    assert {*addresses} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, printed


_SHUTDOWN = """
import os, signal, threading, time
from pathlib import Path
import ray
from study.launching.on_ray.cluster import connected
from study.signals import interrupt_on_signals

def terminate_during_shutdown(raylet_log):
    while "SIGTERM" not in raylet_log.read_text():
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGTERM)

try:
    with interrupt_on_signals("", is_last=True), connected("local"):
        raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
        log = Path(f"/proc/{raylet}/fd/1").readlink()
        threading.Thread(target=terminate_during_shutdown, args=[log], daemon=True).start()
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.ray
def test_connected_sigterm_while_ray_shuts_down_is_handled() -> None:
    printed, _ = run_python("-c", _SHUTDOWN)
    assert printed == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError("validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes"),
            r"^TMPDIR=.*: too long for Ray's sockets",
        ),
        (
            PermissionError(13, "Permission denied", "/tmp/ray"),
            r"Permission denied: '/tmp/ray'\nSet TMPDIR to a folder of yours",
        ),
    ],
)
def test_start_temporary_folder_that_ray_cannot_use_is_named(
    monkeypatch: pytest.MonkeyPatch, error: OSError, text: str
) -> None:
    from study.launching.on_ray import cluster

    def refuse() -> None:
        raise error

    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(cluster, "_init_own", refuse)
    with pytest.raises(cluster.RayNotStarted, match=text):
        cluster._start()


JOINING = """
import os, sys, time
import ray
from ray.cluster_utils import Cluster
from study.launching.on_ray.cluster import NewNodes

small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
ray.init(address=cluster.address, log_to_driver=False)
new_nodes = NewNodes(None, ray.nodes())
for folder in (None, sys.argv[1]):
    if folder is not None:
        os.environ["PYTHONPATH"] = folder + os.pathsep + os.environ["PYTHONPATH"]
    cluster.add_node(**small)
    cluster.wait_for_nodes()
    faults = new_nodes.look(ray.nodes())
    assert new_nodes._asked or faults
    while new_nodes._asked:
        time.sleep(0.1)
        faults += new_nodes.look(ray.nodes())
    print("faults", *faults)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
@pytest.mark.ray
def test_node_that_joins_later_with_another_version_is_named(tmp_path: Path) -> None:
    other = tmp_path / "torch-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    printed, _ = run_python("-c", JOINING, str(tmp_path))
    same, different = [line for line in printed.splitlines() if line.startswith("faults")]
    assert same == "faults"
    assert "has torch 1.0 (here" in different and "install the same on every node" in different
