"""Laws of the draws: which images a Run sees, which halves there are, which labels are wrong."""

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
    """A task with so many training images of each class, in mixed order; its pixels do not matter."""
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
def test_every_prefix_has_each_class_within_one_image_of_its_share(
    counts: list[int], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, len(labels), "a stream", seed)
    assert sorted(order) == list(range(len(labels)))
    drawn = np.cumsum(labels[order][:, None] == np.arange(len(counts)), axis=0)
    share = np.arange(1, len(labels) + 1)[:, None] * np.array(counts) / len(labels)
    assert np.abs(drawn - share).max() < 1


@given(COUNTS, SEEDS, st.sampled_from(PARTS), st.data())
def test_a_smaller_set_is_a_prefix_of_a_larger_one_whatever_the_noise(
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
def test_the_halves_share_nothing_and_split_each_class(counts: list[int]) -> None:
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


def test_the_halves_are_the_same_for_all_seeds_and_the_order_is_not() -> None:
    task = _task([20, 20])
    one, two = (draw(task, part="a", size=20, seed=seed, label_noise=0) for seed in (1, 2))
    assert set(one.indices) == set(two.indices)
    assert not np.array_equal(one.indices, two.indices)


@given(COUNTS, SEEDS, NOISES, NOISES, st.data())
def test_flips_are_exact_differ_and_grow_with_the_noise(
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


def test_what_a_label_is_replaced_by_depends_on_neither_size_nor_part() -> None:
    task = _task([40, 40, 40])
    replaced: dict[int, int] = {}
    for part, size in (("all", 120), ("all", 60), ("a", 60), ("b", 60)):
        drawn = draw(task, part=part, size=size, seed=3, label_noise=0.5)
        for index, label in zip(
            drawn.indices[drawn.flipped], drawn.labels[drawn.flipped], strict=True
        ):
            assert replaced.setdefault(int(index), int(label)) == label


def test_replacements_are_uniform_over_the_other_classes() -> None:
    task = _task([2000, 2000, 2000, 2000])
    drawn = draw(task, part="all", size=8000, seed=0, label_noise=0.75)
    away = (drawn.labels - drawn.clean_labels)[drawn.flipped] % 4
    counts = np.bincount(away, minlength=4)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)  # 5 standard deviations


def test_no_class_is_favoured_where_a_small_set_cannot_be_even() -> None:
    task = _task([50] * 10)
    extra = np.zeros(10, dtype=np.int64)
    for seed in range(200):
        drawn = draw(task, part="all", size=5, seed=seed, label_noise=0)
        extra += np.bincount(drawn.clean_labels, minlength=10)
    assert np.abs(extra - 100).max() < 5 * np.sqrt(200 * 0.25)


def test_the_draw_of_a_made_up_task_is_pinned() -> None:
    task = _task([6, 9, 5])
    drawn = draw(task, part="all", size=10, seed=7, label_noise=0.3)
    assert drawn.indices.tolist() == [0, 1, 7, 16, 4, 8, 17, 11, 14, 10]
    assert drawn.labels.tolist() == [1, 2, 0, 1, 1, 1, 1, 1, 2, 2]
    assert drawn.indices.dtype == drawn.labels.dtype == drawn.clean_labels.dtype == np.int64
    half = draw(task, part="b", size=4, seed=7, label_noise=0)
    assert half.indices.tolist() == [13, 14, 10, 0]


@pytest.mark.parametrize(("part", "size", "most"), [("all", 13, 12), ("a", 7, 6), ("b", 0, 6)])
def test_a_size_that_the_part_does_not_have(part: str, size: int, most: int) -> None:
    with pytest.raises(ValueError, match=rf"size={size}: task 'made-up' has {most} .*1 to {most}"):
        draw(_task([6, 6]), part=part, size=size, seed=0, label_noise=0)


def test_an_unknown_part() -> None:
    with pytest.raises(ValueError, match="part='c': choose one of all, a, b"):
        available(_task([6, 6]), "c")
