"""ResNet-18: is there double descent along the width, and does transfer move its peak?

    command   study run width --address auto
    cost      3.6e18 floating-point operations: 13 h on an A100, 4 h on an H100 (assumed by `plan`)
    Runs      715: 55 sources and 660 cells

    axis            values                                unit
    target task     cifar10
    label noise     0, 0.2                                fraction of the target's labels
    seed            0 to 4                                replicates of source and target alike

Model-wise double descent as in Nakkiran et al. 2019, figure 1, at a smaller training set. Without a
source the frozen layers are random.
Expect, from that paper (50,000 images, 20 % noise, augmented): width 3 falls with no peak along the
epochs, width 12 rises to the end, width 64 descends twice (weakly). Not yet run.
"""

from search_spaces._full_scale import FEWER_SEEDS, cells

RUNS = cells(
    source_task=(None, "cifar100"),
    source_size=25_000,
    target_size=4_000,
    width=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64),  # channels of the stem
    frozen=(0, 3, 6),  # layers of 10
    seed=FEWER_SEEDS,
)
