"""Near, far and CIFAR-100 sources to CIFAR-10: a narrow ViT-Tiny, four cuts.

command   study run tests/spaces/near_far_vit.py --data <the folder of the image sets>
Runs      15: 3 sources and 12 cells
"""

from _real_images import RECIPE, SOURCE_RECIPE, SOURCE_TASKS, TARGET_TASK, TASKS

from study.grid import grid

__all__ = ["RUNS", "TASKS"]

RUNS = grid(
    source_task=SOURCE_TASKS,
    source_size=2_000,
    source_recipe=SOURCE_RECIPE,
    target_task=TARGET_TASK,
    target_size=1_000,
    label_noise=0.2,
    model="vit_tiny",
    width=48,
    frozen=(0, 4, 8, 13),
    recipe=RECIPE,
    seed=0,
)
