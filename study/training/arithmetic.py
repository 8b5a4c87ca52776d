"""The arithmetic of a recipe's precision: what is set once, and what surrounds each computation."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from study.run import Recipe


def set_precision(recipe: Recipe) -> None:
    """Sets torch's switches as the recipe has them; a worker trains one Run after another."""
    fast = recipe.precision != "float32"
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast
    # A training has few shapes, and thousands of steps for which the fastest algorithm is worth a trial.
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False


def precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[None]:
    """Within it, steps and evaluations compute in the recipe's precision."""
    if recipe.precision == "bfloat16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
