"""The control arms on real images: a narrow ResNet-18, the same target images in every arm.

command   study run tests/spaces/control_arms.py --data <the folder of the image sets>
Runs      34: 2 sources and 32 cells
"""

from dataclasses import replace
from functools import partial

from _real_images import RECIPE, SOURCE_RECIPE, TARGET_TASK, TASKS

from study.grid import grid, union

__all__ = ["RUNS", "TASKS"]

arm = partial(
    grid,
    target_task=TARGET_TASK,
    target_part="b",
    target_size=500,
    label_noise=(0.0, 0.2),
    model="resnet18",
    width=4,
    frozen=(0, 3, 6, 9),
    recipe=RECIPE,
    seed=0,
)
transfer = partial(arm, source_task="cifar100-20k", source_size=2_000, source_recipe=SOURCE_RECIPE)

RUNS = union(
    transfer(),
    arm(source_task=TARGET_TASK, source_part="a", source_size=2_000, source_recipe=SOURCE_RECIPE),
    arm(source_task=None),
    transfer(recipe=replace(RECIPE, above_cut="reinitialised")),
)
