"""The one noun: a Run is one training, named by what decides its result.

Owns the fields of a Run and of its Recipe, their canonical JSON, the id made from it, and every check
that needs nothing but the values. Knows nothing of files, devices, or which tasks and networks exist;
what cannot change a result (paths, workers, checkpoint intervals) is refused a place here.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, Final

Plain = str | int | float | bool | None

PRETRAINED: Final = "pretrained"

CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "part": ("all", "a", "b"),
    "optimizer": ("adam", "sgd", "adamw"),
    "schedule": ("constant", "cosine", "inverse_sqrt"),
    "augmentation": ("none", "crop_flip"),
    "above_cut": ("start", "reinitialised"),
    "frozen_batchnorm": ("evaluation", "training"),
    "precision": ("float32", "tf32", "bfloat16"),
    "evaluation": ("every_epoch", "log_spaced"),
}

MAX_SEED: Final = 2**63 - 1  # a column of the table holds it

# A field that a later release adds stands here with its literal original value, and is left out of
# the canonical JSON while it holds that value, so that ids made before it existed live on.
ADDED_LATER: Final[dict[str, dict[str, Plain]]] = {"Run": {}, "Recipe": {}}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a Run is trained.

    Exactly one of `num_epochs` and `num_steps` is given: the length in passes over the drawn images,
    or in optimiser steps (so that a larger set does not get more updates). Defaults follow Nakkiran
    et al. 2019 (Adam, 1e-4, batches of 128) where that paper has one; the recipe of arXiv 2211.11074
    is not known to us.

    - `momentum`: for "sgd" only.
    - `inverse_sqrt_steps`: for "inverse_sqrt" only; the rate is
      `learning_rate / sqrt(1 + floor(step / inverse_sqrt_steps))` (Nakkiran et al. 2019, appendix B).
    - `above_cut`: what the layers between the cut and the new head start from: the start's weights,
      or fresh initial values ("reinitialised"), not those that the start began with.
    - `frozen_batchnorm`: frozen BatchNorm layers use their stored statistics ("evaluation"), or those
      of the batch, whereby they also go on updating the stored ones ("training").
    - `precision`: "tf32" and "bfloat16" (autocast) change the arithmetic of the training steps and of
      the evaluations alike.
    - `evaluation`: after every epoch, or at `num_evaluations` log-spaced steps from 1 to the last,
      of which those that round to the same step are one. Step 0 and the last step are evaluated in
      either case.
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

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_number(self, "learning_rate", low=0.0, low_open=True)
        _check_number(self, "momentum", low=0.0, high=1.0)
        _check_number(self, "weight_decay", low=0.0)
        _check_int(self, "inverse_sqrt_steps", low=1)
        _check_int(self, "batch_size", low=2)
        _check_int(self, "num_evaluations", low=0)
        lengths = [name for name in ("num_epochs", "num_steps") if getattr(self, name) is not None]
        if len(lengths) != 1:
            raise ValueError(
                "Recipe: give exactly one of num_epochs and num_steps, "
                f"not num_epochs={self.num_epochs!r} and num_steps={self.num_steps!r}"
            )
        _check_int(self, lengths[0], low=1)
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
        """First 8 hex digits of SHA-256 over the canonical JSON: the recipe as a coordinate."""
        return _digest(to_json(self), 8)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return _plain_fields(self)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a task, how many of its images, which network, from where, how much of it frozen.

    - `task`: a task's name; `size`: number of training images drawn from its `part` ("all", or one
      of two disjoint halves "a" and "b").
    - `label_noise`: fraction of the drawn labels replaced by a different class, in [0, 1).
    - `model`: a network's name; `width`: its width in the unit of its family, or None for a timm
      model in its original form ("timm/<name>").
    - `start`: None (random initial values), "pretrained" (timm's weights) or the Run whose weights
      it starts from. The head is always new.
    - `frozen`: number of leading layers kept frozen, counted from the input.
    - `seed`: a whole replicate: images drawn, labels flipped, initial values, order.
    """

    task: str
    size: int
    model: str
    recipe: Recipe
    seed: int
    part: str = "all"
    label_noise: float = 0.0
    width: int | None = None
    start: Run | str | None = None
    frozen: int = 0

    def __post_init__(self) -> None:
        for name in ("task", "model"):
            value = getattr(self, name)
            if type(value) is not str or not value:
                raise ValueError(f"Run.{name}={value!r}: not a name")
        if not isinstance(self.recipe, Recipe):
            raise ValueError(f"Run.recipe={self.recipe!r}: not a Recipe")
        _check_choices(self)
        _check_int(self, "size", low=2)  # never a batch of one image
        _check_int(self, "seed", low=0, high=MAX_SEED)
        _check_int(self, "frozen", low=0)
        _check_number(self, "label_noise", low=0.0, high=1.0, high_open=True)
        if self.width is not None:
            _check_int(self, "width", low=1)
        if isinstance(self.start, Run):
            for name in ("model", "width"):
                ours, theirs = getattr(self, name), getattr(self.start, name)
                if ours != theirs:
                    raise ValueError(
                        f"Run.{name}={ours!r}, but its start has {name}={theirs!r}: they must agree"
                    )
        elif self.start not in (None, PRETRAINED):
            raise ValueError(
                f"Run.start={self.start!r}: choose None, {PRETRAINED!r}, or another Run"
            )
        if self.start is None and self.recipe.above_cut != "start":
            raise ValueError(
                f"Recipe.above_cut={self.recipe.above_cut!r} needs a start; Run.start is None"
            )

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of SHA-256 over the canonical JSON."""
        return _digest(to_json(self), 12)

    @cached_property
    def _plain(self) -> dict[str, Any]:
        return _plain_fields(self)

    @property
    def source(self) -> Run | None:
        """The Run that this one starts from, if it starts from one."""
        return self.start if isinstance(self.start, Run) else None

    @property
    def generation(self) -> int:
        """How many trainings its start has behind it: 0 for random initial values, 1 for "pretrained"."""
        if self.source is not None:
            return self.source.generation + 1
        return 0 if self.start is None else 1


_NAMES: Final[dict[type, tuple[str, ...]]] = {
    kind: tuple(field.name for field in fields(kind)) for kind in (Recipe, Run)
}


def to_json(value: Run | Recipe) -> str:
    """Canonical JSON: keys sorted, no spaces, every number written in one way (0.0 as 0).

    Raises ValueError for a value that is not a plain one, or not finite.
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(text: str) -> Run:
    """The Run whose canonical JSON this is. Raises ValueError on an unknown or missing field."""
    return _run_from(text)


