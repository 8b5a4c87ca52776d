"""ResNet-18: what else could explain what the frozen layers do? The control arms, on the same images.

    command   study run controls --address auto
    cost      4.8e19 floating-point operations: 2,714 h on an A100, 790 h on an H100 (assumed by `plan`)
    Runs      4,710: 30 sources and 4,680 cells

    arm             how                                              the rival that it answers
    transfer        cifar100 → half b of cifar10
    same task       half a of cifar10 → half b                       fragile co-adaptation
    random frozen   no source, frozen layers at random               capacity alone
    reinitialised   cifar100, layers above the cut drawn anew        features against optimisation
    matched steps   cifar100, each source trained for 19,600 steps   a larger source is trained for longer
    scratch         no source, nothing frozen                        training on the target alone
    noise 0         every arm with clean labels too

    axis            values                                unit
    source size     5,000, 25,000                         images
    target size     1,000, 2,000, 4,000, 8,000            images
    label noise     0, 0.2                                fraction of the target's labels
    frozen          0, 3, 6, 7, 8, 9                      layers of 10
    channels        0, 1, 2, 4, 8, 16, 64, 256            of the layer before the head, trained
    width           64                                    channels of the stem
    seed            0 to 4                                replicates of source and target alike

All arms draw the target from half b, so that they differ in nothing but the arm. Random frozen layers
at 0 are the scratch arm, layers reinitialised at 0 the same from other initial values.
Expect: not yet run.
"""

from dataclasses import replace
from functools import partial

from search_spaces._full_scale import (
    FEWER_SEEDS,
    LABEL_NOISES,
    RESNET_CHANNELS,
    RESNET_CUTS,
    SOURCE_RECIPE,
    SOURCE_SIZES,
    TARGET_RECIPE,
    TARGET_SIZES,
    TARGET_TASK,
)
from study.grid import grid, union

# As many steps for every source as 25,000 images take in the epochs of SOURCE_RECIPE.
MATCHED_STEPS = replace(SOURCE_RECIPE, num_epochs=None, num_steps=19_600)

arm = partial(
    grid,
    target_task=TARGET_TASK,
    target_part="b",
    target_size=TARGET_SIZES,
    label_noise=LABEL_NOISES,
    model="resnet18",
    frozen=RESNET_CUTS,
    trained_channels=RESNET_CHANNELS,
    recipe=TARGET_RECIPE,
    seed=FEWER_SEEDS,
)
transfer = partial(
    arm, source_task="cifar100", source_size=SOURCE_SIZES, source_recipe=SOURCE_RECIPE
)

RUNS = union(
    transfer(),
    arm(
        source_task=TARGET_TASK,
        source_part="a",
        source_size=SOURCE_SIZES,
        source_recipe=SOURCE_RECIPE,
    ),
    arm(source_task=None),
    transfer(recipe=replace(TARGET_RECIPE, above_cut="reinitialised")),
    transfer(source_recipe=MATCHED_STEPS),
)
