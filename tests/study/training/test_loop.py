"""The loop: rows, optimisers, resuming from any step, divergence, and the order of images."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import optim

from study.networks.build import normalisation
from study.run import Run
from study.seeds import permutation
from study.store import Store
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.cut import starting_network
from study.training.loop import Diverged
from tests.trainings import changed, outcome, resumed, source, to_the_end, training_of

RUN = source(label_noise=0.2, num_epochs=3, batch_size=40)


def test_rows_have_epochs_steps_and_errors_of_both_parts(store: Store) -> None:
    generator = torch.random.get_rng_state()
    rows = to_the_end(training_of(RUN, store)).rows
    assert torch.equal(generator, torch.random.get_rng_state())
    assert [row.epoch for row in rows] == [0, 1, 2, 3]
    assert [row.step for row in rows] == [0, 3, 6, 9]
    assert rows[-1].train_error < rows[0].train_error
    assert sorted(row.wall_seconds for row in rows) == [row.wall_seconds for row in rows]
    for row in rows:
        assert row.train_error_flipped is not None
        assert row.train_loss_flipped is not None
        # 20 of 100 images are flipped, so the parts add up to the whole.
        assert row.train_error == pytest.approx(
            0.8 * row.train_error_clean + 0.2 * row.train_error_flipped
        )
        assert row.train_loss == pytest.approx(
            0.8 * row.train_loss_clean + 0.2 * row.train_loss_flipped
        )


ADAMW = {"optimizer": "adamw", "weight_decay": 0.1}
SGD = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.1}
COSINE = {"schedule": "cosine"}
LOG_SPACED = {"evaluation": "log_spaced", "num_evaluations": 4}
INVERSE_SQRT = {"schedule": "inverse_sqrt", "inverse_sqrt_steps": 3}


@pytest.mark.parametrize(
    ("changes", "optimizer", "rate"),
    [
        ({}, partial(optim.Adam, fused=True), lambda step: 1e-2),
        (
            ADAMW | COSINE,
            partial(optim.AdamW, weight_decay=0.1, fused=True),
            lambda step: 1e-2 * (1 + math.cos(math.pi * step / 7)) / 2,
        ),
        (
            SGD | INVERSE_SQRT,
            partial(optim.SGD, lr=1, momentum=0.9, weight_decay=0.1, fused=True),
            lambda step: 1e-2 / math.sqrt(1 + step // 3),
        ),
    ],
    ids=["adam", "adamw-cosine", "sgd-inverse_sqrt"],
)
def test_loop_equals_a_plain_pytorch_loop(
    store: Store, changes: dict[str, Any], optimizer: Any, rate: Any
) -> None:
    # 81 images in batches of 40: two steps an epoch, the second of 41 images; seven steps.
    run = changed(RUN, size=81, num_epochs=None, num_steps=7, **changes)
    task = load(run.task, store)
    drawn = draw(task, part="all", size=81, seed=run.seed, label_noise=run.label_noise)
    layers = starting_network(run, 5, task.info.image_shape, None)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(run.model))
    images = (torch.from_numpy(task.train_images[drawn.indices]) / 255 - mean) / std
    labels = torch.from_numpy(drawn.labels)
    plain = optimizer(layers.train().parameters())
    for step in range(7):
        order = permutation(81, "order", run.task, "all", 81, run.seed, step // 2)
        batch = torch.from_numpy(order[:40] if step % 2 == 0 else order[40:])
        plain.param_groups[0]["lr"] = rate(step)
        plain.zero_grad()
        torch.nn.functional.cross_entropy(layers(images[batch]), labels[batch]).backward()
        plain.step()
    training = to_the_end(training_of(run, store))
    assert [row.epoch for row in training.rows] == [0, 1, 2, 3, 3.5]
    assert training.rows[-1].learning_rate == rate(6)
    for key, value in training.weights().items():
        assert torch.equal(value, layers.state_dict()[key]), key
    with torch.no_grad():
        test_images = (torch.from_numpy(task.test_images.copy()) / 255 - mean) / std
        answers = layers.eval()(test_images).argmax(1).numpy()
    assert training.rows[-1].test_error == (answers != task.test_labels).mean()


def test_rows_without_label_noise_have_no_flipped_part(store: Store) -> None:
    rows = to_the_end(training_of(replace(RUN, label_noise=0.0), store)).rows
    assert {(row.train_error_flipped, row.train_loss_flipped) for row in rows} == {(None, None)}
    assert all(row.train_error == row.train_error_clean for row in rows)


@pytest.mark.parametrize(
    "stop_at", [4, *(pytest.param(at, marks=pytest.mark.slow) for at in (0, 1, 3, 8, 9))]
)
@pytest.mark.parametrize(
    ("frozen", "changes"),
    [
        (0, {}),
        (0, {**SGD, **COSINE, **LOG_SPACED, "augmentation": "crop_flip"}),
        (3, {**ADAMW, **INVERSE_SQRT, "frozen_batchnorm": "training"}),
        (3, {}),
    ],
    ids=["adam", "sgd-cosine-augmented", "adamw-inverse_sqrt-moving-statistics", "random-frozen"],
)
def test_resumed_from_any_step_gives_the_undisturbed_outcome(
    store: Store, frozen: int, changes: dict[str, Any], stop_at: int
) -> None:
    run = changed(RUN, frozen=frozen, **changes)
    second = resumed(run, store, None, at=stop_at)
    began = second.rows[-1].wall_seconds if second.rows else 0.0
    assert outcome(to_the_end(second)) == outcome(to_the_end(training_of(run, store)))
    assert second.rows[-1].wall_seconds >= began


def test_restore_state_of_another_run_fails(store: Store) -> None:
    state = training_of(RUN, store).state()
    with pytest.raises(AssertionError):
        training_of(replace(RUN, seed=2), store).restore(state)


def test_loop_infinite_loss_raises_diverged_with_finite_rows(store: Store) -> None:
    training = training_of(changed(RUN, optimizer="sgd", learning_rate=1e30), store)
    with pytest.raises(Diverged) as caught:
        to_the_end(training)
    assert caught.value.step == training.rows[-1].step
    assert all(np.isfinite([row.train_loss, row.test_loss]).all() for row in training.rows)


def test_order_is_the_same_for_all_cuts_and_differs_between_seeds(store: Store) -> None:
    def order(run: Run) -> list[float]:
        training = training_of(run, store)
        training.begin_epoch(1)
        return training.order.tolist()

    assert order(RUN) == order(replace(RUN, frozen=5, label_noise=0.0))
    assert order(RUN) != order(replace(RUN, seed=2))


def test_bfloat16_changes_losses_a_little(store: Store) -> None:
    runs = (changed(RUN, frozen=3, num_epochs=1, precision=p) for p in ("bfloat16", "float32"))
    low, full = (to_the_end(training_of(run, store)) for run in runs)
    assert low.inputs.train_features is not None
    assert low.inputs.train_features.dtype == torch.bfloat16
    assert low.rows[-1].test_loss != full.rows[-1].test_loss
    assert low.rows[-1].test_loss == pytest.approx(full.rows[-1].test_loss, rel=0.2)
