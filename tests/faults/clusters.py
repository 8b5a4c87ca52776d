"""Faults of a study on Ray: its driver, a worker, a raylet, a whole node."""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from study.store import finished_ids, read_head
from tests.faults import drivers, signals
from tests.faults.drivers import Driver
from tests.faults.loopback import Loopback, wait_until_gone
from tests.faults.places import CHECKPOINT_SECONDS, NEVER_DUE, Outcome, Place, Workshop


def driver_killed(shop: Workshop, rng: random.Random) -> Outcome:
    """Its workers may live on for a moment; the next driver begins at once."""
    place = shop.place("slow_source")
    driver = place.run(on_ray=True)
    place.wait_until(lambda: place.count("saved") > 0, driver, "a checkpoint")
    time.sleep(rng.uniform(0, 2))
    caused = int(driver.kill())
    killed_at = time.monotonic()
    if rng.random() < 0.5:
        place.finish()
    else:
        place.finish(on_ray=True)
    # Ray's own agents may take minutes to notice; what trains must not.
    trained = _trained(place)
    while left := trained.intersection(drivers.processes_of(place.folder)):
        if time.monotonic() - killed_at > 60:
            place.expect(False, f"trials of the killed driver live on: {left}")
            break
        time.sleep(0.1)
    return place.judge("driver on Ray killed", caused)


def worker_killed(shop: Workshop, rng: random.Random, *, times: int = 2) -> Outcome:
    """While it trains the source, then while it trains a cell."""
    place = shop.place("slow_source")
    (source,) = place.sources
    driver = place.run(on_ray=True)
    caused = 0
    for is_source in (True, False)[:times]:
        seen = len(place.journal.events())

        def trains(seen: int = seen, is_source: bool = is_source) -> list[int]:
            new = place.journal.events()[seen:]
            wanted = [e for e in new if e.kind == "saved" and (e.run_id == source) == is_source]
            return [e.pid for e in wanted[-1:]]

        if place.wait_until(trains, driver, "a checkpoint"):
            dead, killed_at = _trained(place), time.monotonic()
            caused += _kill(trains()[0])
            _note_move(place, driver, dead, killed_at)
    status = driver.wait()
    place.expect(status == 0, f"status {status}: {driver.said()}")
    place.finish()
    return place.judge("worker killed", caused)


def own_raylet_killed(shop: Workshop, rng: random.Random) -> Outcome:
    """Of a Ray of the driver's own, which may go on with the workers it has, or end; never hang."""
    place = shop.place("slower_source")
    driver = place.run(on_ray=True)
    place.wait_until(lambda: place.count("saved") > 0, driver, "a checkpoint")
    (raylet,) = _named(place, "raylet")
    caused = _kill(raylet)
    status = driver.wait()
    all_done = finished_ids(place.store) == place.runs.keys()
    place.expect((status == 0) == all_done, f"status {status}: {driver.said()}")
    place.finish()
    return place.judge("raylet of a driver's own Ray killed", caused)


def raylet_killed(shop: Workshop, rng: random.Random) -> Outcome:
    return _node_lost(shop, "raylet of a cluster's node killed", kills_raylet=True)


def node_removed(shop: Workshop, rng: random.Random) -> Outcome:
    return _node_lost(shop, "node removed while it trains the source", kills_raylet=False)


def signal_reaches_nodes(shop: Workshop, rng: random.Random) -> Outcome:
    """SIGTERM to a driver whose trials run on other nodes: they write where they stand, none is redone."""
    place = shop.place("slow_source", checkpoint_seconds=NEVER_DUE)
    with _cluster(place, num_nodes=2) as (cluster, _):
        flags = ("--address", cluster.address, "--gpus-per-trial", "1")
        driver = place.run(*flags)
        place.wait_until(lambda: place.count("step") > 0, driver, "a step")
        time.sleep(rng.uniform(0, 1))
        caused = signals.end_politely(place, driver, signal.SIGTERM)
        place.finish(*flags)
    signals.expect_nothing_redone(place)
    return place.judge("SIGTERM to a driver of a cluster", caused)


def _node_lost(shop: Workshop, fault: str, *, kills_raylet: bool) -> Outcome:
    """The node on which the source is trained that all others wait for; it goes on elsewhere: on another
    node, or, where it was the only one, on one that is added."""
    place = shop.place("slower_source" if kills_raylet else "slow_source")
    (source,) = place.sources
    with _cluster(place, num_nodes=2 if kills_raylet else 1) as (cluster, nodes):
        driver = place.run("--address", cluster.address, "--gpus-per-trial", "1")
        place.wait_until(lambda: place.count("saved", source) > 1, driver, "two checkpoints")
        worker = place.journal.tries()[-1].pid
        raylets = {_raylet_of(node): node for node in nodes}
        lost = raylets[_parent(worker)]
        dead, killed_at = _trained(place), time.monotonic()
        if kills_raylet:
            caused = _kill(_raylet_of(lost))
        else:
            cluster.remove_node(lost, allow_graceful=False)
            caused = 1
            with drivers.as_environment(_environment_of_nodes(place)):
                added = _raylet_of(_add_node(cluster))
            used = place.wait_until(lambda: _trains_below(place, added), driver, "the added node")
            place.expect(used, "the node that was added trained nothing")
        _note_move(place, driver, dead, killed_at)
        status = driver.wait()
        told = re.search(r"node .* is lost; 1 Run of it (will go|went) on elsewhere", driver.said())
        place.expect(told is not None, f"the lost node is not named: {driver.said()}")
        place.expect("went on elsewhere" in driver.said(), f"not that it went on: {driver.said()}")
        place.expect(status == 0, f"status {status}: {driver.said()}")
        place.expect_no_traceback(driver)
        if status == 0:
            num_resumes = read_head(place.store, source).provenance.num_resumes
            place.expect(num_resumes >= 1, "the source began anew")
    place.finish()
    return place.judge(fault, caused)


