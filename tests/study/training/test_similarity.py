"""LogME and linear CKA against values computed another way; their files; their surfaces."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, ortho_group
from torch import Tensor

from analysis import load
from analysis.plots.points import draw_capacity
from analysis.surfaces import at_epoch
from analysis.surfaces.derived import effective_capacity
from analysis.surfaces.similarity import (
    UNREADABLE,
    capacity_and_similarity,
    read,
    similarity_surfaces,
)
from study.launching.worker_cache import record_similarity
from study.networks.build import build, normalisation
from study.networks.initial_values import initialise
from study.run import Recipe, Run
from study.store import Damaged, Store, open_store, similarity
from study.store.layout import similarity_path
from study.store.similarity import Similarity, table_of
from study.tasks.draws import draw
from study.tasks.prepared_file import load as load_task
from study.training.cut import starting_network
from study.training.similarity import (
    effective_rank,
    linear_cka,
    logme,
    measure,
    pooled,
    start_network,
)
from tests import synthetic
from tests.trainings import training_of

CPU = torch.device("cpu")
SOURCE = Run(
    task="digits-low",
    size=100,
    model="resnet18",
    width=4,
    recipe=Recipe(num_epochs=1),
    seed=1,
)
CELL = dataclasses.replace(
    SOURCE, task="digits-high", size=67, start=SOURCE, frozen=4, seed=2, label_noise=0.2
)


def problem(
    n: int, d: int, num_classes: int, *, seed: int = 0, signal: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Features with class means, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % num_classes
    means = signal * random.standard_normal((num_classes, d))
    features = random.standard_normal((n, d)) + means[labels] + 0.5
    return torch.from_numpy(features), torch.from_numpy(labels)


def rotation(d: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(ortho_group.rvs(d, random_state=seed))


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
    # Its update of α and β, and its evidence by the posterior of w, n > d.
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


@settings(deadline=None)
@given(
    n=st.integers(4, 40),
    d=st.integers(1, 40),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_logme_does_not_depend_on_the_axes_of_features(
    n: int, d: int, scale: float, seed: int
) -> None:
    features, labels = problem(n, d, 2, seed=seed)
    value = logme(features, labels)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(d))
    assert value is not None
    assert logme(features[:, order], labels) == pytest.approx(value, abs=1e-6)
    assert logme(features * scale, labels) == pytest.approx(value, abs=1e-6)
    if d > 1:
        assert logme(features @ rotation(d, seed), labels) == pytest.approx(value, abs=1e-6)
    # A feature that is always 0 says nothing.
    padded = torch.cat([features, torch.zeros(n, 3)], dim=1)
    assert logme(padded, labels) == pytest.approx(value, abs=1e-6)


def test_logme_ranks_features_by_what_they_say() -> None:
    values = [logme(*problem(100, 20, 5, signal=signal)) for signal in (0.0, 0.5, 1.0, 2.0)]
    assert values == sorted(values)


def test_logme_of_degenerate_features() -> None:
    _, labels = problem(60, 3, 3)
    # Nothing to go by: y is noise around 0, of variance 1/3.
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


def test_a_class_without_images_does_not_count() -> None:
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
def test_cka_is_that_of_the_gram_matrices(n: int, d: int) -> None:
    features, labels = problem(n, d, 3)
    assert linear_cka(features, labels) == pytest.approx(cka_by_gram(features, labels), abs=1e-10)


@settings(deadline=None)
@given(
    n=st.integers(4, 40),
    d=st.integers(1, 40),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_cka_does_not_change_with_rotation_scale_and_shift(
    n: int, d: int, scale: float, seed: int
) -> None:
    features, labels = problem(n, d, 2, seed=seed)
    plain, debiased = linear_cka(features, labels)
    assert plain is not None and 0 <= plain <= 1 + 1e-12
    assert debiased is None or -1 - 1e-9 <= debiased <= 1 + 1e-9
    turned = features @ rotation(d, seed) if d > 1 else -features
    again = linear_cka(turned * scale + 3.0 * scale, labels)
    assert again[0] == pytest.approx(plain, abs=1e-8)
    assert again[1] == pytest.approx(debiased, abs=1e-6)


def test_debiased_cka_of_noise_is_about_zero_where_plain_is_not() -> None:
    values = np.array(
        [linear_cka(*problem(50, 512, 10, signal=0.0, seed=seed)) for seed in range(20)]
    )
    plain, debiased = values.T
    assert plain.mean() == pytest.approx(math.sqrt(9 / (50 + 50**2 / 512)), abs=0.02)
    assert abs(debiased.mean()) < 3 * debiased.std() / math.sqrt(20)


def test_cka_of_one_hot_features_is_one() -> None:
    labels = torch.arange(30) % 3
    assert linear_cka(torch.eye(3)[labels], labels) == pytest.approx((1, 1))


def test_cka_of_degenerate_features() -> None:
    features, labels = problem(12, 5, 3)
    assert linear_cka(torch.ones(12, 5), labels) == (None, None)
    # The same but for the rounding of float32.
    rounded = (torch.ones(12, 5) * 0.1 + 1e-9 * features.float()).double()
    assert linear_cka(rounded, labels) == (None, None)
    assert linear_cka(torch.zeros(12, 5), labels) == (None, None)
    assert linear_cka(features * torch.inf, labels) == (None, None)
    assert linear_cka(features, torch.zeros(12, dtype=torch.long)) == (None, None)
    plain, debiased = linear_cka(features, torch.arange(12))  # no two share a class
    assert plain is not None and debiased is None
    plain, debiased = linear_cka(features[:3], labels[:3])
    assert plain is not None and debiased is None


# Effective rank


@given(d=st.integers(1, 6), k=st.integers(1, 6), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 9))
def test_equal_directions_count_one_each_however_turned_or_scaled(
    d: int, k: int, scale: float, seed: int
) -> None:
    k = min(d, k)
    generator = torch.Generator().manual_seed(seed)
    features = torch.zeros(2 * k, d, dtype=torch.float64)
    features[torch.arange(k), torch.arange(k)] = scale
    features[k + torch.arange(k), torch.arange(k)] = -scale  # mean 0, k equal singular values
    turn, _ = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
    assert effective_rank(features @ turn + 1) == pytest.approx(k, rel=1e-4)


def test_unequal_directions_count_less() -> None:
    features = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    shares = np.array([0.75, 0.25])
    assert effective_rank(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_features_without_a_rank_have_none() -> None:
    assert effective_rank(torch.full((5, 3), 0.7)) is None
    assert effective_rank(torch.tensor([[1.0], [float("nan")]])) is None


def test_a_file_of_before_there_was_a_rank_is_read() -> None:
    old = open_store(Path(__file__).parents[2] / "fixtures" / "store-0.1.0")
    table = similarity.read(old, "2e6707c7d512")
    assert table.schema.equals(similarity.TABLE)
    assert table["effective_rank"].null_count == 2
    assert table["logme"].null_count == 0


# Where it is measured


def network(model: str, width: int, *, num_classes: int = 5, size: int = 16) -> torch.nn.Sequential:
    layers = build(model, width, num_classes, (3, size, size))
    initialise(layers, model, 0, frozen=len(layers) - 1)
    return layers


@pytest.mark.parametrize(
    ("model", "width"), [("resnet18", 4), ("densenet121", 4), ("vit_tiny", 12)]
)
def test_measured_at_the_cut_and_at_the_head(model: str, width: int) -> None:
    layers = network(model, width)
    run = dataclasses.replace(
        CELL, model=model, width=width, start=dataclasses.replace(SOURCE, model=model, width=width)
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (30, 3, 16, 16), dtype=np.uint8)
    labels = np.arange(30) % 3
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in normalisation(model))
    inputs = (torch.from_numpy(images) / 255 - mean) / std
    layers.eval()
    with torch.no_grad():
        at_cut, last = layers[:4](inputs), layers[:-1](inputs)
        expected_cut = at_cut.mean(1) if model == "vit_tiny" else at_cut.mean((2, 3))
        at_head = layers[-1].norm(last)[:, 0] if model == "vit_tiny" else last.mean((2, 3))
    layers.train()
    table = measure(run, layers, images, labels, "d" * 64, device=CPU).to_pylist()
    for row, place, features in zip(table, ("cut", "head"), (expected_cut, at_head), strict=True):
        assert (row["place"], row["run_id"], row["num_images"]) == (place, run.id, 30)
        assert (row["num_classes"], row["num_features"]) == (3, features.shape[1])
        y = torch.from_numpy(labels)
        assert row["logme"] == pytest.approx(logme(features, y), abs=1e-4)
        plain, debiased = linear_cka(features, y)
        assert row["linear_cka"] == pytest.approx(plain, rel=1e-3)
        assert row["linear_cka_debiased"] == pytest.approx(debiased, abs=1e-3)
        assert row["effective_rank"] == pytest.approx(effective_rank(features), rel=1e-3)
    # With nothing frozen the cut sees the pixels themselves, whatever the network is.
    unfrozen = dataclasses.replace(run, frozen=0)
    pixels = measure(unfrozen, layers, images, labels, "d" * 64, device=CPU).to_pylist()
    assert pixels[0]["logme"] == pytest.approx(logme(inputs.mean((2, 3)), y), abs=1e-6)
    assert pixels[1] == table[1] | {"run_id": unfrozen.id}


@pytest.mark.parametrize(
    ("model", "width", "changes", "of_recipe", "is_held"),
    [
        ("resnet18", 4, {"frozen": 4}, {}, True),
        ("resnet18", 4, {"frozen": 3, "frozen_pieces": 1}, {}, True),
        ("vit_tiny", 12, {"frozen": 5}, {}, True),
        ("densenet121", 2, {"frozen": 8}, {}, True),
        ("resnet18", 4, {"frozen": 0}, {}, False),
        ("resnet18", 4, {"frozen": 9}, {}, False),  # held as the head has pooled it
        ("resnet18", 4, {"frozen": 9, "trained_channels": 5}, {}, False),
        ("resnet18", 4, {"frozen": 4}, {"precision": "bfloat16"}, False),
        ("resnet18", 4, {"frozen": 4}, {"frozen_batchnorm": "training"}, False),
    ],
)
def test_features_that_a_run_holds_anyway_are_taken_for_it(
    store: Store,
    model: str,
    width: int,
    changes: dict[str, Any],
    of_recipe: dict[str, Any],
    is_held: bool,
) -> None:
    whole = dataclasses.replace(SOURCE, model=model, width=width)
    recipe = dataclasses.replace(CELL.recipe, **of_recipe)
    run = dataclasses.replace(
        CELL, model=model, width=width, start=whole, size=300, recipe=recipe, **changes
    )
    start = network(model, width).state_dict()
    at_cut = training_of(run, store, start).at_cut()
    assert (at_cut is not None) == is_held
    task = load_task(run.task, store)
    drawn = draw(task, part="all", size=300, seed=run.seed, label_noise=run.label_noise)
    images, labels = task.train_images[drawn.indices], drawn.clean_labels
    layers = start_network(run, (3, 16, 16), start)
    plain, taken = (
        measure(run, layers, images, labels, "d" * 64, device=CPU, at_cut=each)
        for each in (None, at_cut)
    )
    assert plain.equals(taken)


def test_pooled() -> None:
    maps, tokens = torch.randn(2, 3, 4, 5), torch.randn(2, 7, 3)
    assert torch.allclose(pooled(maps), maps.flatten(2).mean(2))
    assert torch.allclose(pooled(tokens), tokens.sum(1) / 7)
    assert pooled(tokens[:, 0]) is not tokens and pooled(tokens[:, 0]).shape == (2, 3)


def recorded(store: Store, run: Run, seed: int = 0, digest: str = "a" * 64) -> None:
    """Records the similarity of `run` with a start of initial values by `seed`."""
    layers = build(run.model, run.width, 5, (3, 16, 16))
    initialise(layers, run.model, seed)
    task = load_task(run.task, store)
    record_similarity(run, store, task, layers.state_dict(), digest, device=CPU)


def test_recorded_once_for_one_start(store: Store) -> None:
    recorded(store, CELL)
    path = store.local_path(similarity_path(CELL.id))
    assert path is not None
    first, table = path.stat().st_mtime_ns, similarity.read(store, CELL.id)
    recorded(store, CELL, seed=9)  # the digest says that it is the same start: not looked at
    assert path.stat().st_mtime_ns == first
    recorded(store, CELL, seed=9, digest="b" * 64)
    again = similarity.read(store, CELL.id)
    assert again["start_digest"][0].as_py() == "b" * 64
    assert again["logme"].to_pylist() != table["logme"].to_pylist()
    # A damaged one is kept aside, and measured anew.
    path.write_bytes(path.read_bytes()[:-20])
    recorded(store, CELL, seed=9, digest="b" * 64)
    assert similarity.read(store, CELL.id).equals(again)
    assert store.local_path("damaged/similarity").is_dir()  # type: ignore[union-attr]


def test_what_does_not_change_it_is_measured_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = "b" * 64
    recorded(store, CELL, digest=digest)
    first = similarity.read(store, CELL.id)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("study.launching.worker_cache.measure", again)
    recipe = dataclasses.replace(CELL.recipe, num_epochs=9)
    same = dataclasses.replace(CELL, label_noise=0.5, recipe=recipe)
    recorded(store, same, digest=digest)
    second = similarity.read(store, same.id)
    assert set(second["run_id"].to_pylist()) == {same.id}
    assert second.drop_columns("run_id").equals(first.drop_columns("run_id"))
    for change in ({"frozen": 2}, {"size": 40}, {"seed": 5}):
        with pytest.raises(AssertionError, match="measured again"):
            recorded(store, dataclasses.replace(CELL, **change), digest=digest)
    with pytest.raises(AssertionError, match="measured again"):
        recorded(store, dataclasses.replace(CELL, label_noise=0.7), digest="c" * 64)


def test_labels_are_clean_and_images_those_drawn(store: Store) -> None:
    recorded(store, CELL)
    recorded(store, noiseless := dataclasses.replace(CELL, label_noise=0.0))
    with_noise, without = (similarity.read(store, run.id) for run in (CELL, noiseless))
    columns = ["place", *(column.name for column in similarity.MEASURES)]
    assert with_noise.select(columns).equals(without.select(columns))
    task = load_task(CELL.task, store)
    drawn = draw(task, part="all", size=67, seed=2, label_noise=0.0)
    pixels = torch.from_numpy(task.train_images[drawn.indices].mean((2, 3)))
    recorded(store, unfrozen := dataclasses.replace(CELL, frozen=0))
    plain = similarity.read(store, unfrozen.id)["linear_cka"][0].as_py()
    # Grey images: the normalisation of a channel is affine, so CKA does not notice a common one.
    std = torch.tensor(normalisation("resnet18")[1])
    expected = linear_cka(pixels / std, torch.from_numpy(drawn.clean_labels))[0]
    assert plain == pytest.approx(expected, abs=1e-4)


def test_only_a_run_that_starts_from_a_run_is_measured(store: Store) -> None:
    record_similarity(SOURCE, store, load_task(SOURCE.task, store), None, None, device=CPU)
    assert not store.exists(similarity_path(SOURCE.id))


def test_the_head_is_the_starts_own_also_where_layers_are_made_new(store: Store) -> None:
    again = dataclasses.replace(
        CELL, recipe=dataclasses.replace(CELL.recipe, above_cut="reinitialised")
    )
    recorded(store, CELL)
    recorded(store, again)
    heads = [similarity.read(store, run.id)["logme"][1].as_py() for run in (CELL, again)]
    assert heads[0] == heads[1]
    weights = network("resnet18", 4, num_classes=7).state_dict()
    layers = start_network(again, (3, 16, 16), weights)
    assert layers[-1](torch.zeros(1, 32, 2, 2)).shape == (1, 7)
    starting = starting_network(again, 5, (3, 16, 16), weights)
    assert not torch.equal(starting[-2].conv1.weight, layers[-2].conv1.weight)


def test_measuring_leaves_precision_and_random_state_alone(store: Store) -> None:
    torch.set_float32_matmul_precision("high")
    try:
        before = torch.get_rng_state()
        recorded(store, CELL)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.equal(before, torch.get_rng_state())
    finally:
        torch.set_float32_matmul_precision("highest")


# The file


def one(place: str, value: float | None = 0.5) -> Similarity:
    return Similarity(
        place=place,
        num_images=67,
        num_classes=5,
        num_features=32,
        logme=value,
        linear_cka=value,
        linear_cka_debiased=None,
        effective_rank=2.5,
    )


def some_table(run: Run = CELL, value: float = 0.5, digest: str = "a" * 64) -> pyarrow.Table:
    return table_of(run, digest, [one("cut", value), one("head", value + 1)], "0.1.0")


def test_file_round_trip_and_a_dataset_of_all(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    other = dataclasses.replace(CELL, frozen=5)
    for run in (CELL, other):
        similarity.publish(store, run, some_table(run))
    assert similarity.read(store, CELL.id).equals(some_table(), check_metadata=False)
    whole = pyarrow.dataset.dataset(tmp_path / "similarity", format="ipc").to_table()
    assert set(whole["run_id"].to_pylist()) == {CELL.id, other.id}
    units = {field.name: field.metadata[b"unit"] for field in similarity.TABLE}
    assert units["logme"] == b"nats per image" and units["num_images"] == b"images"


@settings(deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_never_read_as_another_value(where: float, bit: int) -> None:
    whole = similarity.to_bytes(some_table())
    torn = bytearray(whole)
    torn[int(where * len(torn))] ^= 1 << bit
    try:
        found = similarity.from_bytes(bytes(torn), CELL.id, "x")
    except (Damaged, ValueError):
        return
    assert found.equals(some_table(), check_metadata=False)


def test_a_file_under_another_name_is_damaged() -> None:
    payload = similarity.to_bytes(some_table())
    with pytest.raises(Damaged, match=SOURCE.id):
        similarity.from_bytes(payload, SOURCE.id, "x")
    with pytest.raises(ValueError, match="12 hex"):
        similarity_path("../x")


# Surfaces


@pytest.fixture
def studied(tmp_path: Path) -> tuple[Store, list[Run]]:
    """A made-up study whose similarity is made up too: it grows with the source's size."""
    runs = synthetic.runs(
        num_epochs=20, sizes=(250, 1_000), frozen=(0, 4, 9), seeds=(0, 1), label_noises=(0.0,)
    )
    synthetic.write(tmp_path, runs)
    store = open_store(tmp_path)
    for run in runs:
        if run.source is not None:
            value = run.source.size / 10_000 + run.frozen
            similarity.publish(store, run, some_table(run, value))
    return store, runs


