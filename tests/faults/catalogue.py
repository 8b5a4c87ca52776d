"""All faults by name, and the tables of results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from tests.faults import calls, clusters, damage, runs, sharing, signals, storage
from tests.faults.harness import Harness, Outcome
from tests.faults.mutations import MUTATIONS

Cause = Callable[[Harness, random.Random], Outcome]


@dataclass(frozen=True)
class Fault:
    """`one_in`: caused in every so-many-th round, from the first on; 0: only with `--only`."""

    cause: Cause
    one_in: int = 1

    def is_in(self, round_number: int) -> bool:
        return self.one_in > 0 and round_number % self.one_in == 0


def _damaged(pattern: str) -> Fault:
    return Fault(partial(damage.damaged, pattern=pattern))


def _odd_lease(make: Callable[[Path, random.Random], None]) -> Fault:
    return Fault(partial(sharing.odd_lease, make=make), 5)


FAULTS: Final[Mapping[str, Fault]] = {
    "kill-random": Fault(signals.at_random_steps),
    "kill-first-seconds": Fault(signals.first_seconds, 5),
    "kill-between-checkpoints": Fault(signals.between_checkpoints),
    "kill-publishing": Fault(signals.while_publishing, 2),
    "kill-after-source": Fault(signals.after_a_source),
    "signal-inline": Fault(signals.stopped),
    "signal-twice": Fault(signals.second_ctrl_c),
    "signal-ray": Fault(partial(signals.stopped, on_ray=True), 5),
    "signal-hup": Fault(signals.hangup),
    "signal-hup-nohup": Fault(signals.hangup_nohup, 2),
    "signal-usr1": Fault(partial(signals.stopped, numbers=signals.WARNINGS)),
    "signal-ray-start": Fault(signals.start_and_end_of_ray, 5),
    "signal-report": Fault(signals.report, 5),
    "signal-nodes": Fault(clusters.signal_reaches_nodes, 5),
    "ray-driver-killed": Fault(clusters.driver_killed, 5),
    "ray-worker-killed": Fault(clusters.worker_killed, 5),
    "ray-own-raylet-killed": Fault(clusters.own_raylet_killed, 5),
    "cluster-raylet-killed": Fault(clusters.raylet_killed, 5),
    "cluster-head-killed": Fault(clusters.head_killed, 5),
    "cluster-node-removed": Fault(clusters.node_removed, 5),
    "disk-full": Fault(storage.disk_full),
    "disk-full-for-long": Fault(storage.disk_full_for_long, 5),
    "disk-file-limit": Fault(storage.file_limit, 2),
    "disk-read-only": Fault(storage.read_only, 2),
    "damaged-rows": _damaged("rows/*.arrow"),
    "damaged-weights": _damaged("weights/*"),
    "damaged-predictions": _damaged("predictions/{cell}-*"),
    "damaged-checkpoint": _damaged("unfinished/*/*/checkpoint"),
    "damaged-study-file": _damaged("studies/*.json"),
    "damaged-task": _damaged("tasks/*.arrow"),
    "bug-out-of-memory": Fault(runs.out_of_memory, 10),
    "bug-worker-lost": Fault(runs.worker_always_lost, 10),
    "all-diverged": Fault(runs.all_diverged, 10),
    "root-named-as-study": Fault(runs.root_named_as_study, 10),
    "memory-held": Fault(runs.memory_held, 5),
    "stranger-export": Fault(damage.stranger_export, 2),
    "sealed-nonsense": Fault(damage.sealed_nonsense),
    "compacting-killed": Fault(damage.compacting_killed),
    "publish-private": Fault(damage.publish_private, 10),
    "shared-users": Fault(sharing.shared_users, 10),
    "lease-unremovable": _odd_lease(sharing.unremovable),
    "lease-last-number": _odd_lease(sharing.last_number),
    "lease-nested": _odd_lease(sharing.nested),
    "case-folding": Fault(sharing.case_folding, 10),
    "tidy-other-namespace": Fault(sharing.tidy_other_namespace, 10),
    "two-drivers": Fault(sharing.two_drivers),
    "driver-passed-over": Fault(sharing.lease_lost),
    "stack-killed": Fault(runs.stack_killed, 2),
    "stack-extended": Fault(runs.stack_extended, 2),
    "stack-one-lost": Fault(runs.stack_one_lost, 2),
    "stack-one-diverges": Fault(runs.stack_one_diverges, 2),
    "power-loss": Fault(calls.power_loss),
    "io-call-fails": Fault(calls.call_fails),
    "io-call-fails-each": Fault(calls.each_call_fails, 0),
    "code-changed": Fault(runs.changed_code, 10),
    "bucket-errors": Fault(storage.bucket_errors, 5),
    "bucket-silent": Fault(storage.bucket_silent, 10),
    "bucket-driver-killed": Fault(storage.bucket_driver_killed, 10),
    "bucket-refuses-one": Fault(storage.bucket_refuses_one, 50),
    "bucket-slow": Fault(storage.bucket_slow, 10),
    "bucket-token-expires": Fault(storage.bucket_token_expires, 10),
    "bucket-two-drivers": Fault(storage.bucket_two_drivers, 10),
}

_HEADER: Final = (
    *("fault", "times", "Runs", "rows lost", "rows doubled", "sources twice", "bit-equal"),
    *("redone s (max)", "resume s (median, max)"),
)


def merged(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return one Outcome for each fault; a skipped fault stays skipped."""
    by_fault: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_fault.setdefault(outcome.fault, []).append(outcome)
    return [_one(met) for met in by_fault.values()]


