"""Full, limited and read-only disks, and buckets whose server fails."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from study.launching.queue import MAX_TRIES
from study.store import finished_ids, read_failures, read_head
from tests import s3_server
from tests.faults.drivers import Driver
from tests.faults.harness import NEVER_DUE, Harness, Outcome, Scenario, Skipped
from tests.faults.runs import expect_given_up
from tests.faults.signals import first_cell

SMALL_DISK_BYTES: Final = 24 * 2**20
FULL: Final = "No space left"


@contextmanager
def small_disk(harness: Harness, name: str) -> Iterator[tuple[Scenario, Path]]:
    """Yield a scenario on a tmpfs of its own. Raises Skipped if this user may not mount one."""
    disk = harness.folder / name
    disk.mkdir(exist_ok=True)
    if _mount("-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(disk)):
        raise Skipped("mounting a small disk needs root")
    try:
        yield harness.scenario(root=str(disk / "store")), disk
    finally:
        _mount("-o", "remount,rw", str(disk))
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def _mount(*arguments: str) -> int:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode
    except FileNotFoundError:
        return 1


@contextmanager
def exfat_disk(harness: Harness) -> Iterator[Path]:
    """Yield an empty exFAT disk, which ignores the case of names. Raises Skipped without exFAT."""
    image, disk = harness.folder / "exfat.image", harness.folder / "exfat"
    disk.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(SMALL_DISK_BYTES)
    try:
        made = subprocess.run(["mkfs.exfat", str(image)], capture_output=True).returncode
    except FileNotFoundError:
        made = 1
    # The kernel's, else that of the package exfat-fuse.
    kinds = ("exfat", "exfat-fuse")
    if made or all(_mount("-t", each, "-o", "loop", str(image), str(disk)) for each in kinds):
        raise Skipped("mounting exFAT needs root, and the packages exfatprogs and exfat-fuse")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def disk_full(harness: Harness, rng: random.Random) -> Outcome:
    """The disk is full while a cell writes, but not longer than the store waits: nothing fails."""
    with small_disk(harness, "full") as (scenario, disk):
        driver, ballast = _full_at_a_cell(scenario, disk, rng)
        driver.wait_until(lambda: "trying again" in driver.err.read_text(), "an error")
        ballast.unlink()
        scenario.expect_end(driver, 0, says=FULL)
        return scenario.judge()


def disk_full_for_long(harness: Harness, rng: random.Random) -> Outcome:
    """The disk stays full until a Run is given up, with or without room for small notes."""
    with small_disk(harness, "full-for-long") as (scenario, disk):
        driver, ballast = _full_at_a_cell(scenario, disk, rng)

        def is_given_up() -> bool:
            is_final = any(failure.final for failure in read_failures(scenario.store).values())
            # Without room for the failure's note, the next Run cannot write its first file.
            said = driver.err.read_text()
            return is_final or "similarity/" in said or "began.json" in said

        driver.wait_until(is_given_up, "a Run is given up")
        ballast.unlink()
        scenario.expect_end(driver, 1)
        said = driver.said() + scenario.say("status")
        scenario.expect(FULL in said, f"the cause is missing: {said}")
        others = finished_ids(scenario.store) - scenario.sources
        scenario.expect(others, f"no other Run finished: {said}")
        scenario.say("retry")
        scenario.finish()
        return scenario.judge()


def _full_at_a_cell(scenario: Scenario, disk: Path, rng: random.Random) -> tuple[Driver, Path]:
    """Fill the disk while a driver trains the first cell; return the driver and the file."""
    scenario.run(die_at=first_cell(scenario)).wait()
    driver = scenario.run()
    scenario.wait_for("step", driver)
    ballast = disk / "ballast"
    _fill(ballast, leave=rng.choice([0, 16_384]))
    return driver, ballast


def _fill(path: Path, *, leave: int) -> None:
    """Write until nothing more fits, then free `leave` bytes."""
    with path.open("wb", buffering=0) as stream:
        block = bytes(65_536)
        while block:
            try:
                stream.write(block)
            except OSError:
                block = block[: len(block) // 2]
        os.ftruncate(stream.fileno(), max(0, stream.tell() - leave))


def file_limit(harness: Harness, rng: random.Random) -> Outcome:
    """Files have at most some kilobytes: enough for notes, not for weights."""
    scenario = harness.scenario()
    driver = scenario.run(limits={resource.RLIMIT_FSIZE: rng.randrange(20_000, 60_000)})
    scenario.expect_end(driver, 1, says="File too large")
    (source,) = scenario.sources
    failures = read_failures(scenario.store)
    is_given_up = source in failures and failures[source].tries == MAX_TRIES
    scenario.expect(is_given_up, f"failures: {failures}")
    scenario.expect("File too large" in scenario.say("status"), "`study status` lacks the cause")
    scenario.say("retry")
    scenario.finish()
    return scenario.judge()


def read_only(harness: Harness, rng: random.Random) -> Outcome:
    """The disk becomes read-only; the driver ends and names the cause."""
    with small_disk(harness, "read_only") as (scenario, disk):
        driver = scenario.run()
        scenario.wait_for("saved", driver)
        time.sleep(rng.uniform(0, 0.5))
        # The system rejects it as long as a file is open for writing.
        until = time.monotonic() + 30
        while _mount("-o", "remount,ro", str(disk)) and time.monotonic() < until:
            time.sleep(0.001)
        caused = not os.access(disk, os.W_OK) and driver.status() is None
        scenario.expect_end(driver, 1, 3, says="Read-only file system", seconds=120)
        again = scenario.run()
        scenario.expect_end(again, 1, 2)
        scenario.expect("ead-only" in again.said() or "not writable" in again.said(), again.said())
        scenario.say("status")
        _mount("-o", "remount,rw", str(disk))
        if read_failures(scenario.store):
            scenario.say("retry")
        scenario.finish()
        return scenario.judge(int(caused))


STATUSES: Final = (500, 503, None)  # None: the connection is closed without an answer


class FlakyProxy(s3_server.Proxy):
    """Lets on average one request in `one_in` fail in one of the ways of STATUSES; 0: none."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port)
        self.one_in = 0
        self.num_failed = 0
        self._rng = random.Random(seed)
        self._num_left = self._rng.randrange(10)  # passed on before the next failure

    def _status_of(self, request: str) -> int | None:
        status = super()._status_of(request)
        if status != s3_server.PASSED_ON or not self.one_in:
            return status
        self._num_left -= 1
        if self._num_left >= 0:
            return status
        self._num_left = self._rng.randrange(2 * self.one_in - 1)
        self.num_failed += 1
        return self._rng.choice(STATUSES)


