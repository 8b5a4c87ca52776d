"""A Run in training on the prepared tasks of a store, with no launch around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from study.run import Run
from study.store import Store
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.cut import starting_network
from study.training.loop import Training


def training_of(
    run: Run,
    store: Store,
    start: Mapping[str, torch.Tensor] | None = None,
    *,
    cached: bool = True,
    shared_features: Path | None = None,
) -> Training:
    """At its step 0; `start`: the weights of its start, where it has one."""
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
    """The same, trained."""
    for _ in training:
        pass
    return training