def _one(met: Sequence[Outcome]) -> Outcome:
    caused = [outcome for outcome in met if outcome.skipped is None]
    if not caused:
        return met[0]
    measured = [o.resume_seconds for o in caused if o.resume_seconds is not None]
    sums = ("times", "num_runs", "rows_lost", "rows_doubled", "sources_twice")
    return replace(
        caused[0],
        **{name: sum(getattr(o, name) for o in caused) for name in sums},
        bit_equal=all(o.bit_equal for o in caused),
        resume_seconds=None if not measured else tuple(s for each in measured for s in each),
        redone_seconds=max(o.redone_seconds for o in caused),
        problems=tuple(p for o in caused for p in o.problems),
    )


def rendered(outcomes: Iterable[Outcome]) -> str:
    """Return the table as text, with a line for each fault."""
    return _aligned([_HEADER, *(_cells(outcome) for outcome in outcomes)])


def _cells(outcome: Outcome) -> tuple[str, ...]:
    if outcome.skipped is not None:
        return (outcome.fault, "0", f"skipped: {outcome.skipped}", *[""] * (len(_HEADER) - 3))
    numbers = (outcome.times, outcome.num_runs, outcome.rows_lost, outcome.rows_doubled)
    seconds, resumed = outcome.resume_seconds, "not measured"
    if seconds is not None:
        resumed = f"{median(seconds):.1f}, {max(seconds):.1f}" if seconds else "nothing was left"
    equal = "yes" if outcome.bit_equal else "NO"
    redone = f"{outcome.redone_seconds:.1f}"
    counts = map(str, (*numbers, outcome.sources_twice))
    return (outcome.fault, *counts, equal, redone, resumed)


@dataclass(frozen=True)
class Noticed:
    """The outcome of a fault under a mutation, by name."""

    mutation: str
    outcome: Outcome

    @property
    def is_noticed(self) -> bool:
        """Return True if a guarantee is broken; an error in the fault's own code does not count."""
        problems = self.outcome.problems
        return any(not each.startswith("Traceback") or "Hung: " in each for each in problems)

    @property
    def is_missed(self) -> bool:
        """Return True if the fault should have noticed the mutation, was caused, and did not."""
        is_own = self.outcome.fault in MUTATIONS[self.mutation].faults
        return is_own and self.outcome.skipped is None and not self.is_noticed


def of_mutations(noticed: Iterable[Noticed]) -> str:
    """Return a line for each mutation and fault: whether it was noticed, and how."""
    lines = [("mutation", "fault", "noticed", "by")]
    for each in noticed:
        outcome = each.outcome
        verdict = "yes" if each.is_noticed else "NO" if each.is_missed else "no"
        why = "; ".join(map(_brief, outcome.problems))[:120]
        if outcome.skipped is not None:
            verdict, why = "skipped", outcome.skipped
        lines.append((each.mutation, outcome.fault, verdict, why))
    return _aligned(lines)


def _brief(problem: str) -> str:
    lines = problem.strip().splitlines()
    return lines[-1 if "Traceback" in lines[0] else 0][:60]


def _aligned(lines: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])
