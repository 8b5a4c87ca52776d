"""One evaluation: losses and errors of the whole training and test sets, as they stand.

Owns what is measured of them. Mode and precision are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from study.training.inputs import EVALUATION_BATCH_SIZE, Inputs
from study.training.steps import batch_spans


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
) -> Measured:
    """`labels`: int64, shape (size,), those trained on; `flipped`: bool, where they are wrong."""
    train_losses, train_wrong = _losses(suffix, labels, inputs.of_training)
    test_losses, test_wrong = _losses(suffix, test_labels, inputs.of_test)
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
    return Measured(**measured)


def _losses(
    suffix: nn.Sequential, labels: Tensor, inputs: Callable[[slice], Tensor]
) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats, and whether the answer is wrong: float64, shape (n,) each."""
    with torch.no_grad():
        logits = torch.cat(
            [
                suffix(inputs(span)).float()
                for span in batch_spans(len(labels), EVALUATION_BATCH_SIZE)
            ]
        )
    losses = nn.functional.cross_entropy(logits, labels, reduction="none")
    return losses.double(), (logits.argmax(1) != labels).double()
