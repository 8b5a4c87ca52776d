"""Lengths, batches, evaluated steps and learning rates: known values and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.run import Recipe
from study.training.steps import (
    batch_spans,
    evaluated_steps,
    learning_rate,
    steps_per_epoch,
    total_steps,
)


@given(st.integers(2, 5000), st.integers(2, 600))
def test_batch_spans_contain_every_image_once_and_no_single_one(n: int, batch_size: int) -> None:
    spans = batch_spans(n, batch_size)
    assert [i for span in spans for i in range(span.start, span.stop)] == list(range(n))
    lengths = [span.stop - span.start for span in spans]
    assert min(lengths) >= 2
    assert all(length == batch_size for length in lengths[:-1])
    assert lengths[-1] <= batch_size + 1
    assert (lengths[-1] > batch_size) == (n > batch_size and n % batch_size == 1)


def test_total_steps_of_epochs_and_of_steps() -> None:
    epochs, steps = Recipe(num_epochs=10), Recipe(num_steps=10)
    assert steps_per_epoch(epochs, 8000) == 63
    assert [total_steps(epochs, size) for size in (8000, 500)] == [630, 40]
    assert [total_steps(steps, size) for size in (8000, 500)] == [10, 10]


def test_evaluated_steps_are_pinned() -> None:
    assert evaluated_steps(Recipe(num_epochs=3), 500) == [0, 4, 8, 12]
    assert evaluated_steps(Recipe(num_steps=10), 500) == [0, 4, 8, 10]
    recipe = Recipe(num_steps=1000, evaluation="log_spaced", num_evaluations=10)
    assert evaluated_steps(recipe, 500) == [0, 1, 2, 5, 10, 22, 46, 100, 215, 464, 1000]


@given(st.integers(1, 10_000), st.integers(2, 300), st.integers(2, 4000))
def test_evaluated_steps_ascend_from_0_to_the_last(steps: int, num: int, size: int) -> None:
    for recipe in (
        Recipe(num_steps=steps),
        Recipe(num_steps=steps, evaluation="log_spaced", num_evaluations=num),
    ):
        evaluated = evaluated_steps(recipe, size)
        assert evaluated == sorted(set(evaluated))
        assert (evaluated[0], evaluated[-1]) == (0, steps)


def test_learning_rate_follows_the_schedule() -> None:
    cosine = Recipe(num_steps=100, learning_rate=2.0, schedule="cosine")
    assert learning_rate(cosine, 0, 100) == 2.0
    assert learning_rate(cosine, 50, 100) == pytest.approx(1.0)
    assert 0 < learning_rate(cosine, 99, 100) < 0.001
    root = Recipe(num_steps=100, learning_rate=2.0, schedule="inverse_sqrt", inverse_sqrt_steps=10)
    assert [learning_rate(root, step, 100) for step in (0, 9, 30)] == [2.0, 2.0, 1.0]
    assert learning_rate(Recipe(num_steps=100, learning_rate=2.0), 77, 100) == 2.0
