"""Does freezing layers, and training longer, make the test error descend twice?

    command   study run quickstart
    cost      about two minutes on two CPU cores, the report included; no download
    Runs      69: 3 sources and 66 cells

A narrow ResNet-18 learns the handwritten digits 0 to 4, its first k layers are frozen (of the last one
before the head, all but some channels), and the rest learns the digits 5 to 9 with a fifth of the labels
wrong.

Expect, with 240 images: the test error falls from head only to about 16 trained channels, rises to a peak
where the network has just room for the wrong labels, and falls again to its lowest with nothing frozen.
Sizes, width, cuts and length were chosen by the test errors of seeds 0 to 4, so that this shows: it is a
demonstration, and evidence for nothing. Three seeds show the surfaces; they decide few claims.
"""

from study.grid import LOG_SPACED, grid
from study.run import Recipe

RUNS = grid(
    source_task="digits-low",  # 0 to 4
    source_size=300,  # images
    source_recipe=Recipe(learning_rate=1e-3, batch_size=32, num_epochs=30),
    target_task="digits-high",  # 5 to 9
    target_size=(60, 240),  # images
    label_noise=0.2,  # fraction of the target's labels
    model="resnet18",
    width=8,  # channels of the stem
    frozen=(0, 7, 8, 9),  # layers of 10
    trained_channels=LOG_SPACED,  # 0, 1, 2, 4, … 64 of the layer before the head
    recipe=Recipe(
        learning_rate=1e-3,
        batch_size=32,
        num_epochs=60,
        evaluation="log_spaced",
        num_evaluations=40,
    ),
    seed=(5, 6, 7),  # replicates of source and target alike
)
