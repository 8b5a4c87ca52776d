"""Count the operations and memory of a Run, and assume how long its parts take.

Needs torch only for networks that are not in `networks.table` and were not counted before.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from study import user_cache
from study.networks.table import ARCHITECTURES
from study.planning.durations import Speed, Speeds, Work
from study.planning.layer_costs import ImageShape, Inside, LayerCost, by_law
from study.run import Recipe, Run
from study.store.provenance import code_version, packages
from study.tasks import TaskInfo
from study.training.steps import (
    EVALUATION_BATCH_SIZE,
    MOST_ON_GPU,
    evaluated_steps,
    is_constant,
    steps_per_epoch,
    total_steps,
)

# A training step costs a forward pass, and a backward pass of about twice as much.
TRAINING_FACTOR: Final = 3

OPTIMISER_VALUES: Final = {"adam": 2, "adamw": 2, "sgd": 1}

BYTES: Final = 4  # of a float32


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a trial holds at once on its device, by purpose, for all seeds trained together."""

    weights: int
    optimiser: int
    activations: int
    images_and_features: int

    @property
    def total(self) -> int:
        return self.weights + self.optimiser + self.activations + self.images_and_features


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one whole Run. A multiply-add counts as two `flops`.

    `pass_flops`: the part of `flops` that computes the features of frozen layers once; `pass_bytes`: the
    size of these features. Both are 0 if no layer is frozen, or if the features are not constant.
    """

    flops: int
    pass_flops: int
    pass_bytes: int
    memory: Memory


class _Shape(NamedTuple):
    """The fields of a Run that determine its cost."""

    model: str
    width: int | None
    frozen: int
    trained_channels: int
    frozen_pieces: int
    size: int
    recipe: Recipe


def _shape(run: Run) -> _Shape:
    return _Shape(*(getattr(run, name) for name in _Shape._fields))


def cost_of(run: Run, info: TaskInfo) -> Cost:
    """Return the cost of this Run on the task of `info`: training, evaluations, features, memory.

    Raises ValueError if the network cannot be built.
    """
    return _cost(_shape(run), info)


@cache
def _cost(run: _Shape, info: TaskInfo) -> Cost:
    recipe, counts = run.recipe, (run.size, info.num_test)
    frozen, trained = _layers(run, info)
    layers = [*frozen, *trained]
    constant = is_constant(recipe)
    prefix, suffix = (sum(layer.flops for layer in part) for part in (frozen, trained))

    epochs = total_steps(recipe, run.size) / steps_per_epoch(recipe, run.size)
    trained_images = round(epochs * run.size)
    evaluated_images = len(evaluated_steps(recipe, run.size)) * sum(counts)
    prefix_images = sum(counts) if constant else trained_images + evaluated_images
    flops = (
        trained_images * TRAINING_FACTOR * suffix
        + evaluated_images * suffix
        + prefix_images * prefix
    )

    parameters, of_suffix = (sum(layer.parameters for layer in part) for part in (layers, trained))
    channels, height, width = info.image_shape
    feature = trained[0].inputs * BYTES if frozen and constant else 0
    widest = 2 * max(layer.outputs for layer in layers)  # input and output
    batch = min(recipe.batch_size, run.size)
    together = recipe.seeds_together
    return Cost(
        flops=flops,
        pass_flops=prefix_images * prefix if constant else 0,
        pass_bytes=sum(counts) * feature,
        memory=Memory(
            weights=together * BYTES * (parameters + of_suffix),  # and the gradients
            optimiser=together * BYTES * of_suffix * OPTIMISER_VALUES[recipe.optimizer],
            activations=together
            * max(
                batch * sum(layer.saved_bytes for layer in trained),
                min(EVALUATION_BATCH_SIZE, max(counts)) * widest * BYTES,
            ),
            images_and_features=together * sum(counts) * (channels * height * width + feature),
        ),
    )


@cache
def layer_costs(
    model: str,
    width: int | None,
    num_classes: int,
    image_shape: ImageShape,
    inside: Inside | None = None,
) -> tuple[LayerCost, ...]:
    """Return the cost of each layer of this network, first to last.

    `inside`: a cut inside a layer (a Run's `frozen`, `trained_channels` and `frozen_pieces`); this layer
    gets two entries, for its frozen and its trained part.

    Networks in `networks.table` follow layer_costs.json. Others are counted with torch, once per user.
    """
    if model in ARCHITECTURES and width is not None:
        return tuple(by_law(model, width, num_classes, image_shape, inside))

    def counted() -> list[dict[str, Any]]:
        from study.planning.count_layers import count_layers  # loads torch

        return [asdict(c) for c in count_layers(model, width, num_classes, image_shape, inside)]

    network = [model, width, num_classes, image_shape, inside]
    counter = Path(__file__).with_name("count_layers.py").read_text()
    key = ["layer costs", network, code_version(), packages(), counter]
    return tuple(LayerCost(**each) for each in user_cache.cached(key, counted))


def network_name(run: Run) -> str:
    name = run.model if run.width is None else f"{run.model} width {run.width}"
    precision = run.recipe.precision
    together = run.recipe.seeds_together
    name = name if precision == "float32" else f"{name}, {precision}"
    return name if together == 1 else f"{name}, {together} seeds together"


def features_key(run: Run) -> tuple[object, ...]:
    """Return a key; Runs with equal keys have equal frozen layers and the same order of images."""
    if run.start is None:
        return (run.id,)  # its BatchNorm statistics depend on its own images
    start = run.start if run.source is None else run.source.id
    cut = (run.frozen, run.trained_channels, run.frozen_pieces)
    return (start, network_name(run), run.task, run.part, run.seed, *cut)


def work_of(run: Run, info: TaskInfo, speeds: Speeds, *, shares_features: bool) -> Work:
    """Return the work of this Run on the task of `info`, in the seconds that it takes at these speeds.

    `shares_features`: True if Runs on one machine share the features of frozen layers, as on CPUs.
    """
    work = _work(
        _shape(run), info, speeds, EVALUATION_BATCH_SIZE if shares_features else MOST_ON_GPU
    )
    key = features_key(run) if shares_features else (run.id,)
    return replace(
        work,
        network=network_name(run),
        cut=f"{run.task} {run.frozen} {run.trained_channels} {run.frozen_pieces}",
        features=tuple(((key, which), seconds) for which, seconds in work.features),
    )


@cache
def _work(run: _Shape, info: TaskInfo, speeds: Speeds, at_once: int) -> Work:
    """Return the work of a Run of this shape; `at_once`: images in a batch of an evaluation."""
    frozen, trained = _layers(run, info)
    counts = (run.size, info.num_test)
    images = run.size / steps_per_epoch(run.recipe, run.size)
    num_batches = [-(-count // at_once) for count in counts]
    # Seeds that are trained together share the calls of modules.
    step, forward = (
        speed._replace(module=speed.module / run.recipe.seeds_together)
        for speed in (speeds.step, speeds.forward)
    )
    per_step = _seconds(trained, images, 1, step)
    per_evaluation = _seconds(trained, sum(counts), sum(num_batches), forward)
    features: tuple[tuple[Hashable, float], ...] = ()
    if frozen and is_constant(run.recipe):
        train, test = map(
            lambda count, num: _seconds(frozen, count, num, speeds.forward), counts, num_batches
        )
        features = ((run.size, train), ("test", test))
    elif frozen:
        per_step += _seconds(frozen, images, 1, forward)
        per_evaluation += _seconds(frozen, sum(counts), sum(num_batches), forward)
    return Work(
        network="",
        cut="",
        once=speeds.run,
        per_step=per_step,
        per_evaluation=per_evaluation,
        evaluated=tuple(evaluated_steps(run.recipe, run.size)),
        features=features,
    )


def _seconds(
    layers: Sequence[LayerCost], num_images: float, num_batches: int, speed: Speed
) -> float:
    """Return the seconds of a training step, or of forward passes (see `speed`), in these layers."""
    factor = TRAINING_FACTOR if speed.is_training else 1
    return (
        num_batches * speed.module * sum(layer.modules for layer in layers)
        + num_images * speed.flop * factor * sum(layer.flops for layer in layers)
        + num_images * speed.byte * sum(layer.saved_bytes for layer in layers)
    )


def _layers(run: _Shape, info: TaskInfo) -> tuple[Sequence[LayerCost], Sequence[LayerCost]]:
    """Return the costs of the frozen layers and of the trained layers."""
    cut = (run.frozen, run.trained_channels, run.frozen_pieces)
    inside = cut if run.trained_channels or run.frozen_pieces else None
    layers = layer_costs(run.model, run.width, info.num_classes, info.image_shape, inside)
    num_frozen = run.frozen + bool(run.frozen_pieces)
    return layers[:num_frozen], layers[num_frozen:]
