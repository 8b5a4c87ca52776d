"""One evaluation: losses, errors and answers for the whole training and test sets, as they stand.

Owns what is measured of them. Mode and precision are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from study.tasks.draws import TrainingSet
from study.training.inputs import EVALUATION_BATCH_SIZE, Inputs
from study.training.steps import batch_spans

# Images at once on the CPU, whose caches hold what lies between two layers of so few: 1.3 to 1.4 times
# as fast as EVALUATION_BATCH_SIZE (ViT-Tiny, ResNet-18). From LEAST on, how many there are beside an
# image does not change its bits; a part of fewer stays with its neighbour.
CPU_BATCH_SIZE: Final = 64
LEAST: Final = 32


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Mean losses in nats, errors as fractions; of flipped images None where there are none."""

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
        """Of the training and of the test images."""
        return self.train_loss, self.test_loss


class Judge:
    """Measures a network on the images of `drawn`, by the labels that are trained on, and on the test
    images; without asking the device for a value."""

    def __init__(self, drawn: TrainingSet, test_labels: np.ndarray, device: torch.device) -> None:
        self.num_test = len(test_labels)
        self._labels = torch.from_numpy(drawn.labels).to(device)
        self._test_labels = torch.from_numpy(np.array(test_labels)).to(device)
        self._has_flipped = bool(drawn.flipped.any())
        self._clean, self._flipped = (
            torch.from_numpy(np.flatnonzero(which)).to(device)
            for which in (~drawn.flipped, drawn.flipped)
        )

    def __call__(self, suffix: nn.Sequential, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The values of a Measured, float64, in its order; and the labels predicted for the test images,
        which `test_error` counts: shape (test images,), uint8 where there are at most 256 classes, else
        int16. Both on the device.
        """
        train_losses, train_wrong, _ = _judged(
            _logits(suffix, len(self._labels), inputs.of_training), self._labels
        )
        test_logits = _logits(suffix, self.num_test, inputs.of_test)
        test_losses, test_wrong, predicted = _judged(test_logits, self._test_labels)
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

    def measured(self, values: list[float]) -> Measured:
        """What these values say, once they are the host's."""
        names = [field.name for field in fields(Measured)]
        told: dict[str, Any] = dict(zip(names, values, strict=True))
        if not self._has_flipped:
            told |= {"train_loss_flipped": None, "train_error_flipped": None}
        return Measured(**told)


def _logits(suffix: nn.Sequential, num_images: int, inputs: Callable[[slice], Tensor]) -> Tensor:
    """Float32, shape (images, classes)."""
    with torch.no_grad():
        return torch.cat(
            [
                suffix(part).float()
                for span in batch_spans(num_images, EVALUATION_BATCH_SIZE)
                for part in _parts(suffix, inputs(span))
            ]
        )


def _parts(suffix: nn.Sequential, images: Tensor) -> list[Tensor]:
    """What is evaluated at once; of a head alone all, whose work is less than a call's."""
    if images.device.type != "cpu" or len(suffix) == 1:
        return [images]
    starts = list(range(0, len(images), CPU_BATCH_SIZE))
    if len(starts) > 1 and len(images) - starts[-1] < LEAST:
        starts.pop()
    return [images[a:b] for a, b in pairwise([*starts, len(images)])]


def _judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy in nats, whether the answer is wrong (float64 both), the answer (int64): (n,) each."""
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    answers = logits.argmax(1)
    return losses.double(), (answers != labels).double(), answers
