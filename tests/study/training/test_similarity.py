"""Similarity: in which features of the start's network it is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from study.networks.build import normalisation
from study.networks.families import between_pieces
from study.run import Run
from study.store import Store
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.cut import starting_network
from study.training.similarity import effective_rank, linear_cka, logme, measure, start_network
from tests.trainings import SHAPE, cell, network, training_of

LABELS = np.arange(30) % 3


def measured(
    run: Run, layers: nn.Sequential, images: np.ndarray, labels: np.ndarray = LABELS, **how: Any
) -> list[dict[str, Any]]:
    cpu = torch.device("cpu")
    table = measure(run, layers, images, labels, "d" * 64, device=cpu, **how)
    return table.to_pylist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "frozen", "pieces"),
    [
        ("resnet18", 0, 0),  # nothing is frozen: the features at the cut are the pixels
        ("resnet18", 3, 1),
        ("densenet121", 4, 0),
        ("densenet121", 10, 5),
        ("vit_tiny", 4, 0),
        ("vit_tiny", 13, 1),  # behind the norm and the pooling is the classifier's input
    ],
)
def test_measure_takes_features_at_the_cut_and_at_the_head(
    model: str, frozen: int, pieces: int
) -> None:
    layers, run = network(model), cell(model, frozen=frozen, frozen_pieces=pieces)
    images = np.random.default_rng(0).integers(0, 256, (30, *SHAPE), dtype=np.uint8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(model))
    inputs = (torch.from_numpy(images) / 255 - mean) / std
    with torch.no_grad():
        at_cut, last = layers[:frozen](inputs), layers[:-1](inputs)
        if pieces:
            at_cut = between_pieces(layers, model, frozen, pieces)[0](at_cut)
        at_head = layers[-1].norm(last)[:, 0] if model == "vit_tiny" else last.mean((2, 3))
    if at_cut.ndim > 2:
        at_cut = at_cut.mean(1) if at_cut.ndim == 3 else at_cut.mean((2, 3))
    for row, place, features in zip(
        measured(run, layers.train(), images), ("cut", "head"), (at_cut, at_head), strict=True
    ):
        plain, debiased = linear_cka(features, torch.from_numpy(LABELS))
        assert row["run_id"] == run.id and row["place"] == place
        assert (row["num_images"], row["num_classes"]) == (30, 3)
        assert row["num_features"] == features.shape[1]
        assert row["logme"] == pytest.approx(logme(features, torch.from_numpy(LABELS)), abs=1e-4)
        assert row["linear_cka"] == pytest.approx(plain, rel=1e-3)
        assert row["linear_cka_debiased"] == pytest.approx(debiased, abs=1e-3)
        assert row["effective_rank"] == pytest.approx(effective_rank(features), rel=1e-3)


@pytest.mark.parametrize(
    ("model", "fields", "is_held"),
    [
        ("resnet18", {"frozen": 4}, True),
        ("resnet18", {"frozen": 3, "frozen_pieces": 1}, True),
        ("vit_tiny", {"frozen": 5}, True),
        ("densenet121", {"frozen": 8}, True),
        ("resnet18", {"frozen": 0}, False),
        ("resnet18", {"frozen": 9}, False),  # held after the head's pooling
        ("resnet18", {"frozen": 9, "trained_channels": 5}, False),
        ("resnet18", {"frozen": 4, "precision": "bfloat16"}, False),
        ("resnet18", {"frozen": 4, "frozen_batchnorm": "training"}, False),
    ],
    ids=str,
)
def test_measure_with_the_trainings_features_gives_the_same_values(
    store: Store, model: str, fields: dict[str, Any], is_held: bool
) -> None:
    run, start = cell(model, size=300, **fields), network(model).state_dict()
    at_cut = training_of(run, store, start).at_cut()
    assert (at_cut is not None) == is_held
    if is_held:
        task = load(run.task, store)
        drawn = draw(task, part="all", size=300, seed=run.seed, label_noise=run.label_noise)
        images = task.train_images[drawn.indices]
        layers = start_network(run, SHAPE, start)
        plain = measured(run, layers, images, drawn.clean_labels)
        assert measured(run, layers, images, drawn.clean_labels, at_cut=at_cut) == plain


def test_start_network_has_the_starts_own_head_and_layers() -> None:
    run = cell(above_cut="reinitialised")
    weights = network(num_classes=7).state_dict()
    layers = start_network(run, SHAPE, weights)
    assert layers[-1](torch.zeros(1, 32, 2, 2)).shape == (1, 7)
    starting = starting_network(run, 5, SHAPE, weights)
    assert not torch.equal(starting[-2].conv1.weight, layers[-2].conv1.weight)
