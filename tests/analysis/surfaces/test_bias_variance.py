"""Bias and variance of predicted labels: laws that hold exactly, and truths that are known."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from analysis.surfaces import bias_variance
from analysis.surfaces.bias_variance import decompose, disagreement, finite_set_spread


@st.composite
def predictions(draw: st.DrawFn, min_seeds: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Labels (seeds, evaluations, images), few classes so that ties are common, and the true ones."""
    shape = (draw(st.integers(min_seeds, 8)), draw(st.integers(1, 3)), draw(st.integers(2, 6)))
    label = st.integers(0, draw(st.integers(1, 4)))
    return (
        draw(hnp.arrays(np.uint16, shape, elements=label)),
        draw(hnp.arrays(np.int64, shape[-1:], elements=label)),
    )


@settings(max_examples=300, deadline=None)
@given(given_=predictions())
def test_bias_and_net_variance_add_up_to_the_error(given_: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, labels = given_
    parts = decompose(predicted, labels)
    error = (predicted != labels).mean(axis=(0, -1))
    assert np.allclose(parts.error, error, atol=1e-12)
    assert np.allclose(parts.bias + parts.net_variance, error, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(given_=predictions())
def test_each_image_is_taken_apart_as_domingos_says(
    given_: tuple[np.ndarray, np.ndarray],
) -> None:
    """Loss = B + c V with c = 1 where the main prediction is right, else −P(right | not the main one):
    written down image by image, every most frequent label the main one with equal weight."""
    predicted, labels = given_
    parts = decompose(predicted, labels)
    bias, variance, net = (np.zeros(predicted.shape[1:]) for _ in range(3))
    for place in np.ndindex(bias.shape):
        given_labels = predicted[(slice(None), *place)].tolist()
        truth = int(labels[place[-1]])
        counts = Counter(given_labels)
        mains = [label for label, count in counts.items() if count == max(counts.values())]
        for main in mains:
            others = [label for label in given_labels if label != main]
            v = len(others) / len(given_labels)
            factor = 1.0
            if main != truth:
                factor = -others.count(truth) / len(others) if others else 0.0
            bias[place] += (main != truth) / len(mains)
            variance[place] += v / len(mains)
            net[place] += factor * v / len(mains)
    assert np.allclose(parts.bias, bias.mean(axis=-1))
    assert np.allclose(parts.variance, variance.mean(axis=-1))
    assert np.allclose(parts.net_variance, net.mean(axis=-1))


@settings(max_examples=100, deadline=None)
@given(given_=predictions(), data=st.data())
def test_nothing_hangs_on_how_classes_seeds_and_images_are_numbered(
    given_: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    predicted, labels = given_
    seeds = data.draw(st.permutations(range(len(predicted))))
    images = data.draw(st.permutations(range(len(labels))))
    names = np.array(data.draw(st.permutations(range(5))))
    other = names[predicted][seeds][..., images], names[labels][images]
    for name in ("bias", "variance", "variance_unbiased", "variance_biased"):
        ours, theirs = getattr(decompose(*given_), name), getattr(decompose(*other), name)
        assert np.allclose(ours, theirs)
    assert np.allclose(disagreement(predicted), disagreement(other[0]))


@settings(max_examples=100, deadline=None)
@given(given_=predictions())
def test_with_two_classes_net_variance_is_a_difference_of_variances(
    given_: tuple[np.ndarray, np.ndarray],
) -> None:
    predicted, labels = (np.minimum(part, 1) for part in given_)
    odd = predicted[: len(predicted) - 1 + len(predicted) % 2]  # no ties
    if len(odd) < 5:
        return
    parts = decompose(odd, labels)
    assert np.allclose(parts.variance, parts.variance_unbiased + parts.variance_biased)


@settings(max_examples=100, deadline=None)
@given(given_=predictions(min_seeds=2))
def test_disagreement_is_the_mean_over_all_pairs(given_: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, _ = given_
    pairs = [
        (predicted[i] != predicted[j]).mean(axis=-1)
        for i in range(len(predicted))
        for j in range(i)
    ]
    assert np.allclose(disagreement(predicted), np.mean(pairs, axis=0))


def cases() -> tuple[np.ndarray, np.ndarray]:
    """Of 20,000 images the chances of 10 labels, (images, labels), and their true labels: about as
    uncertain as networks of which two disagree on 40 % of the images."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, 20_000)
    weights = random.gamma(0.08, size=(20_000, 10))
    weights[np.arange(20_000), labels] += random.gamma(1.0, size=20_000)
    return weights / weights.sum(axis=1, keepdims=True), labels


def drawn(chances: np.ndarray, num_seeds: int, seed: int = 1) -> np.ndarray:
    """Labels that so many independent seeds give: (seeds, images)."""
    draws = np.random.default_rng(seed).random((num_seeds, len(chances), 1))
    return (draws > chances.cumsum(axis=1)[:, :-1]).sum(axis=-1)


def test_what_few_seeds_do_to_bias_and_variance() -> None:
    chances, labels = cases()
    right = chances[np.arange(len(labels)), labels]
    error, bias = float(1 - right.mean()), float((chances.argmax(axis=1) != labels).mean())
    apart = float(1 - (chances**2).sum(axis=1).mean())
    found = {n: bias_variance._decompose(drawn(chances, n), labels) for n in (2, 5, 10, 25)}
    assert float(found[2].bias) == pytest.approx(float(found[2].error))  # tells nothing
    excess = [float(found[n].bias) - bias for n in found]
    assert all(more > less > 0 for more, less in pairwise(excess))
    # Of an error of 40.2 %, 29.9 % bias and 10.3 % net variance: at five seeds 3.9 points more bias and
    # less net variance, at ten 2.2, at 25 0.9.
    assert excess[1:] == pytest.approx([0.039, 0.022, 0.009], abs=0.003)
    assert float(found[25].net_variance) == pytest.approx(error - bias, abs=0.012)
    for parts in found.values():
        assert float(parts.variance) < 1 - chances.max(axis=1).mean()
    for num in (2, 3, 5):
        assert float(disagreement(drawn(chances, num))) == pytest.approx(apart, abs=0.006)


def spreads(chances: np.ndarray, labels: np.ndarray, num: int) -> np.ndarray:
    """measured, finite and beyond, means over many pairs of five seeds: (3,)."""
    found = [finite_set_spread(drawn(chances, 5, seed=s), labels) for s in range(num)]
    return np.mean([[f.measured, f.finite_test_set, f.beyond] for f in found], axis=0)


def test_independent_errors_are_all_finite_test_set() -> None:
    chances, labels = cases()
    chances, labels = chances[:1_000], labels[:1_000]
    right = chances[np.arange(1_000), labels]
    expected = float((right * (1 - right)).mean() / 1_000)
    measured, finite, beyond = spreads(chances, labels, 400)
    assert finite == pytest.approx(expected, rel=0.02)
    assert measured == pytest.approx(expected, rel=0.15)
    assert abs(beyond) < 0.15 * expected


def test_seeds_that_are_better_than_others_are_beyond_the_test_set() -> None:
    """A seed's error on the distribution varies with standard deviation 0.03: that is what is found."""
    random = np.random.default_rng(3)
    found = []
    for _ in range(400):
        chance = 0.3 + 0.03 * random.standard_normal((5, 1))
        wrong = random.random((5, 500)) < chance
        found.append(finite_set_spread(wrong.astype(int), np.zeros(500, int)).beyond)
    assert float(np.mean(found)) == pytest.approx(0.03**2, rel=0.15)


def test_evaluations_are_taken_each_by_itself() -> None:
    chances, labels = cases()
    both = np.stack([drawn(chances, 5), drawn(chances, 5, seed=2)], axis=1)
    for index in range(2):
        one = both[:, index]
        assert decompose(both, labels).bias[index] == decompose(one, labels).bias
        assert disagreement(both)[index] == disagreement(one)
        spread = finite_set_spread(one, labels).beyond
        assert finite_set_spread(both, labels).beyond[index] == spread


ONES = np.ones((5, 4), int)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: decompose(ONES[:4], ONES[0]), "4 seeds: bias and variance need 5"),
        (lambda: disagreement(ONES[:1]), "disagreement needs two"),
        (lambda: finite_set_spread(ONES[:1], ONES[0]), "a spread needs two"),
        (lambda: finite_set_spread(ONES[:, :1], ONES[0, :1]), "1 test image"),
        (lambda: decompose(ONES, ONES[0, :3]), "labels: 4 whole numbers are needed"),
        (lambda: decompose(ONES.astype(float), ONES[0]), "predicted: whole numbers"),
        (lambda: disagreement(ONES[0]), "predicted: whole numbers"),
    ],
)
def test_wrong_arrays_are_refused(ask: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask()  # type: ignore[operator]
