"""CIFAR-10: is epoch-wise double descent higher with more target images? C1

    command   study register reduced_epochs_cifar && study run reduced_epochs_cifar --data DIR
    cost      6.7e13 floating-point operations; ten seeds are trained as one network
    Runs      40: 10 sources and 30 cells

C1 was undecided in `reduced` (no peak within 400 epochs) and in `reduced_epochs` (Fashion-MNIST). Here a
ResNet-18 of width 4 learns ten classes of Tiny ImageNet that resemble those of CIFAR-10. Its last three
blocks before the head, and the head, are trained on up to 4,000 images of CIFAR-10 for 600 epochs.

    axis            values                                        unit
    source task     tiny-near (16×16)
    source size     5,000                                         images
    target task     cifar10 (16×16)
    target size     500, 1,000, 4,000                             images
    label noise     0.2                                           fraction of the target's labels
    frozen          5                                             layers of 10
    width           4                                             channels of the stem
    seed            40 to 49                                      replicates of source and target alike

C1 holds if the seeds show a peak over the epochs with 4,000 images, at least 1 point higher than with 500.
It does not hold if a difference of 1 point is excluded. Before the registration, other seeds (901 to 903)
were looked at with 4,000 images only: the test error went 0.614 → 0.712 → 0.691.
Result: C1 is undecided (`analysis/results/README.md`).
"""

from dataclasses import replace
from typing import Final

from search_spaces import _reduced
from study.grid import grid

__all__ = ["RUNS", "TASKS"]

TASKS: Final = _reduced.TASKS

RUNS: Final = grid(
    source_task=_reduced.RELATED[0],
    source_size=_reduced.SOURCE_SIZE,
    source_recipe=replace(_reduced.SOURCE_RECIPE, seeds_together=10),
    target_task=_reduced.TARGET,
    target_size=(500, 1_000, 4_000),
    label_noise=0.2,
    model="resnet18",
    width=4,
    frozen=5,
    recipe=replace(_reduced.RECIPE, num_epochs=600, seeds_together=10),
    seed=range(40, 50),
)
