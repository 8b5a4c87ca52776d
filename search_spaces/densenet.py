"""DenseNet-121: do the epochs, and the frozen layers, show double descent in transfer to CIFAR-10?

    command   study run densenet --address auto
    cost      4.5e19 floating-point operations: 2,569 h on an A100, 748 h on an H100 (assumed by `plan`)
    Runs      3,560: 40 sources and 3,520 cells

    axis            values                                unit
    source task     cifar100, tiny-imagenet
    source size     5,000, 25,000                         images
    target task     cifar10
    target size     1,000, 2,000, 4,000, 8,000            images
    label noise     0, 0.2                                fraction of the target's labels
    frozen          0, 3, 7, 9, 10, 11                    layers of 12
    channels        0, 2, 8, 32, 64, 128                  of the layer before the head, trained
    width           32                                    growth rate
    seed            0 to 9                                replicates of source and target alike

Settles C1 to C5 of arXiv 2211.11074 for one architecture; `controls` holds the rival explanations.
Expect: not yet run.
"""

from search_spaces._full_scale import (
    DENSENET_CHANNELS,
    DENSENET_CUTS,
    LABEL_NOISES,
    SEEDS,
    SOURCE_RECIPE,
    SOURCE_SIZES,
    SOURCE_TASKS,
    TARGET_RECIPE,
    TARGET_SIZES,
    TARGET_TASK,
)
from study.grid import grid

# By kind and origin of the images (both CIFAR sets are drawn from the Tiny Images), before any result.
RELATED = ("cifar100", "tiny-imagenet")

RUNS = grid(
    source_task=SOURCE_TASKS,
    source_size=SOURCE_SIZES,
    source_recipe=SOURCE_RECIPE,
    target_task=TARGET_TASK,
    target_size=TARGET_SIZES,
    label_noise=LABEL_NOISES,
    model="densenet121",
    frozen=DENSENET_CUTS,
    trained_channels=DENSENET_CHANNELS,
    recipe=TARGET_RECIPE,
    seed=SEEDS,
)
