"""LogME, linear CKA and effective rank: against values computed another way, and where they are taken."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from torch import Tensor, nn

from study.networks.build import normalisation
from study.networks.families import between_pieces
from study.run import Run
from study.store import Store
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.cut import starting_network
from study.training.similarity import (
    effective_rank,
    linear_cka,
    logme,
    measure,
    pooled,
    start_network,
)
from tests.trainings import SHAPE, cell, network, training_of, with_recipe


def problem(
    n: int, d: int, num_classes: int, *, seed: int = 0, signal: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Return features with class means, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    means = signal * random.standard_normal((num_classes, d))
    features = random.standard_normal((n, d)) + means[labels] + 0.5
    return torch.from_numpy(features), torch.from_numpy(labels)


def rotation(d: int, seed: int = 0) -> Tensor:
    turned = ortho_group.rvs(d, random_state=seed) if d > 1 else -np.ones((1, 1))
    return torch.from_numpy(turned)


some_problems = given(
    n=st.integers(4, 40),
    d=st.integers(1, 40),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)


# LogME


def evidence_by_optimiser(features: Tensor, target: np.ndarray) -> float:
    """Log density of y under N(0, FFᵀ/α + I/β), maximised over α and β by a general optimiser."""
    f = features.numpy()
    n = len(f)

    def loss(logs: np.ndarray) -> float:
        covariance = f @ f.T * math.exp(-logs[0]) + np.eye(n) * math.exp(-logs[1])
        return -multivariate_normal.logpdf(target, cov=covariance)

    starts = [(0.0, 0.0), (4.0, 2.0), (-3.0, 4.0), (8.0, 1.0)]
    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}
    return max(-minimize(loss, x, method="Nelder-Mead", options=options).fun for x in starts) / n


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "d", "signal"), [(40, 5, 1.0), (30, 30, 1.0), (12, 40, 0.5), (60, 8, 0.3)]
)
def test_logme_is_the_maximum_evidence(n: int, d: int, signal: float) -> None:
    features, labels = problem(n, d, 3, signal=signal)
    expected = np.mean(
        [evidence_by_optimiser(features, (labels == c).double().numpy()) for c in range(3)]
    )
    assert logme(features, labels) == pytest.approx(expected, abs=1e-6)


def test_logme_is_the_fixed_point_of_the_paper() -> None:
    # The paper's update of α and β, and its evidence by the posterior of w, for n > d.
    features, labels = problem(200, 10, 4)
    f, n, d = features.numpy(), 200, 10
    found = []
    for c in range(4):
        y, alpha, beta = (labels == c).double().numpy(), 1.0, 1.0
        for _ in range(500):
            precision = alpha * np.eye(d) + beta * f.T @ f
            m = beta * np.linalg.solve(precision, f.T @ y)
            gamma = d - alpha * np.trace(np.linalg.inv(precision))
            alpha, beta = gamma / (m @ m), (n - gamma) / np.sum((y - f @ m) ** 2)
        precision = alpha * np.eye(d) + beta * f.T @ f
        m = beta * np.linalg.solve(precision, f.T @ y)
        found.append(
            n / 2 * np.log(beta / (2 * np.pi))
            + d / 2 * np.log(alpha)
            - beta / 2 * np.sum((y - f @ m) ** 2)
            - alpha / 2 * m @ m
            - np.linalg.slogdet(precision)[1] / 2
        )
    assert logme(features, labels) == pytest.approx(np.mean(found) / n, abs=1e-6)


@some_problems
def test_logme_does_not_depend_on_order_scale_rotation_or_empty_features(
    n: int, d: int, scale: float, seed: int
) -> None:
    features, labels = problem(n, d, 2, seed=seed)
    value = logme(features, labels)
    assert value is not None
    order = torch.from_numpy(np.random.default_rng(seed).permutation(d))
    padded = torch.cat([features, torch.zeros(n, 3)], dim=1)
    for same in (features[:, order], features * scale, features @ rotation(d, seed), padded):
        assert logme(same, labels) == pytest.approx(value, abs=1e-6)


def test_logme_more_signal_is_higher() -> None:
    values = [logme(*problem(100, 20, 5, signal=signal)) for signal in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


def test_logme_degenerate_features() -> None:
    _, labels = problem(60, 3, 3)
    # Without information, y is noise around 0 with variance 1/3.
    nothing = -(math.log(2 * math.pi / 3) + 1) / 2
    assert logme(torch.zeros(60, 4), labels) == pytest.approx(nothing, abs=1e-4)
    # The same for all images: an intercept, in one feature or in several.
    constant = logme(torch.ones(60, 1), labels)
    assert constant is not None and constant > nothing
    assert logme(torch.ones(60, 5), labels) == pytest.approx(constant, abs=1e-6)
    # A perfect fit has finite evidence.
    perfect = logme((labels[:, None] == torch.arange(3)).double(), labels)
    assert perfect is not None and 1 < perfect < 20
    assert logme(torch.full((60, 2), torch.nan), labels) is None
    assert logme(torch.randn(60, 2), torch.zeros(60, dtype=torch.long)) is None


def test_measures_skip_classes_without_images() -> None:
    features, labels = problem(40, 6, 3)
    moved = torch.where(labels == 2, 7, labels)
    assert logme(features, moved) == logme(features, labels)
    assert linear_cka(features, moved) == linear_cka(features, labels)


# CKA


def cka_by_gram(features: Tensor, labels: Tensor) -> tuple[float, float]:
    """Plain CKA by the centring matrix; debiased by the U-statistic of HSIC (Song et al. 2012, eq. 5)."""
    f = features.numpy()
    y = (labels[:, None] == labels.unique()).double().numpy()
    n = len(f)
    k, m = f @ f.T, y @ y.T
    h = np.eye(n) - 1 / n

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ h @ b @ h))

    def unbiased(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - np.diag(np.diag(a)), b - np.diag(np.diag(b))
        return float(
            np.trace(a @ b)
            + a.sum() * b.sum() / ((n - 1) * (n - 2))
            - 2 * (a.sum(0) @ b.sum(0)) / (n - 2)
        )

    plain = hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))
    debiased = unbiased(k, m) / math.sqrt(unbiased(k, k) * unbiased(m, m))
    return plain, debiased


@pytest.mark.parametrize(("n", "d"), [(50, 4), (20, 20), (8, 100), (4, 3)])
def test_linear_cka_equals_that_of_gram_matrices(n: int, d: int) -> None:
    features, labels = problem(n, d, 3)
    assert linear_cka(features, labels) == pytest.approx(cka_by_gram(features, labels), abs=1e-10)


@some_problems
def test_linear_cka_does_not_change_with_rotation_scale_and_shift(
    n: int, d: int, scale: float, seed: int
) -> None:
    features, labels = problem(n, d, 2, seed=seed)
    plain, debiased = linear_cka(features, labels)
    assert plain is not None and 0 <= plain <= 1 + 1e-12
    assert debiased is None or -1 - 1e-9 <= debiased <= 1 + 1e-9
    again = linear_cka(features @ rotation(d, seed) * scale + 3.0 * scale, labels)
    assert again[0] == pytest.approx(plain, abs=1e-8)
    assert again[1] == pytest.approx(debiased, abs=1e-6)


def test_linear_cka_of_noise_is_biased_and_debiased_is_about_zero() -> None:
    values = np.array(
        [linear_cka(*problem(50, 512, 10, signal=0.0, seed=seed)) for seed in range(20)]
    )
    plain, debiased = values.T
    assert plain.mean() == pytest.approx(math.sqrt(9 / (50 + 50**2 / 512)), abs=0.02)
    assert abs(debiased.mean()) < 3 * debiased.std() / math.sqrt(20)


def test_linear_cka_degenerate_features() -> None:
    features, labels = problem(12, 5, 3)
    assert linear_cka(torch.eye(3)[labels], labels) == pytest.approx((1, 1))
    rounded = (torch.ones(12, 5) * 0.1 + 1e-9 * features.float()).double()
    for constant in (torch.ones(12, 5), torch.zeros(12, 5), rounded, features * torch.inf):
        assert linear_cka(constant, labels) == (None, None)
    assert linear_cka(features, torch.zeros(12, dtype=torch.long)) == (None, None)
    for few in ((features, torch.arange(12)), (features[:3], labels[:3])):  # no class has two
        plain, debiased = linear_cka(*few)
        assert plain is not None and debiased is None


# Effective rank


@given(d=st.integers(1, 6), k=st.integers(1, 6), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 9))
def test_effective_rank_counts_equal_directions_whatever_rotation_and_scale(
    d: int, k: int, scale: float, seed: int
) -> None:
    k = min(d, k)
    features = torch.zeros(2 * k, d, dtype=torch.float64)
    features[torch.arange(k), torch.arange(k)] = scale
    features[k + torch.arange(k), torch.arange(k)] = -scale  # mean 0, k equal singular values
    assert effective_rank(features @ rotation(d, seed) + 1) == pytest.approx(k, rel=1e-4)


def test_effective_rank_unequal_directions_count_less() -> None:
    features = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    shares = np.array([0.75, 0.25])
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert effective_rank(torch.full((5, 3), 0.7)) is None
    assert effective_rank(torch.tensor([[1.0], [float("nan")]])) is None


# Where they are measured


def measured(
    run: Run, layers: nn.Sequential, images: np.ndarray, labels: np.ndarray, **how: Any
) -> list[dict[str, Any]]:
    cpu = torch.device("cpu")
    rows: list[dict[str, Any]] = measure(
        run, layers, images, labels, "d" * 64, device=cpu, **how
    ).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("model", "width"), [("resnet18", 4), ("densenet121", 4), ("vit_tiny", 12)]
)
def test_measure_takes_features_at_the_cut_and_at_the_head(model: str, width: int) -> None:
    layers, run = network(model, width), cell(model, width)
    images = np.random.default_rng(0).integers(0, 256, (30, *SHAPE), dtype=np.uint8)
    labels = np.arange(30) % 3
    y = torch.from_numpy(labels)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(model))
    inputs = (torch.from_numpy(images) / 255 - mean) / std
    with torch.no_grad():
        at_cut, last = layers[:4](inputs), layers[:-1](inputs)
        expected_cut = at_cut.mean(1) if model == "vit_tiny" else at_cut.mean((2, 3))
        at_head = layers[-1].norm(last)[:, 0] if model == "vit_tiny" else last.mean((2, 3))
    layers.train()
    rows = measured(run, layers, images, labels)
    for row, place, features in zip(rows, ("cut", "head"), (expected_cut, at_head), strict=True):
        assert (row["place"], row["run_id"], row["num_images"]) == (place, run.id, 30)
        assert (row["num_classes"], row["num_features"]) == (3, features.shape[1])
        assert row["logme"] == pytest.approx(logme(features, y), abs=1e-4)
        plain, debiased = linear_cka(features, y)
        assert row["linear_cka"] == pytest.approx(plain, rel=1e-3)
        assert row["linear_cka_debiased"] == pytest.approx(debiased, abs=1e-3)
        assert row["effective_rank"] == pytest.approx(effective_rank(features), rel=1e-3)
    # If nothing is frozen, the features at the cut are the pixels.
    unfrozen = replace(run, frozen=0)
    pixels = measured(unfrozen, layers, images, labels)
    assert pixels[0]["logme"] == pytest.approx(logme(inputs.mean((2, 3)), y), abs=1e-6)
    assert pixels[1] == rows[1] | {"run_id": unfrozen.id}


@pytest.mark.parametrize(
    ("model", "width", "frozen", "pieces"),
    [("resnet18", 4, 3, 1), ("densenet121", 4, 10, 5), ("vit_tiny", 12, 13, 1)],
)
def test_measure_of_frozen_pieces_takes_the_features_behind_them(
    model: str, width: int, frozen: int, pieces: int, store: Store
) -> None:
    run, layers = cell(model, width, frozen=frozen, frozen_pieces=pieces), network(model, width)
    images = load("digits-high", store).train_images[:30].copy()
    rows, without, before = (
        measured(each, layers, images, np.arange(30) % 3)
        for each in (
            run,
            replace(run, frozen_pieces=0),
            replace(run, frozen=frozen - 1, frozen_pieces=0),
        )
    )
    assert rows[1] == without[1] | {"run_id": run.id}  # the head does not depend on the cut
    assert rows[0]["logme"] not in (without[0]["logme"], before[0]["logme"])
    inside, _ = between_pieces(layers, model, frozen, pieces)
    with torch.no_grad():
        seen = pooled(inside(layers[:frozen](torch.zeros(2, *SHAPE))))
    assert rows[0]["num_features"] == seen.shape[1]
    if model == "vit_tiny":  # behind the final norm and the pooling is the classifier's input
        assert rows[0] | {"place": "head"} == rows[1]


@pytest.mark.parametrize(
    ("model", "width", "fields", "recipe", "is_held"),
    [
        ("resnet18", 4, {"frozen": 4}, {}, True),
        ("resnet18", 4, {"frozen": 3, "frozen_pieces": 1}, {}, True),
        ("vit_tiny", 12, {"frozen": 5}, {}, True),
        ("densenet121", 2, {"frozen": 8}, {}, True),
        ("resnet18", 4, {"frozen": 0}, {}, False),
        ("resnet18", 4, {"frozen": 9}, {}, False),  # held after the head's pooling
        ("resnet18", 4, {"frozen": 9, "trained_channels": 5}, {}, False),
        ("resnet18", 4, {"frozen": 4}, {"precision": "bfloat16"}, False),
        ("resnet18", 4, {"frozen": 4}, {"frozen_batchnorm": "training"}, False),
    ],
)
def test_measure_with_the_trainings_features_gives_the_same_values(
    store: Store,
    model: str,
    width: int,
    fields: dict[str, Any],
    recipe: dict[str, Any],
    is_held: bool,
) -> None:
    run = with_recipe(cell(model, width, size=300, **fields), **recipe)
    start = network(model, width).state_dict()
    at_cut = training_of(run, store, start).at_cut()
    assert (at_cut is not None) == is_held
    task = load(run.task, store)
    drawn = draw(task, part="all", size=300, seed=run.seed, label_noise=run.label_noise)
    images, labels = task.train_images[drawn.indices], drawn.clean_labels
    layers = start_network(run, SHAPE, start)
    plain, taken = (measured(run, layers, images, labels, at_cut=each) for each in (None, at_cut))
    assert plain == taken


def test_pooled_averages_positions_or_tokens() -> None:
    maps, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    assert torch.allclose(pooled(maps), maps.flatten(2).mean(2))
    assert torch.allclose(pooled(tokens), tokens.sum(1) / 7)
    assert pooled(tokens[:, 0]).shape == (2, 3)


def test_start_network_has_the_starts_own_head_and_layers() -> None:
    run = with_recipe(cell(), above_cut="reinitialised")
    weights = network(num_classes=7).state_dict()
    layers = start_network(run, SHAPE, weights)
    assert layers[-1](torch.zeros(1, 32, 2, 2)).shape == (1, 7)
    starting = starting_network(run, 5, SHAPE, weights)
    assert not torch.equal(starting[-2].conv1.weight, layers[-2].conv1.weight)
