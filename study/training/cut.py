"""Where a Run starts, and the cut: a frozen prefix, a trained suffix, and the prefix's features.

Owns how start weights enter a network, what frozen means, and the features of the frozen prefix,
computed once per image. Refuses partial loading: weights that do not fit are an error with their keys.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import build, initialise
from study.run import Run
from study.training.steps import batch_spans

HEAD: Final = "head"

EVALUATION_BATCH_SIZE: Final = 256


@dataclass(frozen=True)
class Cut:
    """A network cut in two: `prefix` is never changed by training, `suffix` is trained."""

    prefix: nn.Sequential
    suffix: nn.Sequential


def starting_network(
    run: Run,
    num_classes: int,
    image_shape: tuple[int, int, int],
    start_weights: Mapping[str, Tensor] | None,
) -> nn.Sequential:
    """The network as `run` starts: initial values by its seed, then what comes from its start.

    `start_weights`: by "<layer>.<parameter or buffer>", the start's whole network or all of it but the
    head; None for a Run that starts from nothing. The head is always new; the other layers above the
    cut are new too where the recipe says "reinitialised".

    Raises ValueError with the keys where the weights do not fit the network.
    """
    assert (run.start is None) == (start_weights is None), run.id
    layers = build(run.model, run.width, num_classes, image_shape)
    names = list(dict(layers.named_children()))
    assert names[-1] == HEAD, names
    initialise(
        layers,
        run.model,
        run.seed,
        generation=run.generation,
        frozen=run.frozen if run.start is None else 0,
    )
    if start_weights is not None:
        kept = run.frozen if run.recipe.above_cut == "reinitialised" else len(names) - 1
        _load(layers, start_weights, names[:kept])
    return layers


def _load(layers: nn.Sequential, weights: Mapping[str, Tensor], names: list[str]) -> None:
    wanted = {key: value for key, value in layers.state_dict().items() if _layer(key) in names}
    given = {key: value for key, value in weights.items() if _layer(key) in names}
    wrong_shape = [k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape]
    unknown = sorted(key for key in weights if _layer(key) not in dict(layers.named_children()))
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra or unknown or wrong_shape:
        raise ValueError(
            "the start's weights do not fit the network: "
            f"missing {missing}, not in the network {extra + unknown}, "
            f"of another shape {sorted(wrong_shape)}"
        )
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(given[key])


def _layer(key: str) -> str:
    return key.split(".", 1)[0]


def cut(layers: nn.Sequential, frozen: int) -> Cut:
    """Cuts the network after its first `frozen` layers, and freezes what lies before.

    The frozen parameters take no gradient; modes are set by `set_training` and `set_evaluation`.
    """
    assert 0 <= frozen < len(layers), (frozen, len(layers))
    parts = Cut(prefix=layers[:frozen], suffix=layers[frozen:])
    parts.prefix.requires_grad_(False)
    set_evaluation(parts)
    return parts


def set_training(parts: Cut, frozen_batchnorm: str) -> None:
    """The suffix in training mode; of the prefix nothing, or its BatchNorm layers alone."""
    parts.suffix.train()
    if frozen_batchnorm == "training":
        for module in parts.prefix.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def set_evaluation(parts: Cut) -> None:
    """Both parts in evaluation mode."""
    parts.prefix.eval()
    parts.suffix.eval()


def calibrate(prefix: nn.Sequential, num_images: int, batch: Callable[[slice], Tensor]) -> None:
    """Sets the BatchNorm statistics of a random prefix to the means over the images' batches.

    Random layers have never seen an image, and with statistics of 0 and 1 their features would shrink
    or grow from layer to layer. `batch(span)` gives the prefix's input for a span of the images.
    """
    norms = [module for module in prefix.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over all batches
        module.train()
    with torch.no_grad():
        for span in batch_spans(num_images, EVALUATION_BATCH_SIZE):
            prefix(batch(span))
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()


def prefix_features(
    prefix: nn.Sequential, num_images: int, batch: Callable[[slice], Tensor]
) -> Tensor:
    """The prefix's features of all images: shape (n, *feature_shape), in the dtype that it gives.

    Held on the device where they fit in half of what is free there, else in host memory by the same
    rule, else in a memory-mapped temporary file that is gone with the tensor. `batch(span)` gives the
    prefix's input for a span of the images.
    """
    held: Tensor | None = None
    with torch.no_grad():
        for span in batch_spans(num_images, EVALUATION_BATCH_SIZE):
            features = prefix(batch(span))
            if held is None:
                held = _room(num_images, features)
            held[span] = features
    assert held is not None
    return held


def _room(num_images: int, like: Tensor) -> Tensor:
    shape = (num_images, *like.shape[1:])
    num_bytes = num_images * like[0].numel() * like.element_size()
    if like.device.type == "cuda" and num_bytes <= torch.cuda.mem_get_info(like.device)[0] // 2:
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    if num_bytes <= psutil.virtual_memory().available // 2:
        return torch.empty(shape, dtype=like.dtype)
    with tempfile.NamedTemporaryFile(prefix="freezewise-features-") as file:
        # Claimed now: a disk that fills up later would end the process without a message.
        if sys.platform != "darwin":  # which has no such call
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        # The mapping outlives the file's name, so that nothing is left behind.
        mapped = np.memmap(Path(file.name), dtype=np.uint8, mode="r+", shape=(num_bytes,))
    return torch.from_numpy(mapped).view(like.dtype).view(shape)
