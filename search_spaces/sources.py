"""ResNet-18: one target, many sources: when is a less related source as good, or better?

    command   study run sources --address auto
    cost      1.4e19 floating-point operations: 797 h on an A100, 232 h on an H100 (assumed by `plan`)
    Runs      738: 18 sources and 720 cells

    axis            values                                unit
    source task     cifar100, tiny-imagenet, food101, svhn, fashion-mnist, mnist
    source size     25,000                                images
    target task     cifar10
    target size     1,000, 4,000                          images
    label noise     0, 0.2                                fraction of the target's labels
    frozen          0, 1, … 9 (every cut)                 layers of 10
    width           64                                    channels of the stem
    seed            0, 1, 2                               replicates of source and target alike

For C5 (overfreezing): the paired difference of two sources against the frozen count. How related the
sources are is measured too (LogME, linear CKA), not assumed.
Expect: not yet run.
"""

from search_spaces._full_scale import (
    LABEL_NOISES,
    SEEDS,
    SOURCE_RECIPE,
    TARGET_RECIPE,
    TARGET_TASK,
)
from study.grid import EVERY_CUT, grid

# The two ends of the list; the others are compared as exploratory findings.
RELATED = ("cifar100", "svhn")

RUNS = grid(
    source_task=("cifar100", "tiny-imagenet", "food101", "svhn", "fashion-mnist", "mnist"),
    source_size=25_000,
    source_recipe=SOURCE_RECIPE,
    target_task=TARGET_TASK,
    target_size=(1_000, 4_000),
    label_noise=LABEL_NOISES,
    model="resnet18",
    frozen=EVERY_CUT,
    recipe=TARGET_RECIPE,
    seed=SEEDS,
)
