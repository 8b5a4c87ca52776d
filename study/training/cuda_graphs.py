"""Run training steps of one shape as a CUDA graph.

If a capture fails, training continues without graphs, and `Steps.not_captured` has the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor

# 0 disables graphs: every step runs call by call.
SWITCH: Final = "STUDY_CUDA_GRAPHS"

# Steps before a capture: after 3, the optimiser has its state, and cuDNN has chosen its algorithms.
NUM_WARM: Final = 3

Compute = Callable[[Tensor], None]
Replay = Callable[[], None]
Capture = Callable[[Replay], Replay]


class Steps:
    """Takes optimizer steps; `capture` records steps of `length` images, which are then replayed.

    The first NUM_WARM steps of that length and all steps of other lengths run directly. If `capture` is
    None, every step does.

    `not_captured`: the reason why steps on a GPU are not captured; else "".
    """

    # `compute` is passed to each call and not stored, because it is a method of the `Training` that
    # holds this object. A reference back would be a cycle: features, optimizer and graph pool of a
    # finished Run would stay in memory until the garbage collector runs.
    def __init__(self, length: int, capture: Capture | None, not_captured: str = "") -> None:
        self._length, self._capture = length, capture
        self.not_captured = not_captured
        self._num_warm = 0
        self._positions = torch.empty(0)
        self._replay: Replay | None = None

    def take(self, compute: Compute, positions: Tensor) -> None:
        """Take one step on the images at `positions`: int64, shape (images,), on the device.

        `compute` must be the same function in every call. All other tensors that `compute` reads must
        keep their addresses, because a captured step reads from fixed addresses.
        """
        if self._capture is None or len(positions) != self._length:
            compute(positions)
        elif self._num_warm < NUM_WARM:
            self._num_warm += 1
            compute(positions)
        else:
            if self._replay is None and not self._is_captured(compute, positions):
                compute(positions)
                return
            assert self._replay is not None
            self._positions.copy_(positions)
            self._replay()

    def forget(self) -> None:
        """Drop the captured step. Call this after replacing a tensor that the step reads."""
        self._replay, self._num_warm = None, 0

    def _is_captured(self, compute: Compute, positions: Tensor) -> bool:
        assert self._capture is not None
        self._positions = positions.clone()
        try:
            self._replay = self._capture(partial(compute, self._positions))
        except RuntimeError as error:
            self._capture = None
            self.not_captured = str(error).partition("\n")[0] or type(error).__name__
            return False
        return True


def capture_on(device: torch.device, *, is_possible: bool = True) -> Capture | None:
    """Return a function that captures steps; None on a CPU, or if graphs are disabled or impossible."""
    if device.type != "cuda" or not is_possible or os.environ.get(SWITCH) == "0":
        return None
    return cuda_graph


def not_captured_on(device: torch.device, *, is_possible: bool) -> str:
    """Return the reason why `capture_on` returns None for a GPU; else ""."""
    if device.type != "cuda":
        return ""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    return "" if is_possible else "the features of the frozen layers do not fit in the GPU's memory"


def cuda_graph(step: Replay) -> Replay:
    """Record `step` as a CUDA graph; return the graph's replay. Raises RuntimeError if capturing fails."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            step()
    finally:
        # If ending a capture fails, `torch.cuda.graph` leaves its own stream as the current one.
        torch.cuda.set_stream(stream)
    return graph.replay
