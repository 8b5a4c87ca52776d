"""Kill the driver, a worker, a raylet or a node of a study on Ray."""

from __future__ import annotations

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
from tests.faults.drivers import PATIENCE_SECONDS, Driver
from tests.faults.harness import CHECKPOINT_SECONDS, NEVER_DUE, Harness, Outcome, Scenario


def driver_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the driver, whose workers may live on for a moment; the next driver begins at once."""
    scenario = harness.scenario("slow_source")
    driver = scenario.run(on_ray=True)
    scenario.wait_for("saved", driver)
    time.sleep(rng.uniform(0, 2))
    caused = driver.kill()
    scenario.finish(on_ray=rng.random() < 0.5)
    # Ray's own agents may take minutes to end; workers must not.
    left = _left_after(scenario, 60)
    scenario.expect(not left, f"workers of the killed driver live on: {left}")
    return scenario.judge(int(caused))


def worker_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the worker of the source, then that of a cell."""
    scenario = harness.scenario("slow_source")
    driver = scenario.run(on_ray=True)
    caused = 0
    for is_source in (True, False):
        seen = len(scenario.journal.events())

        def trains(seen: int = seen, is_source: bool = is_source) -> list[int]:
            new = scenario.journal.events()[seen:]
            saved = [e for e in new if e.kind == "saved"]
            return [e.pid for e in saved if (e.run_id in scenario.sources) == is_source][-1:]

        if driver.wait_until(trains, "a checkpoint"):
            dead, killed_at = _trained(scenario), time.monotonic()
            caused += drivers.kill(trains()[0])
            _note_move(scenario, driver, dead, killed_at)
    scenario.expect_end(driver, 0)
    scenario.finish()
    return scenario.judge(caused)


def own_raylet_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the raylet of a driver's own Ray: the driver ends, or goes on with the workers it has."""
    scenario = harness.scenario("slower_source")
    driver = scenario.run(on_ray=True)
    scenario.wait_for("saved", driver)
    (raylet,) = signals.processes_named(scenario, "raylet")
    caused = drivers.kill(raylet)
    status = driver.wait()
    all_done = finished_ids(scenario.store) == scenario.runs.keys()
    scenario.expect((status == 0) == all_done, f"status {status}: {driver.said()}")
    scenario.finish()
    return scenario.judge(caused)


def signal_reaches_nodes(harness: Harness, rng: random.Random) -> Outcome:
    """Send SIGTERM to a driver with trials on other nodes: they write checkpoints, no step is redone."""
    scenario = harness.scenario("slow_source", checkpoint_seconds=NEVER_DUE)
    with _cluster(scenario, num_nodes=2) as (cluster, _):
        flags = ("--address", cluster.address, "--gpus-per-trial", "1")
        driver = scenario.run(*flags)
        scenario.wait_for("step", driver)
        time.sleep(rng.uniform(0, 1))
        caused = signals.end_politely(scenario, driver, signal.SIGTERM)
        scenario.finish(*flags)
    signals.expect_nothing_redone(scenario)
    return scenario.judge(caused)


