"""Determine the state of each Run of a study from the store.

Must stay importable without torch and ray, so that it takes seconds for thousands of Runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from study.messages import last_line
from study.run import Run
from study.store import (
    Damaged,
    Failure,
    Provenance,
    Store,
    finished_ids,
    predictions_path,
    read_failures,
    read_head,
)
from study.store.artifacts import ids_with_weights, predictions_there
from study.store.compacted import read_provenances
from study.store.schema import ABSENT, DONE, FAILED, PARTIAL, RUNNING, START_FAILED
from study.store.unfinished import Unfinished, list_unfinished, read_began

STATES: Final = (DONE, RUNNING, PARTIAL, FAILED, ABSENT)

# A Run on another machine counts as running for this long after it last wrote anything: three
# checkpoints at the default interval.
SECONDS_OF_LIFE: Final = 180.0

# Reading a file that has not been compacted is a request to the bucket.
MAX_READ_OF_BUCKET: Final = 200


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """The Runs of a study in a store.

    - `states`: of each Run, by id, in the study's order.
    - `causes`: why a Run or its start has failed, by the Run's id.
    - `diverged`: ids of finished starts that diverged, and so have no weights.
    - `lost`: ids of finished starts that lack needed weights; these Runs count as absent.
    - `without_predictions`: ids of finished Runs that lack wanted predictions; they count as absent.
    """

    runs: Mapping[str, Run]
    states: Mapping[str, str]
    causes: Mapping[str, str]
    diverged: frozenset[str]
    lost: tuple[str, ...]
    without_predictions: tuple[str, ...]

    def counts(self) -> Counter[str]:
        """Return the number of Runs in each state."""
        return Counter(self.states.values())

    def only(self, ids: Collection[str]) -> Inventory:
        """Return the inventory of these Runs alone."""
        return Inventory(
            runs={i: run for i, run in self.runs.items() if i in ids},
            states={i: state for i, state in self.states.items() if i in ids},
            causes={i: cause for i, cause in self.causes.items() if i in ids},
            diverged=self.diverged & set(ids),
            lost=tuple(i for i in self.lost if i in ids),
            without_predictions=tuple(i for i in self.without_predictions if i in ids),
        )

    def ids(self, *states: str) -> list[str]:
        """Return the ids of the Runs in one of these states, in order."""
        return [run_id for run_id, state in self.states.items() if state in states]


def take_inventory(
    runs: Sequence[Run],
    store: Store,
    *,
    keep_predictions: Collection[str] = (),
    keep_probabilities: Collection[str] = (),
    not_whole: Collection[str] = (),
    unnoted: Mapping[str, str] | None = None,
    unfinished: Mapping[str, Unfinished] | None = None,
) -> Inventory:
    """Return the inventory of these Runs, each start before its dependants, in four listings.

    `keep_predictions`: ids of Runs whose predictions are wanted; this takes one more listing, and reading
    rows files, which name the predictions. `keep_probabilities`: ids among them whose predictions must
    contain class probabilities. `not_whole`: ids of Runs to train in any case.
    `unnoted`: errors of failed Runs, by id, that the store could not record (a full disk).
    `unfinished`: `list_unfinished(store)`, if known.

    A start counts as done only if it has weights, or if no Run needs its weights any more. A diverged
    start has no weights, so its dependants are "start failed".
    """
    by_id = {run.id: run for run in runs}
    if unfinished is None:
        unfinished = list_unfinished(store)
    failures = read_failures(store, unfinished)
    done = set(finished_ids(store) & by_id.keys()) - set(not_whole)
    without = _without_predictions(store, done & set(keep_predictions), keep_probabilities)
    done, diverged, lost = _usable(runs, store, done - without)

    states: dict[str, str] = {}
    causes: dict[str, str] = {}
    for run in runs:
        start, failure, found = run.source, failures.get(run.id), unfinished.get(run.id)
        if run.id in done:
            state = DONE
        elif failure is not None and failure.final and failure.kind == "error":
            state, causes[run.id] = FAILED, _brief(failure)
        elif unnoted and run.id in unnoted:
            state, causes[run.id] = FAILED, unnoted[run.id]
        elif start is not None and start.id in diverged:
            state, causes[run.id] = START_FAILED, f"its start {start.id} diverged"
        elif start is not None and states[start.id] in (FAILED, START_FAILED):
            state, causes[run.id] = START_FAILED, f"its start {start.id} failed"
        elif found is not None and _is_alive(run.id, found, store):
            state = RUNNING
        elif found is not None and "checkpoint" in found.files:
            state = PARTIAL
        else:
            state = ABSENT
        states[run.id] = state
    return Inventory(
        runs=by_id,
        states=states,
        causes=causes,
        diverged=frozenset(diverged),
        lost=tuple(lost),
        without_predictions=tuple(run.id for run in runs if run.id in without),
    )


def _is_alive(run_id: str, found: Unfinished, store: Store) -> bool:
    if "began.json" not in found.files:
        return False
    try:
        process = read_began(store, run_id)
    except Damaged:
        process = None
    alive = process.is_alive() if process is not None else None
    if alive is None:
        return (datetime.now(UTC) - found.newest).total_seconds() < SECONDS_OF_LIFE
    return alive


def _usable(
    runs: Sequence[Run], store: Store, done: set[str]
) -> tuple[set[str], set[str], list[str]]:
    """Return `done` without starts that lack needed weights; the diverged starts; the removed starts."""
    lost: list[str] = []
    diverged: set[str] = set()
    needs_weights = any(run.source is not None and run.id not in done for run in runs)
    weights = ids_with_weights(store) if needs_weights else frozenset()
    for run in reversed(runs):  # each start precedes the Runs that need it
        start = run.source
        if start is None or run.id in done or start.id not in done or start.id in weights:
            continue
        if start.id not in diverged and _has_diverged(store, start.id):
            diverged.add(start.id)
        if start.id not in diverged:
            done.discard(start.id)
            lost.append(start.id)
    return done, diverged, lost


def _without_predictions(
    store: Store, wanted: set[str], probabilities: Collection[str]
) -> set[str]:
    if not wanted:
        return set()
    there = predictions_there(store)
    without = wanted - there.keys()
    for run_id, made_by in read_provenances(store, wanted & there.keys()).items():
        # If the rows file is damaged, the Run is trained again, with predictions.
        if isinstance(made_by, Provenance):
            digest = made_by.predictions_digest
            if digest is None or predictions_path(run_id, digest) not in there[run_id]:
                without.add(run_id)
            # A diverged Run has no last evaluation.
            elif run_id in probabilities and made_by.diverged_step is None:
                without |= set() if made_by.has_probabilities else {run_id}
    return without


def _has_diverged(store: Store, run_id: str) -> bool:
    try:
        return read_head(store, run_id).provenance.diverged_step is not None
    except Damaged:
        return False


def _brief(failure: Failure) -> str:
    return f"{last_line(failure.error)} ({failure.tries} tries)"


@dataclass(frozen=True, kw_only=True)
class HeadSummary:
    """Summary of the provenance of a study's finished Runs.

    - `num_read`: number of Runs whose rows file was checked: in a directory all Runs, on a bucket all
      compacted Runs and a sample of the others.
    - `trainers`: number of Runs by TRAINER; `code_versions`: number of Runs by release and source hash.
    - `diverged`: ids of Runs that ended because a loss was not finite.
    - `damaged`: why a rows file cannot be read, by id.
    - `other_starts`: ids of Runs that started from weights that have been replaced since.
    - `images_per_second`: training images per second of all Runs together, over the last hour of work;
      None if unknown.
    """

    num_read: int
    trainers: Mapping[int, int]
    code_versions: Mapping[str, int]
    diverged: tuple[str, ...]
    damaged: Mapping[str, str]
    other_starts: tuple[str, ...]
    images_per_second: float | None


def summarise_heads(found: Inventory, store: Store) -> HeadSummary:
    """Check the bytes of the study's finished rows files, and summarise what produced them."""
    read = read_provenances(store, found.ids(DONE), most=MAX_READ_OF_BUCKET)
    whole = {i: made_by for i, made_by in read.items() if isinstance(made_by, Provenance)}
    return HeadSummary(
        num_read=len(read),
        trainers=Counter(made_by.trainer for made_by in whole.values()),
        code_versions=Counter(made_by.code_version for made_by in whole.values()),
        diverged=tuple(i for i, by in whole.items() if by.diverged_step is not None),
        damaged={i: str(why) for i, why in read.items() if isinstance(why, Damaged)},
        other_starts=tuple(i for i in whole if _has_other_start(found.runs[i], whole)),
        images_per_second=_rate([(found.runs[i], made_by) for i, made_by in whole.items()]),
    )


