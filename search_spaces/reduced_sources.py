"""Real images, two CPU cores: does a larger source set slow down the target? (C2)

    command   study register reduced_sources && study run reduced_sources --data DIR
    cost      4.7e13 floating-point operations (`study plan reduced_sources`)
    Runs      100: 25 sources and 75 cells

As `reduced`, from CIFAR-100 alone: sources of three sizes, each trained for 40 epochs. The smallest and
the largest are also trained for as many steps as the middle one (arm "matched steps"), because with equal
epochs a larger source takes more steps.

    axis            values                                        unit
    source task     cifar100 (16×16)
    target task     cifar10 (16×16)
    label noise     0.2                                           fraction of the target's labels
    width           4                                             channels of the stem
    seed            0 to 4                                        replicates of source and target alike

Expect: a larger source is interpolated sooner, and later if steps are matched.
"""

from dataclasses import replace
from functools import partial

from search_spaces._reduced import BROAD, FEWER_SEEDS, SOURCE_RECIPE, SOURCE_SIZE, TASKS, cells
from study.grid import union

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

# 1,600 steps: 40 epochs of 5,000 images in batches of 128.
MATCHED_STEPS = replace(SOURCE_RECIPE, num_epochs=None, num_steps=1_600)

from_cifar100 = partial(
    cells,
    source_task=BROAD,
    target_size=1_000,  # images
    frozen=(7, 8, 9),  # layers of 10
    trained_channels=16,  # of 32 before the head
    seed=FEWER_SEEDS,
)
RUNS = union(
    from_cifar100(source_size=(1_250, SOURCE_SIZE, 20_000)),
    from_cifar100(source_size=(1_250, 20_000), source_recipe=MATCHED_STEPS),
)
