"""Measure how similar a start and a target are before training: LogME, linear CKA, effective rank.

The features are values at the Run's cut and at the head's input in the start's network (evaluation mode).
Uses the Run's training images with clean labels, never the target's test images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from study.networks.build import build
from study.networks.build import normalisation as normalisation_of
from study.networks.initial_values import CLASSIFIER
from study.run import HEAD, Run
from study.store import provenance, similarity
from study.store.similarity import Similarity, table_of
from study.training.cut import divide
from study.training.preprocessing import normalisation
from study.training.steps import EVALUATION_BATCH_SIZE, batch_spans

# Features are float32: values below this share of the total are rounding errors. This bounds the rank of
# features, and the evidence of a perfect fit, which would be infinite.
ROUNDING: Final = 1e-6

POINTS_A_DECADE: Final = 10
NUM_ZOOMS: Final = 6  # the first search covers the whole grid; each later one narrows it tenfold


def start_network(
    run: Run, image_shape: tuple[int, int, int], start_weights: Mapping[str, Tensor]
) -> nn.Sequential:
    """Return the network of the Run's start, with the start's own head, for images of the target."""
    assert run.source is not None, run.id
    num_classes = len(start_weights[f"{HEAD}.{CLASSIFIER}.weight"])
    layers = build(run.model, run.width, num_classes, image_shape)
    layers.load_state_dict(start_weights, strict=True)
    return layers


def measure(
    run: Run,
    layers: nn.Sequential,
    images: np.ndarray,
    labels: np.ndarray,
    start_digest: str,
    *,
    device: torch.device,
    at_cut: Tensor | None = None,
) -> pa.Table:
    """Return the similarity of the start's `layers` and target images: `study.store.similarity.TABLE`.

    `images`: uint8, shape (n, c, h, w); `labels`: int64, shape (n,), clean. `layers` are moved to `device`
    and set to evaluation mode; the measures are computed in float64 on the CPU. `at_cut`: the values at
    the cut for these images, (n, …), if already computed; the results are the same bits.
    """
    normalise = normalisation(*normalisation_of(run.model), device)
    pixels = torch.from_numpy(np.ascontiguousarray(images))
    layers = layers.to(device).eval()
    # If only some channels of a layer are trained, the cut is behind that layer.
    parts = divide(layers, run.model, run.frozen, frozen_pieces=run.frozen_pieces)
    parts.prefix.eval()
    parts.suffix.eval()
    cut_features, head_features = [], []
    with torch.no_grad(), _full_precision(), _classifier_input(layers) as head_inputs:
        for span in batch_spans(len(pixels), EVALUATION_BATCH_SIZE):
            if at_cut is None:
                features = parts.prefix(normalise(pixels[span].to(device)))
            else:
                features = at_cut[span].to(device)
            cut_features.append(pooled(features).cpu())
            parts.suffix(features)
            head_features.append(head_inputs.pop().cpu())
    clean = torch.from_numpy(labels)
    places = {similarity.CUT: cut_features, HEAD: head_features}
    measured = [_similarity(place, torch.cat(parts), clean) for place, parts in places.items()]
    return table_of(run, start_digest, measured, provenance.code_version())


def _similarity(place: str, features: Tensor, labels: Tensor) -> Similarity:
    features = features.double()
    plain, debiased = linear_cka(features, labels)
    return Similarity(
        place=place,
        num_images=len(labels),
        num_classes=len(labels.unique()),
        num_features=features.shape[1],
        logme=logme(features, labels),
        linear_cka=plain,
        linear_cka_debiased=debiased,
        effective_rank=effective_rank(features),
    )


def pooled(features: Tensor) -> Tensor:
    """Return the features of any layer as vectors, (n, c): average maps (n, c, h, w) or tokens (n, t, c).

    All tokens of a ViT count: in early layers the class token has no information about the image yet.
    """
    if features.ndim == 4:
        return features.mean((2, 3))
    if features.ndim == 3:
        return features.mean(1)
    assert features.ndim == 2, features.shape
    return features


@contextmanager
def _classifier_input(layers: nn.Sequential) -> Iterator[list[Tensor]]:
    """Yield a list that receives the input of the head's classifier in each forward pass."""
    seen: list[Tensor] = []
    classifier = getattr(layers[-1], CLASSIFIER)
    hook = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        hook.remove()


@contextmanager
def _full_precision() -> Iterator[None]:
    # Runs with different recipes are compared, so their precision must not matter.
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def logme(features: Tensor, labels: Tensor) -> float | None:
    """Return LogME in nats per image (You et al. 2021, section 4): mean over the classes present.

    `features`: F, shape (n, d); `labels`: int64, shape (n,). LogME is the log evidence of y = F w + noise
    for y = one class against the rest, with w ~ N(0, 1/α) and noise ~ N(0, 1/β), maximised over α and β.
    As in the paper, neither y nor F is centred. None if features are not finite or there are fewer than
    two classes.

    β has a closed form. A search over α/β finds the global maximum; the paper's fixed-point iteration
    may find a local one. If fewer directions than images fit perfectly, only rounding bounds the
    evidence, at about 13. If n < d or F lacks rank, the result is still the evidence, as in the paper;
    the authors' later code (You et al. 2022) adds log(α)/2 for every missing direction.
    """
    if not torch.isfinite(features).all() or len(labels.unique()) < 2:
        return None
    n = len(labels)
    sigma, projected, residual = _spectrum(features.double(), _one_hot(labels))
    return float(_evidence(n, sigma, projected, residual).mean() / n)


