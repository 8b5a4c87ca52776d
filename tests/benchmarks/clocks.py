"""What the benchmarks count: seconds that what else a machine does falls on as little as can be."""

from __future__ import annotations

import time

import torch


def clock(device: str) -> float:
    """Seconds from some moment on: of this process's CPU, or by the wall once the GPU is done."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()