@pytest.mark.slow
def test_surface_lies_over_the_grid_of_a_freezing_surface(
    studied: tuple[Store, list[Run]],
) -> None:
    study = load.open_study(studied[0].root)
    both = similarity_surfaces(study)
    surface = both["logme"].sel(place="cut", drop=True)
    error = at_epoch(study)
    assert surface.dims == error.dims
    xr.testing.assert_equal(xr.Dataset(surface.coords), xr.Dataset(error.coords))
    for run in studied[1]:
        if run.source is not None:
            at = {
                "source_task": run.source.task,
                "source_size": run.source.size,
                "size": run.size,
                "frozen": run.frozen,
                "seed": run.seed,
            }
            assert surface.sel(at).item() == run.source.size / 10_000 + run.frozen
    assert (both["logme"].sel(place="head") == surface + 1).sel(source_task="near").all()
    assert both["linear_cka_debiased"].isnull().all()
    assert both["logme"].dims == ("place", *error.dims)
    assert (both["linear_cka"].sel(place="head") == surface + 1).all()
    everything = similarity_surfaces(study, arm=None)["logme"].sel(place="cut")
    assert everything.sel(task="near", source_task="none").isnull().all()


@pytest.mark.slow
def test_absent_damaged_and_other_starts_are_listed_not_filled(
    studied: tuple[Store, list[Run]],
) -> None:
    store, runs = studied
    cells = [run for run in runs if run.source is not None]
    gone, torn = (store.local_path(similarity_path(run.id)) for run in cells[:2])
    assert gone is not None and torn is not None
    gone.unlink()
    torn.write_bytes(torn.read_bytes()[:50])
    study = load.open_study(store.root)
    with pytest.raises(load.Incomplete, match="2 of 48"):
        similarity_surfaces(study)
    surface = similarity_surfaces(study, partial=True)["logme"].sel(place="cut")
    assert set(surface.attrs["absent"]) == {cells[0].id, cells[1].id}
    assert int(surface.isnull().sum()) == 2
    why = read(study).attrs[UNREADABLE]
    assert why[cells[0].id] == "not measured" and "Arrow" in why[cells[1].id]
    study.cells.loc[cells[2].id, "start_digest"] = "b" * 64
    assert "other weights" in read(study).attrs[UNREADABLE][cells[2].id]


