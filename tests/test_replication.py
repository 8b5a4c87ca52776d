"""The plain script trains networks of the study's size, and learns."""

from __future__ import annotations

from study.run import Recipe, Run
from study.store import Store
from study.tasks.prepared_file import load
from tests.replication import resnet18, train


def test_replication_network_has_as_many_parameters_as_the_study() -> None:
    layers = resnet18(width=4, num_classes=10)
    count = [sum(value.numel() for value in layer.parameters()) for layer in layers]
    # `reduced`: 38,090 of 44,622 are trained with 6 frozen layers, 330 with head only.
    assert (sum(count), sum(count[6:]), count[9]) == (44_622, 38_090, 330)
    head = resnet18(width=8, num_classes=5, head_inputs=8)[9]
    assert sum(value.numel() for value in head.parameters()) == 5 * (8 + 1)


def test_replication_learns_digits(store: Store) -> None:
    recipe = Recipe(learning_rate=2e-3, batch_size=60, num_epochs=5)
    source = Run(task="digits-low", size=300, model="resnet18", width=4, recipe=recipe, seed=0)
    run = Run(
        task="digits-high", size=120, model="resnet18", width=4, recipe=recipe, seed=0,
        start=source, frozen=7,
    )  # fmt: skip
    tasks = {name: load(name, store) for name in ("digits-low", "digits-high")}
    _, error = train(run, tasks, seed=0)
    assert error < 0.6  # chance: 0.8
