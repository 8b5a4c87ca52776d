"""Provide the inputs of the trained layers: outputs of the frozen prefix, computed once if possible."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import normalisation as normalisation_of
from study.run import Run
from study.training.cut import Cut
from study.training.features import Features, prefix_features, prefix_key, shared_features
from study.training.preprocessing import CropsAndFlips, normalisation, on_device, precision
from study.training.steps import EVALUATION_BATCH_SIZE, batch_spans, is_constant

Span = slice | Tensor

# Features are shared if a chunk took at least this long. Fewer Runs reuse training features (one draw of
# images) than test features (all Runs with one start and cut).
TRAINING_WORTH_SECONDS: Final = 0.01
TEST_WORTH_SECONDS: Final = 0.001


class Inputs:
    """The inputs of the trained layers, for a Run's training images and its task's test images.

    `train_images`, `test_images`: uint8, shape (n, c, h, w). `cached`: compute the frozen prefix once per
    image, not per batch. `shared`: the machine's folder for features that Runs share. Neither option
    changes the bits.
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
        shared: Path | None = None,
    ) -> None:
        self.prefix, self._device, self._recipe = parts.prefix, device, run.recipe
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
        # Trained channels split a layer. If only the head is trained, the prefix has its constant part.
        self._is_cut_between_layers = not run.trained_channels and len(parts.suffix) > 1
        self.train_features: Tensor | None = None
        self.test_features: Tensor | Features | None = None
        if cached and is_constant(run.recipe) and len(parts.prefix) > 0:
            if shared is None:
                self.train_features = self._features(self.train_images)
                self.test_features = self._features(self._test_images)
            else:
                key = prefix_key(run, parts.prefix)
                # A training batch gathers images from all chunks, so they are joined into one tensor.
                drawn = self._shared(self.train_images, shared, key, TRAINING_WORTH_SECONDS)
                self.train_features = drawn.joined()
                self.test_features = self._shared(
                    self._test_images, shared, key, TEST_WORTH_SECONDS
                )

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Return (channels, height, width)."""
        return tuple(self.train_images.shape[1:])

    @property
    def place(self) -> torch.device:
        """Return the device of the training features: `device`, or the CPU if they do not fit."""
        return self._device if self.train_features is None else self.train_features.device

    def at_cut(self) -> Tensor | None:
        """Return the float32 values at the cut for each training image, (n, …), on `place`.

        None if the values are not cached, the cut is inside a layer, or the precision is not float32.
        """
        is_whole = self._is_cut_between_layers and self._recipe.precision == "float32"
        return self.train_features if is_whole else None

    def of_training(self, span: Span, augment: CropsAndFlips | None = None) -> Tensor:
        """Return the inputs for these training images; `augment` crops and flips the images first.

        `span`: a slice, or positions (int64) on the device `place`; `augment` needs positions.
        """
        if self.train_features is not None:
            return on_device(self.train_features[span], self._device)
        images = self.train_images[span]
        if augment is not None:
            assert isinstance(span, Tensor)
            images = augment(images, span)
        with torch.no_grad():
            return self.prefix(self._normalise(images))

    def of_test(self, span: slice) -> Tensor:
        """Return the inputs for a span of test images."""
        if self.test_features is not None:
            return on_device(self.test_features[span], self._device)
        with torch.no_grad():
            return self.prefix(self._normalise(self._test_images[span]))

    def _features(self, images: Tensor) -> Tensor:
        with precision(self._recipe, self._device):
            return prefix_features(self.prefix, len(images), self._batches(images))

    def _shared(self, images: Tensor, folder: Path, key: str, worth_seconds: float) -> Features:
        batches = self._batches(images)
        with precision(self._recipe, self._device):
            return shared_features(
                self.prefix, images, batches, folder, key, worth_seconds=worth_seconds
            )

    def _batches(self, images: Tensor) -> Callable[[slice], Tensor]:
        return lambda span: self._normalise(images[span])


def calibrate(
    prefix: nn.Sequential,
    num_images: int,
    batch: Callable[[slice], Tensor],
    *,
    by_images: bool,
) -> None:
    """Set the BatchNorm statistics of a random prefix to the means over batches of the images.

    With statistics of 0 and 1, features of random layers would shrink or grow from layer to layer.
    `batch(span)`: the prefix's input for a span of the images. `by_images`: weight each batch by its
    number of images, not equally.
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
