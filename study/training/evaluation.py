"""Measure losses, errors and predicted labels on the whole training and test sets.

The caller sets the network's mode and the precision.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from study.tasks.draws import TrainingSet
from study.training.features import free_bytes
from study.training.inputs import Inputs
from study.training.steps import EVALUATION_BATCH_SIZE, MOST_ON_GPU, batch_spans

# CPU batches are sized so that the values between two layers fit in CACHED_BYTES (the CPU's caches).
# FEWEST images are 1.3 to 2.2 times as fast as EVALUATION_BATCH_SIZE for networks of standard width; for
# narrow networks, EVALUATION_BATCH_SIZE takes 0.5 to 0.7 times as long. Below SMALL_BYTES, calls take most
# of the time, so batches are larger: 1.1 to 1.7 times as fast for a narrow ResNet. From LEAST images on,
# the batch size does not change an image's bits; a smaller last batch is merged with the one before.
CACHED_BYTES: Final = 4 * 2**20
SMALL_BYTES: Final = 2**20
FEWEST: Final = 64
MOST_ON_CPU: Final = 1_024
LEAST: Final = 32

# On a GPU, a batch may take a quarter of the free memory, because several processes may share the GPU.
# Values within a layer are up to 16 times as large as the layer's input (the hidden values of a ViT's
# block, and temporaries).
SHARE_OF_FREE: Final = 4
WITHIN_A_LAYER: Final = 16

# Evaluation batch size by `Evaluator.form`. Cached, because computing the size takes a forward pass.
_at_once: dict[Hashable, int] = {}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Mean losses (`Recipe.loss`) and errors (fractions) of one evaluation.

    "flipped": training images with a wrong label; None if there are none. "clean": all others.
    """

    train_loss: float
    train_error: float
    train_loss_clean: float
    train_error_clean: float
    train_loss_flipped: float | None
    train_error_flipped: float | None
    test_loss: float
    test_error: float

    @property
    def losses(self) -> tuple[float, float]:
        """Return (train_loss, test_loss)."""
        return self.train_loss, self.test_loss


