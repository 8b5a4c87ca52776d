"""Faults of a study on Ray: its driver, a worker, a raylet, a whole node."""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import psutil

from study.store import finished_ids, read_head
from tests.faults import drivers, signals
from tests.faults.drivers import Driver
from tests.faults.harness import CHECKPOINT_SECONDS, NEVER_DUE, Harness, Outcome, Scenario


def driver_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Its workers may live on for a moment; the next driver begins at once."""
    scenario = harness.scenario("slow_source")
    driver = scenario.run(on_ray=True)
    scenario.wait_until(lambda: scenario.count("saved") > 0, driver, "a checkpoint")
    time.sleep(rng.uniform(0, 2))
    caused = int(driver.kill())
    killed_at = time.monotonic()
    if rng.random() < 0.5:
        scenario.finish()
    else:
        scenario.finish(on_ray=True)
    # Ray's own agents may take minutes to notice; what trains must not.
    trained = _trained(scenario)
    while left := trained.intersection(drivers.processes_of(scenario.folder)):
        if time.monotonic() - killed_at > 60:
            scenario.expect(False, f"trials of the killed driver live on: {left}")
            break
        time.sleep(0.1)
    return scenario.judge("driver on Ray killed", caused)


def worker_killed(harness: Harness, rng: random.Random, *, times: int = 2) -> Outcome:
    """While it trains the source, then while it trains a cell."""
    scenario = harness.scenario("slow_source")
    (source,) = scenario.sources
    driver = scenario.run(on_ray=True)
    caused = 0
    for is_source in (True, False)[:times]:
        seen = len(scenario.journal.events())

        def trains(seen: int = seen, is_source: bool = is_source) -> list[int]:
            new = scenario.journal.events()[seen:]
            wanted = [e for e in new if e.kind == "saved" and (e.run_id == source) == is_source]
            return [e.pid for e in wanted[-1:]]

        if scenario.wait_until(trains, driver, "a checkpoint"):
            dead, killed_at = _trained(scenario), time.monotonic()
            caused += _kill(trains()[0])
            _note_move(scenario, driver, dead, killed_at)
    status = driver.wait()
    scenario.expect(status == 0, f"status {status}: {driver.said()}")
    scenario.finish()
    return scenario.judge("worker killed", caused)


def own_raylet_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Of a Ray of the driver's own, which may go on with the workers it has, or end; never hang."""
    scenario = harness.scenario("slower_source")
    driver = scenario.run(on_ray=True)
    scenario.wait_until(lambda: scenario.count("saved") > 0, driver, "a checkpoint")
    (raylet,) = _named(scenario, "raylet")
    caused = _kill(raylet)
    status = driver.wait()
    all_done = finished_ids(scenario.store) == scenario.runs.keys()
    scenario.expect((status == 0) == all_done, f"status {status}: {driver.said()}")
    scenario.finish()
    return scenario.judge("raylet of a driver's own Ray killed", caused)


def raylet_killed(harness: Harness, rng: random.Random) -> Outcome:
    return _node_lost(harness, "raylet of a cluster's node killed", kills_raylet=True)


def node_removed(harness: Harness, rng: random.Random) -> Outcome:
    return _node_lost(harness, "node removed while it trains the source", kills_raylet=False)


def signal_reaches_nodes(harness: Harness, rng: random.Random) -> Outcome:
    """SIGTERM to a driver whose trials run on other nodes: they write where they stand, none is redone."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    with _cluster(scenario, num_nodes=2) as (cluster, _):
        flags = ("--address", cluster.address, "--gpus-per-trial", "1")
        driver = scenario.run(*flags)
        scenario.wait_until(lambda: scenario.count("step") > 0, driver, "a step")
        time.sleep(rng.uniform(0, 1))
        caused = signals.end_politely(scenario, driver, signal.SIGTERM)
        scenario.finish(*flags)
    signals.expect_nothing_redone(scenario)
    return scenario.judge("SIGTERM to a driver of a cluster", caused)


def _node_lost(harness: Harness, fault: str, *, kills_raylet: bool) -> Outcome:
    """The node on which the source is trained that all others wait for; it goes on elsewhere: on another
    node, or, where it was the only one, on one that is added."""
    scenario = harness.scenario("slower_source" if kills_raylet else "slow_source")
    (source,) = scenario.sources
    with _cluster(scenario, num_nodes=2 if kills_raylet else 1) as (cluster, nodes):
        driver = scenario.run("--address", cluster.address, "--gpus-per-trial", "1")
        scenario.wait_until(lambda: scenario.count("saved", source) > 1, driver, "two checkpoints")
        worker = scenario.journal.tries()[-1].pid
        raylets = {_raylet_of(node): node for node in nodes}
        lost = raylets[_parent(worker)]
        dead, killed_at = _trained(scenario), time.monotonic()
        if kills_raylet:
            caused = _kill(_raylet_of(lost))
        else:
            cluster.remove_node(lost, allow_graceful=False)
            caused = 1
            with drivers.as_environment(_environment_of_nodes(scenario)):
                added = _raylet_of(_add_node(cluster))
            used = scenario.wait_until(
                lambda: _trains_below(scenario, added), driver, "the added node"
            )
            scenario.expect(used, "the node that was added trained nothing")
        _note_move(scenario, driver, dead, killed_at)
        status = driver.wait()
        told = re.search(r"node .* is lost; its 1 Run (will go|went) on elsewhere", driver.said())
        scenario.expect(told is not None, f"the lost node is not named: {driver.said()}")
        scenario.expect(
            "went on elsewhere" in driver.said(), f"not that it went on: {driver.said()}"
        )
        scenario.expect(status == 0, f"status {status}: {driver.said()}")
        scenario.expect_no_traceback(driver)
        if status == 0:
            num_resumes = read_head(scenario.store, source).provenance.num_resumes
            scenario.expect(num_resumes >= 1, "the source began anew")
    scenario.finish()
    return scenario.judge(fault, caused)


@contextmanager
def _cluster(scenario: Scenario, num_nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """A head and nodes with a declared GPU each, as processes of this machine."""
    with drivers.as_environment(_environment_of_nodes(scenario)):
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 100 * 2**20, "include_dashboard": False}
        head = {"num_cpus": 1, "num_gpus": 0, **small}
        cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        nodes = [_add_node(cluster) for _ in range(num_nodes)]
        cluster.wait_for_nodes()
    try:
        yield cluster, nodes
    finally:
        cluster.shutdown()


def _environment_of_nodes(scenario: Scenario) -> dict[str, str]:
    """What the processes of a node inherit; their GPUs are declared, not there."""
    return drivers.environment() | scenario.watched | {"STUDY_DEVICE": "cpu"}


def _add_node(cluster: Any) -> Any:
    small = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 100 * 2**20}
    return _patiently(lambda: cluster.add_node(**small))


def _patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 s to start, which no setting changes and a busy machine takes from it."""
    for tries_left in (2, 1, 0):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error) or not tries_left:
                raise
    raise AssertionError


