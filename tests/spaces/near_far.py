"""Near, far and CIFAR-100 sources to CIFAR-10: does a narrow ResNet-18 run end to end on real images?

command   study run tests/spaces/near_far.py --data <the folder of the image sets>
Runs      27: 3 sources and 24 cells
"""

from _real_images import RECIPE, SOURCE_RECIPE, SOURCE_TASKS, TARGET_TASK, TASKS

from study.grid import grid

__all__ = ["RELATED", "RUNS", "TASKS"]

RELATED = ("tiny-imagenet-near", "tiny-imagenet-far")

RUNS = grid(
    source_task=SOURCE_TASKS,
    source_size=2_000,
    source_recipe=SOURCE_RECIPE,
    target_task=TARGET_TASK,
    target_size=(250, 1_000),
    label_noise=0.2,
    model="resnet18",
    width=4,
    frozen=(0, 3, 6, 9),
    recipe=RECIPE,
    seed=0,
)
