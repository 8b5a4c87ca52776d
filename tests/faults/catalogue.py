"""Every fault there is, by name, with how often the long form causes it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.faults import (
    buckets,
    bugs,
    clusters,
    damage,
    disks,
    io_calls,
    kills,
    power_loss,
    rivals,
    signals,
    stacks,
    versions,
)
from tests.faults.harness import Harness, Outcome


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
    "kill-random": Fault(kills.random_moments),
    "kill-first-seconds": Fault(kills.first_seconds, one_in=5),
    "kill-between-checkpoints": Fault(kills.between_checkpoints),
    "kill-publishing": Fault(kills.while_publishing, one_in=2),
    "kill-after-source": Fault(kills.after_a_source),
    "signal-inline": Fault(signals.inline),
    "signal-twice": Fault(signals.second_ctrl_c),
    "signal-ray": Fault(signals.on_ray, one_in=5),
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
    "bug-out-of-memory": Fault(bugs.out_of_memory, one_in=10),
    "bug-worker-lost": Fault(bugs.worker_always_lost, one_in=10),
    "two-drivers": Fault(rivals.in_a_directory),
    "driver-passed-over": Fault(rivals.lease_lost),
    "stack-killed": Fault(stacks.killed, one_in=2),
    "stack-extended": Fault(stacks.extended, one_in=2),
    "stack-one-lost": Fault(stacks.one_lost, one_in=2),
    "power-loss": Fault(power_loss.at_every_call),
    "io-call-fails": Fault(io_calls.some),
    "io-call-fails-each": Fault(io_calls.every, is_asked_for=True),
    "code-changed": Fault(versions.changed, one_in=10),
    "bucket-errors": Fault(buckets.now_and_then, one_in=5),
    "bucket-silent": Fault(buckets.silent, one_in=10),
    "bucket-driver-killed": Fault(buckets.driver_killed, one_in=10),
    "bucket-refuses-one": Fault(buckets.refused_for_good, one_in=50),
    "bucket-two-drivers": Fault(buckets.two_drivers, one_in=10),
}
