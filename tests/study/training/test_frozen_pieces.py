"""The first trained layer, frozen up to one of its pieces: on real digits, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import build
from study.networks.families import as_after_training, between_pieces
from study.networks.initial_values import initialise
from study.planning.cost import cost_of, layer_costs
from study.run import Recipe, Run
from study.store import Store
from study.tasks import load_info
from study.tasks.prepared_file import load
from study.training.cut import set_training, starting_network
from study.training.similarity import measure, pooled
from tests.trainings import to_the_end, training_of

SHAPE = (3, 16, 16)
RECIPE = Recipe(num_epochs=1, learning_rate=1e-2, batch_size=33, weight_decay=0.1)
CUTS = [
    ("resnet18", 4, 3, 1),  # a block whose shortcut is a convolution
    pytest.param("resnet18", 4, 2, 1, marks=pytest.mark.slow),
    pytest.param("densenet121", 4, 9, 4, marks=pytest.mark.slow),
    ("densenet121", 4, 10, 2),
    pytest.param("densenet121", 4, 10, 5, marks=pytest.mark.slow),
    pytest.param("vit_tiny", 12, 12, 1, marks=pytest.mark.slow),
    ("vit_tiny", 12, 13, 1),
]


def cell(model: str, width: int, frozen: int, pieces: int, **fields: object) -> Run:
    source = Run(task="digits-low", size=100, model=model, width=width, recipe=RECIPE, seed=1)
    run = dataclasses.replace(
        source, task="digits-high", size=67, start=source, frozen=frozen, frozen_pieces=pieces,
        label_noise=0.2,
    )  # fmt: skip
    return dataclasses.replace(run, **fields)  # type: ignore[arg-type]


def network(model: str, width: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = build(model, width, 5, SHAPE)
    initialise(layers, model, 3)
    as_after_training(layers)
    return layers.eval()


def frozen_keys(layers: nn.Sequential, run: Run) -> set[str]:
    below, _ = between_pieces(layers, run.model, run.frozen, run.frozen_pieces)
    held = {id(each) for each in [*below.parameters(), *below.buffers()]}
    names = list(dict(layers.named_children()))[: run.frozen]
    named = [*layers.named_parameters(), *layers.named_buffers()]
    return {key for key, each in named if key.split(".")[0] in names or id(each) in held}


@pytest.mark.parametrize(("model", "width", "frozen", "pieces"), CUTS)
def test_what_is_frozen_stays_the_rest_is_trained_and_a_resumed_run_goes_on(
    model: str, width: int, frozen: int, pieces: int, store: Store
) -> None:
    run = cell(model, width, frozen, pieces)
    start = network(model, width).state_dict()
    training = training_of(run, store, start)
    set_training(training.parts, run.recipe.frozen_batchnorm)
    norms = [each for each in training.parts.prefix.modules() if isinstance(each, _BatchNorm)]
    assert not any(each.training for each in norms) and training.parts.suffix[0].training
    to_the_end(training)
    after, stays = training.weights(), frozen_keys(training.layers, run)
    assert after.keys() == start.keys()
    assert any(
        key.startswith(list(dict(training.layers.named_children()))[frozen]) for key in stays
    )
    for key, value in after.items():
        if key in stays:
            assert torch.equal(value, start[key]), key
        elif value.is_floating_point():
            assert not torch.equal(value, start[key]), key
    held = {id(p) for group in training._optimizer.param_groups for p in group["params"]}
    by_key = dict(training.layers.named_parameters())
    assert held == {id(p) for key, p in by_key.items() if key not in stays}

    # Features computed once are those of the live network.
    assert training._inputs._train_features is not None
    live = to_the_end(training_of(run, store, start, cached=False))
    # A checkpoint goes on to the same bits.
    first, second = training_of(run, store, start), training_of(run, store, start)
    for _ in first:
        if first.step == 1:
            break
    second.restore({key: value.clone() for key, value in first.state().items()})
    to_the_end(second)
    for other in (live, second):
        assert [dataclasses.replace(row, wall_seconds=0) for row in other.rows] == [
            dataclasses.replace(row, wall_seconds=0) for row in training.rows
        ]
        weights = other.weights()
        assert all(torch.equal(weights[key], value) for key, value in after.items())

    # What is published, as a whole network, says what was measured.
    layers = build(model, width, 5, SHAPE)
    layers.load_state_dict(after)
    task = load(run.task, store)
    with torch.no_grad():
        images = training._inputs._normalise(torch.from_numpy(task.test_images.copy()))
        answers = layers.eval()(images).argmax(1)
    assert (answers.numpy() != task.test_labels).mean() == training.rows[-1].test_error

    sizes = training.sizes(5)
    assert sizes.parameters_trained == sum(after[key].numel() for key in by_key.keys() - stays)
    assert sizes.num_pieces > pieces


def test_a_frozen_final_norm_comes_from_the_start_and_the_classifier_is_new() -> None:
    start = network("vit_tiny", 12).state_dict()
    of_start = {key: value for key, value in start.items() if key.startswith("head.")}
    whole = starting_network(cell("vit_tiny", 12, 13, 0), 5, SHAPE, start).state_dict()
    inside = starting_network(cell("vit_tiny", 12, 13, 1), 5, SHAPE, start).state_dict()
    for key, value in of_start.items():
        is_norm = key.startswith("head.norm.")
        assert torch.equal(inside[key], value) == is_norm, key
        assert not torch.equal(whole[key], value), key
        assert is_norm or torch.equal(inside[key], whole[key]), key
    # A start of other classes has the same norm; one without is refused, with the keys.
    more = {**start, "head.classifier.weight": torch.zeros(9, 12)}
    again = starting_network(cell("vit_tiny", 12, 13, 1), 5, SHAPE, more).state_dict()
    assert all(torch.equal(again[key], value) for key, value in inside.items())
    without = {key: value for key, value in start.items() if not key.startswith("head.")}
    starting_network(cell("vit_tiny", 12, 13, 0), 5, SHAPE, without)
    with pytest.raises(ValueError, match=r"missing \['head.norm.bias', 'head.norm.weight'\]"):
        starting_network(cell("vit_tiny", 12, 13, 1), 5, SHAPE, without)


@pytest.mark.parametrize(
    ("model", "width", "frozen", "pieces"),
    [("resnet18", 4, 3, 1), ("densenet121", 4, 10, 5), ("vit_tiny", 12, 6, 1), ("vit_tiny", 12, 13, 1)],
)  # fmt: skip
def test_reinitialised_gives_frozen_pieces_the_starts_values_and_the_others_fresh_ones(
    model: str, width: int, frozen: int, pieces: int
) -> None:
    start = network(model, width).state_dict()
    recipe = dataclasses.replace(RECIPE, above_cut="reinitialised")
    run = cell(model, width, frozen, pieces, recipe=recipe)
    layers = starting_network(run, 5, SHAPE, start)
    lower = dataclasses.replace(run, frozen_pieces=0)
    fresh = starting_network(lower, 5, SHAPE, start).state_dict()
    stays = frozen_keys(layers, run)
    for key, value in layers.state_dict().items():
        assert torch.equal(value, start[key] if key in stays else fresh[key]), key
    assert any(not torch.equal(fresh[key], start[key]) for key in stays)


def test_pieces_frozen_at_random_are_calibrated(store: Store) -> None:
    recipe = dataclasses.replace(RECIPE, calibration="images")
    for run in (cell("resnet18", 4, 3, 1), cell("densenet121", 4, 9, 2)):
        run = dataclasses.replace(run, start=None, recipe=recipe)
        training = training_of(run, store)
        layers = training.layers
        norms = [each for each in training.parts.prefix.modules() if isinstance(each, _BatchNorm)]
        assert all((norm.running_mean != 0).any() for norm in norms)
        trained = [m for m in training.parts.suffix.modules() if isinstance(m, _BatchNorm)]
        assert all((norm.running_mean == 0).all() for norm in trained)
        assert len(norms) + len(trained) == sum(isinstance(m, _BatchNorm) for m in layers.modules())
        to_the_end(training)
        assert len(training.rows) == 2


def test_a_cost_lies_between_those_of_the_neighbouring_cuts(store: Store) -> None:
    info = load_info("digits-high", store)
    assert info is not None
    for model, width, frozen, pieces in (
        ("resnet18", 4, 3, 1), ("densenet121", 4, 9, 5), ("vit_tiny", 12, 6, 1),
    ):  # fmt: skip
        runs = [
            cell(model, width, *cut) for cut in ((frozen, 0), (frozen, pieces), (frozen + 1, 0))
        ]
        costs = [cost_of(run, info) for run in runs]
        assert costs[0].flops > costs[1].flops > costs[2].flops
        assert costs[0].memory.optimiser > costs[1].memory.optimiser > costs[2].memory.optimiser
        whole, divided = (
            layer_costs(model, width, 5, SHAPE, inside) for inside in (None, (frozen, 0, pieces))
        )
        for name in ("flops", "parameters"):
            assert sum(getattr(each, name) for each in whole) == sum(
                getattr(each, name) for each in divided
            )
        assert len(divided) == len(whole) + 1
    # Where the head alone is trained, or only its classifier, one token is kept of an image.
    run = cell("vit_tiny", 12, 13, 1)
    kept = [
        cost_of(dataclasses.replace(run, **cut), info).memory.images_and_features
        for cut in ({}, {"frozen_pieces": 0}, {"frozen": 12, "frozen_pieces": 0})
    ]
    tokens = 1 + 4 * 4
    assert kept[1] == kept[0]
    assert kept[2] - kept[0] == (run.size + info.num_test) * 4 * 12 * (tokens - 1)


def test_similarity_is_taken_where_the_cut_is(store: Store) -> None:
    images = load("digits-high", store).train_images[:30].copy()
    labels = np.arange(30) % 3
    for run in (
        cell("resnet18", 4, 3, 1),
        cell("densenet121", 4, 10, 5),
        cell("vit_tiny", 12, 13, 1),
    ):
        layers = network(run.model, run.width or 0)
        rows, behind, before = (
            measure(each, layers, images, labels, "d" * 64, device=torch.device("cpu")).to_pylist()
            for each in (
                run,
                dataclasses.replace(run, frozen_pieces=0),
                dataclasses.replace(run, frozen=run.frozen - 1, frozen_pieces=0),
            )
        )
        assert rows[1] == behind[1] | {"run_id": run.id}  # at the head, wherever the cut is
        assert rows[0]["logme"] not in (behind[0]["logme"], before[0]["logme"])
        inside, _ = between_pieces(layers, run.model, run.frozen, run.frozen_pieces)
        with torch.no_grad():
            seen = pooled(inside(layers[: run.frozen](torch.zeros(2, *SHAPE))))
        assert rows[0]["num_features"] == seen.shape[1]
    # Behind the final norm and the pooling is what the classifier is given.
    assert {k: v for k, v in rows[0].items() if k != "place"} == {
        k: v for k, v in rows[1].items() if k != "place"
    }
