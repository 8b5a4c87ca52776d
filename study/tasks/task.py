"""A classification task by its definition, and those that come along.

Owns what can be said of a task before its images are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from study.tasks.image_sets.digits import Digits
from study.tasks.image_sets.kinds import Images
from study.tasks.image_sets.torchvision_sets import TinyImageNetImages, TorchvisionImages


@dataclass(frozen=True, kw_only=True)
class Task:
    """A classification task by its definition.

    - `name`: letters, digits, ".", "_", "-"; Runs and the store know the task by it.
    - `images`: where the images come from.
    - `classes`: the task is narrowed to these, by index or name, and they are numbered in this order;
      None: all.
    - `image_size`: images are resized to a square of so many pixels; None: they are taken as they are,
      and must all have one size.
    - `test_fraction`: of each class, so many images are drawn for testing where the source has no
      test split. The draw depends on the source alone, so that tasks narrowed from one source agree
      on which of its images are for testing.
    """

    name: str
    images: Images
    classes: tuple[int | str, ...] | None = None
    image_size: int | None = None
    test_fraction: float = 0.2

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"Task.name={self.name!r}: choose letters, digits, '.', '_' and '-'")
        if self.classes is not None and len(self.classes) < 2:
            raise ValueError(f"Task.classes={self.classes!r}: a task needs 2 classes or more")
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"Task.image_size={self.image_size!r}: choose 1 or more, or None")
        if not 0 < self.test_fraction < 1:
            raise ValueError(f"Task.test_fraction={self.test_fraction!r}: must be inside (0, 1)")


# The digits are 16×16 instead of their own 8×8, so that the deeper layers of a ResNet, which halve the
# image three times, still see 2×2 positions instead of one; the others are 32×32, so that any of them
# can be the source of any other, for networks (ViT) that are built for one size.
BUILTIN: Final[Mapping[str, Task]] = {
    task.name: task
    for task in (
        Task(name="digits", images=Digits(), image_size=16),
        Task(name="digits-low", images=Digits(), image_size=16, classes=(0, 1, 2, 3, 4)),
        Task(name="digits-high", images=Digits(), image_size=16, classes=(5, 6, 7, 8, 9)),
        Task(name="mnist", images=TorchvisionImages(dataset="MNIST"), image_size=32),
        Task(name="fashion-mnist", images=TorchvisionImages(dataset="FashionMNIST"), image_size=32),
        Task(name="cifar10", images=TorchvisionImages(dataset="CIFAR10"), image_size=32),
        Task(name="cifar100", images=TorchvisionImages(dataset="CIFAR100"), image_size=32),
        Task(name="svhn", images=TorchvisionImages(dataset="SVHN"), image_size=32),
        Task(name="food101", images=TorchvisionImages(dataset="Food101"), image_size=32),
        Task(name="tiny-imagenet", images=TinyImageNetImages(), image_size=32),
    )
}
