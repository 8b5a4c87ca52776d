"""ViT-Tiny, patches of 4: do the epochs, and the frozen layers, show double descent in transfer?

    command   study run vit --address auto
    cost      2.6e19 floating-point operations: 91 h on an A100, 29 h on an H100 (assumed by `plan`)
    Runs      3,560: 40 sources and 3,520 cells

    axis            values                                unit
    source task     cifar100, tiny-imagenet
    source size     5,000, 25,000                         images
    target task     cifar10
    target size     1,000, 2,000, 4,000, 8,000            images
    label noise     0, 0.2                                fraction of the target's labels
    width           192                                   embedding size
    seed            0 to 9                                replicates of source and target alike

Tests C1 to C5 of arXiv 2211.11074 for one architecture; `controls` tests the rival explanations.
Expect: not yet run.
"""

from search_spaces._full_scale import RELATED, cells

__all__ = ["RELATED", "RUNS"]

RUNS = cells(
    model="vit_tiny",
    frozen=(0, 5, 9, 11, 12, 13),  # layers of 14
    trained_channels=(0, 2, 8, 32, 128, 768),  # of 768 hidden units of the last block
)
