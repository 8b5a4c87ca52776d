"""ViT-Tiny, patches of 4: do the epochs, and the frozen layers, show double descent in transfer?

    command   study run vit --address auto
    cost      5.0e19 floating-point operations: 2,841 h on an A100, 827 h on an H100 (assumed by `plan`)
    Runs      3,672: 24 sources and 3,648 cells

    axis            values                                unit
    source task     cifar100, tiny-imagenet
    source size     5,000, 10,000, 25,000, 50,000         images
    target task     cifar10
    target size     1,000, 2,000, 4,000, 8,000            images
    label noise     0, 0.2                                fraction of the target's labels
    frozen          0, 1, … 13 (every cut)                layers of 14
    channels        0, 8, 32, 128, 256, 768               hidden units of the last block, trained
    width           192                                   embedding size
    seed            0, 1, 2                               replicates of source and target alike

Settles C1 to C5 of arXiv 2211.11074 for one architecture; `controls` holds the rival explanations.
Expect: not yet run.
"""

from search_spaces._full_scale import (
    LABEL_NOISES,
    SEEDS,
    SOURCE_RECIPE,
    SOURCE_SIZES,
    SOURCE_TASKS,
    TARGET_RECIPE,
    TARGET_SIZES,
    TARGET_TASK,
    VIT_CHANNELS,
)
from study.grid import EVERY_CUT, grid

# By kind and origin of the images (both CIFAR sets are drawn from the Tiny Images), before any result.
RELATED = ("cifar100", "tiny-imagenet")

RUNS = grid(
    source_task=SOURCE_TASKS,
    source_size=SOURCE_SIZES,
    source_recipe=SOURCE_RECIPE,
    target_task=TARGET_TASK,
    target_size=TARGET_SIZES,
    label_noise=LABEL_NOISES,
    model="vit_tiny",
    frozen=EVERY_CUT,
    trained_channels=VIT_CHANNELS,
    recipe=TARGET_RECIPE,
    seed=SEEDS,
)
