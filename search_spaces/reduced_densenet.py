"""Real images, two CPU cores: is there a second descent along the freezing of a DenseNet? (C4)

    command   study register reduced_densenet && study run reduced_densenet --data DIR
    cost      1.8e13 floating-point operations (`study plan reduced_densenet`)
    Runs      80: 10 sources and 70 cells

As `reduced`, with a DenseNet-121 of growth rate 4 in place of the ResNet, from CIFAR-100 (2,500 images, 20
epochs) to 250 images; from none to all channels of the last piece before the head are trained, then the
layer before it. It is evaluated twelve times, not forty, because evaluations are most of the cost.

    axis            values                                        unit
    source task     cifar100 (16×16)
    target task     cifar10 (16×16)
    label noise     0.2                                           fraction of the target's labels
    seed            0 to 9                                        replicates of source and target alike

Size and cuts were chosen by the *train* error of seed 901, which no study uses: 0 with 4 channels (250
images), 0.09 with 2, 0.14 with 1, 0.24 with none.
Expect: C4 is undecided with ten seeds (`analysis/results/README.md`).
"""

from dataclasses import replace
from functools import partial

from search_spaces._reduced import BROAD, RECIPE, SOURCE_RECIPE, TASKS, cells
from study.grid import union

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

_densenet_cells = partial(
    cells,
    source_task=BROAD,
    source_size=2_500,  # images
    source_recipe=replace(SOURCE_RECIPE, num_epochs=20, num_evaluations=3),
    target_size=250,  # images
    model="densenet121",
    width=4,  # growth rate
    recipe=replace(RECIPE, num_evaluations=12),
)

# Frozen: of 12 layers. Trained: of 20 channels before the head.
RUNS = union(
    _densenet_cells(frozen=11, trained_channels=(0, 1, 2, 4, 8, 20)),
    _densenet_cells(frozen=10, trained_channels=0),
)