def _trains_below(scenario: Scenario, raylet: int) -> bool:
    """Whether a process of this node trains, or has trained."""
    for pid in {event.pid for event in scenario.journal.events() if event.kind == "step"}:
        with suppress(FileNotFoundError):
            if _parent(pid) == raylet:
                return True
    return False


def _trained(scenario: Scenario) -> set[int]:
    """Processes that have trained so far."""
    return {each.pid for each in scenario.journal.tries()}


def _went_on(scenario: Scenario, dead: set[int]) -> list[float]:
    """When others than these made their steps."""
    return [e.at for e in scenario.journal.events() if e.kind == "step" and e.pid not in dead]


def _note_move(scenario: Scenario, driver: Driver, dead: set[int], killed_at: float) -> None:
    """Waits until some process goes on, and notes how soon that was."""
    if scenario.wait_until(lambda: _went_on(scenario, dead), driver, "training goes on elsewhere"):
        scenario.note_resumed([_went_on(scenario, dead)[0] - killed_at])


def _kill(pid: int) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return 1
    return 0


def _raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _named(scenario: Scenario, name: str) -> list[int]:
    """Processes of this scenario whose program has this name."""
    return [
        pid
        for pid in drivers.processes_of(scenario.folder)
        if Path(f"/proc/{pid}/comm").read_text().strip() == name
    ]


def head_killed(harness: Harness, rng: random.Random) -> Outcome:
    """The whole way of a study on a cluster, as jobs of its job server: the machine of head and driver
    dies, a new cluster is given the same command, and its report lies where the text says."""
    scenario = harness.scenario("slow_source")
    variables = scenario.watched
    flags = ("--root", scenario.root, "--checkpoint-seconds", str(CHECKPOINT_SECONDS))
    study = (
        sys.executable,
        "-m",
        "study",
        "run",
        str(scenario.folder / f"{scenario.space}.py"),
        *flags,
    )
    with Loopback(variables) as first:
        first.add_node("node-1")
        submitted = first.submit("study", *study, wait=False)
        assert submitted.returncode == 0, submitted.stdout
        _wait_for(lambda: scenario.count("saved") > 1, lambda: first.log_of("study"))
        time.sleep(rng.uniform(0, 1))
        caused = int(first.kill("head") > 0)
        left = wait_until_gone(_trained(scenario), 120)
        scenario.expect(not left, f"trials outlive head and driver: {left}")
    before, given_again_at = _trained(scenario), time.monotonic()
    with Loopback(variables) as second:
        second.add_node("node-1", "--labels", "ray.io/accelerator-type=H100")
        second.add_node("node-2", "--labels", "ray.io/accelerator-type=A100")
        ran = second.submit("study", *study, "--accelerator", "H100", wait=True)
        scenario.expect(ran.returncode == 0, ran.stdout)
        said = [line for line in ran.stdout.splitlines() if line.endswith("index.html")]
        page = Path(scenario.root) / "reports" / scenario.space / "index.html"
        scenario.expect(
            said == [str(page)] and page.is_file(), f"no report at {page}: {ran.stdout}"
        )
        scenario.expect("Traceback" not in ran.stdout, f"a traceback: {ran.stdout}")
        workers = _trained(scenario) - before
        elsewhere = workers - set(second.processes_of("node-1"))
        alive = set(second.processes_of("node-2"))
        scenario.expect(bool(workers), "nothing was trained on the new cluster")
        scenario.note_resumed([at - given_again_at for at in _went_on(scenario, before)[:1]])
        scenario.expect(not elsewhere & alive, "a trial of H100 ran on the node with A100")
    return scenario.judge("head killed, with the driver's job", caused)


def _wait_for(is_so: Callable[[], bool], said: Callable[[], str], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise drivers.Hung(f"waited {seconds:.0f} s in vain; it said:\n{said()}")
        time.sleep(0.05)


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