def _has_other_start(run: Run, made_by: Mapping[str, Provenance]) -> bool:
    start = made_by.get(run.source.id) if run.source is not None else None
    now = start.weights_digest if start is not None else None
    return now not in (None, made_by[run.id].start_digest)


def _rate(finished: Sequence[tuple[Run, Provenance]]) -> float | None:
    """Return training images per second over the last hour before the newest end, pauses included."""
    spans = [
        (datetime.fromisoformat(by.began_at), datetime.fromisoformat(by.ended_at), run)
        for run, by in finished
    ]
    newest = max((end for _, end, _ in spans), default=None)
    if newest is None:
        return None
    recent = [span for span in spans if (newest - span[1]).total_seconds() <= 3600]
    seconds = (newest - min(began for began, _, _ in recent)).total_seconds()
    return sum(num_images(run) for _, _, run in recent) / seconds if seconds > 0 else None


def num_images(run: Run) -> int:
    """Return how many training images the whole Run processes, as its cost without the network."""
    if run.recipe.num_epochs is not None:
        return run.recipe.num_epochs * run.size
    assert run.recipe.num_steps is not None
    return run.recipe.num_steps * min(run.recipe.batch_size, run.size)


def seconds_left(found: Inventory, rate: float | None) -> float | None:
    """Return the time until all Runs are done, at `rate` training images per second; None if unknown."""
    open_runs = [found.runs[i] for i in found.ids(RUNNING, PARTIAL, ABSENT)]
    if not rate or not open_runs:
        return None
    return sum(num_images(run) for run in open_runs) / rate
