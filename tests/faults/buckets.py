"""A store on a bucket whose server fails now and then, falls silent, or refuses one Run for good."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from study.store import finished_ids, read_failures, read_head
from tests import s3_server
from tests.faults.harness import Harness, Outcome, Scenario, Skipped

STATUSES = (500, 503, None)  # None: the connection is closed without an answer


@contextmanager
def bucket(
    harness: Harness, rng: random.Random, space: str = "tiny"
) -> Iterator[tuple[Scenario, FlakyProxy]]:
    """A scenario on a server of its own, behind a proxy. Raises Skipped where there is no server."""
    if not s3_server.IS_INSTALLED:
        raise Skipped("needs moto's S3 server: pip install 'moto[server]'")
    variables = {
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    os.environ.update(variables)  # this process looks into the bucket too
    with s3_server.moto_server() as port:
        proxy = FlakyProxy(port, rng.randrange(1000))
        try:
            root = s3_server.root(proxy.port, "faults")
            yield harness.scenario(space, root=root, variables=variables), proxy
        finally:
            proxy.close()


class FlakyProxy(s3_server.Proxy):
    """Lets one request in `one_in` fail in one of the ways of STATUSES; 0: none."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port)
        self.one_in = 0
        self.num_failed = 0
        self._rng = random.Random(seed)

    def _verdict(self, request: str) -> int | None:
        verdict = super()._verdict(request)
        if verdict == 0 and self.one_in and self._rng.random() < 1 / self.one_in:
            self.num_failed += 1
            return self._rng.choice(STATUSES)
        return verdict


def now_and_then(harness: Harness, rng: random.Random) -> Outcome:
    with bucket(harness, rng) as (scenario, proxy):
        proxy.one_in = rng.choice([3, 6, 12])
        scenario.finish()
        proxy.one_in = 0
        fault = "bucket answers 500, 503 or nothing"
        # What fails now and then is, now and then, the writing of a checkpoint.
        return scenario.judge(fault, proxy.num_failed, is_bucket=True, may_be_late=True)


def silent(harness: Harness, rng: random.Random) -> Outcome:
    """The server accepts connections and answers nothing for some seconds."""
    with bucket(harness, rng) as (scenario, proxy):
        driver = scenario.run()
        scenario.wait_until(lambda: scenario.count("saved") > 0, driver, "a checkpoint")
        server = _listening_at(proxy.server_port)
        os.kill(server, signal.SIGSTOP)
        time.sleep(rng.uniform(5, 15))
        os.kill(server, signal.SIGCONT)
        status = driver.wait()
        scenario.expect(status == 0, f"status {status}: {driver.said()}")
        scenario.finish()
        # The writing of a checkpoint may be what it strikes.
        return scenario.judge(
            "bucket falls silent for a while", 1, is_bucket=True, may_be_late=True
        )


def driver_killed(harness: Harness, rng: random.Random, *, times: int = 2) -> Outcome:
    """The lease of a killed driver expires only after a while: here it is removed, as a user may."""
    with bucket(harness, rng) as (scenario, proxy):
        caused = 0
        for _ in range(times):
            saved = scenario.count("saved") + scenario.count("published")
            driver = scenario.run()
            scenario.wait_until(
                lambda saved=saved: scenario.count("saved") + scenario.count("published") > saved,
                driver,
                "a checkpoint",
            )
            time.sleep(rng.uniform(0, 1))
            caused += driver.kill()
            _drop_leases(scenario)
        proxy.one_in = 20
        scenario.finish()
        proxy.one_in = 0
        return scenario.judge("driver killed, store on a bucket", caused, is_bucket=True)


