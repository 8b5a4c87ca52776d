"""Scenarios: a fresh store with its drivers and journal, compared with an undisturbed study.

A `Harness` makes scenarios and trains each undisturbed study once. `Scenario.judge` compares one store
with it and names every difference.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow.dataset as pads
import pyarrow.fs as pafs

from study import tasks
from study.run import Run
from study.store import (
    Damaged,
    Store,
    finished_ids,
    open_store,
    read_predictions,
    read_rows,
    read_weights,
    rows,
)
from study.store.unfinished import list_unfinished
from tests.faults import drivers, journal
from tests.faults.drivers import PATIENCE_SECONDS, Driver
from tests.faults.studies import TEXTS, runs_of

CHECKPOINT_SECONDS: Final = 0.2
NEVER_DUE: Final = 3600.0  # every checkpoint was then requested by a signal
TASKS: Final = ("digits-low", "digits-high")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a study under one fault; `problems`: everything that breaks a guarantee.

    `resume_seconds`: None if no study was finished after the fault, empty if nothing was left to train.
    """

    times: int
    fault: str = ""
    num_runs: int = 0
    rows_lost: int = 0
    rows_doubled: int = 0
    sources_twice: int = 0
    bit_equal: bool = True
    resume_seconds: tuple[float, ...] | None = None
    redone_seconds: float = 0.0
    problems: tuple[str, ...] = ()
    skipped: str | None = None


class Skipped(Exception):
    """This machine cannot cause the fault; the text is the reason."""


def results(store: Store) -> dict[str, tuple[str | None, ...] | str]:
    """Return for each finished Run the digests of everything that faults must not change.

    They are those of the rows without the times, of the weights, the predictions and the start. If a
    file cannot be read, the error is returned instead.
    """
    found: dict[str, tuple[str | None, ...] | str] = {}
    for run_id in finished_ids(store):
        try:
            run = read_rows(store, run_id)
            made_by = run.provenance
            if made_by.weights_digest is not None:
                read_weights(store, run_id, made_by.weights_digest)
            if made_by.predictions_digest is not None:
                read_predictions(store, run_id, made_by.predictions_digest)
        except (Damaged, OSError) as error:
            found[run_id] = str(error)
            continue
        digest = rows.table_digest(run.table.drop_columns("wall_seconds"))
        files = (made_by.weights_digest, made_by.predictions_digest, made_by.start_digest)
        found[run_id] = (digest, *files)
    return found


def stored_rows(store: Store) -> Counter[tuple[str, int]]:
    """Return how often each (Run, step) is in the table, as any reader of Arrow files sees it."""
    if not finished_ids(store):
        return Counter()
    server = pafs.FileSystem.from_uri(store.root)[0] if "://" in store.root else None
    files = pads.dataset(f"{store.base}/rows", filesystem=server, format="ipc")
    table = files.to_table(columns=["run_id", "step"])
    return Counter(zip(table["run_id"].to_pylist(), table["step"].to_pylist(), strict=True))


