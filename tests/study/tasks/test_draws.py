"""Draws: which images a Run has, which halves there are, which labels are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.seeds import permutation
from study.tasks.draws import PARTS, available, draw, stratified_order
from study.tasks.prepared_file import PreparedTask, TaskInfo

COUNTS = st.lists(st.integers(1, 12), min_size=2, max_size=6)
SEEDS = st.integers(0, 2**31)
NOISES = st.floats(0, 0.99)


def _task(counts: list[int], name: str = "made-up") -> PreparedTask:
    """A task with these numbers of training images, in mixed order; its pixels do not matter."""
    labels = np.repeat(np.arange(len(counts)), counts)[permutation(sum(counts), "labels")]
    info = TaskInfo(
        name=name,
        num_train=len(labels),
        num_test=0,
        classes=tuple(str(label) for label in range(len(counts))),
        image_shape=(3, 1, 1),
    )
    return PreparedTask(
        info=info,
        fingerprint="",
        definition="",
        origin="",
        train_images=np.zeros((len(labels), 3, 1, 1), np.uint8),
        train_labels=labels,
        test_images=np.zeros((0, 3, 1, 1), np.uint8),
        test_labels=np.zeros(0, np.int64),
    )


@given(COUNTS, SEEDS)
def test_stratified_order_any_prefix_has_each_class_by_its_share(
    counts: list[int], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, len(labels), "a stream", seed)
    assert sorted(order) == list(range(len(labels)))
    drawn = np.cumsum(labels[order][:, None] == np.arange(len(counts)), axis=0)
    share = np.arange(1, len(labels) + 1)[:, None] * np.array(counts) / len(labels)
    assert np.abs(drawn - share).max() < 1


@given(COUNTS, SEEDS, st.sampled_from(PARTS), st.data())
def test_draw_smaller_set_is_a_prefix_of_a_larger_one(
    counts: list[int], seed: int, part: str, data: st.DataObject
) -> None:
    task = _task(counts)
    most = available(task, part)
    size = data.draw(st.integers(1, max(1, most)))
    if most == 0:
        return
    small = draw(task, part=part, size=size, seed=seed, label_noise=data.draw(NOISES))
    large = draw(task, part=part, size=most, seed=seed, label_noise=data.draw(NOISES))
    assert np.array_equal(small.indices, large.indices[:size])
    assert np.array_equal(small.clean_labels, task.train_labels[small.indices])


@given(COUNTS)
def test_draw_halves_share_nothing_and_split_each_class(counts: list[int]) -> None:
    task = _task(counts)
    if available(task, "b") == 0:
        return
    a, b = (
        draw(task, part=part, size=available(task.info, part), seed=1, label_noise=0)
        for part in ("a", "b")
    )
    assert sorted([*a.indices, *b.indices]) == list(range(task.info.num_train))
    num_classes = len(counts)
    in_a = np.bincount(a.clean_labels, minlength=num_classes)
    in_b = np.bincount(b.clean_labels, minlength=num_classes)
    assert np.abs(in_a - in_b).max() <= 1
    other_seed = draw(task, part="a", size=len(a.indices), seed=2, label_noise=0)
    assert set(other_seed.indices) == set(a.indices)


@given(COUNTS, SEEDS, NOISES, NOISES, st.data())
def test_draw_flips_are_exact_differ_and_grow_with_the_noise(
    counts: list[int], seed: int, low: float, high: float, data: st.DataObject
) -> None:
    task = _task(counts)
    size = data.draw(st.integers(1, task.info.num_train))
    low, high = sorted((low, high))
    less, more = (draw(task, part="all", size=size, seed=seed, label_noise=n) for n in (low, high))
    for drawn, noise in ((less, low), (more, high)):
        assert drawn.flipped.sum() == round(noise * size)
        assert np.array_equal(drawn.labels != drawn.clean_labels, drawn.flipped)
        assert drawn.labels.min() >= 0 and drawn.labels.max() < len(counts)
    assert np.all(more.flipped[less.flipped])
    assert np.array_equal(more.labels[less.flipped], less.labels[less.flipped])


def test_draw_flipped_labels_depend_on_neither_size_nor_part() -> None:
    task = _task([40, 40, 40])
    replaced: dict[int, int] = {}
    for part, size in (("all", 120), ("all", 60), ("a", 60), ("b", 60)):
        drawn = draw(task, part=part, size=size, seed=3, label_noise=0.5)
        for i in np.flatnonzero(drawn.flipped):
            assert replaced.setdefault(drawn.indices[i], drawn.labels[i]) == drawn.labels[i]


def test_draw_flipped_labels_are_uniform_over_the_other_classes() -> None:
    task = _task([2000, 2000, 2000, 2000])
    drawn = draw(task, part="all", size=8000, seed=0, label_noise=0.75)
    away = (drawn.labels - drawn.clean_labels)[drawn.flipped] % 4
    counts = np.bincount(away, minlength=4)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)  # 5 standard deviations


def test_draw_smaller_than_the_classes_favours_no_class() -> None:
    task = _task([50] * 10)
    extra = np.zeros(10, dtype=np.int64)
    for seed in range(200):
        drawn = draw(task, part="all", size=5, seed=seed, label_noise=0)
        extra += np.bincount(drawn.clean_labels, minlength=10)
    assert np.abs(extra - 100).max() < 5 * np.sqrt(200 * 0.25)


def test_draw_of_a_made_up_task_is_pinned() -> None:
    task = _task([6, 9, 5])
    drawn = draw(task, part="all", size=10, seed=7, label_noise=0.3)
    assert drawn.indices.tolist() == [0, 1, 7, 16, 4, 8, 17, 11, 14, 10]
    assert drawn.labels.tolist() == [1, 2, 0, 1, 1, 1, 1, 1, 2, 2]
    assert drawn.indices.dtype == drawn.labels.dtype == drawn.clean_labels.dtype == np.int64
    half = draw(task, part="b", size=4, seed=7, label_noise=0)
    assert half.indices.tolist() == [13, 14, 10, 0]


@pytest.mark.parametrize(
    ("part", "size", "message"),
    [
        ("all", 13, "size=13: task 'made-up' has 12 .*1 to 12"),
        ("a", 7, "size=7: task 'made-up' has 6 .*1 to 6"),
        ("b", 0, "size=0: task 'made-up' has 6 .*1 to 6"),
        ("c", 1, "part='c': choose one of all, a, b"),
    ],
)
def test_draw_unavailable_part_or_size_is_an_error(part: str, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(_task([6, 6]), part=part, size=size, seed=0, label_noise=0)