@contextmanager
def _cluster(place: Place, num_nodes: int) -> Iterator[tuple[Any, list[Any]]]:
    """A head and nodes with a declared GPU each, as processes of this machine."""
    with drivers.as_environment(_environment_of_nodes(place)):
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


def _environment_of_nodes(place: Place) -> dict[str, str]:
    """What the processes of a node inherit; their GPUs are declared, not there."""
    return drivers.environment() | place.watched | {"STUDY_DEVICE": "cpu"}


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


def _trains_below(place: Place, raylet: int) -> bool:
    """Whether a process of this node trains, or has trained."""
    for pid in {event.pid for event in place.journal.events() if event.kind == "step"}:
        with suppress(FileNotFoundError):
            if _parent(pid) == raylet:
                return True
    return False


def _trained(place: Place) -> set[int]:
    """Processes that have trained so far."""
    return {each.pid for each in place.journal.tries()}


def _went_on(place: Place, dead: set[int]) -> list[float]:
    """When others than these made their steps."""
    return [e.at for e in place.journal.events() if e.kind == "step" and e.pid not in dead]


def _note_move(place: Place, driver: Driver, dead: set[int], killed_at: float) -> None:
    """Waits until some process goes on, and notes how soon that was."""
    if place.wait_until(lambda: _went_on(place, dead), driver, "training goes on elsewhere"):
        place.resume_seconds.append(_went_on(place, dead)[0] - killed_at)


def _kill(pid: int) -> int:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return 1
    return 0


def _raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _named(place: Place, name: str) -> list[int]:
    """Processes of this place whose program has this name."""
    return [
        pid
        for pid in drivers.processes_of(place.folder)
        if Path(f"/proc/{pid}/comm").read_text().strip() == name
    ]


def head_killed(shop: Workshop, rng: random.Random) -> Outcome:
    """The whole way of a study on a cluster, as jobs of its job server: the machine of head and driver
    dies, a new cluster is given the same command, and its report lies where the text says."""
    place = shop.place("slow_source")
    variables = place.watched
    flags = ("--root", place.root, "--checkpoint-seconds", str(CHECKPOINT_SECONDS))
    study = (sys.executable, "-m", "study", "run", str(place.folder / f"{place.space}.py"), *flags)
    with Loopback(variables) as first:
        first.add_node("node-1")
        submitted = first.submit("study", *study, wait=False)
        assert submitted.returncode == 0, submitted.stdout
        _wait_for(lambda: place.count("saved") > 1, lambda: first.log_of("study"))
        time.sleep(rng.uniform(0, 1))
        caused = int(first.kill("head") > 0)
        left = wait_until_gone(_trained(place), 120)
        place.expect(not left, f"trials outlive head and driver: {left}")
    before, given_again_at = _trained(place), time.monotonic()
    with Loopback(variables) as second:
        second.add_node("node-1", "--labels", "ray.io/accelerator-type=H100")
        second.add_node("node-2", "--labels", "ray.io/accelerator-type=A100")
        ran = second.submit("study", *study, "--accelerator", "H100", wait=True)
        place.expect(ran.returncode == 0, ran.stdout)
        said = [line for line in ran.stdout.splitlines() if line.endswith("index.html")]
        page = Path(place.root) / "reports" / place.space / "index.html"
        place.expect(said == [str(page)] and page.is_file(), f"no report at {page}: {ran.stdout}")
        place.expect("Traceback" not in ran.stdout, f"a traceback: {ran.stdout}")
        workers = _trained(place) - before
        elsewhere = workers - set(second.processes_of("node-1"))
        alive = set(second.processes_of("node-2"))
        place.expect(bool(workers), "nothing was trained on the new cluster")
        place.resume_seconds += [at - given_again_at for at in _went_on(place, before)[:1]]
        place.expect(not elsewhere & alive, "a trial of H100 ran on the node with A100")
    return place.judge("head killed, with the driver's job", caused)


def _wait_for(is_so: Callable[[], bool], said: Callable[[], str], seconds: float = 300.0) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise drivers.Hung(f"waited {seconds:.0f} s in vain; it said:\n{said()}")
        time.sleep(0.05)
