"""ResNet-18: do the epochs, and the frozen layers, show double descent in transfer to CIFAR-10?

    command   study run resnet --address auto
    cost      4.2e19 floating-point operations: 151 h on an A100, 48 h on an H100 (assumed by `plan`)
    Runs      4,200: 40 sources and 4,160 cells

    axis            values                                unit
    source task     cifar100, tiny-imagenet
    source size     5,000, 25,000                         images
    target task     cifar10
    target size     1,000, 2,000, 4,000, 8,000            images
    label noise     0, 0.2                                fraction of the target's labels
    frozen          0, 3, 6, 7, 8, 9                      layers of 10
    channels        0, 1, 2, 4, 8, 16, 64, 256            of 512 before the head, trained
    width           64                                    channels of the stem
    seed            0 to 9                                replicates of source and target alike

Tests C1 to C5 of arXiv 2211.11074 for one architecture; `controls` tests the rival explanations.
Expect: not yet run.
"""

from search_spaces._full_scale import RELATED, cells

__all__ = ["RELATED", "RUNS"]

RUNS = cells()
