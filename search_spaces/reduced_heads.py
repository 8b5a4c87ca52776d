"""Below head only: does the curve over trained parameters have both descents? C4b

    command   study register reduced_heads && study run reduced_heads --data DIR
    cost      2.2e13 floating-point operations; ten seeds are trained as one network
    Runs      300: 20 sources and 280 cells

The earlier studies begin with head only, so their curves lack the first descent. Here the head reads 1, 2,
4, … of its features at first; then come head only, channels and whole layers. Two pairs of tasks: classes
of Tiny ImageNet near to CIFAR-10, then CIFAR-10; the digits 0 to 4, then 5 to 9.

    axis            CIFAR-10 (16×16)         digits (8×8)         unit
    source size     5,000                    600                  images
    target size     500                      240                  images
    label noise     0.3                      0.3                  fraction of the target's labels
    head inputs     1, 2, 4, 8, 16, all 32   1, 2, … 32, all 64   features
    channels        1, 2, 4, 8, 16, 32       1, 4, 16, 64         of the layer before the head, trained
    frozen          6, 7, 8, 9               7, 8, 9              layers of 10
    width           4                        8                    channels of the stem
    seed            30 to 39                 30 to 39             replicates of source and target alike

C4b holds if the error with one feature is at least 1 point above that of head only, and the curve has a
peak near the edge. It does not hold if one of the two is excluded. Known before the registration: with
other seeds, C4 holds on CIFAR-10 at noise 0.2 (`reduced`) and on digits at noise 0.3 (`quickstart`).
Nothing with fewer features than head only had been trained.
Result: C4b holds (`analysis/results/README.md`).
"""

from dataclasses import replace
from functools import partial
from typing import Final

from search_spaces import _reduced
from study.grid import LOG_SPACED, grid, union
from study.run import Recipe

__all__ = ["RUNS", "TASKS"]

TASKS: Final = _reduced.TASKS

_cells = partial(
    grid, label_noise=0.3, model="resnet18", head_inputs=LOG_SPACED, seed=range(30, 40)
)

RUNS: Final = union(
    _cells(
        source_task=_reduced.RELATED[0],
        source_size=_reduced.SOURCE_SIZE,
        source_recipe=replace(_reduced.SOURCE_RECIPE, seeds_together=10),
        target_task=_reduced.TARGET,
        target_size=500,
        width=4,
        frozen=(6, 7, 8, 9),
        trained_channels=LOG_SPACED,
        recipe=replace(_reduced.RECIPE, seeds_together=10),
    ),
    _cells(
        source_task="digits-low",
        source_size=600,
        source_recipe=Recipe(
            learning_rate=2e-3,
            batch_size=100,
            num_epochs=20,
            evaluation="log_spaced",
            num_evaluations=5,
            seeds_together=10,
        ),
        target_task="digits-high",
        target_size=240,
        width=8,
        frozen=(7, 8, 9),
        trained_channels=(0, 1, 4, 16, 64),
        recipe=Recipe(
            learning_rate=2e-3,
            batch_size=60,
            num_epochs=60,
            evaluation="log_spaced",
            num_evaluations=25,
            seeds_together=10,
        ),
    ),
)
