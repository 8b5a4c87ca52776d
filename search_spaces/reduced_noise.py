"""Real images, two CPU cores: do larger target sets, and noise, give epoch-wise double descent? (C1, C3)

    command   study register reduced_noise && study run reduced_noise --data DIR
    cost      1e14 floating-point operations (`study plan reduced_noise`)
    Runs      650: 10 sources and 640 cells

As `reduced`, from CIFAR-100 alone, with clean labels beside the noisy ones, and with 4,000 target images
at two cuts that interpolate them.

    axis            values                                        unit
    source task     cifar100 (16×16)
    source size     5,000                                         images
    target task     cifar10 (16×16)
    target size     250, 500, 1,000; 4,000 at two cuts            images
    frozen          6, 7, 8, 9                                    layers of 10
    channels        0, 1, 2, 4, … 32                              of the layer before the head, trained
    width           4                                             channels of the stem
    seed            0 to 9                                        replicates of source and target alike

Expect: C1 is undecided: the error still rises at the last epoch.
"""

from search_spaces._reduced import BROAD, NOISE, TASKS, cells
from study.grid import union

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

RUNS = union(
    cells(source_task=BROAD, label_noise=(0.0, NOISE)),
    cells(
        source_task=BROAD,
        label_noise=(0.0, NOISE),
        target_size=4_000,
        frozen=(8, 9),
        trained_channels=32,
    ),
)
