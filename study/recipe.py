"""Define a Recipe: how a Run is trained, as plain values with checks and an id."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Final

from study.deprecation import warn_deprecated
from study.fields import (
    Plain,
    canonical,
    canonical_json,
    check_choice,
    check_int,
    check_number,
    digest_of,
    known_fields,
    make_plain,
)

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "optimizer": ("adam", "sgd", "adamw"),
    "schedule": ("constant", "cosine", "inverse_sqrt"),
    "augmentation": ("none", "crop_flip"),
    "above_cut": ("start", "reinitialised"),
    "frozen_batchnorm": ("evaluation", "training"),
    "precision": ("float32", "tf32", "bfloat16"),
    "evaluation": ("every_epoch", "log_spaced"),
    "calibration": ("batches", "images"),
    "loss": ("cross_entropy", "squared"),
}

# Fields added by later releases, with their original values as literals. The canonical JSON omits a
# field with its original value, so that earlier ids stay valid.
ADDED_LATER: Final[dict[str, Plain]] = {
    "calibration": "batches",
    "seeds_together": 1,
    "loss": "cross_entropy",
    "l2_start": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a Run is trained.

    Give exactly one of `num_epochs` (passes over the drawn images) and `num_steps` (optimiser steps, so
    that a larger set does not get more updates). Defaults follow Nakkiran et al. 2019 (Adam, 1e-4, batches
    of 128) if that paper gives a value; the recipe of arXiv 2211.11074 is unknown.

    - `momentum`: for "sgd" only.
    - `inverse_sqrt_steps`: for "inverse_sqrt" only; the rate is
      `learning_rate / sqrt(1 + floor(step / inverse_sqrt_steps))` (Nakkiran et al. 2019, appendix B).
    - `above_cut`: the layers between the cut and the new head begin with the weights of `Run.start`
      ("start"), or with new random values ("reinitialised").
    - `frozen_batchnorm`: frozen BatchNorm layers use their stored statistics ("evaluation"), or use the
      batch's statistics and keep updating the stored statistics ("training").
    - `precision`: "tf32" and "bfloat16" (autocast) apply to training steps and evaluations.
    - `evaluation`: after every epoch, or at `num_evaluations` log-spaced steps from 1 to the last step,
      rounded and without repetition. Step 0 and the last step are always evaluated.
    - `calibration`: how frozen layers with random initial values average their BatchNorm statistics over
      batches: unweighted ("batches", as in the first release), or weighted by the number of images in
      each batch ("images", set by `grid`).
    - `seeds_together`: K; Runs that differ only in the seed are trained as one network, in blocks of K
      seeds: 0 to K − 1, K to 2K − 1, … . For ResNets, and for any network of which only the head is
      trained. Narrow networks train 2 to 5 times as fast; results differ from K = 1 by rounding.
    - `loss`: "squared" is the squared distance of the outputs from the one-hot label, summed over the
      classes. The columns of losses then hold this, not nats.
    - `l2_start`: λ of the penalty λ/2 · Σ(θ − θ₀)² over all trained parameters, with θ₀ the values at
      step 0 (Dar, LeJeune & Baraniuk, arXiv 2103.05621). A new head's θ₀ are its random values. The
      losses in the rows do not contain the penalty.
    """

    optimizer: str = "adam"
    learning_rate: float = 1e-4
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"
    inverse_sqrt_steps: int = 512
    batch_size: int = 128
    num_epochs: int | None = None
    num_steps: int | None = None
    augmentation: str = "none"
    above_cut: str = "start"
    frozen_batchnorm: str = "evaluation"
    precision: str = "float32"
    evaluation: str = "every_epoch"
    num_evaluations: int = 0
    calibration: str = "batches"
    seeds_together: int = 1
    loss: str = "cross_entropy"
    l2_start: float = 0.0

    def __post_init__(self) -> None:
        make_plain(self)
        for name, choices in CHOICES.items():
            check_choice("Recipe", name, getattr(self, name), choices)
        check_number("Recipe", "learning_rate", self.learning_rate, low=0.0, low_open=True)
        check_number("Recipe", "momentum", self.momentum, low=0.0, high=1.0)
        check_number("Recipe", "weight_decay", self.weight_decay, low=0.0)
        check_number("Recipe", "l2_start", self.l2_start, low=0.0)
        check_int("Recipe", "inverse_sqrt_steps", self.inverse_sqrt_steps, low=1)
        check_int("Recipe", "batch_size", self.batch_size, low=2)
        check_int("Recipe", "num_evaluations", self.num_evaluations, low=0)
        check_int("Recipe", "seeds_together", self.seeds_together, low=1)
        lengths = [name for name in ("num_epochs", "num_steps") if getattr(self, name) is not None]
        if len(lengths) != 1:
            raise ValueError(
                "Recipe: give exactly one of num_epochs and num_steps, "
                f"not num_epochs={self.num_epochs!r} and num_steps={self.num_steps!r}"
            )
        check_int("Recipe", lengths[0], getattr(self, lengths[0]), low=1)
        # A field that has no effect must hold its default, so that one training has one id.
        if self.momentum != 0 and self.optimizer != "sgd":
            raise ValueError(f"Recipe.momentum={self.momentum!r} is only for optimizer='sgd'")
        if self.inverse_sqrt_steps != 512 and self.schedule != "inverse_sqrt":
            raise ValueError(
                f"Recipe.inverse_sqrt_steps={self.inverse_sqrt_steps!r} is only for "
                "schedule='inverse_sqrt'"
            )
        if self.evaluation == "log_spaced" and self.num_evaluations < 2:
            raise ValueError(
                f"Recipe.num_evaluations={self.num_evaluations!r}: evaluation='log_spaced' needs 2 or more"
            )
        if self.evaluation == "every_epoch" and self.num_evaluations != 0:
            raise ValueError(
                f"Recipe.num_evaluations={self.num_evaluations!r} is only for evaluation='log_spaced'"
            )

    @cached_property
    def id(self) -> str:
        """Return the first 8 hex digits of SHA-256 over the canonical JSON."""
        return digest_of(canonical_json(self.to_dict()))[:8]

    @cached_property
    def cell_id(self) -> str:
        """Return an id that ignores `calibration`: Recipes that differ only in `calibration` share it."""
        return replace(self, calibration="batches").id

    @cached_property
    def base(self) -> Recipe:
        """Return this Recipe with default `above_cut` and `calibration`, as ordinary transfer has."""
        return replace(self, above_cut="start", calibration="batches")

    def to_dict(self) -> dict[str, Plain]:
        """Return the fields as str, int, float, bool or None; whole floats as ints.

        Fields in ADDED_LATER are left out while they hold their original value.
        """
        return dict(self._plain)

    @cached_property
    def _plain(self) -> dict[str, Plain]:
        # Cached: thousands of Runs share a recipe, and every Run's id is computed from it.
        plain = {field.name: canonical(getattr(self, field.name)) for field in fields(self)}
        return {k: v for k, v in plain.items() if k not in ADDED_LATER or v != ADDED_LATER[k]}

    @property
    def plain(self) -> dict[str, Plain]:
        """Deprecated: use `to_dict()`."""
        warn_deprecated("study.recipe.Recipe.plain", "Recipe.to_dict()")
        return self.to_dict()


def from_plain(plain: Any) -> Recipe:
    """Return the Recipe with these fields. Raises ValueError for an unknown or missing field."""
    names = [field.name for field in fields(Recipe)]
    return Recipe(**known_fields("Recipe", plain, names, ADDED_LATER))
