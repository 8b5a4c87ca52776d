"""ResNet-18: one target, many sources: when is a less related source as good, or better?

    command   study run sources --address auto
    cost      1.1e19 floating-point operations: 39 h on an A100, 12 h on an H100 (assumed by `plan`)
    Runs      1,590: 30 sources and 1,560 cells

    axis            values                                unit
    target task     cifar10
    label noise     0, 0.2                                fraction of the target's labels
    frozen          0, 3, 6, 7, 8, 9                      layers of 10
    channels        0, 1, 2, 4, 8, 16, 64, 256            of 512 before the head, trained
    width           64                                    channels of the stem
    seed            0 to 4                                replicates of source and target alike

For C5 (overfreezing): the paired difference of two sources against the frozen count. How related the
sources are is measured too (LogME, linear CKA), not assumed.
Expect: not yet run.
"""

from search_spaces._full_scale import FEWER_SEEDS, cells

# The pair that the claims compare; comparisons with other sources are exploratory.
RELATED = ("cifar100", "svhn")

RUNS = cells(
    source_task=("cifar100", "tiny-imagenet", "food101", "svhn", "fashion-mnist", "mnist"),
    source_size=25_000,
    target_size=(1_000, 4_000),
    seed=FEWER_SEEDS,
)
