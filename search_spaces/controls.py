"""ResNet-18: what else could explain what the frozen layers do? The control arms, on the same images.

    command   study run controls --address auto
    cost      4.8e19 floating-point operations: 170 h on an A100, 54 h on an H100 (assumed by `plan`)
    Runs      4,710: 30 sources and 4,680 cells

    arm             how                                              rival explanation
    transfer        cifar100 → half b of cifar10
    same task       half a of cifar10 → half b                       fragile co-adaptation
    random frozen   no source, frozen layers at random               capacity alone
    reinitialised   cifar100, layers above the cut re-initialised    features against optimisation
    matched steps   cifar100, each source trained for 19,600 steps   a larger source is trained for longer
    scratch         no source, nothing frozen                        training on the target alone
    noise 0         every arm with clean labels too

All other axes are those of `resnet`, with seeds 0 to 4. All arms draw the target from half b, so they
differ only in the arm. With 0 frozen layers, the random frozen arm is the scratch arm; the reinitialised
arm then differs from it only in the initial values.
Expect: not yet run.
"""

from dataclasses import replace
from functools import partial

from search_spaces._full_scale import FEWER_SEEDS, SOURCE_RECIPE, TARGET_RECIPE, cells
from study.grid import union

# 19,600 steps: those of 25,000 images in the epochs of SOURCE_RECIPE.
MATCHED_STEPS = replace(SOURCE_RECIPE, num_epochs=None, num_steps=19_600)

arm = partial(cells, target_part="b", seed=FEWER_SEEDS)
transfer = partial(arm, source_task="cifar100")

RUNS = union(
    transfer(),
    arm(source_task="cifar10", source_part="a"),
    arm(source_task=None, source_size=None, source_recipe=None),
    transfer(recipe=replace(TARGET_RECIPE, above_cut="reinitialised")),
    transfer(source_recipe=MATCHED_STEPS),
)