class Harness:
    """A folder with scenarios. `close` removes the folder and kills every process of a scenario."""

    def __init__(self, folder: Path | None = None) -> None:
        # After an interruption, a process that is being killed may still write.
        self._temporary = tempfile.TemporaryDirectory(
            prefix="freezewise-faults-", dir=folder, ignore_cleanup_errors=True
        )
        self.folder = Path(self._temporary.name)
        self.mutation: str | None = None
        self.template = self.folder / "template"  # a root with the prepared tasks and nothing else
        self._num_scenarios = 0
        self._undisturbed: dict[str, Scenario] = {}
        self._copied: dict[Callable[[Scenario], None], Scenario] = {}
        for name in TASKS:
            tasks.prepare(tasks.BUILTIN[name], open_store(self.template), None, progress=False)

    def close(self) -> None:
        drivers.end_processes_of(self.folder)
        self._temporary.cleanup()

    def scenario(
        self,
        space: str = "tiny",
        *,
        root: str | None = None,
        variables: Mapping[str, str] | None = None,
        like: Callable[[Scenario], None] | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> Scenario:
        """Make a scenario with prepared tasks.

        Args:
            root: a store elsewhere.
            variables: environment of its processes.
            like: brings a scenario into the wanted state; called once, and its store is copied.
        """
        if like is not None and like not in self._copied:
            self._copied[like] = first = self.scenario(space)
            like(first)
        self._num_scenarios += 1
        folder = self.folder / f"{self._num_scenarios:03d}"
        folder.mkdir()
        given = (root or str(folder / "store"), dict(variables or {}), checkpoint_seconds)
        scenario = Scenario(self, folder, space, *given)
        if like is None:
            scenario.fill()
        else:
            first = self._copied[like]
            shutil.copytree(first.root, folder / "store")
            shutil.copy(first.journal.path, folder)
        return scenario

    @contextmanager
    def mutated(self, name: str | None) -> Iterator[None]:
        """Break the code of all drivers of the block by this mutation; None: break nothing."""
        before, copied = self.mutation, self._copied
        self.mutation, self._copied = name, {}
        try:
            yield
        finally:
            self.mutation, self._copied = before, copied

    def undisturbed(self, space: str) -> Scenario:
        """Return a scenario that was trained inline from start to end, once and never mutated."""
        if space not in self._undisturbed:
            with self.mutated(None):
                scenario = self.scenario(space)
                driver = scenario.run()
                assert driver.wait() == 0, driver.said()
            assert scenario.results.keys() == scenario.runs.keys(), driver.said()
            assert not journal.trained_twice(scenario.journal.tries())
            self._undisturbed[space] = scenario
        return self._undisturbed[space]


@dataclass(eq=False)
class Scenario:
    """One store, its search space, and everything that happened to it."""

    harness: Harness
    folder: Path
    space: str
    root: str
    variables: dict[str, str]
    checkpoint_seconds: float
    problems: list[str] = field(default_factory=list)
    started: list[Driver] = field(default_factory=list)
    resume_seconds: list[float] | None = None

    def __post_init__(self) -> None:
        self.journal = journal.Journal(self.folder / "journal")
        self.space_path.write_text(TEXTS[self.space])
        self.runs: dict[str, Run] = runs_of(TEXTS[self.space])
        self.sources = {run.source.id for run in self.runs.values() if run.source is not None}

    @property
    def space_path(self) -> Path:
        return self.folder / f"{self.space}.py"

    @property
    def cells(self) -> list[str]:
        return sorted(self.runs.keys() - self.sources)

    @property
    def store(self) -> Store:
        """Return the store as this process sees it."""
        return open_store(self.root)

    @cached_property
    def results(self) -> dict[str, tuple[str | None, ...] | str]:
        """Return the results as they are at the first call."""
        return results(self.store)

    @cached_property
    def stored_rows(self) -> Counter[tuple[str, int]]:
        return stored_rows(self.store)

    @property
    def traced(self) -> dict[str, str]:
        """Return the tracer's variables for every process of this scenario."""
        variables = {"FAULTS_JOURNAL": str(self.journal.path)}
        if self.harness.mutation is not None:
            variables["FAULTS_MUTATION"] = self.harness.mutation
        return variables

    def fill(self) -> None:
        """Put the prepared tasks into the store."""
        for path in sorted((self.harness.template / "tasks").iterdir()):
            self.store.put(f"tasks/{path.name}", path.read_bytes())

    def run(self, *flags: str, on_ray: bool = False, **how: Any) -> Driver:
        """Start `study run`, inline by default. `how`: see `start`."""
        means = flags or (("--gpus-per-trial", "0") if on_ray else ("--inline",))
        how.setdefault("fresh", on_ray or bool(flags) or "popen" in how)
        interval = ("--checkpoint-seconds", str(self.checkpoint_seconds))
        return self.start("run", self.space_path.name, *interval, *means, **how)

    def start(self, *words: str, die_at: str | None = None, **how: Any) -> Driver:
        """Start `study WORDS` on this store. `die_at`: see the tracer; `how`: see `drivers.start`."""
        variables = self.variables | self.traced
        if die_at is not None:
            variables["FAULTS_DIE_AT"] = die_at
        given, name = [*words, "--root", self.root], f"driver-{len(self.started)}"
        driver = drivers.start(given, self.folder, name=name, variables=variables, **how)
        self.started.append(driver)
        return driver

    def say(self, verb: str, *flags: str, **how: Any) -> str:
        """Return the output of another verb on the study, which must succeed."""
        driver = self.start(verb, self.space_path.name, *flags, **how)
        self.expect_end(driver, 0)
        return driver.said()

    def wait_for(
        self, kind: str, driver: Driver, run_id: str | None = None, *, count: int = 1
    ) -> bool:
        """Wait for `count` more events of this kind; return False if the driver ended before."""
        wanted = self.count(kind, run_id) + count
        return driver.wait_until(lambda: self.count(kind, run_id) >= wanted, f"{count} {kind}")

    def count(self, kind: str, run_id: str | None = None) -> int:
        """Return the number of events of this kind in the journal."""
        return sum(
            event.kind == kind and run_id in (None, event.run_id) for event in self.journal.events()
        )

    def expect(self, is_so: object, problem: str) -> None:
        """Add a problem unless the condition holds."""
        if not is_so:
            self.problems.append(problem)

    def expect_end(
        self, driver: Driver, *statuses: int, says: str = "", seconds: float = PATIENCE_SECONDS
    ) -> int:
        """Wait for the end, which must have one of these statuses, this text and no traceback."""
        status, said = driver.wait(seconds), driver.said()
        self.expect(status in statuses, f"status {status} instead of {statuses}: {said}")
        self.expect(says in said, f"the output lacks {says!r}: {said}")
        self.expect("Traceback" not in said, f"a traceback: {said}")
        return status

    def expect_killed(self, **how: Any) -> int:
        """Run a driver that kills itself; return 1 if it did."""
        driver = self.run(**how)
        status = driver.wait()
        self.expect(status == -9, f"{how}: status {status}: {driver.said()}")
        return int(status == -9)

    def finish(self, *flags: str, **how: Any) -> Driver:
        """Run the study to its end, which it must reach; note how soon training went on."""
        before = {event.pid for event in self.journal.events()}
        driver = self.run(*flags, **how)
        self.expect_end(driver, 0)
        steps = [e for e in self.journal.events() if e.kind == "step" and e.pid not in before]
        self.note_resumed([event.at - driver.started_at for event in steps[:1]])
        return driver

    def finish_with_page(self, **how: Any) -> str:
        """Run the study to its end as a user does; return the text of its report."""
        last = self.finish(fresh=True, **how)
        page = Path(self.folder, last.last_line())
        self.expect(page.is_file(), f"no report: {last.said()}")
        return page.read_text() if page.is_file() else ""

    def note_resumed(self, seconds: list[float]) -> None:
        """Note how soon training went on; an empty list if nothing was left to train."""
        self.resume_seconds = (self.resume_seconds or []) + seconds

    def judge(
        self,
        times: int = 1,
        *,
        may_be_redone: Iterable[str] = (),
        may_overlap: bool = False,
        overlaps: Collection[int] = (),
        may_be_late: bool = False,
    ) -> Outcome:
        """Compare the store with the undisturbed one.

        Args:
            times: how often the fault happened; 0 is a problem.
            may_be_redone: Runs whose files were damaged.
            may_overlap: two processes may train a Run at once: on a bucket, a dead driver's lease is
                removed by hand.
            overlaps: processes that slept while others continued their training.
            may_be_late: the fault can delay the writing of a checkpoint.
        """
        wanted = self.harness.undisturbed(self.space)
        found, there = results(self.store), stored_rows(self.store)
        tries, ignored = self.journal.tries(), set(may_be_redone)
        twice = journal.trained_twice(tries) - ignored
        both = journal.at_the_same_time([t for t in tries if t.pid not in overlaps])
        left = set(list_unfinished(self.store))
        late = journal.late_checkpoints(tries, self.checkpoint_seconds)
        different = {
            run_id: (found.get(run_id), wanted.results.get(run_id))
            for run_id in found.keys() | wanted.results.keys()
            if found.get(run_id) != wanted.results.get(run_id)
        }
        lost = len(wanted.stored_rows.keys() - there.keys())
        doubled = sum(number - 1 for number in there.values())
        root = self.store.local_path("")
        temporary = [] if root is None else [path.name for path in root.rglob("*.tmp")]
        said = self.started[-1].said() if self.started else ""
        for is_so, problem in (
            (not different, f"different: {different}; {said}"),
            (there.keys() <= wanted.stored_rows.keys(), "rows of steps that were not requested"),
            (not lost and not doubled, f"{lost} rows lost, {doubled} doubled"),
            (not twice & self.sources, f"sources trained twice: {twice & self.sources}"),
            (not twice - self.sources, f"cells trained twice: {twice - self.sources}"),
            (may_overlap or not both, f"trained by two processes at once: {both}"),
            (may_be_late or not late, f"steps trained although a checkpoint was due: {late}"),
            (not left, f"left in unfinished/: {left}"),
            (not temporary, f"temporary files are left: {temporary}"),
            (times, "its cause did not happen"),
        ):
            self.expect(is_so, problem)
        return Outcome(
            times=times,
            num_runs=len(found),
            rows_lost=lost,
            rows_doubled=doubled,
            sources_twice=len(twice & self.sources),
            bit_equal=not different,
            resume_seconds=None if self.resume_seconds is None else tuple(self.resume_seconds),
            redone_seconds=journal.redone_seconds([t for t in tries if t.run_id not in ignored]),
            problems=tuple(self.problems),
        )


@contextmanager
def open_harness(folder: Path | None = None) -> Iterator[Harness]:
    """Yield a Harness with a fork server; close both in the end."""
    drivers.start_fork_server()
    made = Harness(folder)
    try:
        yield made
    finally:
        made.close()
        drivers.stop_fork_server()
