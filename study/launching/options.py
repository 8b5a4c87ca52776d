"""Define the execution options, and check that an address accepts connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from study.messages import UserError

LOCAL: Final = "local"  # the address of a local Ray

# Logger of training curves: the packages that it needs, from the extra of the same name.
LOGS: Final[Mapping[str, tuple[str, ...]]] = {
    "tensorboard": (),
    "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Execution options. They do not affect results (on one device type and thread count).

    - `address`: of a Ray cluster; "local": Ray on this machine; None: train inline, without Ray.
    - `gpus_per_trial`, `cpus_per_trial`: resources of a trial; None: see `trial_resources`.
    - `accelerator`: the label that a trial's node must have in Ray ("H100"); None: any node.
    - `max_concurrent`: maximum number of trials at the same time; None: as many as fit.
    - `device`: "cpu" or "cuda"; `num_threads`: torch's CPU threads. `of_trial` sets both.
    - `checkpoint_seconds`: time between two checkpoints of a Run; a crash loses at most this much.
    - `grace_seconds`: time for a last checkpoint when all trials are to stop.
    - `node_cache`: a folder on each node's own disk for copies of prepared tasks; None: no copies.
    - `keep_probabilities`: store predictions with the class probabilities at the last evaluation.
    - `logs`: names from LOGS of the loggers to use; `log_folder`: the folder of their files.
    - `resume_hint`: the line that shows an interrupted user how to continue.
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
    keep_probabilities: bool = False
    logs: tuple[str, ...] = ()
    log_folder: Path = Path("logs")
    resume_hint: str = "interrupted; to go on, give the same command again"

    def of_trial(self, claim: Mapping[str, float], *, device: str) -> LaunchOptions:
        """Return these options for a trial with the resources `claim`, {"cpu": …, "gpu": …}."""
        return replace(self, device=device, num_threads=max(1, int(claim["cpu"])))


SECONDS_TO_REACH: Final = 10.0


def address_source(address: str) -> str:
    """Return the origin of this address: "RAY_ADDRESS", or else "--address"."""
    return "RAY_ADDRESS" if os.environ.get("RAY_ADDRESS") == address else "--address"


def refuse_without_home() -> None:
    """Raise UserError if this user has no home directory: Ray cannot be imported then."""
    try:
        Path.home()
    except RuntimeError as error:
        raise UserError(
            f"HOME: not set, and user {os.getuid()} has no account; Ray needs a home directory. "
            "Set HOME to a folder, or train without Ray: --inline"
        ) from error


def refuse_unreachable(address: str, shown: str | None = None) -> None:
    """Raise UserError if nothing listens at host:port; other addresses are left to Ray.

    `shown`: the address as the user wrote it, after its flag or variable.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_REACH).close()
    except OSError as error:
        raise UserError(
            f"{shown or f'{address_source(address)}={address}'}: no Ray cluster answers there ({error})"
        ) from error