def describe(run: Run) -> str:
    """One line for people: what is trained, from where, how much of it frozen."""
    model = run.model if run.width is None else f"{run.model} width {run.width}"
    part = "" if run.part == "all" else f" half {run.part}"
    noise = f" noise {run.label_noise:g}" if run.label_noise else ""
    target = f"{run.task}{part} n={run.size}{noise}"
    if run.source is not None:
        origin = f"{run.source.task} n={run.source.size} → "
    else:
        origin = f"{run.start} → " if run.start else ""
    return f"{origin}{target}, {model}, frozen {run.frozen}, seed {run.seed}"


def _canonical(value: Any) -> Any:
    if isinstance(value, Run | Recipe):
        return value._plain
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float and math.isfinite(value):
        return int(value) if value.is_integer() else value
    raise ValueError(f"{value!r} ({type(value).__name__}) is not a plain value")


def _plain_fields(value: Run | Recipe) -> dict[str, Any]:
    plain = {name: _canonical(getattr(value, name)) for name in _NAMES[type(value)]}
    later = ADDED_LATER[type(value).__name__]
    return {k: v for k, v in plain.items() if k not in later or v != _canonical(later[k])}


# Thousands of Runs share a start and a recipe: read once, they are one object, with one id.
@lru_cache(maxsize=10_000)
def _run_from(text: str) -> Run:
    values = _known_fields(Run, json.loads(text))
    values["recipe"] = _recipe_from(json.dumps(values["recipe"], sort_keys=True))
    if isinstance(values["start"], dict):
        values["start"] = _run_from(json.dumps(values["start"], sort_keys=True))
    return Run(**values)


@lru_cache(maxsize=1_000)
def _recipe_from(text: str) -> Recipe:
    return Recipe(**_known_fields(Recipe, json.loads(text)))


def _known_fields(kind: type[Run] | type[Recipe], plain: Any) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise ValueError(f"{kind.__name__}: {plain!r} is not a JSON object")
    names, later = set(_NAMES[kind]), ADDED_LATER[kind.__name__]
    unknown, missing = set(plain) - names, names - set(plain) - set(later)
    if unknown or missing:
        raise ValueError(
            f"{kind.__name__} from JSON: unknown fields {sorted(unknown)}, "
            f"missing fields {sorted(missing)}"
        )
    return later | plain


def _digest(text: str, num_digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:num_digits]


def _check_choices(value: Run | Recipe) -> None:
    owner = type(value).__name__
    for name in _NAMES[type(value)]:
        if name not in CHOICES:
            continue
        given = getattr(value, name)
        if type(given) is not str or given not in CHOICES[name]:
            raise ValueError(f"{owner}.{name}={given!r}: choose one of {', '.join(CHOICES[name])}")


def _check_int(value: Run | Recipe, name: str, *, low: int, high: int | None = None) -> None:
    given = getattr(value, name)
    if type(given) is not int or given < low or (high is not None and given > high):
        bounds = f"{low} or more" if high is None else f"{low} to {high}"
        raise ValueError(
            f"{type(value).__name__}.{name}={given!r}: must be a whole number, {bounds}"
        )


def _check_number(
    value: Run | Recipe,
    name: str,
    *,
    low: float,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    given = getattr(value, name)
    inside = (
        type(given) in (int, float)
        and math.isfinite(given)
        and (given > low if low_open else given >= low)
        and (given < high if high_open else given <= high)
    )
    if not inside:
        bracket = ("(" if low_open else "[") + f"{low:g}, {high:g}" + (")" if high_open else "]")
        raise ValueError(
            f"{type(value).__name__}.{name}={given!r}: must be a finite number in {bracket}"
        )
