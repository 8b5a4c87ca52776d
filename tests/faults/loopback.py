"""A cluster as a user makes one: `ray start`, a token, a job server; any of its nodes can be killed.

Owns its ports, token and folder. Every process of a node carries its name in the environment, what it
starts too: so all that runs on it dies with it, as with a machine.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from tests.faults import drivers

_MARK: Final = "FREEZEWISE_NODE"
_SMALL: Final = ("--object-store-memory", str(100 * 2**20), "--disable-usage-stats")
PATIENCE_SECONDS: Final = 300.0


class Loopback:
    """A head without GPUs and without room for Runs; nodes are added. As a context it leaves nothing."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        # Short: a socket's whole path has 107 characters at most.
        self._folder = Path(tempfile.mkdtemp(prefix="fz-"))
        self.port, self._job_port = _free_ports(2)
        self._environment = drivers.environment() | {
            **variables,
            "STUDY_DEVICE": "cpu",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._address = f"{_own_address()}:{self.port}"
        self._names: list[str] = []

    def __enter__(self) -> Loopback:
        self._start(
            "head",
            *("--head", "--port", str(self.port), "--temp-dir", str(self._folder / "ray")),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self._job_port)),
            *("--num-cpus", "0", "--num-gpus", "0"),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self.kill(name)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self, name: str, *flags: str) -> None:
        """A node with a core and a declared GPU."""
        self._start(name, "--address", self._address, "--num-cpus", "1", "--num-gpus", "1", *flags)

    def kill(self, name: str) -> int:
        """Kills all that runs on a node, at once; how many processes that were."""
        pids = self.processes_of(name)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids)

    def processes_of(self, name: str) -> list[int]:
        """All that runs on a node."""
        mark = f"{_MARK}={self._folder.name}-{name}"
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == mark.partition("=")[2]:
                    found.append(process.pid)
        return found

    def submit(self, name: str, *command: str, wait: bool) -> subprocess.CompletedProcess[str]:
        """`ray job submit`; where it waits, its stdout is what the job said."""
        flags = ["--submission-id", name, *([] if wait else ["--no-wait"])]
        to = ["--address", f"http://127.0.0.1:{self._job_port}"]
        return self._ray("job", "submit", *to, *flags, "--", *command, name="user")

    def log_of(self, name: str) -> str:
        """What a job has said so far."""
        to = ["--address", f"http://127.0.0.1:{self._job_port}"]
        return self._ray("job", "logs", *to, name, name="user").stdout

    def _start(self, name: str, *flags: str) -> None:
        self._names.append(name)
        # By default all agents of a machine want one port: a second cluster has none that takes jobs.
        (agent_port,) = _free_ports(1)
        flags += ("--dashboard-agent-listen-port", str(agent_port))
        started = self._ray("start", *flags, *_SMALL, name=name)
        assert started.returncode == 0, started.stdout + started.stderr

    def _ray(self, *words: str, name: str) -> subprocess.CompletedProcess[str]:
        mark = {_MARK: f"{self._folder.name}-{name}"}
        with tempfile.TemporaryFile(
            "w+"
        ) as out:  # not a pipe: what it leaves running would hold it open
            ran = subprocess.run(
                [str(Path(sys.executable).with_name("ray")), *words],
                env=self._environment | mark,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
            out.seek(0)
            return subprocess.CompletedProcess(ran.args, ran.returncode, out.read(), "")


def wait_until_gone(pids: set[int], seconds: float) -> set[int]:
    """Those of these processes that still live after so long."""
    until = time.monotonic() + seconds
    while (left := {pid for pid in pids if psutil.pid_exists(pid)}) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def _own_address() -> str:
    """By which Ray names this machine; nothing is sent."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())
