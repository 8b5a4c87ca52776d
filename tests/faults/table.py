"""The harness's two tables: what became of every fault over all rounds, and which mutations it noticed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from tests.faults.harness import Outcome
from tests.faults.mutations import Mutation

_HEADER = (
    "fault",
    "times",
    "Runs",
    "rows lost",
    "rows doubled",
    "sources twice",
    "bit-equal",
    "redone s (max)",
    "resume s (median, max)",
)


def merged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """One Outcome a fault, in the order in which they were first met; skipped ones stay."""
    by_fault: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_fault.setdefault(outcome.fault, []).append(outcome)
    return [_one(met) for met in by_fault.values()]


def _one(met: Sequence[Outcome]) -> Outcome:
    caused = [outcome for outcome in met if outcome.skipped is None]
    if not caused:
        return met[0]
    return Outcome(
        fault=caused[0].fault,
        times=sum(o.times for o in caused),
        num_runs=sum(o.num_runs for o in caused),
        rows_lost=sum(o.rows_lost for o in caused),
        rows_doubled=sum(o.rows_doubled for o in caused),
        sources_twice=sum(o.sources_twice for o in caused),
        bit_equal=all(o.bit_equal for o in caused),
        resume_seconds=tuple(s for o in caused for s in o.resume_seconds),
        redone_seconds=max(o.redone_seconds for o in caused),
        problems=tuple(p for o in caused for p in o.problems),
    )


def rendered(outcomes: Iterable[Outcome]) -> str:
    """The table as text: a line a fault."""
    return _aligned([_HEADER, *(_cells(outcome) for outcome in outcomes)])


@dataclass(frozen=True)
class Noticed:
    """A mutation, a fault that was caused under it, and what came of that."""

    mutation: Mutation
    fault: str
    outcome: Outcome

    @property
    def is_noticed(self) -> bool:
        return bool(self.outcome.problems)

    @property
    def is_missed(self) -> bool:
        """Whether a fault that is there for it, and could be caused here, did not notice."""
        is_own = self.fault in self.mutation.noticed_by
        return is_own and self.outcome.skipped is None and not self.is_noticed


def of_mutations(noticed: Iterable[Noticed]) -> str:
    """A line for each mutation and fault: whether it was noticed, and by what."""
    lines = [("mutation", "fault", "noticed", "by")]
    for each in noticed:
        if each.outcome.skipped is not None:
            verdict, why = "skipped", each.outcome.skipped
        else:
            verdict = "yes" if each.is_noticed else "NO" if each.is_missed else "no"
            why = "; ".join(map(_brief, each.outcome.problems))
        lines.append((each.mutation.name, each.fault, verdict, why[:120]))
    return _aligned(lines)


def _brief(problem: str) -> str:
    lines = problem.strip().splitlines()
    return lines[-1 if "Traceback" in lines[0] else 0][:60]


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.skipped is not None:
        return (outcome.fault, "0", f"skipped: {outcome.skipped}", *[""] * (len(_HEADER) - 3))
    seconds = outcome.resume_seconds
    return (
        outcome.fault,
        str(outcome.times),
        str(outcome.num_runs),
        str(outcome.rows_lost),
        str(outcome.rows_doubled),
        str(outcome.sources_twice),
        "yes" if outcome.bit_equal else "NO",
        f"{outcome.redone_seconds:.1f}",
        f"{median(seconds):.1f}, {max(seconds):.1f}" if seconds else "nothing was left",
    )
