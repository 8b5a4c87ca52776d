"""Real images, two CPU cores: is there a second descent along the freezing of a vision transformer? (C4)

    command   study register reduced_vit && study run reduced_vit --data DIR
    cost      9.1e13 floating-point operations (`study plan reduced_vit`)
    Runs      120: 10 sources and 110 cells

As `reduced`, with a ViT-Tiny of width 48 in place of the ResNet, from CIFAR-100 (20 epochs) to 250 images;
from none to two thirds of the hidden units of the last block's MLP are trained, then whole blocks.

    axis            values                                        unit
    source task     cifar100 (16×16)
    source size     5,000                                         images
    target task     cifar10 (16×16)
    label noise     0.2                                           fraction of the target's labels
    seed            0 to 9                                        replicates of source and target alike

Size and cuts were chosen by the *train* error of seed 901, which no study uses: 0 with 16 units (250
images), 0.12 with 8, 0.32 with 4, 0.54 with none.
Expect: C4 is undecided: the error still rises at the last cut (`analysis/results/README.md`).
"""

from dataclasses import replace
from functools import partial

from search_spaces._reduced import BROAD, SOURCE_RECIPE, TASKS, cells
from study.grid import union

__all__ = ["KEEP_PREDICTIONS", "RUNS", "TASKS"]

KEEP_PREDICTIONS = True

_vit_cells = partial(
    cells,
    source_task=BROAD,
    source_recipe=replace(SOURCE_RECIPE, num_epochs=20),
    target_size=250,  # images
    model="vit_tiny",
    width=48,  # embedding size
)

# Frozen: of 14 layers. Trained: of 192 hidden units of the last block.
RUNS = union(
    _vit_cells(frozen=13, trained_channels=(0, 1, 2, 4, 8, 16, 32, 64, 128)),
    _vit_cells(frozen=(10, 12), trained_channels=0),
)
