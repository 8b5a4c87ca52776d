"""In which state each Run of a study is, as the store has it.

Owns the states and how they are counted. Starts nothing, and imports neither torch nor ray, so that a
store of thousands of Runs is looked through in seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from study.run import Recipe, Run
from study.store import Damaged, Failure, Head, Store

DONE: Final = "done"
RUNNING: Final = "running"
PARTIAL: Final = "partial"
FAILED: Final = "failed"
START_FAILED: Final = "start failed"
ABSENT: Final = "absent"

STATES: Final = (DONE, RUNNING, PARTIAL, FAILED, ABSENT)

# A Run in flight writes its checkpoint more often than this, so an older one waits to be taken up.
SECONDS_OF_LIFE: Final = 600.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a store has of a study.

    - `states`: of each Run, by id, in the study's order.
    - `causes`: why, for those that are failed or whose start is.
    - `lost`: finished starts whose weights are wanted and gone: they count as absent.
    """

    runs: Mapping[str, Run]
    states: Mapping[str, str]
    causes: Mapping[str, str]
    lost: tuple[str, ...]

    def counts(self) -> Counter[str]:
        """How many Runs are in each state."""
        return Counter(self.states.values())

    def ids(self, *states: str) -> list[str]:
        """Of the Runs in one of these states, in order."""
        return [run_id for run_id, state in self.states.items() if state in states]

    @property
    def is_complete(self) -> bool:
        return all(state == DONE for state in self.states.values())


def standing(runs: Sequence[Run], store: Store, *, driver: str | None = None) -> Standing:
    """How the store stands to these Runs, each start before its dependants: four listings.

    `driver`: when the driver that is at work now began (ISO 8601), None if there is none. What has
    been written since is running, what is older waits to be taken up again.

    A start counts as done only where those that still need it find its weights. One that diverged
    has none for ever: its dependants are "start failed".
    """
    by_id = {run.id: run for run in runs}
    done = store.finished() & by_id.keys()
    failures = {i: f for i, f in store.failures().items() if i in by_id and f.final}
    done, lost, diverged = _usable(runs, store, set(done))
    unfinished = store.unfinished()
    since = datetime.fromisoformat(driver) if driver else None

    states: dict[str, str] = {}
    causes: dict[str, str] = {}
    for run in runs:
        start = run.source
        found = unfinished.get(run.id)
        if run.id in done:
            state = DONE
        elif run.id in failures and failures[run.id].kind == "error":
            state, causes[run.id] = FAILED, _brief(failures[run.id])
        elif start is not None and start.id in diverged:
            state, causes[run.id] = START_FAILED, f"its start {start.id} diverged"
        elif start is not None and states[start.id] in (FAILED, START_FAILED):
            state, causes[run.id] = START_FAILED, f"its start {start.id} failed"
        elif found and since and found.newest >= since:
            state = RUNNING
        elif found and found.files & {"checkpoint"}:
            state = PARTIAL
        else:
            state = ABSENT
        states[run.id] = state
    return Standing(runs=by_id, states=states, causes=causes, lost=tuple(lost))


def _usable(
    runs: Sequence[Run], store: Store, done: set[str]
) -> tuple[set[str], list[str], set[str]]:
    """`done` without the starts whose weights are needed and gone; those; those that diverged."""
    lost: list[str] = []
    diverged: set[str] = set()
    weights = store.weights()
    for run in reversed(runs):  # what needs a start comes after it
        start = run.source
        if start is None or run.id in done or start.id not in done or start.id in weights:
            continue
        if start.id not in diverged:
            if _has_diverged(store, start.id):
                diverged.add(start.id)
            else:
                done.discard(start.id)
                lost.append(start.id)
    return done, lost, diverged


def _has_diverged(store: Store, run_id: str) -> bool:
    try:
        return store.read_head(run_id).provenance.diverged_step is not None
    except Damaged:
        return False


def _brief(failure: Failure) -> str:
    lines = failure.error.strip().splitlines()
    return f"{lines[-1] if lines else 'no message'} ({failure.tries} tries)"


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What the finished Runs say of themselves.

    - `code_versions`: Runs per version of the code that made them.
    - `diverged`: ids of Runs that ended because a loss was not finite.
    - `damaged`: why a rows file cannot be read, by id.
    - `other_starts`: ids of Runs that started from other weights than their start has now.
    - `images_per_second`: training images that all Runs together go through in a second of the time
      that they took, in the last hour of the study's work; None where too little is known.
    """

    code_versions: Mapping[str, int]
    diverged: tuple[str, ...]
    damaged: Mapping[str, str]
    other_starts: tuple[str, ...]
    images_per_second: float | None


def finished(found: Standing, store: Store) -> Finished:
    """Reads the head of every finished Run of the study."""
    ids = found.ids(DONE)
    heads = store.read_heads(ids)
    whole = {i: head for i, head in heads.items() if isinstance(head, Head)}
    digests = {i: head.provenance.weights_digest for i, head in whole.items()}
    return Finished(
        code_versions=Counter(head.provenance.code_version for head in whole.values()),
        diverged=tuple(i for i, h in whole.items() if h.provenance.diverged_step is not None),
        damaged={i: str(head) for i, head in heads.items() if isinstance(head, Damaged)},
        other_starts=tuple(
            i
            for i, head in whole.items()
            if head.run.source is not None
            and digests.get(head.run.source.id) not in (None, head.provenance.start_digest)
        ),
        images_per_second=_rate(list(whole.values())),
    )


def _rate(heads: Sequence[Head]) -> float | None:
    """Training images a second over the last hour before the newest end, gaps between Runs left in."""
    spans = [
        (
            datetime.fromisoformat(h.provenance.began_at),
            datetime.fromisoformat(h.provenance.ended_at),
            h,
        )
        for h in heads
    ]
    if not spans:
        return None
    newest = max(end for _, end, _ in spans)
    recent = [s for s in spans if (newest - s[1]).total_seconds() <= 3600]
    oldest = min(begin for begin, _, _ in recent)
    seconds = (newest - oldest).total_seconds()
    return sum(num_images(h.run) for _, _, h in recent) / seconds if seconds > 0 else None


def num_images(run: Run) -> int:
    """Training images that the whole Run goes through: its cost, as far as no network is known."""
    recipe: Recipe = run.recipe
    if recipe.num_epochs is not None:
        return recipe.num_epochs * run.size
    assert recipe.num_steps is not None
    return recipe.num_steps * min(recipe.batch_size, run.size)


def seconds_left(found: Standing, rate: float | None) -> float | None:
    """Until nothing is absent, at this many training images a second; None where it is not known."""
    if not rate:
        return None
    return sum(num_images(found.runs[i]) for i in found.ids(RUNNING, PARTIAL, ABSENT)) / rate
