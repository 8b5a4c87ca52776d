"""Build lists of unique Runs from axes; each start precedes the Runs that need it.

Must not read a store or a task: `plan` checks task names and sizes.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice, product
from typing import Any, Final

from study.fields import plain_value
from study.messages import did_you_mean
from study.networks.catalogue import (
    check_cut_inside,
    check_frozen_pieces,
    check_head_inputs,
    check_model,
    check_trained_channels,
    num_channels,
    num_features,
    num_layers,
    pieces_to_freeze,
    standard_width,
)
from study.run import PRETRAINED, Recipe, Run, describe

EVERY_CUT: Final = "every cut"
EVERY_PIECE: Final = "every piece"
LOG_SPACED: Final = "log-spaced"

RECIPE_FIELDS: Final = frozenset(field.name for field in fields(Recipe))
# Fields of a Run without their own argument of `grid`.
OTHER_FIELDS: Final = frozenset(field.name for field in fields(Run)) - {
    *("task", "part", "size", "label_noise", "model", "width", "start"),
    *("frozen", "trained_channels", "frozen_pieces", "head_inputs", "recipe", "seed"),
}


def grid(
    *,
    target_task: str | Sequence[str],
    target_size: int | Sequence[int],
    model: str | Sequence[str],
    recipe: Recipe | Sequence[Recipe],
    seed: int | Sequence[int],
    width: int | Sequence[int | None] | None = None,
    frozen: int | str | Sequence[int] = EVERY_CUT,
    trained_channels: int | str | Sequence[int] = 0,
    frozen_pieces: int | str | Sequence[int] = 0,
    head_inputs: int | str | Sequence[int] = 0,
    label_noise: float | Sequence[float] = 0.0,
    target_part: str = "all",
    source_task: str | Sequence[str | None] | None = None,
    source_size: int | Sequence[int] | None = None,
    source_part: str = "all",
    source_label_noise: float = 0.0,
    source_recipe: Recipe | None = None,
    source_seed: int | None = None,
    **axes: Any,
) -> list[Run]:
    """Return all combinations of the axes as Runs: each source, followed by the cells that start from it.

    An axis is one value or a sequence of values: a list, a range, a NumPy array, a pandas Series.

    - `frozen`: numbers of leading layers, or EVERY_CUT: 0 to L − 1 of each model.
    - `trained_channels`: numbers of trained channels of the last layer before the head, if all layers
      below are frozen (0: that layer is frozen, too); ignored at other cuts. LOG_SPACED: 0, 1, 2, 4, … ,
      all.
    - `frozen_pieces`: numbers of leading pieces of the layer above the cut that are frozen, too (0: none).
      EVERY_PIECE: 0 and every number that the layer allows, often none. With frozen=EVERY_CUT, layers
      with fewer pieces are left out; at cuts given by number, the layer must have the pieces. A Run has
      trained channels or frozen pieces, never both.
    - `head_inputs`: numbers of features that the head reads (0: all), if all layers except the head are
      frozen; ignored at other cuts. LOG_SPACED: all, and 1, 2, 4, … .
    - `width`: None is the model's standard width.
    - `source_task`: None (random initial values), "pretrained" (timm's weights), or a task, on which
      one source of each `source_size` is trained.
    - `source_recipe`: the sources' recipe; default: the cell's recipe, except for fields about a cut.
    - `source_seed`: one seed for all sources; default: each cell's own seed, so that replicates are
      independent. With one seed, the spread over seeds does not include the spread of the sources.
    - `axes`: any other field of a Run, or a field of the Recipe (then of `source_recipe`'s default too).

    Raises ValueError for an empty axis, a repeated value, an unknown field, an unknown model, an
    invalid width, too many frozen layers, channels or pieces, or any error of a Run.
    """
    # Each axis is read only once, because it may be an iterator.
    frozen = _values("frozen", frozen)
    trained_channels = _values("trained_channels", trained_channels)
    frozen_pieces = _values("frozen_pieces", frozen_pieces)
    head_inputs = _values("head_inputs", head_inputs)
    source_size = _values("source_size", source_size)
    cells = []
    for (
        name,
        given_width,
        (origin, origin_size),
        given_recipe,
        further,
        noise,
        task,
        size,
        each_seed,
    ) in product(
        _axis("model", model),
        _axis("width", width),
        _sources(_axis("source_task", source_task), source_size),
        _axis("recipe", recipe),
        _further(axes),
        _axis("label_noise", label_noise),
        _axis("target_task", target_task),
        _axis("target_size", target_size),
        _axis("seed", seed),
    ):
        each_recipe = replace(given_recipe, **_only(RECIPE_FIELDS, further))
        actual_width = standard_width(name) if given_width is None else given_width
        check_model(name, actual_width)
        start: Run | str | None = origin
        if origin is not None and origin_size is not None:
            start = Run(
                task=origin,
                part=source_part,
                size=origin_size,
                label_noise=source_label_noise,
                model=name,
                width=actual_width,
                recipe=source_recipe or _without_cut(each_recipe),
                seed=each_seed if source_seed is None else source_seed,
            )
        cells += [
            Run(
                task=task,
                part=target_part,
                size=size,
                label_noise=noise,
                model=name,
                width=actual_width,
                start=start,
                frozen=cut,
                **inside,
                recipe=_calibrated(each_recipe, origin, cut),
                seed=each_seed,
                **_only(OTHER_FIELDS, further),
            )
            for cut in _cuts(name, frozen)
            for inside in _inside(
                trained_channels=_channels(name, actual_width, cut, trained_channels),
                frozen_pieces=_pieces(
                    name, actual_width, cut, frozen_pieces, is_named=frozen != EVERY_CUT
                ),
                head_inputs=_head_inputs(name, actual_width, cut, head_inputs),
            )
        ]
    runs = with_starts(cells)
    if len(set(cells)) < len(cells):
        twice = next(cell for cell, times in Counter(cells).items() if times > 1)
        raise ValueError(f"width={width!r}: the same width twice, as in {describe(twice)}")
    return runs


def union(*lists: Iterable[Run]) -> list[Run]:
    """Return the Runs of all lists, each once, in order of first appearance."""
    return list(dict.fromkeys(run for runs in lists for run in runs))


def with_starts(runs: Iterable[Run]) -> list[Run]:
    """Return each Run once, after the chain of Runs that it starts from."""
    return list(dict.fromkeys(each for run in runs for each in _chain(run)))


def _chain(run: Run) -> Iterator[Run]:
    if run.source is not None:
        yield from _chain(run.source)
    yield run


def _axis(name: str, given: Any) -> list[Any]:
    values = _values(name, given)
    if not isinstance(values, list):
        return [values]
    if not values:
        raise ValueError(f"{name}={given!r}: an axis needs at least one value")
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{name}={given!r}: {value!r} is given twice")
        seen.add(value)
    return values


MAX_VALUES: Final = 1_000_000


def _values(name: str, given: Any) -> Any:
    """Return one plain value, or a list of plain values. Arrays, Series and ranges are sequences."""
    one = plain_value(given)
    if one is None or isinstance(one, str | int | float | Recipe):
        return one
    if not isinstance(given, Iterable):
        raise ValueError(f"{name}={given!r}: give a value, or a sequence of values")
    values = [plain_value(value) for value in islice(given, MAX_VALUES + 1)]
    if len(values) > MAX_VALUES:
        raise ValueError(f"{name}={given!r:.80}: it has more than {MAX_VALUES:,} values")
    for value in values:
        if value is not None and not isinstance(value, str | int | float | Recipe):
            raise ValueError(f"{name}: {value!r:.80} ({type(value).__name__}) is not one value")
    return values


def _further(axes: Mapping[str, Any]) -> list[dict[str, Any]]:
    for name in axes:
        if name not in RECIPE_FIELDS | OTHER_FIELDS:
            further = sorted(RECIPE_FIELDS | OTHER_FIELDS)
            near = did_you_mean(name, [*inspect.signature(grid).parameters, *further])
            raise ValueError(
                f"grid({name}=…): not an argument and not a field; fields are {', '.join(further)}{near}"
            )
    values = product(*(_axis(name, given) for name, given in axes.items()))
    return [dict(zip(axes, each, strict=True)) for each in values]


def _only(names: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _sources(tasks: list[str | None], size: Any) -> list[tuple[str | None, int | None]]:
    """Return (task, size) of each source; for None and "pretrained", the size is None."""
    named = [task for task in tasks if task not in (None, PRETRAINED)]
    if named and size is None:
        raise ValueError(f"source_size=None: the source tasks {named} need one size or more")
    if size is not None and not named:
        raise ValueError(f"source_size={size!r}, but source_task={tasks} names no task")
    return [
        (task, each)
        for task in tasks
        for each in (_axis("source_size", size) if task in named else [None])
    ]


def _without_cut(recipe: Recipe) -> Recipe:
    return replace(recipe, above_cut="start", frozen_batchnorm="evaluation", calibration="batches")


def _calibrated(recipe: Recipe, origin: str | None, cut: int) -> Recipe:
    """Return the recipe; `calibration` is "images" if layers with random initial values are frozen."""
    is_random = origin is None and cut > 0
    calibration = "images" if is_random else "batches"
    # Runs that share a Recipe object compute its id once.
    return recipe if recipe.calibration == calibration else replace(recipe, calibration=calibration)


def _cuts(model: str, frozen: Any) -> list[int]:
    layers = num_layers(model)
    if frozen == EVERY_CUT:
        return list(range(layers))
    cuts = _axis("frozen", frozen)
    for cut in cuts:
        if type(cut) is not int or not 0 <= cut < layers:
            raise ValueError(
                f"frozen={cut!r}: {model} has {layers} layers; choose 0 to {layers - 1}, or EVERY_CUT"
            )
    return cuts


def _channels(model: str, width: int | None, cut: int, given: Any) -> list[int]:
    last = num_layers(model) - 1
    if cut != last:
        return [0]
    if given == LOG_SPACED:
        check_trained_channels(model, width, cut, 1)
        most = num_channels(model, width)
        return [0, *_powers_below(most), most]
    numbers = _axis("trained_channels", given)
    for number in numbers:
        check_trained_channels(model, width, cut, number)
    return numbers


def _pieces(model: str, width: int | None, cut: int, given: Any, *, is_named: bool) -> list[int]:
    if given == 0:
        return [0]
    there = pieces_to_freeze(model, cut)
    numbers = list(there) if given == EVERY_PIECE else _axis("frozen_pieces", given)
    check_cut_inside(model, given, most=0 if given == EVERY_PIECE else max(numbers))
    if is_named:
        for number in numbers:
            check_frozen_pieces(model, width, cut, number)
    return [number for number in numbers if number in there]


def _head_inputs(model: str, width: int | None, cut: int, given: Any) -> list[int]:
    if cut != num_layers(model) - 1:
        return [0]
    if given == LOG_SPACED:
        check_head_inputs(model, width, cut, 1)
        return [0, *_powers_below(num_features(model, width))]
    numbers = _axis("head_inputs", given)
    for number in numbers:
        check_head_inputs(model, width, cut, number)
    return numbers


def _powers_below(most: int) -> list[int]:
    return [2**power for power in range(most.bit_length()) if 2**power < most]


def _inside(**numbers: list[int]) -> list[dict[str, int]]:
    """Return the fields of each cut inside a layer or the head; {} (no such cut) if all axes have 0."""
    plain: list[dict[str, int]] = [{}] if all(0 in each for each in numbers.values()) else []
    return plain + [{name: number} for name, each in numbers.items() for number in each if number]
