"""What the trained layers see of the images: the frozen prefix's features, computed once where possible.

Owns when the prefix is a constant, where its features are held, and the statistics of a random one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import normalisation as normalisation_of
from study.run import Recipe, Run
from study.training.arithmetic import precision
from study.training.cut import Cut
from study.training.pixels import CropsAndFlips, normalisation
from study.training.steps import batch_spans

Span = slice | Tensor

EVALUATION_BATCH_SIZE: Final = 256


def is_constant(recipe: Recipe) -> bool:
    """Whether the frozen prefix gives the same features of an image in every epoch."""
    return recipe.augmentation == "none" and recipe.frozen_batchnorm == "evaluation"


class Inputs:
    """The inputs of the trained layers, for a Run's training images and its task's test images.

    `train_images`, `test_images`: uint8, shape (n, c, h, w). `cached` False computes the frozen prefix
    anew for every batch, where it would be computed once per image; the results are the same bits.
    """

    def __init__(
        self,
        run: Run,
        parts: Cut,
        train_images: np.ndarray,
        test_images: np.ndarray,
        *,
        device: torch.device,
        cached: bool,
    ) -> None:
        self._prefix, self._device, self._recipe = parts.prefix, device, run.recipe
        self._normalise = normalisation(*normalisation_of(run.model), device)
        self.train_images = torch.from_numpy(np.array(train_images)).to(device)
        self._test_images = torch.from_numpy(np.array(test_images)).to(device)
        if run.start is None and run.frozen > 0:
            with precision(run.recipe, device):
                calibrate(
                    parts.prefix,
                    run.size,
                    lambda span: self._normalise(self.train_images[span]),
                    by_images=run.recipe.calibration == "images",
                )
        self._train_features: Tensor | None = None
        self._test_features: Tensor | None = None
        if cached and is_constant(run.recipe) and run.frozen > 0:
            self._train_features = self._features(self.train_images)
            self._test_features = self._features(self._test_images)

    def of_training(self, span: Span, augment: CropsAndFlips | None = None) -> Tensor:
        """For the training images of this span; with `augment`, of this epoch's crops and flips."""
        if self._train_features is not None:
            return _taken(self._train_features, span, self._device)
        images = self.train_images[span]
        if augment is not None:
            assert isinstance(span, Tensor)
            images = augment(images, span)
        with torch.no_grad():
            return self._prefix(self._normalise(images))

    def of_test(self, span: slice) -> Tensor:
        """For the test images of this span."""
        if self._test_features is not None:
            return _taken(self._test_features, span, self._device)
        with torch.no_grad():
            return self._prefix(self._normalise(self._test_images[span]))

    def _features(self, images: Tensor) -> Tensor:
        with precision(self._recipe, self._device):
            return prefix_features(
                self._prefix, len(images), lambda span: self._normalise(images[span])
            )


def calibrate(
    prefix: nn.Sequential,
    num_images: int,
    batch: Callable[[slice], Tensor],
    *,
    by_images: bool,
) -> None:
    """Sets the BatchNorm statistics of a random prefix to the means over the images' batches.

    Random layers have never seen an image, and with statistics of 0 and 1 their features would shrink
    or grow from layer to layer. `batch(span)` gives the prefix's input for a span of the images.
    `by_images`: each batch counts by how many it has; else all count alike.
    """
    norms = [module for module in prefix.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in norms]
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the plain mean over all batches
        module.train()
    with torch.no_grad():
        for span in batch_spans(num_images, EVALUATION_BATCH_SIZE):
            if by_images:
                for module in norms:
                    module.momentum = (span.stop - span.start) / span.stop
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


def _taken(features: Tensor, span: Span, device: torch.device) -> Tensor:
    if isinstance(span, Tensor) and features.device != span.device:
        span = span.to(features.device)
    return features[span].to(device, non_blocking=True)
