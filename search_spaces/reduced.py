"""Real images, two CPU cores: is there a second descent along the freezing; does a far source help? C4, C5

    command   study register reduced && study run reduced --data DIR
    cost      1.3e14 floating-point operations (`study plan reduced`)
    Runs      960: 30 sources and 930 cells

A ResNet-18 of width 4 learns 5,000 images of 16×16 from a source; from none to all of its last
convolution's channels, then further blocks, are trained on 250 to 1,000 images of CIFAR-10, a fifth of
the labels wrong.

    axis            values                                        unit
    source task     cifar100, tiny-near, tiny-far (16×16)
    source size     5,000                                         images
    target task     cifar10 (16×16)
    target size     250, 500, 1,000                               images
    label noise     0.2                                           fraction of the target's labels
    frozen          6, 7, 8, 9                                    layers of 10
    channels        0, 1, 2, 4, … 32                              of the layer before the head, trained
    width           4                                             channels of the stem
    seed            0 to 9                                        replicates of source and target alike

Head only over random frozen layers is the floor for C5a. `reduced_noise`, `reduced_sources`,
`reduced_controls` and `reduced_rates` share Runs with it; `_reduced` lists the images.
Expect: C4 and C3 hold, C5a and C5b do not (`analysis/results/README.md`).
"""

from search_spaces._reduced import BROAD, RELATED, TASKS, cells
from study.grid import union

__all__ = ["KEEP_PREDICTIONS", "RELATED", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

RUNS = union(
    cells(source_task=(BROAD, *RELATED)),
    cells(source_task=None, source_size=None, source_recipe=None, frozen=9, trained_channels=0),
)
