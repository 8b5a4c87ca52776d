"""A head that reads only the first features: a capacity below that of the head alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from study.grid import LOG_SPACED, grid
from study.networks.build import build
from study.networks.catalogue import check_head_inputs, num_features, num_layers
from study.run import Recipe, Run
from study.store import Store
from study.training.stacked import Stack
from tests.trainings import outcome, resumed, to_the_end, training_of

LAST = num_layers("resnet18") - 1
RUN = Run(
    task="digits-high",
    size=60,
    model="resnet18",
    width=4,
    frozen=LAST,
    head_inputs=3,
    label_noise=0.2,
    recipe=Recipe(num_epochs=2, batch_size=30, learning_rate=1e-2, calibration="images"),
    seed=4,
)


@pytest.mark.parametrize(
    ("model", "width"),
    [("resnet18", 4), ("resnet50", 2), ("densenet121", 4), ("densenet121", 7)],
)
def test_num_features_is_what_the_head_of_the_network_reads(model: str, width: int) -> None:
    layers = build(model, width, 5, (3, 16, 16))
    assert num_features(model, width) == layers.head.classifier.in_features


@pytest.mark.parametrize(("model", "width"), [("resnet18", 4), ("densenet121", 4)])
def test_training_of_a_head_with_few_inputs_changes_only_their_weights(
    store: Store, model: str, width: int
) -> None:
    run = replace(RUN, model=model, width=width, frozen=num_layers(model) - 1)
    training = training_of(run, store)
    before = training.weights()["head.classifier.weight"].clone()
    to_the_end(training)
    weights = training.weights()
    after = weights["head.classifier.weight"]
    assert (after[:, :3] != before[:, :3]).all()
    assert not after[:, 3:].any()
    assert training.sizes(5).parameters_trained == 5 * 3 + 5

    every = slice(0, run.size)
    features = training.inputs.of_training(every)
    logits, parts = training.layers[-1].classifier(features), training.parts.suffix(features)
    assert torch.allclose(logits, parts, atol=1e-5)


def test_head_with_few_inputs_resumed_has_the_same_bits(store: Store) -> None:
    second = resumed(RUN, store, None, at=3)
    assert outcome(to_the_end(second)) == outcome(to_the_end(training_of(RUN, store)))


def test_stack_of_heads_with_few_inputs_has_the_losses_of_the_single_runs(store: Store) -> None:
    recipe = replace(RUN.recipe, seeds_together=4)
    stack = Stack([training_of(replace(RUN, seed=s, recipe=recipe), store) for s in (4, 6, 7)])
    for _ in stack:
        pass
    stack.copy_back()
    for member in stack.members:
        alone = to_the_end(training_of(replace(member.run, recipe=RUN.recipe), store))
        assert [row.train_loss for row in member.rows] == pytest.approx(
            [row.train_loss for row in alone.rows], abs=1e-4
        )
        assert not member.weights()["head.classifier.weight"][:, 3:].any()


def test_grid_head_inputs_belong_to_the_last_cut() -> None:
    runs = grid(
        target_task="digits",
        target_size=60,
        model="resnet18",
        width=4,
        recipe=RUN.recipe,
        seed=1,
        frozen=(8, LAST),
        trained_channels=(0, 4),
        head_inputs=LOG_SPACED,
    )
    cuts = [(run.frozen, run.trained_channels, run.head_inputs) for run in runs]
    assert cuts == [(8, 0, 0), (9, 0, 0), (9, 4, 0), *((9, 0, 2**power) for power in range(5))]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head_inputs": 32}, "reads 32; choose 0 for all, or 1 to 31"),
        ({"frozen": 8, "head_inputs": 3}, "choose 0, or frozen=9"),
        ({"model": "vit_tiny", "width": 12, "head_inputs": 3}, "vit_tiny is none; choose 0"),
        ({"model": "timm/resnet18", "width": None, "head_inputs": 3}, "of the table"),
    ],
)
def test_check_head_inputs_names_the_choices(fields: dict[str, object], message: str) -> None:
    given = {"model": "resnet18", "width": 4, "frozen": LAST} | fields
    with pytest.raises(ValueError, match=message):
        check_head_inputs(given["model"], given["width"], given["frozen"], given["head_inputs"])


def test_run_cut_in_two_places_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"trained_channels=2 with Run\.head_inputs=3"):
        replace(RUN, trained_channels=2)
