"""Compute the features of a constant frozen prefix, once per Run, or once per machine if that pays.

Processes compute missing chunks of images in different random orders and do not wait for each other.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from study.fields import canonical_json, digest_of
from study.networks.build import normalisation
from study.networks.timm_names import timm
from study.run import Run
from study.store.processes import this_process
from study.store.provenance import TRAINER
from study.training import feature_cache
from study.training.feature_cache import WORTH_SECONDS_PER_GIB
from study.training.steps import batch_spans

# Images per forward pass of the prefix, and per file.
CHUNK: Final = 256

# Keys of release 0.1.0 contain a code version. TRAINER 1 keeps that text, so those features stay valid.
_KEY_OF_TRAINER: Final = {1: "0.1.0+95d1b319"}

# Fields of a Run that the key leaves out; the key contains their effects, weights and precision.
_NOT_OF_A_PREFIX: Final = ("task", "part", "size", "label_noise", "start", "seed", "recipe")


@dataclass(frozen=True)
class Features:
    """Features of n images, in tensors of CHUNK images each; the last tensor may have one more."""

    chunks: list[Tensor]

    def __getitem__(self, span: slice) -> Tensor:
        """Return the features of a span of images, (images, *feature_shape); a view within one chunk."""
        start, stop, _ = span.indices(sum(map(len, self.chunks)))
        parts = []
        while start < stop:
            index = min(start // CHUNK, len(self.chunks) - 1)
            chunk = self.chunks[index][start - index * CHUNK : stop - index * CHUNK]
            parts.append(chunk)
            start += len(chunk)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def joined(self) -> Tensor:
        """Copy all features to one tensor, (n, *feature_shape), in memory or a file (`room`)."""
        held = room(sum(map(len, self.chunks)), self.chunks[0])
        torch.cat(self.chunks, out=held)
        return held


def prefix_features(
    prefix: nn.Sequential, num_images: int, batch: Callable[[slice], Tensor]
) -> Tensor:
    """Return the prefix's features of all images: shape (n, *feature_shape), in the prefix's dtype.

    The tensor is on the device if it fits in half of the free memory, else in host memory by the same
    rule, else in a memory-mapped temporary file. `batch(span)`: the prefix's input for a span of images.
    """
    held: Tensor | None = None
    with torch.no_grad():
        for span in batch_spans(num_images, CHUNK):
            features = prefix(batch(span))
            if held is None:
                held = room(num_images, features)
            held[span] = features
    assert held is not None
    return held


def shared_features(
    prefix: nn.Sequential,
    images: Tensor,
    batch: Callable[[slice], Tensor],
    folder: Path,
    prefix_key: str,
    *,
    worth_seconds: float,
) -> Features:
    """Return features bit-equal to `prefix_features`, on the CPU: read from `folder`, or computed.

    Computed chunks are written to `folder` if there is room and computing a chunk takes at least
    `worth_seconds`. `images`: uint8, shape (n, c, h, w), contiguous; `batch`: as in `prefix_features`.
    """
    spans = batch_spans(len(images), CHUNK)
    keys = [_chunk_key(prefix_key, images[span]) for span in spans]
    chunks: dict[int, Tensor | Future[Tensor]] = {}
    is_worth: bool | None = None
    # A random order divides the work among processes that begin together.
    order = random.Random(os.urandom(8)).sample(range(len(spans)), len(spans))
    with ThreadPoolExecutor(1, thread_name_prefix="features") as writer, torch.no_grad():
        pending: Future[Tensor] | None = None
        for index in order:
            found = feature_cache.read(folder, keys[index])
            if found is not None:
                chunks[index] = found
                continue
            began = time.perf_counter()
            made = prefix(batch(spans[index])).contiguous()
            seconds = time.perf_counter() - began
            if is_worth is None:
                num_bytes = made.nbytes * (len(spans) - len(chunks))
                is_worth = (
                    seconds >= worth_seconds
                    and seconds * 2**30 >= WORTH_SECONDS_PER_GIB * made.nbytes
                    and feature_cache.make_room(folder, num_bytes)
                )
            chunks[index] = made
            if is_worth:
                if pending is not None:
                    pending.result()  # at most one unwritten chunk in memory
                pending = writer.submit(feature_cache.write, folder, keys[index], made)
                chunks[index] = pending
    all_chunks = [chunks[index] for index in range(len(spans))]
    return Features([c.result() if isinstance(c, Future) else c for c in all_chunks])


def prefix_key(run: Run, prefix: nn.Sequential) -> str:
    """Return a digest of everything that determines the features of given images.

    The digest covers the prefix's values, structure and layout, normalisation, precision, number of
    threads, versions of trainer, torch and timm, and this machine until its next boot.
    """
    here = this_process()
    weights = hashlib.sha256()
    for name, value in prefix.state_dict().items():
        weights.update(f"{name} {value.dtype} {[*value.shape]} {value.stride()} ".encode())
        weights.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    decisive = {
        "weights": weights.hexdigest(),
        "structure": repr(prefix),
        # Not `vars(run)`, which also contains the Run's cached id.
        "cut": {
            field.name: getattr(run, field.name)
            for field in fields(run)
            if field.name not in _NOT_OF_A_PREFIX
        },
        "normalisation": [list(values) for values in normalisation(run.model)],
        "precision": run.recipe.precision,
        "num_threads": torch.get_num_threads(),
        "chunk": CHUNK,
        "code": [
            _KEY_OF_TRAINER.get(TRAINER, f"TRAINER {TRAINER}"),
            torch.__version__,
            timm.__version__,
        ],
        "machine": [here.host, here.machine, torch.backends.cpu.get_cpu_capability()],
    }
    return digest_of(canonical_json(decisive))


def _chunk_key(prefix_key: str, images: Tensor) -> str:
    key = hashlib.sha256(f"{prefix_key} {[*images.shape]} ".encode())
    key.update(images.numpy().data)
    return key.hexdigest()


def free_bytes(device: torch.device) -> int:
    """Return the GPU memory that this process can still allocate.

    The result includes torch's cache, which the driver does not count as free; after a large Run, the
    cache is most of the GPU's memory.
    """
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    cached = torch.cuda.memory_reserved(device) - allocated
    share = torch.cuda.get_per_process_memory_fraction(device)
    return min(free + cached, int(share * total) - allocated)


def room(num_images: int, like: Tensor) -> Tensor:
    """Return an empty tensor, (num_images, *like.shape[1:]), placed as described in `prefix_features`."""
    shape = (num_images, *like.shape[1:])
    num_bytes = num_images * like[0].numel() * like.element_size()
    if like.device.type == "cuda" and num_bytes <= free_bytes(like.device) // 2:
        is_last = like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last)
        form = torch.channels_last if is_last else torch.contiguous_format
        return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=form)
    if num_bytes <= psutil.virtual_memory().available // 2:
        return torch.empty(shape, dtype=like.dtype)
    with tempfile.NamedTemporaryFile(prefix="freezewise-features-") as file:
        # Reserve the space now: a disk that fills up later would end the process without a message.
        if sys.platform != "darwin":  # macOS lacks this call
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        # The mapping stays valid after the block removes the file.
        mapped = np.memmap(Path(file.name), dtype=np.uint8, mode="r+", shape=(num_bytes,))
    return torch.from_numpy(mapped).view(like.dtype).view(shape)
