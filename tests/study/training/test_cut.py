"""The start, the cut, and what frozen means: bit for bit, on real digits."""

import dataclasses
from pathlib import Path

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import build
from study.networks.initial_values import initialise
from study.run import Recipe, Run
from study.store import Store, open_store
from study.training.cut import HEAD, cut, set_training, starting_network
from study.training.features import room
from study.training.inputs import calibrate
from study.training.loop import Training
from tests.trainings import to_the_end, training_of

SHAPE = (3, 16, 16)
SOURCE = Run(
    task="digits-low",
    size=100,
    model="resnet18",
    width=4,
    recipe=Recipe(num_epochs=2, learning_rate=1e-2, batch_size=33),
    seed=1,
)
CELL = dataclasses.replace(
    SOURCE, task="digits-high", size=67, start=SOURCE, frozen=4, seed=2, label_noise=0.2
)

Weights = dict[str, torch.Tensor]


def trained(run: Run, store: Store, start: Weights | None, *, cached: bool = True) -> Training:
    return to_the_end(training_of(run, store, start, cached=cached))


def same_rows(a: Training, b: Training) -> bool:
    def timeless(training: Training) -> list[object]:
        return [dataclasses.replace(row, wall_seconds=0) for row in training.rows]

    return timeless(a) == timeless(b)


def same_weights(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(value, b[key]) for key, value in a.items())


@pytest.fixture(scope="module")
def start(prepared_digits: Path) -> Weights:
    return trained(SOURCE, open_store(prepared_digits), None).weights()


@pytest.mark.parametrize("frozen", [1, 4, 9])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_frozen_stays_bit_identical_and_the_rest_does_not(
    store: Store, start: Weights, frozen: int, optimizer: str
) -> None:
    recipe = dataclasses.replace(CELL.recipe, optimizer=optimizer, weight_decay=0.1)
    training = trained(dataclasses.replace(CELL, frozen=frozen, recipe=recipe), store, start)
    after = training.weights()
    frozen_names = list(dict(training.layers.named_children()))[:frozen]
    for key, value in after.items():
        layer = key.split(".")[0]
        if layer in frozen_names:
            assert torch.equal(value, start[key]), key
        elif layer != HEAD and value.is_floating_point():
            assert not torch.equal(value, start[key]), key


def test_the_optimiser_holds_nothing_for_frozen_parameters(store: Store, start: Weights) -> None:
    training = trained(CELL, store, start)
    held = [p for group in training._optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in training.parts.suffix.parameters()}
    assert {id(p) for p in training._optimizer.state} == {id(p) for p in held}
    assert all(not p.requires_grad and p.grad is None for p in training.parts.prefix.parameters())


@pytest.mark.parametrize("frozen", [1, 5, 9])
@pytest.mark.parametrize("size", [34, 67, 100])  # tails of one, of one, and of one batch
def test_features_computed_once_give_the_live_networks_bits(
    store: Store, start: Weights, frozen: int, size: int
) -> None:
    run = dataclasses.replace(CELL, frozen=frozen, size=size)
    cached, live = (trained(run, store, start, cached=cached) for cached in (True, False))
    assert cached._inputs._train_features is not None
    assert live._inputs._train_features is None
    assert same_rows(cached, live)
    assert same_weights(cached.weights(), live.weights())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "width", "frozen"),
    [("densenet121", 2, 3), ("densenet121", 2, 8), ("vit_tiny", 12, 1), ("vit_tiny", 12, 7)],
)
def test_the_other_families_too_train_upon_their_features(
    store: Store, model: str, width: int, frozen: int
) -> None:
    # Two steps from random weights: what is frozen, and by which bits, needs no trained source.
    recipe = dataclasses.replace(CELL.recipe, num_epochs=1, batch_size=40)
    whole = dataclasses.replace(SOURCE, model=model, width=width, recipe=recipe)
    run = dataclasses.replace(
        CELL, model=model, width=width, recipe=recipe, start=whole, frozen=frozen
    )
    first = starting_network(whole, 5, SHAPE, None).state_dict()
    cached, live = (trained(run, store, first, cached=cached) for cached in (True, False))
    assert cached._inputs._train_features is not None
    assert same_rows(cached, live)
    assert same_weights(cached.weights(), live.weights())
    frozen_names = list(dict(cached.layers.named_children()))[:frozen]
    for key, value in cached.weights().items():
        if key.split(".")[0] in frozen_names:
            assert torch.equal(value, first[key]), key
        elif key.endswith("weight") and value.ndim > 1:
            assert not torch.equal(value, first[key]), key


