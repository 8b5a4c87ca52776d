"""Seeds trained as one network: the same data and values as alone, and no value reaches another seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from study.networks.catalogue import num_layers
from study.run import Recipe, Run
from study.store import Store
from study.training.loop import Training
from study.training.stacked import Stack, check_timm_layers
from tests.trainings import restored, to_the_end, training_of

TOGETHER = 4
SEEDS = (4, 5, 7)  # of the block 4 to 7
SOURCE = Run(
    task="digits-low",
    size=60,
    model="resnet18",
    width=4,
    recipe=Recipe(num_epochs=1, batch_size=30, learning_rate=1e-3),
    seed=4,
)
CELL = replace(
    SOURCE,
    task="digits-high",
    label_noise=0.2,
    recipe=replace(SOURCE.recipe, num_epochs=2),
)


def stack_of(
    run: Run, seeds: Sequence[int], store: Store, starts: Mapping[int, Mapping[str, torch.Tensor]]
) -> Stack:
    recipe = replace(run.recipe, seeds_together=TOGETHER)
    members = [replace(run, seed=seed, recipe=recipe) for seed in seeds]
    return Stack([training_of(each, store, starts.get(each.seed)) for each in members])


def trained(stack: Stack) -> Stack:
    for _ in stack:
        pass
    stack.copy_back()
    return stack


def rows(training: Training) -> list[object]:
    return [replace(row, wall_seconds=0.0) for row in training.rows]


def assert_equal_bits(one: Training, other: Training) -> None:
    assert rows(one) == rows(other)
    theirs = other.state()
    for key, value in one.state().items():
        if key != "plain":
            assert torch.equal(value, theirs[key]), key


HEAD = num_layers("resnet18") - 1
LAST = {"vit_tiny": num_layers("vit_tiny") - 1, "densenet121": num_layers("densenet121") - 1}


@pytest.mark.parametrize(
    ("fields", "recipe"),
    [
        ({"frozen": 0, "start": None}, {}),
        ({"frozen": 3}, {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01}),
        ({"frozen": 7}, {"schedule": "cosine", "optimizer": "adamw", "weight_decay": 0.1}),
        ({"frozen": 4, "frozen_pieces": 1}, {"above_cut": "reinitialised"}),
        ({"frozen": 5}, {"augmentation": "crop_flip"}),
        ({"frozen": 6}, {"frozen_batchnorm": "training"}),
        ({"frozen": HEAD, "trained_channels": 5}, {}),
        ({"frozen": HEAD}, {}),
        ({"frozen": 17, "trained_channels": 3, "model": "resnet50", "width": 2}, {}),
        ({"frozen": LAST["vit_tiny"], "model": "vit_tiny", "width": 12}, {}),
        (
            {"frozen": LAST["vit_tiny"], "frozen_pieces": 1, "model": "vit_tiny", "width": 12},
            {},
        ),
        ({"frozen": LAST["densenet121"], "model": "densenet121", "width": 4}, {}),
    ],
    ids=lambda given: "-".join(f"{k}_{getattr(v, 'id', v)}" for k, v in given.items()),
)
def test_stack_first_epoch_has_the_losses_of_the_single_runs(
    store: Store, fields: dict[str, Any], recipe: dict[str, Any]
) -> None:
    network = {name: fields[name] for name in ("model", "width") if name in fields}
    source = replace(SOURCE, **network)
    run = replace(CELL, recipe=replace(CELL.recipe, **recipe), **({"start": source} | fields))
    starts = {}
    if run.start is not None:
        for seed in SEEDS:
            starts[seed] = to_the_end(training_of(replace(source, seed=seed), store)).weights()
    stack = trained(stack_of(run, SEEDS, store, starts))
    for member in stack.members:
        alone = replace(member.run, recipe=run.recipe)
        single = to_the_end(training_of(alone, store, starts.get(alone.seed)))
        for ours, theirs in zip(member.rows[:2], single.rows[:2], strict=True):
            assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-5)
            assert ours.test_loss == pytest.approx(theirs.test_loss, abs=1e-5)
        assert len(member.rows) == len(single.rows) == 3
        assert member.sizes(5) == single.sizes(5)
        assert {k: v.shape for k, v in member.weights().items()} == {
            k: v.shape for k, v in single.weights().items()
        }


@pytest.mark.parametrize(
    "fields", [{"frozen": 2}, {"frozen": HEAD, "trained_channels": 5}, {"frozen": HEAD}]
)
def test_stack_member_has_the_same_bits_beside_other_seeds_and_a_diverged_one(
    store: Store, fields: dict[str, Any]
) -> None:
    run = replace(CELL, start=SOURCE, **fields)
    starts = {
        seed: to_the_end(training_of(replace(SOURCE, seed=seed), store)).weights() for seed in SEEDS
    }
    alone = trained(stack_of(run, SEEDS[1:2], store, starts))
    beside = stack_of(run, SEEDS, store, starts)
    biases = [p for name, p in beside._suffix.named_parameters() if name.endswith("fier.bias")]
    with torch.no_grad():
        biases[0][0] = 3e38  # the mean of a batch of such losses is infinite
    trained(beside)
    wild, member, _ = beside.members
    assert beside.diverged == {wild.run.id: 0}
    assert len(wild.rows) == 1
    assert not any(value.isnan().any() for value in member.weights().values())
    assert_equal_bits(member, alone.members[0])


def test_stack_continues_from_the_states_of_its_members_with_the_same_bits(store: Store) -> None:
    run = replace(CELL, frozen=0, recipe=replace(CELL.recipe, augmentation="crop_flip"))
    whole = trained(stack_of(run, SEEDS, store, {}))
    interrupted = stack_of(run, SEEDS, store, {})
    steps = iter(interrupted)
    while interrupted.step < 3:
        next(steps)
    interrupted.copy_back()
    members = [restored(each, store) for each in interrupted.members]
    for member, expected in zip(trained(Stack(members)).members, whole.members, strict=True):
        assert_equal_bits(member, expected)


@pytest.mark.parametrize(
    ("model", "frozen", "module"),
    [
        ("timm/resnet18", 0, None),
        ("timm/densenet121", 11, None),
        ("timm/vit_tiny_patch16_224", 13, None),
        ("timm/densenet121", 3, "DenseBlock"),
        ("timm/resnest14d", 1, "ResNestBottleneck"),  # computes across channels
    ],
)
def test_check_timm_layers_names_a_module_that_cannot_be_widened(
    model: str, frozen: int, module: str | None
) -> None:
    if module is None:
        check_timm_layers(model, frozen)
    else:
        with pytest.raises(ValueError, match=f"seeds_together: .* a {module}, .* choose 1"):
            check_timm_layers(model, frozen)
