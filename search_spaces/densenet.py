"""DenseNet-121: do the epochs, and the frozen layers, show double descent in transfer to CIFAR-10?

    command   study run densenet --address auto
    cost      4.5e19 floating-point operations: 161 h on an A100, 51 h on an H100 (assumed by `plan`)
    Runs      3,560: 40 sources and 3,520 cells

    axis            values                                unit
    source task     cifar100, tiny-imagenet
    source size     5,000, 25,000                         images
    target task     cifar10
    target size     1,000, 2,000, 4,000, 8,000            images
    label noise     0, 0.2                                fraction of the target's labels
    width           32                                    growth rate
    seed            0 to 9                                replicates of source and target alike

Tests C1 to C5 of arXiv 2211.11074 for one architecture; `controls` tests the rival explanations.
Expect: not yet run.
"""

from search_spaces._full_scale import RELATED, cells

__all__ = ["RELATED", "RUNS"]

RUNS = cells(
    model="densenet121",
    frozen=(0, 3, 7, 9, 10, 11),  # layers of 12
    trained_channels=(
        0,
        2,
        8,
        32,
        64,
        128,
    ),  # of 160 before the head: whole dense layers from 32 on
)