@pytest.mark.slow
def test_capacity_beside_similarity(studied: tuple[Store, list[Run]]) -> None:
    study = load.open_study(studied[0].root)
    capacity = effective_capacity(study)
    surface = similarity_surfaces(study)["logme"].sel(place="cut", drop=True)
    surface.attrs["long_name"] += " at the cut"
    pairs = capacity_and_similarity(capacity, surface)
    assert len(pairs) == capacity["capacity"].size == 48 // 2
    assert set(pairs["similarity_size"]) == {1_000} and pairs.attrs["num_left_out"] == 0
    for _, line in pairs.iterrows():
        assert line["logme"] == line["source_size"] / 10_000 + line["frozen"]
        at = {name: line[name] for name in capacity["capacity"].dims}
        assert capacity["capacity"].sel(at).item() == line["capacity"]
    with pytest.raises(ValueError, match="250, 1000"):
        capacity_and_similarity(capacity, surface, size=7)
    with pytest.raises(ValueError, match="same grid"):
        capacity_and_similarity(capacity, surface.sel(seed=[0]))
    beyond = pairs["capacity"] == 1_000
    axes = Figure().add_subplot()
    drawn = draw_capacity(axes, pairs.assign(censored=beyond))
    assert drawn["text"].str.endswith(" or more").tolist() == beyond.tolist()
    arrows = [text for text in axes.texts if isinstance(text, Annotation)]
    low, high = axes.get_ylim()
    assert len(arrows) == beyond.sum() > 0
    assert all(low < arrow.xy[1] < high for arrow in arrows)
    assert axes.get_xlabel() == "LogME at the cut (nats per image)"


@pytest.mark.slow
def test_analysis_of_similarity_needs_no_torch() -> None:
    code = (
        "import sys, analysis.surfaces.similarity; assert not {'torch', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
