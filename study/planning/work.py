"""What a Run does, in the parts that take time: steps, evaluations, features of frozen layers.

Owns the way from a Run and its network's layers to `pace.Work`. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from study.planning.cost import TRAINING_FACTOR, LayerCost, features_key, layer_costs, network_name
from study.planning.pace import Parts, Work
from study.run import Run
from study.tasks import TaskInfo
from study.training.inputs import EVALUATION_BATCH_SIZE, is_constant
from study.training.steps import batch_spans, evaluated_steps, steps_per_epoch


def work_of(run: Run, info: TaskInfo, *, shares_features: bool) -> Work:
    """The work of this Run on the task that `info` tells.

    `shares_features`: whether the Runs of a machine compute those of frozen layers together, as on CPUs.
    """
    frozen, trained = layers_of(run, info)
    counts = (run.size, info.num_test)
    images = run.size / steps_per_epoch(run.recipe, run.size)
    calls = sum(len(batch_spans(count, EVALUATION_BATCH_SIZE)) for count in counts)
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
    """Those of the Run's network that are frozen, and those that are trained."""
    cut = (run.frozen, run.trained_channels, run.frozen_pieces)
    inside = cut if run.trained_channels or run.frozen_pieces else None
    layers = layer_costs(run.model, run.width, info.num_classes, info.image_shape, inside)
    num_frozen = run.frozen + bool(run.frozen_pieces)
    return layers[:num_frozen], layers[num_frozen:]


def training_parts(layers: Sequence[LayerCost], num_images: float) -> Parts:
    """Of one step with this many images."""
    return Parts(
        step_calls=_calls(layers),
        step_flops=TRAINING_FACTOR * num_images * sum(layer.flops for layer in layers),
        step_bytes=num_images * _bytes(layers),
    )


def evaluation_parts(layers: Sequence[LayerCost], num_images: float, num_batches: int) -> Parts:
    """Of one evaluation of this many images."""
    return Parts(
        evaluation_calls=num_batches * _calls(layers),
        evaluation_flops=num_images * sum(layer.flops for layer in layers),
        evaluation_bytes=num_images * _bytes(layers),
    )


def feature_parts(layers: Sequence[LayerCost], num_images: float) -> Parts:
    """Of one pass of this many images."""
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
