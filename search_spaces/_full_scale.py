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

TARGET_RECIPE: Final = Recipe(
    learning_rate=1e-4,
    batch_size=128,
    num_epochs=4_000,
    evaluation="log_spaced",
    num_evaluations=150,
)
SOURCE_RECIPE: Final = Recipe(learning_rate=1e-3, schedule="cosine", batch_size=128, num_epochs=100)