@pytest.mark.parametrize("num_images", [2, 33, 64])
@pytest.mark.parametrize(
    ("model", "width", "shape"),
    [("resnet18", 4, (32,)), ("densenet121", 2, (64,)), ("vit_tiny", 12, (1, 12))],
)
def test_what_is_constant_of_the_head_joins_the_prefix_bit_for_bit(
    model: str, width: int, shape: tuple[int, ...], num_images: int
) -> None:
    run = dataclasses.replace(SOURCE, model=model, width=width)
    layers = starting_network(run, 5, SHAPE, None)
    run = dataclasses.replace(run, frozen=len(layers) - 1)
    parts = cut(layers, run)
    names = [name for name, _ in layers.named_parameters() if name.startswith(HEAD)]
    assert [name for name, _ in parts.suffix.named_parameters()] == names
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(num_images, *SHAPE, generator=generator)
    labels = torch.arange(num_images) % 5
    features = parts.prefix(images)
    assert features.shape[1:] == shape
    given = []
    for logits in (parts.suffix(features), layers(images)):
        loss = nn.functional.cross_entropy(logits, labels)
        given.append([logits, *torch.autograd.grad(loss, [*parts.suffix.parameters()])])
    for ours, theirs in zip(*given, strict=True):
        assert torch.equal(ours, theirs)


def test_more_threads_norm_all_tokens_as_their_gradients_are_summed_otherwise() -> None:
    run = dataclasses.replace(SOURCE, model="vit_tiny", width=12, frozen=13)
    layers, images = starting_network(run, 5, SHAPE, None), torch.zeros(2, *SHAPE)
    before = torch.get_num_threads()
    try:
        shapes = []
        for num_threads in (2, 3):
            torch.set_num_threads(num_threads)
            shapes.append(cut(layers, run).prefix(images).shape)
    finally:
        torch.set_num_threads(before)
    assert shapes == [(2, 1, 12), (2, 17, 12)]


def test_the_head_is_always_new(start: Weights) -> None:
    run = dataclasses.replace(CELL, frozen=0)
    layers = starting_network(run, 5, SHAPE, start).state_dict()
    for key, value in layers.items():
        same = torch.equal(value, start[key])
        assert same != (key.startswith(HEAD) and value.is_floating_point()), key


def test_reinitialised_above_the_cut(start: Weights) -> None:
    recipe = dataclasses.replace(CELL.recipe, above_cut="reinitialised")
    run = dataclasses.replace(CELL, recipe=recipe)
    layers = starting_network(run, 5, SHAPE, start)
    lower_cut = starting_network(dataclasses.replace(run, frozen=1), 5, SHAPE, start)
    # What the start began with its layers below the cut have learnt to work with.
    began = starting_network(dataclasses.replace(SOURCE, seed=CELL.seed), 5, SHAPE, None)
    names = list(dict(layers.named_children()))
    for key, value in layers.state_dict().items():
        if key.split(".")[0] in names[: CELL.frozen]:
            assert torch.equal(value, start[key]), key
        else:
            assert torch.equal(value, lower_cut.state_dict()[key]), key
            assert value.ndim < 2 or not torch.equal(value, began.state_dict()[key]), key


@pytest.mark.slow
def test_a_new_head_knows_nothing_of_the_starts_classes(store: Store) -> None:
    # The same task and seed on disjoint halves: nothing but the initial values could tell.
    recipe = dataclasses.replace(SOURCE.recipe, num_epochs=10)
    source = dataclasses.replace(SOURCE, part="a", size=300, recipe=recipe)
    cell = dataclasses.replace(source, part="b", start=source)
    key = "head.classifier.weight"

    def cosine(a: Weights, b: Weights) -> float:
        return float(torch.cosine_similarity(a[key].flatten(), b[key].flatten(), dim=0))

    began = starting_network(source, 5, SHAPE, None).state_dict()
    after = trained(source, store, None).weights()
    given = starting_network(cell, 5, SHAPE, after).state_dict()
    assert cosine(after, began) > 0.5
    assert abs(cosine(after, given)) < 0.3
    again = dataclasses.replace(cell, start=cell)
    heads = [given, starting_network(again, 5, SHAPE, after).state_dict()]
    assert abs(cosine(*heads)) < 0.3
    same_head = dataclasses.replace(cell, frozen=6, label_noise=0.5, size=50)
    assert cosine(given, starting_network(same_head, 5, SHAPE, after).state_dict()) > 0.999


def test_a_random_frozen_prefix_is_calibrated_and_no_identity(store: Store) -> None:
    run = dataclasses.replace(CELL, start=None)
    training = trained(run, store, None)
    norms = [m for m in training.parts.prefix.modules() if isinstance(m, _BatchNorm)]
    assert norms
    for norm in norms:
        assert norm.momentum is not None
        assert not norm.training
        assert norm.running_mean is not None
        assert norm.running_mean.abs().max() > 0
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert same_rows(training, trained(run, store, None, cached=False))


