"""The description of a task, and a Run on it, for tests of costs."""

from __future__ import annotations

from study.run import Recipe, Run
from study.tasks import TaskInfo

INFO = TaskInfo(
    name="made up",
    num_train=1000,
    num_test=200,
    classes=("a", "b", "c", "d", "e"),
    image_shape=(3, 32, 32),
)


def run(model: str = "resnet18", width: int = 8, frozen: int = 0, **recipe: object) -> Run:
    length = {} if "num_steps" in recipe else {"num_epochs": 10}
    return Run(
        task="made up",
        size=500,
        model=model,
        width=width,
        frozen=frozen,
        seed=0,
        recipe=Recipe(batch_size=100, **{**length, **recipe}),  # type: ignore[arg-type]
    )
