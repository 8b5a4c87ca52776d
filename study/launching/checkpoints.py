"""Decide when a Run's checkpoint is written, and write it in a separate thread."""

from __future__ import annotations

import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import torch
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from study.run import Run
from study.store import Store
from study.store.unfinished import drop_outdated, write_checkpoint
from study.training.loop import Training

ABOUT: Final = "execute"  # name of the checkpoint's entry that is not the training's own


class Checkpoints:
    """Writes checkpoints of one Run in a thread, while training continues.

    The state is copied first. A failed write raises at the next write, or on leaving.
    """

    def __init__(self, run: Run, store: Store, seconds: float, about: dict[str, Any]) -> None:
        self._run, self._store, self._about = run, store, about
        self._seconds, self._last = seconds, time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._has_dropped = False

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._writer.shutdown(wait=True)
        if kind is None:
            self.wait()

    def is_due(self) -> bool:
        """Return True if the interval is over and the last checkpoint is written."""
        idle = self._pending is None or self._pending.done()
        return idle and time.monotonic() - self._last >= self._seconds

    def write(self, training: Training) -> None:
        """Copy the state and start to write it."""
        self.wait()
        tensors = {key: value.clone() for key, value in training.state().items()}
        tensors[ABOUT] = torch.tensor(list(json.dumps(self._about).encode()), dtype=torch.uint8)
        self._pending = self._writer.submit(self._publish, tensors)
        self._last = time.monotonic()

    def wait(self) -> None:
        """Wait until the last checkpoint is written. Raises OSError if that failed."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _publish(self, tensors: dict[str, Tensor]) -> None:
        write_checkpoint(self._store, self._run.id, tensors_to_bytes(tensors))
        if not self._has_dropped:
            drop_outdated(self._store, self._run.id)
            self._has_dropped = True