def test_frozen_batchnorm_in_training_mode_updates_statistics_but_no_parameter(
    store: Store, start: Weights
) -> None:
    recipe = dataclasses.replace(CELL.recipe, frozen_batchnorm="training")
    training = trained(dataclasses.replace(CELL, recipe=recipe), store, start)
    assert training._inputs._train_features is None  # they change with the statistics
    parameters = dict(training.parts.prefix.named_parameters())
    assert all(torch.equal(value, start[key]) for key, value in parameters.items())
    changed = [
        not torch.equal(value, start[key])
        for key, value in training.parts.prefix.named_buffers()
        if key.endswith("running_mean")
    ]
    assert changed
    assert all(changed)


def test_training_mode_reaches_only_the_suffix(start: Weights) -> None:
    parts = cut(starting_network(CELL, 5, SHAPE, start), CELL)
    set_training(parts, "evaluation")
    assert not any(module.training for module in parts.prefix.modules())
    assert all(module.training for module in parts.suffix.modules())


@pytest.mark.parametrize("frozen_batchnorm", ["evaluation", "training"])
def test_dropout_and_drop_path_are_off_below_the_cut(frozen_batchnorm: str) -> None:
    layers = starting_network(
        dataclasses.replace(SOURCE, model="vit_tiny", width=12), 5, SHAPE, None
    )
    for block in layers[1:-1]:
        block.drop_path1, block.attn.proj_drop = DropPath(0.5), nn.Dropout(0.5)
    parts = cut(layers, dataclasses.replace(CELL, frozen=6))
    images = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    still = parts.prefix(images)
    set_training(parts, frozen_batchnorm)
    assert torch.equal(parts.prefix(images), still)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(parts.suffix(still), parts.suffix(still))


def test_training_mode_of_a_frozen_prefix_is_batchnorms_alone(start: Weights) -> None:
    parts = cut(starting_network(CELL, 5, SHAPE, start), CELL)
    set_training(parts, "training")
    leaves = [m for m in parts.prefix.modules() if not list(m.children())]
    assert {m.training for m in leaves if isinstance(m, _BatchNorm)} == {True}
    assert {m.training for m in leaves if not isinstance(m, _BatchNorm)} == {False}


def test_weights_that_do_not_fit_are_refused_by_key(start: Weights) -> None:
    missing = {key: value for key, value in start.items() if key != "stem.conv1.weight"}
    with pytest.raises(ValueError, match=r"missing \['stem.conv1.weight'\]"):
        starting_network(CELL, 5, SHAPE, missing)
    with pytest.raises(ValueError, match=r"not in the network \['stage9.weight'\]"):
        starting_network(CELL, 5, SHAPE, start | {"stage9.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"of another shape \['stem.bn1.weight'\]"):
        starting_network(CELL, 5, SHAPE, start | {"stem.bn1.weight": torch.ones(3)})


def test_features_that_fit_nowhere_else_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMemory:
        available = 0

    monkeypatch.setattr("study.training.features.psutil.virtual_memory", NoMemory)
    like = torch.zeros(2, 3, 4, dtype=torch.bfloat16)
    held = room(10, like)
    assert held.shape == (10, 3, 4)
    assert held.dtype == torch.bfloat16
    values = torch.arange(120, dtype=torch.bfloat16).view(10, 3, 4)
    held[:] = values
    assert torch.equal(held, values)


@pytest.mark.parametrize("by_images", [False, True])
def test_statistics_of_random_layers_weigh_images_or_batches(by_images: bool) -> None:
    layers = build("resnet18", 4, 5, SHAPE)
    initialise(layers, "resnet18", 0, frozen=3)
    prefix = layers[:3]
    images = torch.randn(258, *SHAPE, generator=torch.Generator().manual_seed(0)) + 1
    images[256:] *= 9  # a last batch of two, unlike the others
    calibrate(prefix, len(images), lambda span: images[span], by_images=by_images)
    with torch.no_grad():
        seen = prefix[0].conv1(images)
    batches = [seen[:256].mean((0, 2, 3)), seen[256:].mean((0, 2, 3))]
    expected = seen.mean((0, 2, 3)) if by_images else sum(batches) / 2
    torch.testing.assert_close(prefix[0].bn1.running_mean, expected, rtol=1e-4, atol=1e-5)
    assert all(m.momentum == 0.1 for m in prefix.modules() if isinstance(m, _BatchNorm))
