"""Named random streams: the names alone determine the values, on any machine.

Must not seed the default generators of numpy or torch.
"""

from __future__ import annotations

import hashlib
import json

import numpy as np


def seed_of(*names: str | int | None) -> int:
    """Return a seed in [0, 2**63) for a generator of another library, determined by the names."""
    key = json.dumps(names, separators=(",", ":"), allow_nan=False).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1


def stream(*names: str | int | None) -> np.random.Generator:
    """Return a generator for the purpose that `names` describe, e.g. ("order", task, seed)."""
    return np.random.Generator(np.random.Philox(key=seed_of(*names)))


def permutation(n: int, *names: str | int | None) -> np.ndarray:
    """Return a permutation of 0 … n−1 from the named stream: int64, shape (n,).

    Sorts raw 64-bit draws, which numpy guarantees never to change, unlike numpy's `permutation`.
    """
    return np.argsort(stream(*names).bit_generator.random_raw(n), kind="stable")


def uniform(n: int, *names: str | int | None) -> np.ndarray:
    """Return n values in [0, 1) from the named stream: float64, shape (n,); as stable as `permutation`."""
    return (stream(*names).bit_generator.random_raw(n) >> np.uint64(11)) * 2.0**-53
