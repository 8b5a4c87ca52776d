"""CIFAR-10: does a larger source slow the target down if the sources have equal train errors? C2

    command   study register reduced_source_errors && study run reduced_source_errors --data DIR
    cost      2.2e13 floating-point operations; five seeds are trained as one network
    Runs      40: 10 sources and 30 cells

`reduced_sources` compares sources of 1,250 and 20,000 images after equally many epochs, and after equally
many steps. Both arms are confounded: the sources end at train errors of 0.17 and 0.47, or 0.00 and 0.74.
Here each source is trained until its train error is about 0.5: this is the third arm.

    axis            values                                        unit
    source task     cifar100 (16×16)
    source size     1,250 and 20,000                              images
    source steps    290 and 5,450                                 batches of 128
    target task     cifar10 (16×16)
    target size     1,000                                         images
    label noise     0.2                                           fraction of the target's labels
    frozen          7, 8, and 16 trained channels of 32           layers of 10
    width           4                                             channels of the stem
    seed            40 to 44                                      replicates of source and target alike

C2 holds if the target is interpolated later after the larger source, by 10 % or more. It does not hold if
this is excluded. The steps were chosen by the train errors of the sources of seeds 901 and 902: 0.5 after
285 and 291 steps with 1,250 images, after 5,445 steps with 20,000 (seed 901 only). No target had been
trained from them.
Result: C2 does not hold (`analysis/results/README.md`).
"""

from dataclasses import replace
from typing import Final

from search_spaces import _reduced
from study.grid import grid, union
from study.run import Run

__all__ = ["RUNS", "TASKS"]

TASKS: Final = _reduced.TASKS


def _cells(source_size: int, num_steps: int) -> list[Run]:
    recipe = replace(_reduced.SOURCE_RECIPE, num_epochs=None, num_steps=num_steps)
    return grid(
        source_task=_reduced.BROAD,
        source_size=source_size,
        source_recipe=replace(recipe, seeds_together=5),
        target_task=_reduced.TARGET,
        target_size=1_000,
        label_noise=_reduced.NOISE,
        model="resnet18",
        width=4,
        frozen=(7, 8, 9),
        trained_channels=16,
        recipe=replace(_reduced.RECIPE, seeds_together=5),
        seed=range(40, 45),
    )


RUNS: Final = union(_cells(1_250, 290), _cells(20_000, 5_450))
