"""Three narrow architectures side by side on real images: near, far and CIFAR-100 to CIFAR-10, four cuts.

command   study run tests/spaces/architectures.py --data <the folder of the image sets>
Runs      45: 9 sources and 36 cells
"""

from dataclasses import replace

from _real_images import RECIPE, SOURCE_RECIPE, SOURCE_TASKS, TARGET_TASK, TASKS

from study.grid import grid, union

__all__ = ["RELATED", "RUNS", "TASKS"]

RELATED = ("tiny-imagenet-near", "tiny-imagenet-far")

CUTS = {
    ("resnet18", 4): (0, 3, 6, 9),
    ("densenet121", 4): (0, 3, 7, 11),
    ("vit_tiny", 24): (0, 4, 8, 13),
}

RUNS = union(
    *(
        grid(
            source_task=SOURCE_TASKS,
            source_size=1_000,
            source_recipe=replace(SOURCE_RECIPE, num_epochs=3),
            target_task=TARGET_TASK,
            target_size=500,
            label_noise=0.2,
            model=model,
            width=width,
            frozen=cuts,
            recipe=replace(RECIPE, num_epochs=8, num_evaluations=3),
            seed=0,
        )
        for (model, width), cuts in CUTS.items()
    )
)
