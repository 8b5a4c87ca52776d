"""Squared loss and the penalty on the distance from the start, against closed forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from study.networks.catalogue import num_layers
from study.run import Recipe, Run
from study.store import Store
from study.training.stacked import Stack
from tests.trainings import outcome, restored, resumed, to_the_end, training_of

SQUARED = Recipe(num_steps=4000, batch_size=60, optimizer="sgd", learning_rate=0.01, loss="squared")
HEAD_ONLY = Run(
    task="digits-high",
    size=60,
    model="resnet18",
    width=4,
    frozen=num_layers("resnet18") - 1,
    label_noise=0.2,
    recipe=replace(SQUARED, calibration="images", evaluation="log_spaced", num_evaluations=2),
    seed=4,
)


@pytest.mark.parametrize("strength", [0.3, 3.0])
def test_head_with_squared_loss_and_penalty_is_ridge_regression_to_its_start(
    store: Store, strength: float
) -> None:
    run = replace(HEAD_ONLY, recipe=replace(HEAD_ONLY.recipe, l2_start=strength))
    training = training_of(run, store)
    (weight, bias) = (p.detach().double().clone() for p in training.parts.suffix.parameters())
    start = torch.cat([weight, bias[:, None]], 1).T
    assert training.inputs.train_features is not None
    features = training.inputs.train_features.double()
    inputs = torch.cat([features, torch.ones(run.size, 1)], 1)
    labels = torch.nn.functional.one_hot(training.labels, 5).double()
    to_the_end(training)

    left = 2 / run.size * inputs.T @ inputs + strength * torch.eye(inputs.shape[1])
    expected = torch.linalg.solve(left, 2 / run.size * inputs.T @ labels + strength * start)
    weight, bias = (p.detach().double() for p in training.parts.suffix.parameters())
    assert torch.allclose(torch.cat([weight, bias[:, None]], 1).T, expected, atol=1e-4)

    distances = (inputs @ expected - labels).square().sum(1)
    assert training.rows[-1].train_loss == pytest.approx(float(distances.mean()), abs=1e-4)


PENALISED = replace(SQUARED, num_steps=None, num_epochs=3, batch_size=30, l2_start=0.3)


def test_penalty_of_a_resumed_run_is_from_its_start(store: Store) -> None:
    run = replace(HEAD_ONLY, frozen=0, recipe=PENALISED)
    second = resumed(run, store, None, at=3)
    assert outcome(to_the_end(second)) == outcome(to_the_end(training_of(run, store)))


def test_stack_with_squared_loss_and_penalty_equals_single_runs_after_a_restart(
    store: Store,
) -> None:
    run = replace(HEAD_ONLY, frozen=8, start=None, recipe=replace(PENALISED, calibration="images"))
    recipe = replace(run.recipe, seeds_together=4)
    members = [replace(run, seed=seed, recipe=recipe) for seed in (4, 6)]
    first = Stack([training_of(each, store) for each in members])
    for _ in first:
        if first.step == 3:
            break
    first.copy_back()
    second = Stack([restored(each, store) for each in first.members])
    for _ in second:
        pass
    for member in second.members:
        alone = to_the_end(training_of(replace(member.run, recipe=run.recipe), store))
        assert [row.train_loss for row in member.rows] == pytest.approx(
            [row.train_loss for row in alone.rows], abs=1e-4
        )
