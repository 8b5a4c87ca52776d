"""The axes and recipes of the full-scale spaces; Runs that several spaces share are trained once.

The recipe of arXiv 2211.11074 is not known to us. This one follows Nakkiran et al. 2019 (Adam, 1e-4,
batches of 128, 4,000 epochs), without augmentation, so that a frozen prefix is computed once.
"""

from functools import partial
from typing import Final

from study.grid import grid
from study.run import Recipe

# The more related source first. Chosen before any result, by kind and origin of the images: both CIFAR
# sets are subsets of the Tiny Images.
RELATED: Final = ("cifar100", "tiny-imagenet")

# Ten seeds and few cells, because three seeds decide few claims (`tests/power/table.md`). Cuts that
# hardly increase the number of trained parameters are left out.
SEEDS: Final = tuple(range(10))
FEWER_SEEDS: Final = SEEDS[:5]

# bfloat16 (autocast): on tensor cores, products are up to 15 times as fast as in float32 (data sheet of an
# H100), and convolutions read half as many bytes. Weights, BatchNorm and the loss stay float32. `plan`
# assumes a quarter of the peak: 88 Runs of `resnet` per hour on an H100, 6 in float32. Not measured.
# On a CPU, a study of digits (width 8, 3 seeds, 2 sizes, 5 cuts, noise 0.4) has the same verdicts in both:
# C3 +2.0 and +2.0 doublings, C4 +0.040 and +0.035. A cell's mean test errors differ by at most 0.04; the
# standard deviation over its seeds is 0.01 to 0.06.
PRECISION: Final = "bfloat16"

TARGET_RECIPE: Final = Recipe(
    precision=PRECISION,
    learning_rate=1e-4,
    batch_size=128,
    num_epochs=4_000,
    evaluation="log_spaced",
    num_evaluations=150,
)
SOURCE_RECIPE: Final = Recipe(
    precision=PRECISION, learning_rate=1e-3, schedule="cosine", batch_size=128, num_epochs=100
)

# The edge of interpolation is between head only and the next cut, which has a thousand times as many
# trained parameters. Training some channels of the layer before the head resolves the edge. A pilot
# measured the train error (seed 901, ResNet-18 of width 64, TARGET_RECIPE, a source trained for two
# epochs). With 1,000 images and a fifth of the labels wrong, it is 0.64 for the head alone (5,130
# parameters); four channels (23,570) fit all images in 4,000 epochs. With 8,000 images the edge is further
# to the right (16 channels, 60 epochs at 1e-3: 0.38). DenseNet and ViT were not measured: that their edges
# are inside their channels is inferred.
cells = partial(
    grid,
    source_task=RELATED,
    source_size=(5_000, 25_000),
    source_recipe=SOURCE_RECIPE,
    target_task="cifar10",
    target_size=(1_000, 2_000, 4_000, 8_000),
    label_noise=(0.0, 0.2),
    model="resnet18",
    frozen=(0, 3, 6, 7, 8, 9),
    trained_channels=(0, 1, 2, 4, 8, 16, 64, 256),
    recipe=TARGET_RECIPE,
    seed=SEEDS,
)