def raylet_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the raylet of the node that trains the source, which continues on another node."""
    scenario = harness.scenario("slower_source")
    with _cluster(scenario, num_nodes=2) as (cluster, _):
        driver, raylet = _training_node(scenario, cluster)
        dead, killed_at = _trained(scenario), time.monotonic()
        caused = drivers.kill(raylet)
        _expect_moved(scenario, driver, dead, killed_at)
    scenario.finish()
    return scenario.judge(caused)


def node_removed(harness: Harness, rng: random.Random) -> Outcome:
    """Remove the only node, which trains the source; it continues on a node that is added."""
    # Ray lists a killed node as alive for more than 10 s; the study must not end before.
    scenario = harness.scenario("slower_source")
    with _cluster(scenario, num_nodes=1) as (cluster, nodes):
        driver, _ = _training_node(scenario, cluster)
        dead, killed_at = _trained(scenario), time.monotonic()
        cluster.remove_node(nodes[0], allow_graceful=False)
        with drivers.as_environment(_environment_of_nodes(scenario)):
            added = int(_add_node(cluster).all_processes["raylet"][0].process.pid)

        def is_used() -> bool:
            return any(_parent(pid) == added for pid in _trained(scenario))

        used = driver.wait_until(is_used, "the added node")
        scenario.expect(used, "the added node trained nothing")
        _expect_moved(scenario, driver, dead, killed_at)
    scenario.finish()
    return scenario.judge()


def _training_node(scenario: Scenario, cluster: Any) -> tuple[Driver, int]:
    """Start a driver, wait for two checkpoints of the source, and return the raylet of its node."""
    driver = scenario.run("--address", cluster.address, "--gpus-per-trial", "1")
    scenario.wait_for("saved", driver, count=2)
    return driver, _parent(scenario.journal.tries()[-1].pid)


def _expect_moved(scenario: Scenario, driver: Driver, dead: set[int], killed_at: float) -> None:
    """Expect the driver to name the lost node, and the source to continue from its checkpoint."""
    _note_move(scenario, driver, dead, killed_at)
    status = scenario.expect_end(driver, 0, says="went on elsewhere")
    lost = re.search(r"node .* is lost; its 1 Run (will go|went) on elsewhere", driver.said())
    scenario.expect(lost, f"the lost node is not named: {driver.said()}")
    if status == 0:
        (source,) = scenario.sources
        num_resumes = read_head(scenario.store, source).provenance.num_resumes
        scenario.expect(num_resumes >= 1, "the source started over")


@contextmanager
def _cluster(scenario: Scenario, num_nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """Yield a cluster of processes on this machine, and its nodes, with a declared GPU each."""
    with drivers.as_environment(_environment_of_nodes(scenario)):
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, **_SMALL_NODE}
        cluster = _patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        nodes = [_add_node(cluster) for _ in range(num_nodes)]
        cluster.wait_for_nodes()
    try:
        yield cluster, nodes
    finally:
        cluster.shutdown()


_STORE_BYTES: Final = 100 * 2**20
_SMALL_NODE: Final = {"object_store_memory": _STORE_BYTES}


def _environment_of_nodes(scenario: Scenario) -> dict[str, str]:
    return drivers.environment() | scenario.traced | {"STUDY_DEVICE": "cpu"}


def _add_node(cluster: Any) -> Any:
    return _patiently(lambda: cluster.add_node(num_cpus=1, num_gpus=1, **_SMALL_NODE))


def _patiently(start: Callable[[], Any]) -> Any:
    """Try three times: Ray gives a node 30 s to start, which is too short on a busy machine."""
    for tries_left in (2, 1, 0):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error) or not tries_left:
                raise
    raise AssertionError


def _trained(scenario: Scenario) -> set[int]:
    """Return the processes that have trained so far."""
    return {each.pid for each in scenario.journal.tries()}


def _went_on(scenario: Scenario, dead: set[int]) -> list[float]:
    """Return when other processes trained."""
    return [e.at for e in scenario.journal.events() if e.kind == "step" and e.pid not in dead]


def _note_move(scenario: Scenario, driver: Driver, dead: set[int], killed_at: float) -> None:
    if driver.wait_until(lambda: _went_on(scenario, dead), "training goes on elsewhere"):
        scenario.note_resumed([_went_on(scenario, dead)[0] - killed_at])


def _parent(pid: int) -> int | None:
    with suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).ppid())
    return None


def head_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill the machine of head and driver; a new cluster gets the same command as a job.

    The report is where the driver says, and only nodes with the wanted accelerator train.
    """
    scenario = harness.scenario("slow_source")
    flags = ("--root", scenario.root, "--checkpoint-seconds", str(CHECKPOINT_SECONDS))
    study = (sys.executable, "-m", "study", "run", str(scenario.space_path), *flags)
    with Loopback(scenario.traced) as first:
        first.add_node("node-1")
        submitted = first.submit(*study, waits=False)
        assert submitted.returncode == 0, submitted.stdout
        until = time.monotonic() + PATIENCE_SECONDS
        while scenario.count("saved") < 2:
            if time.monotonic() > until:
                raise drivers.Hung(f"no checkpoint; output:\n{first.log()}")
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        caused = int(first.kill("head") > 0)
        left = _left_after(scenario, 120)
        scenario.expect(not left, f"trials outlive head and driver: {left}")
    before, submitted_at = _trained(scenario), time.monotonic()
    with Loopback(scenario.traced) as second:
        second.add_node("node-1", "--labels", "ray.io/accelerator-type=H100")
        second.add_node("node-2", "--labels", "ray.io/accelerator-type=A100")
        ran = second.submit(*study, "--accelerator", "H100")
        said = [line for line in ran.stdout.splitlines() if line.endswith("index.html")]
        page = Path(scenario.root) / "reports" / scenario.space / "index.html"
        has_page = said == [str(page)] and page.is_file()
        is_right = ran.returncode == 0 and has_page and "Traceback" not in ran.stdout
        scenario.expect(is_right, f"status {ran.returncode}, {page}: {ran.stdout}")
        workers = _trained(scenario) - before
        scenario.expect(workers, "nothing was trained on the new cluster")
        scenario.note_resumed([at - submitted_at for at in _went_on(scenario, before)[:1]])
        wrong = workers & set(second.processes_of("node-2"))
        scenario.expect(not wrong, "a trial of H100 ran on the node with A100")
    return scenario.judge(caused)


