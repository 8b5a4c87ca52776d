"""One evaluation: predictions, errors, and the number of images at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from study.networks.build import build
from study.networks.initial_values import initialise
from study.tasks.draws import TrainingSet
from study.training.evaluation import MOST_ON_CPU, Evaluator, _parts, images_at_once


@pytest.mark.parametrize(("num_classes", "kind"), [(256, torch.uint8), (257, torch.int16)])
def test_evaluator_predictions_give_its_errors(num_classes: int, kind: torch.dtype) -> None:
    # The logits are the images, of more than one batch: what is predicted is known.
    answers = torch.arange(600) % num_classes
    images = nn.functional.one_hot(answers, num_classes).float()
    inputs: Any = SimpleNamespace(
        of_training=lambda span: images[:100][span],
        of_test=lambda span: images[span],
        prefix=(),
        image_shape=(),
    )
    labels = answers.clone()
    labels[::3] = (labels[::3] + 1) % num_classes
    given = labels[:100].numpy()
    drawn = TrainingSet(np.arange(100), given, given, np.zeros(100, bool))
    evaluator = Evaluator(drawn, labels.numpy(), torch.device("cpu"), form="two layers")
    values, predicted = evaluator(nn.Sequential(), inputs)
    measured = evaluator.measured(values.tolist())
    assert measured.train_error_flipped is None
    assert predicted.dtype == kind
    assert predicted.tolist() == answers.tolist()
    assert measured.test_error == (predicted != labels).double().mean().item() == 200 / 600
    assert measured.train_error == 34 / 100


@pytest.mark.parametrize("num", [2, 40, 95, 97, 256, 258, 300])
def test_parts_contain_all_images_and_none_is_small(num: int) -> None:
    images = torch.arange(num)
    parts = _parts(images, 64)
    assert torch.equal(torch.cat(parts), images)
    assert len(parts) == 1 or min(map(len, parts)) >= 32
    assert max(map(len, parts)) < 96


@pytest.mark.parametrize(
    ("width", "side", "cut", "num"),
    # Of the widest map between two layers 256 KiB, 64, 32, 4, 2 and 1 KiB, and of a head alone.
    [
        (64, 32, 0, 64),
        (16, 32, 0, 64),
        (8, 32, 0, 128),
        (4, 16, 0, 256),
        (8, 8, 0, 512),
        (4, 16, 7, 1_024),
        (64, 32, 9, 256),
    ],
)
def test_images_at_once_fit_the_caches(width: int, side: int, cut: int, num: int) -> None:
    layers = build("resnet18", width, 10, (3, side, side)).eval()
    suffix = layers[cut:]
    assert images_at_once(suffix, layers[:cut](torch.zeros(2, 3, side, side))) == num


@pytest.mark.parametrize(
    ("model", "width"), [("resnet18", 2), ("resnet50", 1), ("densenet121", 2), ("vit_tiny", 6)]
)
def test_evaluation_in_parts_gives_the_same_logits(model: str, width: int) -> None:
    layers = build(model, width, 10, (3, 8, 8)).eval()
    initialise(layers, model, 0)
    images = torch.rand(MOST_ON_CPU, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for cut in range(0, len(layers) - 1, 2):
            given = layers[:cut](images)
            whole = layers[cut:](given)
            for parts in (_parts(given, 256), _parts(given[:233], 64)):
                assert len(parts) == 4
                in_parts = torch.cat([layers[cut:](part) for part in parts])
                assert torch.equal(in_parts, whole[: len(in_parts)]), cut