def refused_for_good(harness: Harness, rng: random.Random) -> Outcome:
    """The rows of one cell cannot be published, however often it is tried."""
    with bucket(harness, rng) as (scenario, proxy):
        (source,) = scenario.sources
        cursed = rng.choice(sorted(scenario.runs.keys() - {source}))
        proxy.fail(rf"(PUT|POST) .*/rows/{cursed}", 1_000_000, 500)
        driver = scenario.run()
        status = driver.wait(900)
        scenario.expect(status == 1, f"status {status}: {driver.said()}")
        scenario.expect(cursed in driver.said(), f"{cursed} is not named: {driver.said()}")
        scenario.expect_no_traceback(driver)
        failure = read_failures(scenario.store).get(cursed)
        scenario.expect(failure is not None and failure.final, f"noted: {failure}")
        scenario.expect(
            finished_ids(scenario.store) == scenario.runs.keys() - {cursed}, "the others stopped"
        )
        scenario.expect(
            f"rows/{cursed}" in scenario.say("status"), "`study status` does not tell the cause"
        )
        proxy.heal()
        scenario.say("retry")
        scenario.finish()
        return scenario.judge("bucket refuses one Run for good", 1, is_bucket=True)


def two_drivers(harness: Harness, rng: random.Random) -> Outcome:
    """Started at once: one trains, the other is told who does, or finds nothing to do; dependants name
    the digest of the start that was published. Where no condition is heeded, both may train a Run."""
    with bucket(harness, rng) as (scenario, _):
        is_exact = scenario.store.conditions_unheeded() is None
        both = [scenario.run(), scenario.run()]
        statuses = [driver.wait() for driver in both]
        expected = {0, 2} if is_exact else {0, 2, 3}
        scenario.expect(set(statuses) <= expected, f"{statuses}: {[d.said() for d in both]}")
        for driver in both:
            scenario.expect_no_traceback(driver)
        scenario.finish()
        made = {i: read_head(scenario.store, i).provenance for i in finished_ids(scenario.store)}
        for run_id, run in scenario.runs.items():
            if run.source is not None and run_id in made:
                scenario.expect(
                    made[run_id].start_digest == made[run.source.id].weights_digest,
                    f"{run_id} names another start",
                )
        redone = () if is_exact else scenario.runs
        return scenario.judge(
            "two drivers, one bucket", 1, may_be_redone=redone, is_bucket=not is_exact
        )


def _drop_leases(scenario: Scenario) -> None:
    for entry in scenario.store.listed("lease"):
        scenario.store.remove(f"lease/{entry.base_name}")


def _listening_at(port: int) -> int:
    """The process of the moto server that was started for this port."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            try:
                command = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"moto.server" in command and str(port).encode() in command:
                return int(place.name)
    raise AssertionError(f"no server at port {port}")


MOST_REQUESTS_A_RUN = 8
MOST_REQUESTS_IDLE = 30


def slow(harness: Harness, rng: random.Random) -> Outcome:
    """A budget of requests: on a distant bucket, each takes a tenth of a second or more.

    An idle driver reads the rows of every Run once, which the goal of 30 requests leaves out.
    """
    with bucket(harness, rng, space="ten") as (scenario, proxy):
        num_runs = len(scenario.runs)
        requests = []
        for _ in ("training", "idle"):
            proxy.heal()
            scenario.finish()
            requests.append(list(proxy.requests))
        # Each Run looks at the lease once; a busy machine gives more heartbeats and looks.
        training, idle = (sum("lease" not in each for each in some) for some in requests)
        a_run = (training - idle) / num_runs + 1
        scenario.expect(a_run <= MOST_REQUESTS_A_RUN, f"{a_run} requests for a Run")
        num_idle = len(requests[1]) - num_runs
        scenario.expect(num_idle <= MOST_REQUESTS_IDLE, f"{num_idle} requests of an idle run")
        return scenario.judge("budget of requests", 1, is_bucket=True)


def token_expires(harness: Harness, rng: random.Random) -> Outcome:
    """From a checkpoint on, every request is answered as for an expired token."""
    with bucket(harness, rng, space="slow_source") as (scenario, proxy):
        driver = scenario.run()
        scenario.wait_until(lambda: scenario.count("saved") > 0, driver, "a checkpoint")
        proxy.error_code = "ExpiredToken"
        proxy.fail(".*", 1_000_000, 400)
        status = driver.wait()
        scenario.expect(status == 1, f"status {status}: {driver.said()}")
        scenario.expect("renew the token" in driver.said(), f"no advice: {driver.said()}")
        scenario.expect_no_traceback(driver)
        proxy.heal()
        _drop_leases(scenario)
        scenario.finish()
        return scenario.judge("token expires", 1, is_bucket=True, may_be_late=True)
