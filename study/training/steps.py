"""Compute a recipe's batches, evaluated steps and learning rates."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from study.run import Recipe

EVALUATION_BATCH_SIZE: Final = 256  # at most, on a CPU

# 11,000 images in batches of 256 need 3,250 kernel launches for a ResNet-18's suffix on a GPU, and up to
# 19,400 for a DenseNet-121's. Batches of MOST_ON_GPU need a tenth, so capturing an evaluation as a CUDA
# graph would only save milliseconds per row.
MOST_ON_GPU: Final = 4_096


def is_constant(recipe: Recipe) -> bool:
    """Return True if the frozen prefix computes the same features for an image in every epoch."""
    return recipe.augmentation == "none" and recipe.frozen_batchnorm == "evaluation"


def batch_spans(num_images: int, batch_size: int) -> list[slice]:
    """Return each batch as a slice of positions, in order; no batch has a single image.

    A single last image joins the previous batch: BatchNorm cannot train on one image, and its features'
    bits would differ from those in a larger batch.
    """
    assert num_images >= 2, num_images
    assert batch_size >= 2, batch_size
    starts = list(range(0, num_images, batch_size))
    if len(starts) > 1 and num_images - starts[-1] == 1:
        starts.pop()
    return [slice(*span) for span in zip(starts, [*starts[1:], num_images], strict=True)]


def steps_per_epoch(recipe: Recipe, size: int) -> int:
    """Return the number of optimiser steps in one pass over `size` images."""
    return len(batch_spans(size, recipe.batch_size))


def total_steps(recipe: Recipe, size: int) -> int:
    if recipe.num_steps is not None:
        return recipe.num_steps
    assert recipe.num_epochs is not None
    return recipe.num_epochs * steps_per_epoch(recipe, size)


def evaluated_steps(recipe: Recipe, size: int) -> list[int]:
    """Return the steps after which a row is measured: ascending, including 0 and the last step."""
    last = total_steps(recipe, size)
    if recipe.evaluation == "every_epoch":
        return sorted({*range(0, last, steps_per_epoch(recipe, size)), last})
    spaced = np.geomspace(1, last, min(recipe.num_evaluations, last))
    return sorted({0, last, *(round(step) for step in spaced.tolist())})


def learning_rate(recipe: Recipe, step: int, last_step: int) -> float:
    """Return the learning rate of the step from `step` to `step + 1`."""
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / last_step))
    if recipe.schedule == "inverse_sqrt":
        return recipe.learning_rate / math.sqrt(1 + step // recipe.inverse_sqrt_steps)
    return recipe.learning_rate
