"""Bias, variance and disagreement of predicted labels over seeds: pure functions on arrays.

Owns the decomposition of 0-1 loss (Domingos 2000), the disagreement of two seeds, and how much of the
spread of the test error over seeds is the finite test set (Jordan 2023). Reads no file.
Test labels are taken for the truth: there is no noise term.

Arrays: `predicted` holds labels, whole numbers, shape (seeds, …, images), a seed for each training set and
… for evaluations or other cells; `labels` is (images,). Results are of shape (…).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

# Of few seeds the bias comes out too high and the variance too low: of two the bias is the whole error,
# whatever the truth. Where two seeds disagree on 40 % of the images, 3.9 points of bias are too many at
# five seeds, 2.2 at ten, 0.9 at 25 (tests/analysis/surfaces/test_bias_variance.py).
MIN_SEEDS: Final = 5


@dataclass(frozen=True, eq=False, kw_only=True)
class Decomposition:
    """The mean 0-1 loss over seeds and images, taken apart; fractions of images, each of shape (…).

    - `error` = `bias` + `net_variance`, and `net_variance` = `variance_unbiased` − `variance_biased`:
      both hold exactly.
    - `bias`: images whose main prediction is wrong.
    - `variance_unbiased`: where the main prediction is right, the chance that a seed gives another one:
      there variance adds to the error.
    - `variance_biased`: where it is wrong, the chance that a seed is right: there variance takes from the
      error. With two classes that is the chance of giving another label than the main one; with more it
      is that chance times Domingos' factor P(right | not the main one).
    - `variance`: the chance that a seed gives another label than the main one, on any image.
    """

    error: np.ndarray
    bias: np.ndarray
    variance: np.ndarray
    variance_unbiased: np.ndarray
    variance_biased: np.ndarray

    @property
    def net_variance(self) -> np.ndarray:
        net: np.ndarray = self.variance_unbiased - self.variance_biased
        return net


def decompose(predicted: np.ndarray, labels: np.ndarray) -> Decomposition:
    """Bias and variance of 0-1 loss over seeds (Domingos 2000, "A unified bias-variance decomposition").

    The main prediction of an image is its most frequent label over the seeds. Where several labels are
    equally frequent each is the main one with equal weight, so that nothing hangs on how classes are
    numbered. Bias is over-, variance underestimated, the more the fewer seeds there are: compare cells of
    equally many. ValueError below MIN_SEEDS.
    """
    num = _checked(predicted, labels)
    if num < MIN_SEEDS:
        raise ValueError(
            f"{num} seeds: bias and variance need {MIN_SEEDS}, fewer tell only `disagreement`"
        )
    return _decompose(predicted, labels)


def _decompose(predicted: np.ndarray, labels: np.ndarray) -> Decomposition:
    num = len(predicted)
    right = (predicted == labels).sum(axis=0)
    most, ties = np.zeros_like(right), np.zeros(right.shape)
    # How often each seed's label was given: no table over all classes is needed.
    counts = [(predicted == one).sum(axis=0) for one in predicted]
    for count in counts:
        most = np.maximum(most, count)
    for count in counts:
        ties += np.where(count == most, 1 / most, 0.0)  # each of the most frequent labels adds 1
    unbiased = np.where(right == most, 1 / ties, 0.0)
    share_right = right / num
    return Decomposition(
        error=1 - share_right.mean(axis=-1),
        bias=(1 - unbiased).mean(axis=-1),
        variance=(1 - most / num).mean(axis=-1),
        variance_unbiased=(unbiased * (1 - share_right)).mean(axis=-1),
        variance_biased=((1 - unbiased) * share_right).mean(axis=-1),
    )


def disagreement(predicted: np.ndarray) -> np.ndarray:
    """The chance that two seeds give an image different labels: mean over all pairs and images.

    Unbiased from two seeds on; ValueError for one.
    """
    num = _checked(predicted, None)
    if num < 2:
        raise ValueError("1 seed: disagreement needs two")
    # Each seed agrees with itself.
    pairs = [(predicted == one).mean(axis=-1).sum(axis=0) - 1 for one in predicted]
    result: np.ndarray = 1 - np.sum(pairs, axis=0) / (num * (num - 1))
    return result


@dataclass(frozen=True, eq=False, kw_only=True)
class Spread:
    """Variances over seeds of the test error (a fraction, squared), each of shape (…).

    - `measured`: of the error on this test set.
    - `finite_test_set`: what it would be if images erred independently of each other: what remains of
      seeds that are equally good on the distribution, because the test set is finite.
    - `beyond`: of the error on the whole distribution of images, estimated without bias, so that it may
      lie below zero.
    """

    measured: np.ndarray
    finite_test_set: np.ndarray
    beyond: np.ndarray


def finite_set_spread(predicted: np.ndarray, labels: np.ndarray) -> Spread:
    """How much of the spread over seeds is the finite test set (Jordan 2023, arXiv 2304.01910).

    With e the errors (seeds, images) and N images, the variance over seeds of the mean of e is
    (Σ variances + Σ covariances of different images) ÷ N². The first sum is there without any seed being
    better than another; the mean covariance is the variance of the error on the distribution, as test
    images are drawn from it independently. All three are unbiased from two seeds on; ValueError for one.
    """
    num = _checked(predicted, labels)
    if num < 2:
        raise ValueError("1 seed: a spread needs two")
    images = labels.size
    if images < 2:
        raise ValueError("1 test image: its spread cannot be divided")
    wrong = predicted != labels
    share = wrong.mean(axis=0)
    each = share * (1 - share) * num / (num - 1)
    measured = wrong.mean(axis=-1).var(axis=0, ddof=1)
    finite = each.mean(axis=-1) / images
    return Spread(
        measured=measured,
        finite_test_set=finite,
        beyond=(measured - finite) * images / (images - 1),
    )


def _checked(predicted: np.ndarray, labels: np.ndarray | None) -> int:
    """The number of seeds. Raises ValueError for arrays that are no labels or do not fit."""
    if predicted.ndim < 2 or predicted.size == 0 or predicted.dtype.kind not in "iu":
        raise ValueError(
            f"predicted: whole numbers (seeds, …, images) are needed, not {predicted.dtype} of shape "
            f"{predicted.shape}"
        )
    if labels is not None and (
        labels.shape != predicted.shape[-1:] or labels.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"labels: {predicted.shape[-1]} whole numbers are needed, not {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return len(predicted)
