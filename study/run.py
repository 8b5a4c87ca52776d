"""Define a Run, its id and its coordinates in a grid.

A Run has only fields that can change its result: no paths, devices or intervals.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
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
from study.recipe import Recipe, from_plain

__all__ = [
    "COORDINATES",
    "GROUPS",
    "HEAD",
    "MAX_SEED",
    "PARTS",
    "PRETRAINED",
    "Coordinate",
    "Recipe",
    "Run",
    "coordinates",
    "describe",
    "from_dict",
    "from_json",
    "to_json",
    "with_seed",
]

PRETRAINED: Final = "pretrained"
PARTS: Final = ("all", "a", "b")
HEAD: Final = "head"  # the last layer of every network: always new, always trained

MAX_SEED: Final = 2**63 - 1  # fits a column of the table

# Fields added by later releases, with their original values as literals. The canonical JSON omits a
# field with its original value, so that earlier ids stay valid.
ADDED_LATER: Final[dict[str, Plain]] = {
    "trained_channels": 0,
    "frozen_pieces": 0,
    "head_inputs": 0,
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training: a task, the number of its images, a network, a start, and how much of it is frozen.

    - `task`: a task's name; `size`: number of training images drawn from its `part` ("all", or one
      of two disjoint halves "a" and "b").
    - `label_noise`: fraction of the drawn labels replaced by a different class, in [0, 1).
    - `model`: a network's name; `width`: its width in the unit of its family, or None for a timm
      model in its original form ("timm/<name>").
    - `start`: None (random initial values), "pretrained" (timm's weights) or the Run whose weights
      this Run starts from. The head is always new.
    - `frozen`: number of leading layers kept frozen, counted from the input.
    - `trained_channels`: if all layers except the head are frozen, how many output channels of the last
      layer before the head are trained nevertheless (the last channels of its last convolution; in a ViT,
      hidden units of its last MLP). They fill the jump in capacity between the last two cuts.
    - `frozen_pieces`: number of leading pieces of the first trained layer that are frozen too, with the
      start's values: a cut inside a layer (see `study.networks.catalogue.num_pieces`). Not together with
      `trained_channels`.
    - `head_inputs`: if all layers except the head are frozen, the head reads only this number of leading
      features; 0: all features. This gives less capacity than the full head.
    - `seed`: determines all random choices: images drawn, labels flipped, initial values, order.
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
    trained_channels: int = 0
    frozen_pieces: int = 0
    head_inputs: int = 0

    def __post_init__(self) -> None:
        make_plain(self)
        for name in ("task", "model"):
            value = getattr(self, name)
            if type(value) is not str or not value:
                raise ValueError(f"Run.{name}={value!r}: not a name")
        if not isinstance(self.recipe, Recipe):
            raise ValueError(f"Run.recipe={self.recipe!r}: not a Recipe")
        check_choice("Run", "part", self.part, PARTS)
        check_int("Run", "size", self.size, low=2)  # never a batch of one image
        check_int("Run", "seed", self.seed, low=0, high=MAX_SEED)
        check_int("Run", "frozen", self.frozen, low=0)
        check_int("Run", "trained_channels", self.trained_channels, low=0)
        check_int("Run", "frozen_pieces", self.frozen_pieces, low=0)
        check_int("Run", "head_inputs", self.head_inputs, low=0)
        inside = ("frozen_pieces", "trained_channels", "head_inputs")
        if len(given := [name for name in inside if getattr(self, name)]) > 1:
            values = " with ".join(f"Run.{name}={getattr(self, name)}" for name in given)
            raise ValueError(f"{values}: a network is cut in one place; all but one must be 0")
        check_number("Run", "label_noise", self.label_noise, low=0.0, high=1.0, high_open=True)
        if self.width is not None:
            check_int("Run", "width", self.width, low=1)
        if isinstance(self.start, Run):
            for name in ("model", "width"):
                ours, theirs = getattr(self, name), getattr(self.start, name)
                if ours != theirs:
                    raise ValueError(
                        f"Run.{name}={ours!r}, but its start has {name}={theirs!r}: they must agree"
                    )
        elif self.start is not None and self.start != PRETRAINED:
            raise ValueError(
                f"Run.start={self.start!r}: choose None, {PRETRAINED!r}, or another Run"
            )
        is_random = self.start is None and self.frozen > 0
        if self.recipe.calibration != "batches" and not is_random:
            raise ValueError(
                f"Recipe.calibration={self.recipe.calibration!r} is only for layers that are frozen at "
                f"random; Run.start={'None' if self.start is None else 'given'}, "
                f"Run.frozen={self.frozen}: choose 'batches'"
            )
        if self.start is None and self.recipe.above_cut != "start":
            raise ValueError(
                f"Recipe.above_cut={self.recipe.above_cut!r} needs a start; Run.start is None"
            )

    @cached_property
    def id(self) -> str:
        """Return the first 12 hex digits of SHA-256 over the canonical JSON."""
        return digest_of(to_json(self))[:12]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as in `Recipe.to_dict`, with recipe and start as dicts.

        Fields in ADDED_LATER are left out while they hold their original value.
        """
        plain: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            # A tuple, because a union of types takes four times as long.
            is_nested = isinstance(value, (Run, Recipe))
            plain[name] = value.to_dict() if is_nested else canonical(value)
        return {k: v for k, v in plain.items() if k not in ADDED_LATER or v != ADDED_LATER[k]}

    @property
    def plain(self) -> dict[str, Any]:
        """Deprecated: use `to_dict()`."""
        warn_deprecated("study.run.Run.plain", "Run.to_dict()")
        return self.to_dict()

    @cached_property
    def block(self) -> str:
        """Return a key; Runs with equal keys are trained as one network (`Recipe.seeds_together`)."""
        first = self.seed - self.seed % self.recipe.seeds_together
        return self.id if first == self.seed else with_seed(self, first).id

    @property
    def source(self) -> Run | None:
        """Return the Run that this one starts from, or None."""
        return self.start if isinstance(self.start, Run) else None

    @property
    def generation(self) -> int:
        """Return the number of trainings before this one; "pretrained" counts as one."""
        if self.source is not None:
            return self.source.generation + 1
        return 0 if self.start is None else 1


