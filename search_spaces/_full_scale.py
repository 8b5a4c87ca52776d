"""What the full-scale spaces share, so that they ask for the same sources and can be compared.

The recipe of arXiv 2211.11074 is not known to us. This one follows Nakkiran et al. 2019 (Adam, 1e-4,
batches of 128, 4,000 epochs), without augmentation, so that a frozen prefix is computed once.
"""

from typing import Final

from study.run import Recipe

SOURCE_TASKS: Final = ("cifar100", "tiny-imagenet")
TARGET_TASK: Final = "cifar10"
SOURCE_SIZES: Final = (5_000, 10_000, 25_000, 50_000)
TARGET_SIZES: Final = (1_000, 2_000, 4_000, 8_000)
LABEL_NOISES: Final = (0.0, 0.2)
SEEDS: Final = (0, 1, 2)

# From head only to the next cut the trained parameters grow a thousandfold, and the edge of
# interpolation lies between: some channels of the layer before the head resolve it.
RESNET_CHANNELS: Final = (0, 1, 2, 4, 8, 16, 64, 256)  # of 512
DENSENET_CHANNELS: Final = (0, 2, 8, 32, 64, 128)  # of 160: whole dense layers from 32 on
VIT_CHANNELS: Final = (0, 8, 32, 128, 256, 768)  # of 768 hidden units

TARGET_RECIPE: Final = Recipe(
    learning_rate=1e-4,
    batch_size=128,
    num_epochs=4_000,
    evaluation="log_spaced",
    num_evaluations=150,
)
SOURCE_RECIPE: Final = Recipe(learning_rate=1e-3, schedule="cosine", batch_size=128, num_epochs=100)
