"""Where a fault happens: a fresh store with its driver and journal, and the verdict on what came out.

A Harness makes scenarios and trains an undisturbed study once. A Scenario is one store; `judge`
compares it with the undisturbed one and names every difference.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from study import tasks
from study.run import Run
from study.store import Store, finished_ids, open_store
from study.store.unfinished import list_unfinished
from tests.faults import drivers, journal, studies
from tests.faults.drivers import Driver, Hung

CHECKPOINT_SECONDS: Final = 0.2

# No checkpoint comes due: what there is a signal has had written.
NEVER_DUE: Final = 3600.0

TASKS: Final = ("digits-low", "digits-high")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a study under one fault; `problems`: everything that was not as promised.

    `resume_seconds`: None if no study was finished after the fault, empty if nothing was left to train.
    """

    fault: str
    times: int
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
    """This machine cannot cause the fault; says why."""


@dataclass(frozen=True)
class Undisturbed:
    """What a study comes to when nothing happens to it, and in how many seconds."""

    results: Mapping[str, studies.Result | str]
    num_rows: Mapping[tuple[str, int], int]
    seconds: float


class Harness:
    """A folder in which scenarios are made. Everything in it is removed on closing, and every process."""

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="freezewise-faults-", dir=folder)
        self.folder = Path(self._temporary.name)
        self._num_scenarios = 0
        self._undisturbed: dict[str, Undisturbed] = {}
        self._mutation: str | None = None
        self._copied: dict[Callable[[Scenario], None], Scenario] = {}
        self._template = self.folder / "template"
        for name in TASKS:
            store = open_store(self._template)
            tasks.prepare(tasks.BUILTIN[name], store, None, progress=False)

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
        """A fresh scenario. `root`: a store elsewhere, in which the tasks are put too; `variables`: of its
        processes; `like`: what has happened there before, done once and copied.
        """
        if like is not None and like not in self._copied:
            self._copied[like] = first = self.scenario(space)
            like(first)
        self._num_scenarios += 1
        folder = self.folder / f"{self._num_scenarios:03d}"
        folder.mkdir()
        if like is not None:
            first = self._copied[like]
            shutil.copytree(first.root, folder / "store")
            shutil.copy(first.journal.path, folder)
        scenario = Scenario(
            self,
            folder,
            space,
            root or str(folder / "store"),
            dict(variables or {}),
            checkpoint_seconds=checkpoint_seconds,
        )
        if like is None:
            scenario.fill()
        return scenario

    @contextmanager
    def mutated(self, name: str) -> Iterator[None]:
        """Within the block, the code of all forked drivers is broken by this mutation."""
        self._copied.clear()
        self._mutation = name
        try:
            yield
        finally:
            self._mutation = None
            self._copied.clear()

    @property
    def mutation(self) -> str | None:
        return self._mutation

    def undisturbed(self, space: str) -> Undisturbed:
        """Trained once, when it is first asked for: inline, from the start to the end, never mutated."""
        if space not in self._undisturbed:
            mutation, self._mutation = self._mutation, None
            scenario = self.scenario(space)
            began = time.monotonic()
            driver = scenario.run()
            status = driver.wait()
            assert status == 0, driver.said()
            seconds = time.monotonic() - began
            found = studies.results(scenario.store)
            assert found.keys() == scenario.runs.keys(), (found.keys(), driver.said())
            assert not journal.trained_twice(scenario.journal.tries())
            self._undisturbed[space] = Undisturbed(
                found, studies.rows_there(scenario.store), seconds
            )
            self._mutation = mutation
        return self._undisturbed[space]

    @property
    def template(self) -> Path:
        """A root that holds the prepared tasks and nothing else."""
        return self._template