_FIELDS: Final = tuple(field.name for field in fields(Run))


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """A column of the rows that locates a Run in a grid, and an axis of surfaces.

    - `kind`: "name", "count" (a whole number, 32 bits), "seed" (64 bits) or "fraction".
    - `of`: returns the column's value for a Run, or None; `absent` replaces None in the analysis.
    - `group`: one of GROUPS; surfaces order their axes by GROUPS.
    - `is_axis`: the column is a dimension of surfaces. `makes_cell`: Runs with different values are in
      different cells; Runs that differ only in seeds are replicates of one cell.
    - `since`: the first format version of rows files with this column.
    """

    name: str
    kind: str
    group: str
    of: Callable[[Run], Plain]
    meaning: str
    unit: str = ""
    absent: Plain = None
    is_axis: bool = False
    makes_cell: bool = True
    since: int = 1


GROUPS: Final = ("network", "source", "target", "recipe", "cut", "replicate")


def _of_source(value: Callable[[Run], Plain]) -> Callable[[Run], Plain]:
    return lambda run: None if run.source is None else value(run.source)


# The coordinates of a cell, in the order of the columns. For a new field of a Run that becomes an axis,
# add a line here, with the next number as `since`.
COORDINATES: Final = (
    Coordinate(
        name="task", kind="name", group="target", of=lambda run: run.task,
        meaning="target task", is_axis=True,
    ),
    Coordinate(
        name="part", kind="name", group="target", of=lambda run: run.part,
        meaning="which of the task's training images may be drawn: all, a or b",
    ),
    Coordinate(
        name="size", kind="count", group="target", of=lambda run: run.size,
        meaning="number of training images", unit="images", is_axis=True,
    ),
    Coordinate(
        name="label_noise", kind="fraction", group="target", of=lambda run: float(run.label_noise),
        meaning="labels replaced by a different class", unit="fraction", is_axis=True,
    ),
    Coordinate(
        name="model", kind="name", group="network", of=lambda run: run.model,
        meaning="network", is_axis=True,
    ),
    Coordinate(
        name="width", kind="count", group="network", of=lambda run: run.width, absent=0,
        meaning="width in the unit of the network's family", is_axis=True,
    ),
    Coordinate(
        name="frozen", kind="count", group="cut", of=lambda run: run.frozen,
        meaning="leading layers kept frozen", unit="layers", is_axis=True,
    ),
    Coordinate(
        name="trained_channels", kind="count", group="cut", of=lambda run: run.trained_channels,
        meaning="trained of the last layer before the head", unit="channels", since=2,
        makes_cell=False,  # analysis counts it as a part of `frozen`
    ),
    Coordinate(
        name="frozen_pieces", kind="count", group="cut", of=lambda run: run.frozen_pieces,
        meaning="leading pieces of the first trained layer kept frozen too", unit="pieces", since=3,
        makes_cell=False,  # as above
    ),
    Coordinate(
        name="head_inputs", kind="count", group="cut", of=lambda run: run.head_inputs,
        meaning="features that the head reads, if not all; 0: all", unit="features", since=4,
        makes_cell=False,  # as above
    ),
    Coordinate(
        name="seed", kind="seed", group="replicate", of=lambda run: run.seed,
        meaning="replicate", is_axis=True, makes_cell=False,
    ),
    Coordinate(
        name="recipe", kind="name", group="recipe", of=lambda run: run.recipe.cell_id,
        meaning="id of the Recipe without its calibration", is_axis=True,
    ),
    Coordinate(
        name="start", kind="name", group="source", makes_cell=False,
        of=lambda run: run.source.id if run.source else str(run.start or "none"),
        meaning="none, pretrained, or the id of the Run it starts from",
    ),
    Coordinate(
        name="source_task", kind="name", group="source", of=_of_source(lambda run: run.task),
        meaning="task of the start", absent="none", is_axis=True,
    ),
    Coordinate(
        name="source_part", kind="name", group="source", of=_of_source(lambda run: run.part),
        meaning="part of the start", absent="none",
    ),
    Coordinate(
        name="source_size", kind="count", group="source", of=_of_source(lambda run: run.size),
        meaning="size of the start", unit="images", absent=0, is_axis=True,
    ),
    Coordinate(
        name="source_label_noise", kind="fraction", group="source",
        of=_of_source(lambda run: float(run.label_noise)),
        meaning="of the start", unit="fraction", absent=0.0, is_axis=True,
    ),
    Coordinate(
        name="source_seed", kind="seed", group="source", of=_of_source(lambda run: run.seed),
        meaning="replicate of the start", absent=-1, makes_cell=False,
    ),
    Coordinate(
        name="source_recipe", kind="name", group="source", of=_of_source(lambda run: run.recipe.cell_id),
        meaning="id of the start's Recipe", absent="none",
    ),
)  # fmt: skip


