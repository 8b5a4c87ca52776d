"""LogME, linear CKA and effective rank, against values that are computed in another way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from torch import Tensor

from study.training.similarity import effective_rank, linear_cka, logme


def problem(n: int, d: int, num_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return features with class means, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    means = random.standard_normal((num_classes, d))
    features = random.standard_normal((n, d)) + means[labels] + 0.5
    return torch.from_numpy(features), torch.from_numpy(labels)


def evidence(features: np.ndarray, y: np.ndarray) -> float:
    """Log density of y under N(0, FFᵀ/α + I/β), maximised over α and β by a general optimiser."""

    def loss(logs: np.ndarray) -> float:
        alpha, beta = np.exp(logs)
        covariance = features @ features.T / alpha + np.eye(len(y)) / beta
        return -multivariate_normal.logpdf(y, cov=covariance)

    options = {"xatol": 1e-6, "fatol": 1e-8}
    starts = [(0.0, 0.0), (4.0, 2.0), (8.0, 1.0)]
    return -min(minimize(loss, x, method="Nelder-Mead", options=options).fun for x in starts)


def cka_by_gram(features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Plain CKA by the centring matrix; debiased by the U-statistic of HSIC (Song et al. 2012, eq. 5)."""
    f, n = features.numpy(), len(features)
    y = (labels[:, None] == labels.unique()).double().numpy()
    k, m, h = f @ f.T, y @ y.T, np.eye(n) - 1 / n

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ h @ b @ h))

    def unbiased(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        sums = a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a.sum(0) @ b.sum(0)) / (n - 2)
        return float(np.trace(a @ b) + sums)

    plain = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    debiased = unbiased(k, m) / math.sqrt(unbiased(k, k) * unbiased(m, m))
    return plain, debiased


@pytest.mark.parametrize(("n", "d"), [(30, 5), (20, 20), (8, 40)])
def test_logme_is_the_maximum_evidence(n: int, d: int) -> None:
    features, labels = problem(n, d)
    of_classes = [evidence(features.numpy(), (labels == c).double().numpy()) for c in range(3)]
    assert logme(features, labels) == pytest.approx(np.mean(of_classes) / n, abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(50, 4), (20, 20), (8, 100), (4, 3)])
def test_linear_cka_equals_that_of_gram_matrices(n: int, d: int) -> None:
    features, labels = problem(n, d)
    assert linear_cka(features, labels) == pytest.approx(cka_by_gram(features, labels), abs=1e-10)


def test_effective_rank_counts_directions_by_their_share() -> None:
    features = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    shares = np.array([0.75, 0.25])
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    equal = torch.cat([torch.eye(3), -torch.eye(3)])
    assert effective_rank(equal) == pytest.approx(3)


@given(
    n=st.integers(4, 40),
    d=st.integers(1, 40),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_measures_do_not_change_with_rotation_scale_and_empty_features(
    n: int, d: int, scale: float, seed: int
) -> None:
    features, labels = problem(n, d, 2, seed)
    rotation = torch.from_numpy(ortho_group.rvs(d + 2, random_state=seed))
    same = torch.cat([features, torch.zeros(n, 2)], dim=1) @ rotation * scale
    assert logme(same, labels) == pytest.approx(logme(features, labels), abs=1e-6)
    assert effective_rank(same + scale) == pytest.approx(effective_rank(features), rel=1e-3)
    plain, debiased = linear_cka(features, labels)
    assert plain is not None and 0 <= plain <= 1 + 1e-12
    assert debiased is None or abs(debiased) <= 1 + 1e-9
    shifted = linear_cka(same + 3 * scale, labels)
    assert shifted[0] == pytest.approx(plain, abs=1e-8)
    assert shifted[1] == pytest.approx(debiased, abs=1e-6)


def test_measures_skip_classes_without_images() -> None:
    features, labels = problem(40, 6)
    moved = torch.where(labels == 2, 7, labels)
    assert logme(features, moved) == logme(features, labels)
    assert linear_cka(features, moved) == linear_cka(features, labels)


def test_measures_of_degenerate_features_are_none_or_finite() -> None:
    features, labels = problem(60, 5)
    # Without information, y is noise around 0 with variance 1/3.
    nothing = -(math.log(2 * math.pi / 3) + 1) / 2
    assert logme(torch.zeros(60, 4), labels) == pytest.approx(nothing, abs=1e-4)
    constant = logme(torch.ones(60, 1), labels)  # an intercept
    assert constant is not None and constant > nothing
    assert logme(torch.ones(60, 5), labels) == pytest.approx(constant, abs=1e-6)
    perfect = torch.eye(3)[labels]
    evidence = logme(perfect, labels)
    assert evidence is not None and 1 < evidence < 20
    assert linear_cka(perfect, labels) == pytest.approx((1, 1))

    one_class = torch.zeros(60, dtype=torch.long)
    assert logme(features, one_class) is None
    assert linear_cka(features, one_class) == (None, None)
    rounded = (torch.ones(60, 5) * 0.1 + 1e-9 * features.float()).double()
    for useless in (torch.ones(60, 5), torch.zeros(60, 5), rounded, features * torch.inf):
        assert linear_cka(useless, labels) == (None, None)
        assert effective_rank(useless) is None
    assert logme(features * torch.nan, labels) is None
    for few in ((features[:12], torch.arange(12)), (features[:3], labels[:3])):
        plain, debiased = linear_cka(*few)  # no class has two images
        assert plain is not None and debiased is None
