"""One evaluation: what it predicts is what its error counts, in the smallest type that holds it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from study.training.evaluation import measure


@pytest.mark.parametrize(("num_classes", "kind"), [(256, torch.uint8), (257, torch.int16)])
def test_labels_are_predicted_by_the_logits_of_the_error(
    num_classes: int, kind: torch.dtype
) -> None:
    # The logits are the images, of more than one batch: what is predicted is known.
    answers = torch.arange(600) % num_classes
    images = nn.functional.one_hot(answers, num_classes).float()
    inputs: Any = SimpleNamespace(
        of_training=lambda span: images[:100][span], of_test=lambda span: images[span]
    )
    labels = answers.clone()
    labels[::3] = (labels[::3] + 1) % num_classes
    flipped = torch.zeros(100, dtype=torch.bool)
    measured, predicted = measure(nn.Sequential(), inputs, labels[:100], flipped, labels)
    assert predicted.dtype == kind
    assert predicted.tolist() == answers.tolist()
    assert measured.test_error == (predicted != labels).double().mean().item() == 200 / 600
    assert measured.train_error == 34 / 100