def _evidence(n: int, sigma: Tensor, projected: Tensor, residual: Tensor) -> Tensor:
    """Return the maximum log evidence of each target: (classes,). `n`: images; others: see `_spectrum`."""

    # yᵀ (I + FFᵀ/ratio)⁻¹ y; `ratio`: shape (classes, points)
    def squares(ratio: Tensor) -> Tensor:
        shares = ratio[..., None] / (ratio[..., None] + sigma)
        return (shares @ projected[..., None])[..., 0] + residual[:, None]

    def log_determinant(ratio: Tensor) -> Tensor:  # of I + FFᵀ/ratio
        return torch.log1p(sigma / ratio[..., None]).sum(-1)

    floor = ROUNDING**2 * (projected.sum(1) + residual)[:, None]
    # Without singular values, any ratio gives the same evidence.
    ratio = torch.ones(len(residual), 1, dtype=torch.float64)
    if len(sigma) > 0:
        # Below this range of ratios, the fit is as close as F allows; above it, F fits nothing.
        low, high = float(sigma.min().log10()) - 12, float(sigma.sum().log10()) + 8
        num_points = round((high - low) * POINTS_A_DECADE)
        exponents = torch.linspace(low, high, num_points, dtype=torch.float64)[None]
        for _ in range(NUM_ZOOMS):
            ratio = 10.0**exponents
            profile = -n * (squares(ratio) + floor).log() - log_determinant(ratio)
            step = exponents[0, 1] - exponents[0, 0]
            best = torch.take_along_dim(exponents, profile.argmax(1, keepdim=True), 1)
            exponents = best + step * torch.linspace(-1, 1, 21, dtype=torch.float64)
        ratio = 10.0**best
    beta = n / (squares(ratio) + floor)
    fit = n * (beta / (2 * torch.pi)).log() - beta * squares(ratio)
    return (fit - log_determinant(ratio))[:, 0] / 2


def _spectrum(f: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Decompose features `f`, (images, features), and project `targets`, (images, classes), on them.

    Returns:
        The k nonzero eigenvalues of FFᵀ, (k,).
        The squared projection of each target on each eigenvector, (classes, k).
        The squared length of each target outside the span of the eigenvectors, (classes,).
    """
    wide = f.shape[0] <= f.shape[1]
    sigma, vectors = torch.linalg.eigh(f @ f.T if wide else f.T @ f)
    kept = sigma > max(float(sigma[-1]), 0.0) * ROUNDING**2
    sigma, vectors = sigma[kept], vectors[:, kept]
    along = vectors.T @ (targets if wide else f.T @ targets)
    if not wide:
        along /= sigma.sqrt()[:, None]
    projected = along.square().T
    residual = (targets.square().sum(0) - projected.sum(1)).clamp(min=0)
    return sigma, projected, residual


def linear_cka(features: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
    """Return linear CKA of features and one-hot labels (Kornblith et al. 2019, section 3).

    `features`: shape (n, d); `labels`: int64, shape (n,). CKA is invariant to rotation and isotropic
    scaling of the features.

    Returns:
        The plain value, in [0, 1], biased upwards for few images: noise has about
            √((classes − 1) / (n + n²/d)), 0.4 for 50 images of 10 classes and 512 features.
        The debiased value, in [−1, 1]: each of the three HSIC terms is the unbiased estimate of Song et
            al. 2012 (Nguyen et al. 2021). None for fewer than four images, or if no two share a class.
        Both are None if features are not finite or equal for all images, or for fewer than two classes.
    """
    if not torch.isfinite(features).all() or len(labels.unique()) < 2:
        return None, None
    f, targets = features.double(), _one_hot(labels)
    x, y = f - f.mean(0), targets - targets.mean(0)
    if x.norm() <= ROUNDING * f.norm():
        return None, None
    products = [_squared_products(a, b) for a, b in ((x, y), (x, x), (y, y))]
    plain = float(products[0] / (products[1] * products[2]).sqrt())
    n = len(x)
    if n < 4:
        return plain, None
    rows = [a.square().sum(1) for a in (x, y)]
    pairs = ((0, 1), (0, 0), (1, 1))
    xy, xx, yy = (
        product
        - n / (n - 2) * (rows[i] @ rows[j])
        + rows[i].sum() * rows[j].sum() / ((n - 1) * (n - 2))
        for product, (i, j) in zip(products, pairs, strict=True)
    )
    # All images are equally far from each other: the estimate is zero except for rounding.
    if xx <= ROUNDING**2 * products[1] or yy <= ROUNDING**2 * products[2]:
        return plain, None
    return plain, float(xy / (xx * yy).sqrt())


def effective_rank(features: Tensor) -> float | None:
    """Return the effective rank of the centred features (Roy & Vetterli 2007): exp(−Σ p log p), p = σ/Σσ.

    `features`: shape (n, d); σ: singular values of the centred features. The rank is between 1 (all images
    on one line) and min(n − 1, d). None if features are not finite or equal for all images.
    """
    if not torch.isfinite(features).all():
        return None
    f = features.double()
    centred = f - f.mean(0)
    if centred.norm() <= ROUNDING * f.norm():
        return None
    shares = torch.linalg.svdvals(centred)
    shares = shares[shares > ROUNDING * shares[0]] / shares.sum()
    return float(torch.exp(-(shares * shares.log()).sum()))


def _squared_products(a: Tensor, b: Tensor) -> Tensor:
    """Return tr(AAᵀBBᵀ), from n × n or d × d products, whichever are smaller."""
    n = len(a)
    if n * n < a.shape[1] * b.shape[1]:
        return ((a @ a.T) * (b @ b.T)).sum()
    return (a.T @ b).square().sum()


def _one_hot(labels: Tensor) -> Tensor:
    """Return one-hot labels with a column for each class present: float64, shape (n, classes)."""
    return (labels[:, None] == labels.unique()).double()
