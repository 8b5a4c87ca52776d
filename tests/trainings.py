"""One Run in training, without a launch, on the prepared tasks of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from study.networks.build import build
from study.networks.families import as_after_training
from study.networks.initial_values import initialise
from study.run import Recipe, Run
from study.store import Store
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.cut import starting_network
from study.training.loop import Training

SHAPE = (3, 16, 16)
RECIPE = Recipe(num_epochs=1, learning_rate=1e-2, batch_size=33)
WIDTHS = {"resnet18": 4, "resnet34": 4, "resnet50": 4, "densenet121": 4, "vit_tiny": 12}


def changed(run: Run, **fields: Any) -> Run:
    """`dataclasses.replace` for the fields of a Run and of its recipe."""
    of_recipe = {name: fields.pop(name) for name in [*fields] if hasattr(run.recipe, name)}
    return replace(run, recipe=replace(run.recipe, **of_recipe), **fields)


def source(model: str = "resnet18", **fields: Any) -> Run:
    """Return a Run of 100 images without a start."""
    width = fields.pop("width", WIDTHS[model])
    plain = Run(task="digits-low", size=100, model=model, width=width, recipe=RECIPE, seed=1)
    return changed(plain, **fields)


def cell(model: str = "resnet18", **fields: Any) -> Run:
    """Return a Run of 67 images with label noise, which starts from `source`."""
    start = source(model)
    plain = replace(
        start, task="digits-high", size=67, start=start, frozen=4, seed=2, label_noise=0.2
    )
    return changed(plain, **fields)


def network(model: str = "resnet18", num_classes: int = 5) -> nn.Sequential:
    """Return a network with values as after a training: no norm has its initial values."""
    layers = build(model, WIDTHS[model], num_classes, SHAPE)
    initialise(layers, model, 3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        as_after_training(layers)
    return layers.eval()


def training_of(
    run: Run,
    store: Store,
    start: Mapping[str, torch.Tensor] | None = None,
    *,
    cached: bool = True,
    shared_features: Path | None = None,
) -> Training:
    """Return the Run's training at step 0. `start`: the weights of its start."""
    task = load(run.task, store)
    drawn = draw(task, part=run.part, size=run.size, seed=run.seed, label_noise=run.label_noise)
    return Training(
        run,
        starting_network(run, task.info.num_classes, task.info.image_shape, start),
        drawn,
        task.train_images[drawn.indices],
        task.test_images,
        task.test_labels,
        device=torch.device("cpu"),
        cached=cached,
        shared_features=shared_features,
    )


def to_the_end(training: Training) -> Training:
    for _ in training:
        pass
    return training


def resumed(run: Run, store: Store, start: Mapping[str, torch.Tensor] | None, at: int) -> Training:
    """Return a training that continues from the state of another one at this step."""
    first, second = (training_of(run, store, start) for _ in range(2))
    for _ in first:
        if first.step == at:
            break
    second.restore({key: value.clone() for key, value in first.state().items()})
    assert second.step == at
    return second


def restored(training: Training, store: Store) -> Training:
    """Return a new training of the same Run, without a start, restored from the state of this one."""
    fresh = training_of(training.run, store)
    fresh.restore({key: value.clone() for key, value in training.state().items()})
    return fresh


def outcome(training: Training) -> tuple[list[object], dict[str, list[float]]]:
    """Return the rows without times, and the weights."""
    rows: list[object] = [replace(row, wall_seconds=0) for row in training.rows]
    return rows, {key: value.tolist() for key, value in training.weights().items()}
