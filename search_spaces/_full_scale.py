"""What the full-scale spaces share, so that they ask for the same sources and can be compared.

The recipe of arXiv 2211.11074 is not known to us. This one follows Nakkiran et al. 2019 (Adam, 1e-4,
batches of 128, 4,000 epochs), without augmentation, so that a frozen prefix is computed once.
"""

from typing import Final

from study.run import Recipe

SOURCE_TASKS: Final = ("cifar100", "tiny-imagenet")
TARGET_TASK: Final = "cifar10"
SOURCE_SIZES: Final = (5_000, 25_000)
TARGET_SIZES: Final = (1_000, 2_000, 4_000, 8_000)
LABEL_NOISES: Final = (0.0, 0.2)

# Rather few cells with ten seeds than many with three, of which most claims cannot be told
# (`tests/power/table.md`): the cuts are few where trained parameters hardly grow from one to the next.
SEEDS: Final = tuple(range(10))
FEWER_SEEDS: Final = SEEDS[:5]
RESNET_CUTS: Final = (0, 3, 6, 7, 8, 9)  # of 10 layers
DENSENET_CUTS: Final = (0, 3, 7, 9, 10, 11)  # of 12
VIT_CUTS: Final = (0, 5, 9, 11, 12, 13)  # of 14

# From head only to the next cut the trained parameters grow a thousandfold, and the edge of
# interpolation lies between: some channels of the layer before the head resolve it. A pilot by train
# error (seed 901, ResNet-18 of width 64, the recipe below, a source trained for two epochs): of 1,000
# images, a fifth of the labels wrong, the head alone (5,130 parameters) leaves 0.64, four channels
# (23,570) fit all in 4,000 epochs; 8,000 images lie further to the right (16 channels, 60 epochs at
# 1e-3: 0.38). That DenseNet's and ViT's edges lie inside theirs is concluded from that, not measured.
RESNET_CHANNELS: Final = (0, 1, 2, 4, 8, 16, 64, 256)  # of 512
DENSENET_CHANNELS: Final = (0, 2, 8, 32, 64, 128)  # of 160: whole dense layers from 32 on
VIT_CHANNELS: Final = (0, 2, 8, 32, 128, 768)  # of 768 hidden units

TARGET_RECIPE: Final = Recipe(
    learning_rate=1e-4,
    batch_size=128,
    num_epochs=4_000,
    evaluation="log_spaced",
    num_evaluations=150,
)
SOURCE_RECIPE: Final = Recipe(learning_rate=1e-3, schedule="cosine", batch_size=128, num_epochs=100)