class Evaluator:
    """Measures a network on the training images, with the labels of `drawn`, and on the test images.

    The host does not wait for the device. `form`: a key for the batch size; contains everything that
    determines the sizes and device of the values between layers. `loss`: `Recipe.loss`.
    """

    def __init__(
        self,
        drawn: TrainingSet,
        test_labels: np.ndarray,
        device: torch.device,
        form: Hashable,
        loss: str = "cross_entropy",
    ) -> None:
        self._loss = loss
        self.num_test = len(test_labels)
        self._labels = torch.from_numpy(drawn.labels).to(device)
        self._test_labels = torch.from_numpy(np.array(test_labels)).to(device)
        self._device = self._labels.device
        self._form = form
        self._has_flipped = bool(drawn.flipped.any())
        self._clean, self._flipped = (
            torch.from_numpy(np.flatnonzero(which)).to(device)
            for which in (~drawn.flipped, drawn.flipped)
        )

    def __call__(self, suffix: nn.Sequential, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Evaluate the network; both results stay on the device.

        Returns:
            The fields of Measured, in order: float64, shape (8,).
            Predicted test labels: shape (test images,), uint8 for at most 256 classes, else int16.
        """
        at_once = self._images_at_once(suffix, inputs)
        train_logits = _logits(suffix, len(self._labels), inputs.of_training, at_once)
        test_logits = _logits(suffix, self.num_test, inputs.of_test, at_once)
        train_losses, train_wrong, _ = _judged(train_logits, self._labels, self._loss)
        test_losses, test_wrong, predicted = _judged(test_logits, self._test_labels, self._loss)
        values = {
            "train_loss": train_losses,
            "train_error": train_wrong,
            "train_loss_clean": train_losses[self._clean],
            "train_error_clean": train_wrong[self._clean],
            "train_loss_flipped": train_losses[self._flipped],
            "train_error_flipped": train_wrong[self._flipped],
            "test_loss": test_losses,
            "test_error": test_wrong,
        }
        assert [*values] == [field.name for field in fields(Measured)]
        num_classes = test_logits.shape[1]
        assert num_classes <= 2**15, num_classes
        kind = torch.uint8 if num_classes <= 256 else torch.int16
        return torch.stack([value.mean() for value in values.values()]), predicted.to(kind)

    def probabilities(self, suffix: nn.Sequential, inputs: Inputs) -> Tensor:
        """Return 255 × the softmax of the test outputs, rounded: uint8, shape (test images, classes)."""
        assert self._loss == "cross_entropy", self._loss
        at_once = self._images_at_once(suffix, inputs)
        logits = _logits(suffix, self.num_test, inputs.of_test, at_once)
        return (255 * logits.softmax(1)).round().to(torch.uint8)

    def _images_at_once(self, suffix: nn.Sequential, inputs: Inputs) -> int:
        if self._form not in _at_once:
            network, shape = [*inputs.prefix, *suffix], inputs.image_shape
            _at_once[self._form] = (
                images_on_gpu(network, shape, free_bytes(self._device))
                if self._device.type == "cuda"
                else images_at_once(suffix, inputs.of_test(slice(0, LEAST)))
            )
        return _at_once[self._form]

    def measured(self, values: list[float]) -> Measured:
        """Convert the first result of a call, copied to the host, to a Measured."""
        names = [field.name for field in fields(Measured)]
        named: dict[str, Any] = dict(zip(names, values, strict=True))
        if not self._has_flipped:
            named |= {"train_loss_flipped": None, "train_error_flipped": None}
        return Measured(**named)


def images_at_once(suffix: nn.Sequential, some: Tensor) -> int:
    """Return the evaluation batch size on a CPU. `some`: inputs of `suffix`, to measure value sizes."""
    if len(suffix) <= 1:
        return EVALUATION_BATCH_SIZE  # a head alone costs less than a call
    widest, values = 0, some
    with torch.no_grad():
        for layer in suffix:
            widest = max(widest, values[0].nbytes)
            values = layer(values)
    at_once = min(max(CACHED_BYTES // widest, FEWEST), EVALUATION_BATCH_SIZE)
    return min(max(SMALL_BYTES // widest, at_once), MOST_ON_CPU)


def images_on_gpu(layers: Sequence[nn.Module], image_shape: tuple[int, ...], num_free: int) -> int:
    """Return the evaluation batch size on a GPU with `num_free` bytes of free memory.

    `layers`: the whole network. The layers run on the meta device, because a call on the GPU with another
    batch size would make cuDNN search for algorithms again.
    """
    values = torch.empty(2, *image_shape, device="meta")
    widest = values[0].nbytes
    with torch.no_grad():
        for layer in layers:
            held = {name: tensor.to("meta") for name, tensor in layer.state_dict().items()}
            # Both parts of a partly trained layer share a buffer.
            values = functional_call(layer, held, (values,), tie_weights=False)
            widest = max(widest, values[0].nbytes)
    most = num_free // (SHARE_OF_FREE * WITHIN_A_LAYER * widest)
    return min(max(most, EVALUATION_BATCH_SIZE), MOST_ON_GPU)


def _logits(
    suffix: nn.Sequential, num_images: int, inputs: Callable[[slice], Tensor], at_once: int
) -> Tensor:
    """Return logits: float32, shape (images, classes)."""
    # Large batches have nearly equal sizes, because cuDNN searches for algorithms once per size.
    num_batches = -(-num_images // max(at_once, EVALUATION_BATCH_SIZE))
    is_large = at_once > EVALUATION_BATCH_SIZE
    batch = max(-(-num_images // num_batches), LEAST) if is_large else EVALUATION_BATCH_SIZE
    with torch.no_grad():
        return torch.cat(
            [
                suffix(part).float()
                for span in batch_spans(num_images, batch)
                for part in _parts(inputs(span), at_once)
            ]
        )


def _parts(images: Tensor, at_once: int) -> list[Tensor]:
    """Split the images into parts of `at_once`; no part has fewer than LEAST unless it is the only one."""
    starts = list(range(0, len(images), at_once))
    if len(starts) > 1 and len(images) - starts[-1] < LEAST:
        starts.pop()
    return [images[a:b] for a, b in pairwise([*starts, len(images)])]


def losses_of(logits: Tensor, labels: Tensor, loss: str) -> Tensor:
    """Return the loss of each image, (n,), from logits (n, classes) and labels (n,).

    `loss`: "cross_entropy" (nats) or "squared" (squared distance from the one-hot label).
    """
    if loss == "cross_entropy":
        return nn.functional.cross_entropy(logits, labels, reduction="none")
    assert loss == "squared", loss
    wanted = nn.functional.one_hot(labels, logits.shape[1])
    return (logits.float() - wanted).square().sum(1)


def _judged(logits: Tensor, labels: Tensor, loss: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses and errors (0 or 1), both float64, and predicted labels, int64: (n,) each."""
    losses = losses_of(logits, labels, loss)
    answers = logits.argmax(1)
    return losses.double(), (answers != labels).double(), answers
