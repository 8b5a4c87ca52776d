"""Does the error of a transferred network descend twice, along the epochs and along the frozen layers?

    command   study run quickstart
    cost      under 5 minutes on two CPU cores, the report included; no download
    Runs      84: 4 sources (2 sizes × 2 seeds) and 80 cells

A narrow ResNet-18 learns the handwritten digits 0 to 4, its first k layers are frozen, and the rest
learns the digits 5 to 9 with a fifth of the labels wrong.

    axis            values                     unit
    source task     digits-low (0 to 4)
    source size     100, 700                   images
    target task     digits-high (5 to 9)
    target size     100, 400                   images
    label noise     0.2                        fraction of the target's labels
    frozen          0, 1, … 9 (every cut)      layers of 10
    width           4                          channels of the stem
    seed            0, 1                       replicates of source and target alike

Expect: networks with few frozen layers interpolate both target sets, noise included, and their test
error rises or peaks while the flipped images are learnt. With almost all layers frozen nothing is
interpolated and the error stays high. Two seeds show the surfaces; they decide no claim.
"""

from study.grid import EVERY_CUT, grid
from study.run import Recipe

RUNS = grid(
    source_task="digits-low",
    source_size=(100, 700),
    target_task="digits-high",
    target_size=(100, 400),
    label_noise=0.2,
    model="resnet18",
    width=4,
    frozen=EVERY_CUT,
    recipe=Recipe(learning_rate=1e-3, batch_size=32, num_epochs=60),
    seed=(0, 1),
)
