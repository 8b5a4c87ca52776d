"""Count the operations and memory of a Run, and the parts of its work that take time."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Final

import psutil
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study.networks.build import build
from study.networks.families import part_head
from study.planning.durations import Parts, Work
from study.run import HEAD, Run
from study.tasks import TaskInfo
from study.training.cut import divide
from study.training.evaluation import MOST_ON_GPU
from study.training.inputs import EVALUATION_BATCH_SIZE, is_constant
from study.training.steps import batch_spans, evaluated_steps, steps_per_epoch, total_steps

# A training step costs a forward pass, and a backward pass of about twice as much.
TRAINING_FACTOR: Final = 3

OPTIMISER_VALUES: Final = {"adam": 2, "adamw": 2, "sgd": 1}

BYTES: Final = 4  # of a float32


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """One layer of a network. Per image: `flops` of a forward pass, `inputs` (values that it gets if
    everything before it is constant), `outputs` (values that it returns), `saved_bytes` (kept for a
    backward pass). `parameters` of the layer, and `modules`: the number of modules that it calls.
    """

    name: str
    flops: int
    inputs: int
    outputs: int
    saved_bytes: int
    parameters: int
    modules: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a Run holds at once on its device, by purpose, with the seeds trained together."""

    weights: int
    optimiser: int
    activations: int
    images_and_features: int

    @property
    def total(self) -> int:
        return self.weights + self.optimiser + self.activations + self.images_and_features


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one whole Run: multiply-adds count as two `flops`.

    `pass_flops`: the part for the features of its frozen layers, once; `pass_bytes`: the size of the
    features. Both are 0 if nothing is frozen, or the frozen layers are not constant.
    """

    flops: int
    pass_flops: int
    pass_bytes: int
    memory: Memory


def cost_of(run: Run, info: TaskInfo) -> Cost:
    """Return the cost of this Run on the task of `info`: training, evaluations, features, memory.

    Raises ValueError if the network cannot be built.
    """
    recipe, counts = run.recipe, (run.size, info.num_test)
    frozen, trained = layers_of(run, info)
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
    image_shape: tuple[int, int, int],
    inside: tuple[int, int, int] | None = None,
) -> tuple[LayerCost, ...]:
    """Return the cost of each layer of this network, first to last, counted without data.

    `inside`: a cut inside a layer (a Run's `frozen`, `trained_channels` and `frozen_pieces`); this layer
    gets two entries, for its frozen and its trained part.

    Attention is counted unfused, because torch counts nothing for the CPU's fused kernel. For a ViT
    `saved_bytes` is therefore up to twice too large.
    """
    images = 2  # BatchNorm cannot train on one
    costs = []
    saved: dict[int, int] = {}
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), _saved_bytes(saved):
        layers = build(model, width, num_classes, image_shape)
        values = torch.empty(images, *image_shape)
        named = list(layers.named_children())
        if inside is not None:
            parts = divide(layers, model, *inside)
            at = len(parts.prefix) - 1
            divided = named[at][0]
            named[at : at + 1] = [
                (divided, parts.prefix[-1]), (f"{divided}, trained", parts.suffix[0])
            ]  # fmt: skip
        for name, layer in named:
            before = sum(saved.values())
            given = values if name != HEAD else part_head(layers, model)[0](values)
            with FlopCounterMode(display=False) as counter:
                values = layer(values)
            costs.append(
                LayerCost(
                    name=name,
                    flops=counter.get_total_flops() // images,
                    inputs=given.numel() // images,
                    outputs=values.numel() // images,
                    saved_bytes=(sum(saved.values()) - before) // images,
                    parameters=sum(parameter.numel() for parameter in layer.parameters()),
                    modules=sum(not any(True for _ in each.children()) for each in layer.modules()),
                )
            )
    return tuple(costs)


@contextmanager
def _saved_bytes(saved: dict[int, int]) -> Iterator[None]:
    alive: list[Tensor] = []  # so that no freed storage's address is reused

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            saved[storage._cdata] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield


def has_gpu() -> bool:
    return torch.cuda.is_available()


def device_bytes() -> int:
    """Return the memory of this machine's smallest GPU, or of the machine if it has none."""
    if has_gpu():
        return min(
            torch.cuda.get_device_properties(index).total_memory
            for index in range(torch.cuda.device_count())
        )
    return psutil.virtual_memory().total


def network_name(run: Run) -> str:
    name = run.model if run.width is None else f"{run.model} width {run.width}"
    precision = run.recipe.precision
    together = run.recipe.seeds_together
    name = name if precision == "float32" else f"{name}, {precision}"
    return name if together == 1 else f"{name}, {together} seeds together"


def features_key(run: Run) -> tuple[object, ...]:
    """Return a key that is equal for Runs with equal frozen layers and images of the same order."""
    if run.start is None:
        return (run.id,)  # its BatchNorm statistics depend on its own images
    start = run.start if run.source is None else run.source.id
    cut = (run.frozen, run.trained_channels, run.frozen_pieces)
    return (start, network_name(run), run.task, run.part, run.seed, *cut)


def work_of(run: Run, info: TaskInfo, *, shares_features: bool) -> Work:
    """Return the work of this Run on the task of `info`.

    `shares_features`: the Runs of a machine compute features of frozen layers together, as on CPUs.
    """
    frozen, trained = layers_of(run, info)
    counts = (run.size, info.num_test)
    images = run.size / steps_per_epoch(run.recipe, run.size)
    at_once = EVALUATION_BATCH_SIZE if shares_features else MOST_ON_GPU
    calls = sum(len(batch_spans(count, at_once)) for count in counts)
    per_step = training_parts(trained, images)
    per_evaluation = evaluation_parts(trained, sum(counts), calls)
    features: tuple[tuple[Hashable, Parts], ...] = ()
    if frozen and is_constant(run.recipe):
        key = features_key(run) if shares_features else (run.id,)
        features = (
            ((key, run.size), feature_parts(frozen, run.size)),
            ((key, "test"), feature_parts(frozen, info.num_test)),
        )
    elif frozen:
        per_step = _sum(per_step, feature_parts(frozen, images))
        per_evaluation = _sum(per_evaluation, feature_parts(frozen, sum(counts)))
    return Work(
        network=network_name(run),
        cut=f"{run.task} {run.frozen} {run.trained_channels} {run.frozen_pieces}",
        once=Parts(runs=1),
        per_step=per_step,
        per_evaluation=per_evaluation,
        evaluated=tuple(evaluated_steps(run.recipe, run.size)),
        features=features,
    )


def layers_of(run: Run, info: TaskInfo) -> tuple[Sequence[LayerCost], Sequence[LayerCost]]:
    """Return the costs of the frozen layers and of the trained layers of the Run's network."""
    cut = (run.frozen, run.trained_channels, run.frozen_pieces)
    inside = cut if run.trained_channels or run.frozen_pieces else None
    layers = layer_costs(run.model, run.width, info.num_classes, info.image_shape, inside)
    num_frozen = run.frozen + bool(run.frozen_pieces)
    return layers[:num_frozen], layers[num_frozen:]


def training_parts(layers: Sequence[LayerCost], num_images: float) -> Parts:
    """Return the parts of one step with this many images."""
    return Parts(
        step_calls=_calls(layers),
        step_flops=TRAINING_FACTOR * num_images * sum(layer.flops for layer in layers),
        step_bytes=num_images * _bytes(layers),
    )


def evaluation_parts(layers: Sequence[LayerCost], num_images: float, num_batches: int) -> Parts:
    """Return the parts of one evaluation of this many images."""
    return Parts(
        evaluation_calls=num_batches * _calls(layers),
        evaluation_flops=num_images * sum(layer.flops for layer in layers),
        evaluation_bytes=num_images * _bytes(layers),
    )


def feature_parts(layers: Sequence[LayerCost], num_images: float) -> Parts:
    """Return the parts of one pass of this many images."""
    return Parts(
        feature_flops=num_images * sum(layer.flops for layer in layers),
        feature_bytes=num_images * _bytes(layers),
    )


def _calls(layers: Sequence[LayerCost]) -> int:
    return sum(layer.modules for layer in layers)


def _bytes(layers: Sequence[LayerCost]) -> int:
    return sum(layer.saved_bytes for layer in layers)


def _sum(one: Parts, other: Parts) -> Parts:
    return Parts(*(a + b for a, b in zip(one, other, strict=True)))