@dataclass(eq=False)
class Scenario:
    """One store, its search space, and what has been done there."""

    harness: Harness
    folder: Path
    space: str
    root: str
    variables: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    started: list[Driver] = field(default_factory=list)
    resume_seconds: list[float] | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def __post_init__(self) -> None:
        self.journal = journal.Journal(self.folder / "journal")
        text = studies.TEXTS[self.space]
        (self.folder / f"{self.space}.py").write_text(text)
        self.runs: dict[str, Run] = studies.runs_of(text)
        self.sources = {run.source.id for run in self.runs.values() if run.source is not None}

    @property
    def store(self) -> Store:
        """The store as this process sees it."""
        return open_store(self.root)

    @property
    def undisturbed(self) -> Undisturbed:
        return self.harness.undisturbed(self.space)

    @property
    def watched(self) -> dict[str, str]:
        """What the tracer is told in every process of this scenario."""
        variables = {"FAULTS_JOURNAL": str(self.journal.path)}
        if self.harness.mutation is not None:
            variables["FAULTS_MUTATION"] = self.harness.mutation
        return variables

    def fill(self) -> None:
        """Puts the prepared tasks into the store."""
        for path in sorted((self.harness.template / "tasks").iterdir()):
            self.store.put(f"tasks/{path.name}", path.read_bytes())

    def run(
        self,
        *flags: str,
        fresh: bool = False,
        on_ray: bool = False,
        die_at: str | None = None,
        project: Path = drivers.PROJECT,
        limits: Mapping[int, int] | None = None,
        how: Mapping[str, Any] | None = None,
    ) -> Driver:
        """Starts `study run`, by default inline."""
        means = ["--gpus-per-trial", "0"] if on_ray else ["--inline"]
        interval = ["--checkpoint-seconds", str(self.checkpoint_seconds)]
        given = ["run", f"{self.space}.py", "--root", self.root, *interval, *(flags or means)]
        is_fresh = fresh or on_ray or bool(flags) or how is not None
        return self._start(given, die_at, is_fresh, project, limits, how)

    def say(self, verb: str, *flags: str, fresh: bool = False) -> str:
        """What another verb says of the study; it must succeed, and without a traceback."""
        driver = self.start(verb, f"{self.space}.py", *flags, fresh=fresh)
        self.expect(driver.wait() == 0, f"study {verb}: {driver.said()}")
        self.expect_no_traceback(driver)
        return driver.said()

    def start(
        self, *words: str, fresh: bool = False, how: Mapping[str, Any] | None = None
    ) -> Driver:
        """Start `study WORDS` on this store."""
        is_fresh = fresh or how is not None
        given = [*words, "--root", self.root]
        return self._start(given, None, is_fresh, drivers.PROJECT, None, how)

    def _start(
        self,
        given: list[str],
        die_at: str | None,
        fresh: bool,
        project: Path,
        limits: Mapping[int, int] | None,
        how: Mapping[str, Any] | None,
    ) -> Driver:
        variables = self.variables | self.watched
        if die_at is not None:
            variables["FAULTS_DIE_AT"] = die_at
        driver = drivers.start(
            given,
            self.folder,
            name=f"driver-{len(self.started)}",
            variables=variables,
            fresh=fresh,
            project=project,
            limits=limits,
            how=how,
        )
        self.started.append(driver)
        return driver

    def wait_until(
        self, is_so: Callable[[], Any], driver: Driver, what: str, seconds: float = 120.0
    ) -> bool:
        """Until it is so: True; False once the driver has ended without.

        Raises Hung where the driver makes no progress for so many seconds.
        """
        patience = drivers.Patience(driver, seconds, self.journal.path)
        while not is_so():
            if driver.status() is not None:
                return bool(is_so())
            if patience.is_over():
                raise Hung(f"waited {seconds:.0f} s in vain: {what}; it said:\n{driver.said()}")
            time.sleep(0.005)
        return True

    def count(self, kind: str, run_id: str | None = None) -> int:
        """How many notes of this kind the journal has."""
        return sum(
            event.kind == kind and run_id in (None, event.run_id) for event in self.journal.events()
        )

    def finish(self, *flags: str, **means: Any) -> Driver:
        """Runs the study to its end, which it must reach; notes how soon training went on."""
        before = {event.pid for event in self.journal.events()}
        driver = self.run(*flags, **means)
        status = driver.wait()
        self.expect(status == 0, f"the last `study run` ended with {status}: {driver.said()}")
        self.expect_no_traceback(driver)
        steps = [e for e in self.journal.events() if e.kind == "step" and e.pid not in before]
        self.note_resumed([event.at - driver.started_at for event in steps[:1]])
        return driver

    def note_resumed(self, seconds: list[float]) -> None:
        """Notes how soon training went on; an empty list if nothing was left to train."""
        self.resume_seconds = (self.resume_seconds or []) + seconds

    def expect(self, is_so: bool, problem: str) -> None:
        """Notes a problem where it is not so."""
        if not is_so:
            self.problems.append(problem)

    def expect_no_traceback(self, driver: Driver) -> None:
        self.expect("Traceback" not in driver.said(), f"a traceback: {driver.said()}")

    def judge(
        self,
        fault: str,
        times: int,
        *,
        may_be_redone: Iterable[str] = (),
        may_be_lost: Iterable[str] = (),
        is_bucket: bool = False,
        overlaps: Collection[int] = (),
        may_be_late: bool = False,
    ) -> Outcome:
        """Holds the store against the undisturbed one.

        `may_be_redone`: Runs whose files were damaged; `may_be_lost`: Runs that could not succeed;
        `overlaps`: processes that slept while others trained what they had begun; `may_be_late`: the
        fault can strike the writing of a checkpoint itself, which waits, and the next one with it.
        """
        store, wanted = self.store, self.undisturbed
        lost_ids = set(may_be_lost)
        expected = {i: result for i, result in wanted.results.items() if i not in lost_ids}
        found = studies.results(store)
        there = studies.rows_there(store) if finished_ids(store) else {}
        expected_rows = {key for key in wanted.num_rows if key[0] not in lost_ids}
        tries = self.journal.tries()
        twice = journal.trained_twice(tries) - set(may_be_redone)
        redone = journal.redone_seconds([t for t in tries if t.run_id not in set(may_be_redone)])
        self.expect(found == expected, self._differences(found, expected))
        self.expect(not set(there) - expected_rows, "rows that nobody asked for")
        self.expect(not twice - self.sources, f"cells trained twice: {twice - self.sources}")
        if not is_bucket:
            both = journal.at_the_same_time([t for t in tries if t.pid not in overlaps])
            self.expect(not both, f"trained by two processes at once: {both}")
        left = set(list_unfinished(store)) - lost_ids
        self.expect(not left, f"left in unfinished/: {left}")
        late = journal.late_checkpoints(tries, self.checkpoint_seconds)
        self.expect(may_be_late or not late, f"steps trained although a checkpoint was due: {late}")
        lost = len(expected_rows - set(there))
        doubled = sum(number - 1 for number in there.values())
        self.expect(not lost and not doubled, f"{lost} rows lost, {doubled} doubled")
        self.expect(not twice & self.sources, f"sources trained twice: {twice & self.sources}")
        self.expect(times > 0, "its cause did not happen")
        root = store.local_path("")
        if root is not None:
            temporary = [path.name for path in root.rglob("*.tmp")]
            self.expect(not temporary, f"temporary files are left: {temporary}")
        return Outcome(
            fault=fault,
            times=times,
            num_runs=len(found),
            rows_lost=lost,
            rows_doubled=doubled,
            sources_twice=len(twice & self.sources),
            bit_equal=found == expected,
            resume_seconds=None if self.resume_seconds is None else tuple(self.resume_seconds),
            redone_seconds=redone,
            problems=tuple(self.problems),
        )

    def _differences(self, found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
        missing, surplus = expected.keys() - found.keys(), found.keys() - expected.keys()
        other = {
            i: _difference(found[i], expected[i])
            for i in found.keys() & expected
            if found[i] != expected[i]
        }
        last = self.started[-1].said() if self.started else ""
        return f"Runs missing {missing}, surplus {surplus}, different {other}; {last}"


def _difference(found: studies.Result | str, expected: studies.Result | str) -> str:
    if isinstance(found, str) or isinstance(expected, str):
        return f"{found!s} instead of {expected!s}"
    names = (each.name for each in fields(expected))
    return "other " + ", ".join(n for n in names if getattr(found, n) != getattr(expected, n))


@contextmanager
def open_harness(folder: Path | None = None) -> Iterator[Harness]:
    """A Harness that is closed in the end, whatever happens."""
    made = Harness(folder)
    try:
        yield made
    finally:
        made.close()


def removed(scenario: Scenario) -> None:
    """Frees the disk of a scenario that was judged."""
    shutil.rmtree(scenario.folder, ignore_errors=True)
