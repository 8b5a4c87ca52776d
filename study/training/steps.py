"""Place a recipe's batches, evaluations and learning rates on optimiser steps, by arithmetic alone."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from study.run import Recipe

EVALUATION_BATCH_SIZE: Final = 256  # at most, on a CPU

# On a GPU, 11,000 images in batches of 256 are 3,250 launches of a ResNet-18's suffix, and up to 19,400 of
# a DenseNet-121's. In batches of MOST_ON_GPU they are a tenth, so capturing an evaluation would save
# milliseconds per row.
MOST_ON_GPU: Final = 4_096


def is_constant(recipe: Recipe) -> bool:
    """Return True if the frozen prefix gives an image the same features in every epoch."""
    return recipe.augmentation == "none" and recipe.frozen_batchnorm == "evaluation"


def batch_spans(num_images: int, batch_size: int) -> list[slice]:
    """Return the spans of positions of the batches, in order; no batch has a single image.

    A last single image joins the batch before: BatchNorm cannot train on one image, and its bits would
    differ from those in a larger batch.
    """
    assert num_images >= 2, num_images
    assert batch_size >= 2, batch_size
    starts = list(range(0, num_images, batch_size))
    if len(starts) > 1 and num_images - starts[-1] == 1:
        starts.pop()
    return [slice(*span) for span in zip(starts, [*starts[1:], num_images], strict=True)]


def steps_per_epoch(recipe: Recipe, size: int) -> int:
    """Return the optimiser steps in one pass over `size` images."""
    return len(batch_spans(size, recipe.batch_size))


def total_steps(recipe: Recipe, size: int) -> int:
    if recipe.num_steps is not None:
        return recipe.num_steps
    assert recipe.num_epochs is not None
    return recipe.num_epochs * steps_per_epoch(recipe, size)


def evaluated_steps(recipe: Recipe, size: int) -> list[int]:
    """Return the steps after which a row is measured: ascending, including 0 and the last."""
    last = total_steps(recipe, size)
    if recipe.evaluation == "every_epoch":
        return sorted({*range(0, last, steps_per_epoch(recipe, size)), last})
    spaced = np.geomspace(1, last, min(recipe.num_evaluations, last))
    return sorted({0, last, *(round(step) for step in spaced.tolist())})


def learning_rate(recipe: Recipe, step: int, last_step: int) -> float:
    """Return the rate of the step from `step` to `step + 1`."""
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / last_step))
    if recipe.schedule == "inverse_sqrt":
        return recipe.learning_rate / math.sqrt(1 + step // recipe.inverse_sqrt_steps)
    return recipe.learning_rate
