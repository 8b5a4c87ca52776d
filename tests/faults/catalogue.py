"""Every fault by name, how often the long form causes it, and the tables of results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.faults import buckets, calls, clusters, damage, disks, runs, sharing, signals, stacks
from tests.faults.harness import Harness, Outcome
from tests.faults.mutations import Mutation


@dataclass(frozen=True)
class Fault:
    """`cause` brings it about on a scenario of its own; `one_in`: it is met in every so-many-th round,
    as starting Ray or waiting for a bucket takes long; `is_asked_for`: only with `--only`, it takes an
    hour."""

    cause: Callable[[Harness, random.Random], Outcome]
    one_in: int = 1
    is_asked_for: bool = False

    def is_in(self, round_number: int) -> bool:
        """Whether it is met in this round; each is in the first."""
        return round_number % self.one_in == 0


FAULTS: Final[Mapping[str, Fault]] = {
    "kill-random": Fault(signals.random_moments),
    "kill-first-seconds": Fault(signals.first_seconds, one_in=5),
    "kill-between-checkpoints": Fault(signals.between_checkpoints),
    "kill-publishing": Fault(signals.while_publishing, one_in=2),
    "kill-after-source": Fault(signals.after_a_source),
    "signal-inline": Fault(signals.inline),
    "signal-twice": Fault(signals.second_ctrl_c),
    "signal-ray": Fault(signals.on_ray, one_in=5),
    "signal-hup": Fault(signals.hangup),
    "signal-hup-nohup": Fault(signals.hangup_nohup),
    "signal-usr1": Fault(signals.warned),
    "signal-ray-start": Fault(signals.start_of_ray, one_in=5),
    "signal-report": Fault(signals.report, one_in=5),
    "signal-nodes": Fault(clusters.signal_reaches_nodes, one_in=5),
    "ray-driver-killed": Fault(clusters.driver_killed, one_in=5),
    "ray-worker-killed": Fault(clusters.worker_killed, one_in=5),
    "ray-own-raylet-killed": Fault(clusters.own_raylet_killed, one_in=5),
    "cluster-raylet-killed": Fault(clusters.raylet_killed, one_in=5),
    "cluster-head-killed": Fault(clusters.head_killed, one_in=5),
    "cluster-node-removed": Fault(clusters.node_removed, one_in=5),
    "disk-full": Fault(disks.full),
    "disk-full-for-long": Fault(disks.full_for_long, one_in=5),
    "disk-file-limit": Fault(disks.file_limit, one_in=2),
    "disk-read-only": Fault(disks.read_only, one_in=2),
    "damaged-rows": Fault(damage.rows),
    "damaged-weights": Fault(damage.weights),
    "damaged-predictions": Fault(damage.predictions),
    "damaged-checkpoint": Fault(damage.checkpoint),
    "damaged-study-file": Fault(damage.study_file),
    "damaged-task": Fault(damage.task),
    "bug-out-of-memory": Fault(runs.out_of_memory, one_in=10),
    "bug-worker-lost": Fault(runs.worker_always_lost, one_in=10),
    "all-diverged": Fault(runs.all_diverged, one_in=10),
    "root-named-as-study": Fault(runs.root_named_as_study, one_in=10),
    "memory-held": Fault(runs.memory_held, one_in=5),
    "stranger-export": Fault(damage.stranger_export, one_in=2),
    "sealed-nonsense": Fault(damage.sealed_nonsense),
    "publish-private": Fault(damage.publish_private, one_in=10),
    "shared-users": Fault(sharing.shared_users, one_in=10),
    "lease-unremovable": Fault(sharing.lease_unremovable, one_in=5),
    "lease-last-number": Fault(sharing.lease_last_number, one_in=5),
    "lease-nested": Fault(sharing.lease_nested, one_in=5),
    "case-folding": Fault(sharing.case_folding, one_in=10),
    "tidy-other-namespace": Fault(sharing.tidy_other_namespace, one_in=10),
    "two-drivers": Fault(sharing.in_a_directory),
    "driver-passed-over": Fault(sharing.lease_lost),
    "stack-killed": Fault(stacks.killed, one_in=2),
    "stack-extended": Fault(stacks.extended, one_in=2),
    "stack-one-lost": Fault(stacks.one_lost, one_in=2),
    "power-loss": Fault(calls.at_every_call),
    "io-call-fails": Fault(calls.some),
    "io-call-fails-each": Fault(calls.every, is_asked_for=True),
    "code-changed": Fault(runs.changed, one_in=10),
    "bucket-errors": Fault(buckets.now_and_then, one_in=5),
    "bucket-silent": Fault(buckets.silent, one_in=10),
    "bucket-driver-killed": Fault(buckets.driver_killed, one_in=10),
    "bucket-refuses-one": Fault(buckets.refused_for_good, one_in=50),
    "bucket-slow": Fault(buckets.slow, one_in=10),
    "bucket-token-expires": Fault(buckets.token_expires, one_in=10),
    "bucket-two-drivers": Fault(buckets.two_drivers, one_in=10),
}


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
    measured = [o.resume_seconds for o in caused if o.resume_seconds is not None]
    return Outcome(
        fault=caused[0].fault,
        times=sum(o.times for o in caused),
        num_runs=sum(o.num_runs for o in caused),
        rows_lost=sum(o.rows_lost for o in caused),
        rows_doubled=sum(o.rows_doubled for o in caused),
        sources_twice=sum(o.sources_twice for o in caused),
        bit_equal=all(o.bit_equal for o in caused),
        resume_seconds=None if not measured else tuple(s for each in measured for s in each),
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
        "not measured"
        if seconds is None
        else f"{median(seconds):.1f}, {max(seconds):.1f}"
        if seconds
        else "nothing was left",
    )
