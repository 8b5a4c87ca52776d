"""The last layer before the head, frozen but for its last channels."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from study.grid import LOG_SPACED, grid
from study.networks.build import build
from study.networks.catalogue import num_channels, num_layers
from study.networks.families import as_after_training, part_last
from study.networks.initial_values import initialise
from study.planning.cost import cost_of
from study.run import Recipe, Run
from study.store import Store
from study.tasks import load_info
from study.tasks.prepared_file import load
from study.training.cut import cut, starting_network
from tests.trainings import training_of

SHAPE = (3, 16, 16)
NETWORKS = [("resnet18", 4), ("resnet50", 4), ("densenet121", 4), ("vit_tiny", 12)]
RECIPE = Recipe(num_epochs=2, learning_rate=1e-2, batch_size=33)
SOURCE = Run(task="digits-low", size=100, model="resnet18", width=4, recipe=RECIPE, seed=1)


def cell(model: str, width: int, num_trained: int, **fields: object) -> Run:
    source = dataclasses.replace(SOURCE, model=model, width=width)
    run = dataclasses.replace(
        source,
        task="digits-high",
        size=67,
        start=source,
        frozen=num_layers(model) - 1,
        trained_channels=num_trained,
        label_noise=0.2,
    )
    return dataclasses.replace(run, **fields)  # type: ignore[arg-type]


def network(model: str, width: int) -> nn.Sequential:
    layers = build(model, width, 5, SHAPE)
    initialise(layers, model, 3)
    as_after_training(layers)
    return layers.eval()


def some(model: str, width: int) -> list[int]:
    most = num_channels(model, width)
    return sorted({1, 3, 4, most // 2, most - 1, most})


@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_the_parts_together_are_the_layer(model: str, width: int) -> None:
    layers = network(model, width)
    with torch.no_grad():
        images = torch.randn(5, *SHAPE)
        before = layers[:-2](images)
        expected = layers[-2](before)
        for num_trained in some(model, width):
            partial_layer = part_last(layers, model, num_trained)
            found = partial_layer.trained(partial_layer.frozen.eval()(before))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_more_channels_are_more_capacity_up_to_less_than_the_next_cut(
    model: str, width: int
) -> None:
    counts = []
    for num_trained in [0, *some(model, width)]:
        parts = cut(network(model, width), cell(model, width, num_trained))
        counts.append(sum(p.numel() for p in parts.suffix.parameters()))
    layers = network(model, width)
    next_cut = sum(p.numel() for p in layers[-2:].parameters())
    assert counts == sorted(set(counts))
    assert counts[-1] < next_cut


@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_what_is_frozen_stays_and_what_is_trained_comes_back(
    model: str, width: int, store: Store
) -> None:
    num_trained = num_channels(model, width) // 2 + 1
    run = cell(model, width, num_trained)
    start = network(model, width).state_dict()
    training = training_of(run, store, start)
    places = part_last(training.layers, model, num_trained).links.pairs
    for _ in training:
        pass
    after = training.weights()
    assert any(not torch.equal(after[key], start[key]) for key in start if "head" not in key)
    # With the trained channels as they were, all but the head is the start's, bit for bit.
    fresh = training_of(run, store, start)
    for (_, theirs), (_, first) in zip(
        places, part_last(fresh.layers, model, num_trained).links.pairs, strict=True
    ):
        theirs.copy_(first)
    restored = dict(training.layers.state_dict())
    for key, value in start.items():
        if not key.startswith("head."):
            assert torch.equal(restored[key], value), key
    trained_names = {name for name, _ in training.parts.suffix.named_parameters()}
    state = training._optimizer.state_dict()["state"]
    assert len(state) == len(trained_names)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_the_whole_network_says_what_the_parts_say_and_a_resumed_run_goes_on(
    model: str, width: int, store: Store
) -> None:
    run = cell(model, width, 3)
    start = network(model, width).state_dict()
    whole = training_of(run, store, start)
    for _ in whole:
        pass
    layers = build(model, width, 5, SHAPE)
    layers.load_state_dict(whole.weights())
    task = load(run.task, store)
    with torch.no_grad():
        images = whole._inputs._normalise(torch.from_numpy(task.test_images.copy()))
        answers = layers.eval()(images).argmax(1)
    error = (answers.numpy() != task.test_labels).mean()
    assert error == pytest.approx(whole.rows[-1].test_error, abs=2 / len(task.test_labels))

    first, second = training_of(run, store, start), training_of(run, store, start)
    for _ in first:
        if first.step == 3:
            break
    second.restore({key: value.clone() for key, value in first.state().items()})
    for _ in second:
        pass
    assert [dataclasses.replace(row, wall_seconds=0) for row in second.rows] == [
        dataclasses.replace(row, wall_seconds=0) for row in whole.rows
    ]
    ours, theirs = whole.weights(), second.weights()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_reinitialised_channels_are_drawn_anew_and_the_others_kept() -> None:
    start = network("resnet18", 4).state_dict()
    recipe = dataclasses.replace(RECIPE, above_cut="reinitialised")
    plain = starting_network(cell("resnet18", 4, 3), 5, SHAPE, start)
    anew = starting_network(cell("resnet18", 4, 3, recipe=recipe), 5, SHAPE, start)
    mine, theirs = plain[-2].conv2.weight, anew[-2].conv2.weight
    assert torch.equal(mine[:-3], theirs[:-3])
    assert not any(torch.equal(a, b) for a, b in zip(mine[-3:], theirs[-3:], strict=True))


def test_random_frozen_layers_are_calibrated_with_their_trained_channels(store: Store) -> None:
    training = training_of(dataclasses.replace(cell("resnet18", 4, 3), start=None), store)
    frozen = training.layers[-2].bn2.running_mean[:-3]
    assert (frozen != 0).all()


def test_a_grid_has_log_spaced_channels_at_the_last_cut_alone() -> None:
    runs = grid(
        target_task="digits", target_size=20, model="resnet18", width=4, recipe=RECIPE, seed=0,
        frozen=(0, 9), trained_channels=LOG_SPACED,
    )  # fmt: skip
    assert [(run.frozen, run.trained_channels) for run in runs] == [
        (0, 0), *((9, channels) for channels in (0, 1, 2, 4, 8, 16, 32)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "width", "frozen", "num_trained", "message"),
    [
        ("resnet18", 4, 9, 33, "has 32; choose 0 to 32"),
        ("timm/resnet18", None, 9, 1, "is cut between layers only"),
    ],
)
def test_channels_that_are_not_there_are_refused(
    model: str, width: int | None, frozen: int, num_trained: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        grid(
            target_task="digits", target_size=20, model=model, width=width, recipe=RECIPE, seed=0,
            frozen=frozen, trained_channels=num_trained,
        )  # fmt: skip


def test_a_cost_lies_between_those_of_the_neighbouring_cuts(store: Store) -> None:
    info = load_info("digits-high", store)
    assert info is not None
    flops = [
        cost_of(run, info).flops
        for run in (cell("resnet18", 4, 0), cell("resnet18", 4, 8), cell("resnet18", 4, 32),
                    cell("resnet18", 4, 0, frozen=8))
    ]  # fmt: skip
    assert flops == sorted(set(flops))
