"""Tasks of the real image sets that lie beside some checkouts, defined as a user would define them."""

from study.run import Recipe
from study.tasks import ParquetImages, Task

TASKS = [
    Task(
        name=name,
        images=ParquetImages(train=f"{name}/train.parquet", test=f"{name}/test.parquet"),
        image_size=32,
    )
    for name in ("tiny-imagenet-near", "tiny-imagenet-far", "cifar100-20k", "cifar10-25k")
]
SOURCE_TASKS = ("tiny-imagenet-near", "tiny-imagenet-far", "cifar100-20k")
TARGET_TASK = "cifar10-25k"
SOURCE_RECIPE = Recipe(learning_rate=1e-3, batch_size=64, num_epochs=5)
# Few evaluations: on the 10,000 test images one costs as much as ten epochs on 500.
RECIPE = Recipe(
    learning_rate=1e-3, batch_size=64, num_epochs=16, evaluation="log_spaced", num_evaluations=5
)
