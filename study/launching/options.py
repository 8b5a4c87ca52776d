"""Hold the execution options, and check that an address accepts connections."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from study.messages import UserError

LOCAL: Final = "local"  # the address of a Ray of this machine alone

# Those that can be told of Runs in training, and what of an extra of the same name each needs.
LOGS: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorboard": (),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """With what to train; nothing of it changes a row, on one kind of device and thread count.

    - `address`: of a Ray cluster, "local" for one of its own, None to train inline, without Ray.
    - `gpus_per_trial`, `cpus_per_trial`: what a trial claims; None: by what there is.
    - `accelerator`: the kind that a trial's node must have, as Ray labels nodes ("H100"); None: any.
    - `max_concurrent`: Runs at the same time; None: as many as fit.
    - `device`: "cpu" or "cuda"; `num_threads`: of torch on the CPU. Both are settled where a trial runs.
    - `checkpoint_seconds`: between two checkpoints of a Run: what a crash can cost.
    - `grace_seconds`: that running trials have for a checkpoint when all are to stop.
    - `node_cache`: a folder of each node's own disk for copies of prepared tasks; None: none are made.
    - `logs`: of LOGS, those that are told of Runs in training; `log_folder`: where their files go.
    - `resume_hint`: the line that tells an interrupted user how to go on.
    """

    address: str | None = None
    gpus_per_trial: float | None = None
    cpus_per_trial: float | None = None
    accelerator: str | None = None
    max_concurrent: int | None = None
    device: str = "cpu"
    num_threads: int = 1
    checkpoint_seconds: float = 60.0
    grace_seconds: float = 20.0
    node_cache: Path | None = None
    logs: tuple[str, ...] = ()
    log_folder: Path = Path("logs")
    resume_hint: str = "interrupted; to go on, give the same command again"

    def of_trial(self, claim: Mapping[str, float], *, device: str) -> LaunchOptions:
        """These options where a trial with this claim ({"cpu": …, "gpu": …}) runs."""
        return replace(self, device=device, num_threads=max(1, int(claim["cpu"])))


SECONDS_TO_REACH: Final = 10.0


def refuse_unreachable(address: str, shown: str | None = None) -> None:
    """Raises UserError where nothing listens at host:port; any other address is left to Ray.

    `shown`: the address in the user's words.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_REACH).close()
    except OSError as error:
        raise UserError(
            f"--address={shown or address}: no Ray cluster answers there ({error})"
        ) from error
