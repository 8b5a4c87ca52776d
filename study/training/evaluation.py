"""One evaluation: losses, errors and answers for the whole training and test sets, as they stand.

Owns what is measured of them. Mode and precision are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

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


def measure(
    suffix: nn.Sequential, inputs: Inputs, labels: Tensor, flipped: Tensor, test_labels: Tensor
) -> tuple[Measured, Tensor]:
    """`labels`: int64, shape (size,), those trained on; `flipped`: bool, where they are wrong.

    Also returns the labels predicted for the test images, which `test_error` counts: shape (test
    images,), on the device, uint8 where there are at most 256 classes, else int16.
    """
    train_losses, train_wrong, _ = _judged(_logits(suffix, len(labels), inputs.of_training), labels)
    test_logits = _logits(suffix, len(test_labels), inputs.of_test)
    test_losses, test_wrong, predicted = _judged(test_logits, test_labels)
    values = {
        "train_loss": train_losses,
        "train_error": train_wrong,
        "train_loss_clean": train_losses[~flipped],
        "train_error_clean": train_wrong[~flipped],
        "train_loss_flipped": train_losses[flipped],
        "train_error_flipped": train_wrong[flipped],
        "test_loss": test_losses,
        "test_error": test_wrong,
    }
    # One transfer from the device for all of them.
    means = torch.stack([value.mean() for value in values.values()]).tolist()
    measured = dict(zip(values, means, strict=True))
    if not bool(flipped.any()):
        measured |= {"train_loss_flipped": None, "train_error_flipped": None}
    num_classes = test_logits.shape[1]
    assert num_classes <= 2**15, num_classes
    return Measured(**measured), predicted.to(torch.uint8 if num_classes <= 256 else torch.int16)


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