def with_seed(run: Run, seed: int) -> Run:
    """Return this Run with another seed; a start with the Run's seed gets the new seed, too."""
    start = run.source
    if start is not None and start.seed == run.seed:
        return replace(run, seed=seed, start=with_seed(start, seed))
    return replace(run, seed=seed)


def coordinates(run: Run) -> dict[str, Plain]:
    """Return the Run's value of each of COORDINATES by name; None if the Run has no such value."""
    return {coordinate.name: coordinate.of(run) for coordinate in COORDINATES}


def to_json(run: Run) -> str:
    """Return canonical JSON: keys sorted, no spaces, every number in one form (0.0 as 0).

    Raises ValueError for a value that is not plain or not finite.
    """
    return canonical_json(run.to_dict())


def from_json(text: str) -> Run:
    """Return the Run with this canonical JSON. Raises ValueError for an unknown or missing field."""
    return from_dict(json.loads(text))


def from_dict(plain: Any) -> Run:
    """Return the Run with this `Run.to_dict()`. Raises ValueError for an unknown or missing field."""
    values = known_fields("Run", plain, _FIELDS, ADDED_LATER)
    values["recipe"] = _recipe_from(canonical_json(values["recipe"]))
    if isinstance(values["start"], dict):
        values["start"] = _start_from(canonical_json(values["start"]))
    return Run(**values)


def describe(run: Run) -> str:
    """Describe the Run in one line: what is trained, from which start, and how much is frozen."""
    model = run.model if run.width is None else f"{run.model} width {run.width}"
    part = "" if run.part == "all" else f" half {run.part}"
    noise = f" noise {run.label_noise:g}" if run.label_noise else ""
    target = f"{run.task}{part} n={run.size}{noise}"
    if run.source is not None:
        origin = f"{run.source.task} n={run.source.size} → "
    else:
        origin = f"{run.start} → " if run.start else ""
    later = "".join(
        f", {name.replace('_', ' ')} {value}"
        for name, value in run.to_dict().items()
        if name in ADDED_LATER
    )
    return f"{origin}{target}, {model}, frozen {run.frozen}{later}, seed {run.seed}"


# Thousands of Runs share a start and a recipe: caches keep one object per start and recipe, with its id.
@lru_cache(maxsize=10_000)
def _start_from(text: str) -> Run:
    return from_json(text)


@lru_cache(maxsize=1_000)
def _recipe_from(text: str) -> Recipe:
    return from_plain(json.loads(text))