_MARK: Final = "FREEZEWISE_NODE"


class Loopback:
    """A cluster that `ray start` starts: a head without GPUs or room for Runs, and added nodes."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        # A short path: that of a socket has at most 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="fz-"))
        self._port, self._job_port = _free_ports(2)
        self._environment = drivers.environment() | {
            **variables,
            "STUDY_DEVICE": "cpu",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
        }
        self._names: list[str] = []

    def __enter__(self) -> Loopback:
        self._start(
            "head",
            *("--head", "--port", str(self._port), "--temp-dir", str(self._folder / "ray")),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self._job_port)),
            *("--num-cpus", "0", "--num-gpus", "0"),
        )
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            self.kill(name)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add_node(self, name: str, *flags: str) -> None:
        """Add a node with a core and a declared GPU."""
        from ray.util import get_node_ip_address

        address = f"{get_node_ip_address()}:{self._port}"
        self._start(name, "--address", address, "--num-cpus", "1", "--num-gpus", "1", *flags)

    def kill(self, name: str) -> int:
        """Kill all processes of a node; return their number."""
        return sum(drivers.kill(pid) for pid in self.processes_of(name))

    def processes_of(self, name: str) -> list[int]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(_MARK) == f"{self._folder.name}-{name}":
                    found.append(process.pid)
        return found

    def submit(self, *command: str, waits: bool = True) -> subprocess.CompletedProcess[str]:
        """Submit a job; if `waits`, wait for its end and return its output."""
        flags = ["--submission-id", "study", *([] if waits else ["--no-wait"])]
        return self._job("submit", *flags, "--", *command)

    def log(self) -> str:
        """Return the output of the job so far."""
        return self._job("logs", "study").stdout

    def _job(self, verb: str, *words: str) -> subprocess.CompletedProcess[str]:
        address = f"http://127.0.0.1:{self._job_port}"
        return self._ray("job", verb, "--address", address, *words, name="user")

    def _start(self, name: str, *flags: str) -> None:
        self._names.append(name)
        # By default, all agents of a machine use one port, and a second cluster takes no jobs.
        (port,) = _free_ports(1)
        flags += ("--dashboard-agent-listen-port", str(port), "--disable-usage-stats")
        flags += ("--object-store-memory", str(_STORE_BYTES))

        def start() -> None:
            self.kill(name)  # what an earlier try has left
            started = self._ray("start", *flags, name=name)
            assert started.returncode == 0, started.stdout

        _patiently(start)

    def _ray(self, *words: str, name: str) -> subprocess.CompletedProcess[str]:
        # Not a pipe: the processes that `ray start` starts would keep it open.
        with tempfile.TemporaryFile("w+") as out:
            ran = subprocess.run(
                [str(Path(sys.executable).with_name("ray")), *words],
                env=self._environment | {_MARK: f"{self._folder.name}-{name}"},
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=PATIENCE_SECONDS,
            )
            out.seek(0)
            return subprocess.CompletedProcess(ran.args, ran.returncode, out.read())


def _left_after(scenario: Scenario, seconds: float) -> set[int]:
    """Return the processes that have trained so far and are still alive after `seconds`."""
    until, workers = time.monotonic() + seconds, _trained(scenario)
    while left := workers.intersection(drivers.processes_of(scenario.folder)):
        if time.monotonic() > until:
            break
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
