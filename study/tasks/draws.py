"""Draw a Run's training images and wrong labels, and divide a task into halves.

The draws depend only on task and seed, so comparisons are paired: a smaller training set is a prefix of a
larger one, and more label noise flips a superset of the labels.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from study.run import PARTS
from study.seeds import permutation, uniform
from study.tasks.prepared_file import PreparedTask, TaskInfo


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The training images of one Run; all arrays have shape (size,).

    - `indices`: int64, into the task's training images, in the order drawn.
    - `clean_labels`: int64, as in the task; `labels`: int64, used for training.
    - `flipped`: bool, True if label and clean label differ.
    """

    indices: np.ndarray
    clean_labels: np.ndarray
    labels: np.ndarray
    flipped: np.ndarray


def available(task: TaskInfo | PreparedTask, part: str) -> int:
    """Return how many training images `part` of a task has: the largest `size` of a Run.

    Raises ValueError for an unknown part.
    """
    num_train = (task.info if isinstance(task, PreparedTask) else task).num_train
    if part not in PARTS:
        raise ValueError(f"part={part!r}: choose one of {', '.join(PARTS)}")
    return {"all": num_train, "a": num_train - num_train // 2, "b": num_train // 2}[part]


def check_size(task: TaskInfo | PreparedTask, *, part: str, size: int) -> None:
    """Raise ValueError unless `size` is between 1 and the number of images in `part` of the task."""
    info, most = task.info if isinstance(task, PreparedTask) else task, available(task, part)
    if not 1 <= size <= most:
        what = "training images" if part == "all" else f"training images in its half {part}"
        raise ValueError(f"size={size}: task {info.name!r} has {most} {what}, choose 1 to {most}")


def draw(
    prepared: PreparedTask, *, part: str, size: int, seed: int, label_noise: float
) -> TrainingSet:
    """Draw `size` images of the task's `part`, stratified, with a fraction `label_noise` of wrong labels.

    (task, part, seed) determine an order of the images; the first `size` are drawn. In every prefix, each
    class is within one image of its share. `round(label_noise * size)` labels become wrong: those of the
    drawn images that are first in a ranking by (task, seed). A wrong label is uniform over the other
    classes. It does not depend on `size`, `part` or `label_noise` (Nakkiran et al. 2019, section 4).

    Raises ValueError for an unknown part, or a size larger than the part.
    """
    check_size(prepared, part=part, size=size)
    assert 0 <= label_noise < 1, label_noise
    name, num_classes = prepared.info.name, prepared.info.num_classes
    pool = _pool(name, prepared.train_labels, part)
    order = stratified_order(prepared.train_labels[pool], size, "draw", name, part, seed)
    indices = pool[order]
    clean_labels = prepared.train_labels[indices]

    num_train = prepared.info.num_train
    score = uniform(num_train, "flip", name, seed)[indices]
    flipped = np.zeros(size, dtype=bool)
    flipped[np.argsort(score, kind="stable")[: round(label_noise * size)]] = True
    away = uniform(num_train, "flip-to", name, seed)[indices] * (num_classes - 1)
    wrong = (clean_labels + 1 + away.astype(np.int64)) % num_classes
    return TrainingSet(indices, clean_labels, np.where(flipped, wrong, clean_labels), flipped)


def stratified_order(labels: np.ndarray, num: int, *names: str | int) -> np.ndarray:
    """Return the first `num` of an order of the images with these labels: int64, shape (num,).

    In every prefix each class is within one image of its share. The random stream `names` orders the
    images of a class; classes take turns as in a just-in-time schedule. If n_c of n images have a class,
    its (j+1)-th image may take position m if m·n_c/n > j, and must be placed by then if m·n_c/n ≥ j + 1.
    Placing the image with the earliest deadline first always succeeds (Steiner and Yeomans 1993).
    """
    n = len(labels)
    shuffled = permutation(n, *names)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    count = np.repeat(counts, counts)
    rank = np.arange(n) - np.repeat(np.cumsum(counts) - counts, counts)
    release = rank * n // count + 1
    deadline = -(-(rank + 1) * n // count)
    # Equally urgent classes take turns by the shuffle, so that no class is favoured in a small set.
    turn = np.empty(n, dtype=np.int64)
    turn[shuffled] = np.arange(n)
    jobs = zip(deadline.tolist(), turn[by_class].tolist(), by_class.tolist(), strict=True)
    waiting = [(first, *job) for first, job in zip(release.tolist(), jobs, strict=True)]
    waiting.sort(reverse=True)
    ready: list[tuple[int, int, int]] = []
    order = np.empty(num, dtype=np.int64)
    for m in range(1, num + 1):
        while waiting and waiting[-1][0] <= m:
            _, *job = waiting.pop()
            heapq.heappush(ready, (job[0], job[1], job[2]))
        last, _, order[m - 1] = heapq.heappop(ready)
        assert last >= m, "an image came after its deadline"
    return order


def _pool(name: str, labels: np.ndarray, part: str) -> np.ndarray:
    """Return the ascending indices of the images of `part`: for a half, every other image of each class.

    Alternation continues across classes, so the halves' sizes depend only on the number of images.
    """
    if part == "all":
        return np.arange(len(labels))
    shuffled = permutation(len(labels), "halves", name)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return np.sort(by_class[0 if part == "a" else 1 :: 2])