@contextmanager
def bucket(
    harness: Harness, rng: random.Random, space: str = "tiny"
) -> Iterator[tuple[Scenario, FlakyProxy]]:
    """Yield a scenario on a server of its own, behind a proxy. Raises Skipped without moto."""
    if not s3_server.IS_INSTALLED:
        raise Skipped("needs moto's S3 server: pip install 'moto[server]'")
    variables = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "any")
    variables["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ.update(variables)  # this process reads the bucket, too
    with s3_server.moto_server() as port:
        proxy = FlakyProxy(port, rng.randrange(1000))
        try:
            root = s3_server.root(proxy.port, "faults")
            yield harness.scenario(space, root=root, variables=variables), proxy
        finally:
            proxy.close()


def bucket_errors(harness: Harness, rng: random.Random) -> Outcome:
    """The server answers some requests with 500, 503 or nothing."""
    with bucket(harness, rng) as (scenario, proxy):
        proxy.one_in = rng.choice([3, 6, 12])
        scenario.finish()
        proxy.one_in = 0
        return scenario.judge(proxy.num_failed, may_be_late=True)


def bucket_silent(harness: Harness, rng: random.Random) -> Outcome:
    """The server accepts connections and answers nothing for some seconds."""
    with bucket(harness, rng) as (scenario, proxy):
        driver = scenario.run()
        scenario.wait_for("saved", driver)
        server = _listening_at(proxy.server_port)
        os.kill(server, signal.SIGSTOP)
        time.sleep(rng.uniform(5, 15))
        os.kill(server, signal.SIGCONT)
        scenario.expect_end(driver, 0)
        scenario.finish()
        return scenario.judge(may_be_late=True)


def _listening_at(port: int) -> int:
    """Return the process of the moto server at this port."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            command = (place / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"moto.server" in command and str(port).encode() in command:
            return int(place.name)
    raise AssertionError(f"no server at port {port}")


def bucket_driver_killed(harness: Harness, rng: random.Random) -> Outcome:
    """Kill drivers, and remove their leases, which would expire only after a while."""
    with bucket(harness, rng) as (scenario, proxy):
        caused = 0
        for _ in range(2):
            driver = scenario.run()
            scenario.wait_for("saved", driver)
            time.sleep(rng.uniform(0, 1))
            caused += driver.kill()
            _drop_leases(scenario)
        proxy.one_in = 20
        scenario.finish()
        proxy.one_in = 0
        return scenario.judge(caused, may_overlap=True)


def _drop_leases(scenario: Scenario) -> None:
    for entry in scenario.store.listed("lease"):
        scenario.store.remove(f"lease/{entry.base_name}")


def bucket_refuses_one(harness: Harness, rng: random.Random) -> Outcome:
    """The rows of one cell can never be published."""
    with bucket(harness, rng) as (scenario, proxy):
        cursed = rng.choice(scenario.cells)
        proxy.fail(rf"(PUT|POST) .*/rows/{cursed}", 1_000_000, 500)
        driver = scenario.run()
        scenario.expect_end(driver, 1, seconds=900)
        expect_given_up(scenario, cursed, driver.said(), f"rows/{cursed}")
        proxy.heal()
        scenario.say("retry")
        scenario.finish()
        return scenario.judge()


def bucket_two_drivers(harness: Harness, rng: random.Random) -> Outcome:
    """Two drivers start at once: one trains, the other names it or finds nothing to do.

    Cells name the weights of the source that were published. If the server ignores conditions, both
    drivers may train a Run.
    """
    with bucket(harness, rng) as (scenario, _):
        is_exact = scenario.store.conditions_unheeded() is None
        for driver in [scenario.run(), scenario.run()]:
            scenario.expect_end(driver, *((0, 2) if is_exact else (0, 2, 3)))
        scenario.finish()
        made = {i: read_head(scenario.store, i).provenance for i in finished_ids(scenario.store)}
        for run_id, run in scenario.runs.items():
            if run.source is not None and run_id in made:
                is_published = made[run_id].start_digest == made[run.source.id].weights_digest
                scenario.expect(is_published, f"{run_id} names another start")
        redone = () if is_exact else scenario.runs
        return scenario.judge(may_be_redone=redone, may_overlap=not is_exact)


MOST_REQUESTS_A_RUN: Final = 7
MOST_REQUESTS_IDLE: Final = 30


def bucket_slow(harness: Harness, rng: random.Random) -> Outcome:
    """Keep to a budget of requests: in a distant bucket, each takes a tenth of a second or more."""
    with bucket(harness, rng, space="ten") as (scenario, proxy):
        scenario.checkpoint_seconds = NEVER_DUE  # a slow machine would write more checkpoints
        counts = []
        for flags in (("--only", "seed=0"), (), ()):
            proxy.heal()
            scenario.finish("--inline", *flags, fresh=False)
            # A slow machine has more heartbeats, of three requests each, than creation and release.
            beats = sum("PUT" in each and "/lease/0" in each for each in proxy.requests) - 2
            counts.append(len(proxy.requests) - 3 * beats)
        one, others, idle = counts
        a_run = (others - one) / (len(scenario.runs) - 2)
        scenario.expect(a_run <= MOST_REQUESTS_A_RUN, f"{a_run} requests for a Run")
        scenario.expect(idle <= MOST_REQUESTS_IDLE, f"{idle} requests of an idle run")
        return scenario.judge()


def bucket_token_expires(harness: Harness, rng: random.Random) -> Outcome:
    """From a checkpoint on, the server answers every request as for an expired token."""
    with bucket(harness, rng, space="slow_source") as (scenario, proxy):
        driver = scenario.run()
        scenario.wait_for("saved", driver)
        proxy.error_code = "ExpiredToken"
        proxy.fail(".*", 1_000_000, 400)
        scenario.expect_end(driver, 1, says="renew the token")
        proxy.heal()
        _drop_leases(scenario)
        scenario.finish()
        return scenario.judge(may_be_late=True)
