"""Real images, two CPU cores: is the edge of interpolation one of capacity, or of optimisation? (C3, C4)

    command   study register reduced_rates && study run reduced_rates --data DIR
    cost      2.1e13 floating-point operations (`study plan reduced_rates`)
    Runs      165: 5 sources and 160 cells

The cuts around the edge of `reduced`, from CIFAR-100 to 1,000 images, with the recipe of `reduced`, with
four times its epochs, and with a third and three times its learning rate. If the edge moves, it does not
depend on capacity alone.

    axis            values                                        unit
    source task     cifar100 (16×16)
    source size     5,000                                         images
    label noise     0.2                                           fraction of the target's labels
    channels        0, 1, 2, 4, … 32                              of the layer before the head, trained
    seed            0 to 4                                        replicates of source and target alike

Expect: at a third of the learning rate the edge moves from 2,650 to 9,610 trained parameters.
"""

from dataclasses import replace

from search_spaces._reduced import BROAD, FEWER_SEEDS, RECIPE, TASKS, cells

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

RUNS = cells(
    source_task=BROAD,
    target_size=1_000,  # images
    frozen=(8, 9),  # layers of 10
    recipe=(
        RECIPE,
        replace(RECIPE, num_epochs=1_600),
        replace(RECIPE, learning_rate=3e-4),
        replace(RECIPE, learning_rate=3e-3),
    ),
    seed=FEWER_SEEDS,
)
