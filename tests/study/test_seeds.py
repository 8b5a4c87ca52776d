"""Named random streams are pinned, so that a new numpy cannot change a study."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from study.seeds import permutation, seed_of, stream, uniform


def test_streams_are_pinned() -> None:
    assert seed_of("order", "digits", 0) == 4148234914182145109
    assert permutation(8, "order", "digits", "all", 100, 0, 3).tolist() == [7, 2, 0, 5, 3, 1, 6, 4]
    assert uniform(3, "flip", "digits", 0).tolist() == [
        0.7282507972506732,
        0.5947569515193025,
        0.8525591696213337,
    ]


def test_permutation_differs_for_different_names() -> None:
    keys = [("a", "b"), ("ab",), ("a", "b", ""), ("a,b",), ("a", 1), ("a", "1"), ("a", None)]
    assert len({seed_of(*key) for key in keys}) == len(keys)


def test_permutation_does_not_use_the_global_generator() -> None:
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    stream("a").random(3)
    permutation(5, "a")
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@given(st.integers(0, 2000), st.text(), st.integers(-5, 2**40))
def test_permutation_has_every_position_once(n: int, name: str, seed: int) -> None:
    assert np.array_equal(np.sort(permutation(n, name, seed)), np.arange(n))


def test_uniform_has_uniform_values() -> None:
    values = uniform(20_000, "test")
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=10, range=(0, 1))
    assert np.all(np.abs(counts - 2000) < 5 * np.sqrt(1800))
