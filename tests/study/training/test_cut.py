"""The start's values, the cut, and what stays frozen: bit for bit, on real digits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import build
from study.networks.catalogue import num_channels, num_layers
from study.networks.families import between_pieces, part_last
from study.networks.initial_values import initialise
from study.planning.cost import cost_of, layer_costs
from study.run import Run
from study.store import Store
from study.tasks.prepared_file import load
from study.training.cut import HEAD, cut, set_training, starting_network
from study.training.features import room
from study.training.inputs import calibrate
from study.training.loop import Training
from tests.made_up import INFO
from tests.trainings import (
    SHAPE,
    WIDTHS,
    cell,
    changed,
    network,
    outcome,
    resumed,
    source,
    to_the_end,
    training_of,
)

Weights = dict[str, torch.Tensor]
slow = pytest.mark.slow


def starting(run: Run, start: Weights | None) -> Weights:
    return starting_network(run, 5, SHAPE, start).state_dict()


def frozen_keys(layers: nn.Sequential, run: Run) -> set[str]:
    names = list(dict(layers.named_children()))[: run.frozen]
    held: set[int] = set()
    if run.frozen_pieces:
        below, _ = between_pieces(layers, run.model, run.frozen, run.frozen_pieces)
        held = {id(each) for each in [*below.parameters(), *below.buffers()]}
    named = [*layers.named_parameters(), *layers.named_buffers()]
    return {key for key, each in named if key.split(".")[0] in names or id(each) in held}


def measured_test_error(weights: Weights, run: Run, store: Store, training: Training) -> float:
    """Return the test error of a whole network with these weights."""
    layers = build(run.model, run.width, 5, SHAPE).eval()
    layers.load_state_dict(weights)
    task = load(run.task, store)
    with torch.no_grad():
        images = training.inputs._normalise(torch.from_numpy(task.test_images.copy()))
        return float((layers(images).argmax(1).numpy() != task.test_labels).mean())


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("resnet18", {"frozen": 1, "size": 34, "num_epochs": 2}),  # one batch of 34
        ("resnet18", {"frozen": 4, "optimizer": "sgd", "momentum": 0.9}),
        ("resnet18", {"frozen": 9, "size": 100, "weight_decay": 0.1}),  # a tail of one
        ("resnet18", {"frozen": 3, "frozen_pieces": 1, "weight_decay": 0.1}),
        pytest.param("resnet18", {"frozen": 2, "frozen_pieces": 1}, marks=slow),
        pytest.param("densenet121", {"frozen": 3}, marks=slow),
        pytest.param("densenet121", {"frozen": 9, "frozen_pieces": 4}, marks=slow),
        pytest.param("densenet121", {"frozen": 10, "frozen_pieces": 2}, marks=slow),
        pytest.param("densenet121", {"frozen": 10, "frozen_pieces": 5}, marks=slow),
        pytest.param("vit_tiny", {"frozen": 1}, marks=slow),
        pytest.param("vit_tiny", {"frozen": 12, "frozen_pieces": 1}, marks=slow),
        ("vit_tiny", {"frozen": 13, "frozen_pieces": 1}),
    ],
    ids=str,
)
def test_training_any_cut_freezes_below_trains_above_and_resumes(
    model: str, fields: dict[str, Any], store: Store
) -> None:
    run, start = cell(model, **fields), network(model).state_dict()
    training = to_the_end(training_of(run, store, start))
    after, frozen = training.weights(), frozen_keys(training.layers, run)
    assert after.keys() == start.keys() and frozen
    for key, value in after.items():
        if key in frozen or value.is_floating_point():  # not BatchNorm's counts of batches
            assert torch.equal(value, start[key]) == (key in frozen), key
    by_key = dict(training.layers.named_parameters())
    trained = {key: each for key, each in by_key.items() if key not in frozen}
    assert {*training.optimizer.state} == {*trained.values()}
    assert all(each.grad is None for key, each in by_key.items() if key in frozen)
    num_trained = sum(each.numel() for each in trained.values())
    assert training.sizes(5).parameters_trained == num_trained
    assert measured_test_error(after, run, store, training) == training.rows[-1].test_error

    live = training_of(run, store, start, cached=False)
    assert training.inputs.train_features is not None and live.inputs.train_features is None
    for other in (live, resumed(run, store, start, at=1)):
        assert outcome(to_the_end(other)) == outcome(training)


@pytest.mark.parametrize("num_images", [2, 33, 64])
@pytest.mark.parametrize(
    ("model", "shape"),
    [("resnet18", (32,)), ("densenet121", (128,)), ("vit_tiny", (1, 12))],
)
def test_cut_at_the_head_moves_its_constant_part_to_the_prefix_bit_for_bit(
    model: str, shape: tuple[int, ...], num_images: int
) -> None:
    run = source(model)
    layers = starting_network(run, 5, SHAPE, None)
    parts = cut(layers, replace(run, frozen=len(layers) - 1))
    names = [name for name, _ in layers.named_parameters() if name.startswith(HEAD)]
    assert [name for name, _ in parts.suffix.named_parameters()] == names
    images = torch.randn(num_images, *SHAPE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(num_images) % 5
    features = parts.prefix(images)
    assert features.shape[1:] == shape
    given = []
    for logits in (parts.suffix(features), layers(images)):
        loss = nn.functional.cross_entropy(logits, labels)
        given.append([logits, *torch.autograd.grad(loss, [*parts.suffix.parameters()])])
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*given, strict=True))


def test_cut_at_the_head_with_three_threads_keeps_all_tokens() -> None:
    # With more threads torch sums the norm's gradients in another order.
    run = source("vit_tiny", frozen=13)
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


# Start values


def test_starting_network_has_the_starts_layers_and_a_new_head() -> None:
    start, began = network().state_dict(), starting(source(seed=2), None)
    given = starting(cell(frozen=0), start)
    other_cell = starting(cell(frozen=6, label_noise=0.5, size=50), start)
    for key, value in given.items():
        is_new = key.startswith(HEAD) and value.is_floating_point()
        assert torch.equal(value, start[key]) != is_new, key
        assert torch.equal(value, other_cell[key]), key
    # The start's layers are fitted to its own initial head: the same values in a new head would contain
    # information on the start's classes.
    weight = "head.classifier.weight"
    assert not torch.equal(given[weight], began[weight])


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("resnet18", {"frozen": 4}),
        ("resnet18", {"frozen": 3, "frozen_pieces": 1}),
        ("densenet121", {"frozen": 10, "frozen_pieces": 5}),
        ("vit_tiny", {"frozen": 13, "frozen_pieces": 1}),
    ],
)
def test_starting_network_reinitialised_draws_new_values_above_the_cut(
    model: str, fields: dict[str, int]
) -> None:
    start, run = network(model).state_dict(), cell(model, above_cut="reinitialised", **fields)
    layers = starting_network(run, 5, SHAPE, start)
    fresh = starting(replace(run, frozen=0, frozen_pieces=0), start)
    # Not the start's own initial values: its layers below the cut are fitted to those.
    began = starting(source(model, seed=run.seed), None)
    frozen = frozen_keys(layers, run)
    for key, value in layers.state_dict().items():
        assert torch.equal(value, (start if key in frozen else fresh)[key]), key
        assert key in frozen or value.ndim < 2 or not torch.equal(value, began[key]), key
    assert any(not torch.equal(fresh[key], start[key]) for key in frozen)


def test_starting_network_reinitialised_keeps_the_frozen_channels() -> None:
    start, run = network().state_dict(), cell(frozen=9, trained_channels=3)
    kept, drawn = (
        starting(each, start)["stage4_block2.conv2.weight"]
        for each in (run, changed(run, above_cut="reinitialised"))
    )
    assert torch.equal(kept[:-3], drawn[:-3])
    assert not any(torch.equal(a, b) for a, b in zip(kept[-3:], drawn[-3:], strict=True))


def test_starting_network_frozen_final_norm_comes_from_the_start() -> None:
    start = network("vit_tiny").state_dict()
    run = cell("vit_tiny", frozen=13, frozen_pieces=1)
    whole, inside = starting(replace(run, frozen_pieces=0), start), starting(run, start)
    for key in (key for key in start if key.startswith(HEAD)):
        is_norm = key.startswith("head.norm.")
        assert torch.equal(inside[key], start[key]) == is_norm, key
        assert not torch.equal(whole[key], start[key]), key
        assert is_norm or torch.equal(inside[key], whole[key]), key
    # A start with other classes has the same norm.
    again = starting(run, {**start, "head.classifier.weight": torch.zeros(9, 12)})
    assert all(torch.equal(again[key], value) for key, value in inside.items())
    without = {key: value for key, value in start.items() if not key.startswith(HEAD)}
    starting(replace(run, frozen_pieces=0), without)
    with pytest.raises(ValueError, match=r"missing \['head.norm.bias', 'head.norm.weight'\]"):
        starting(run, without)


def test_starting_network_weights_that_do_not_fit_are_named() -> None:
    start = network().state_dict()
    missing = {key: value for key, value in start.items() if key != "stem.conv1.weight"}
    for weights, message in (
        (missing, r"missing \['stem.conv1.weight'\]"),
        (start | {"stage9.weight": torch.ones(1)}, r"not in the network \['stage9.weight'\]"),
        (start | {"stem.bn1.weight": torch.ones(3)}, r"of another shape \['stem.bn1.weight'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            starting(cell(), weights)


# Layers frozen at random, and modes


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("resnet18", {"frozen": 4}),
        ("resnet18", {"frozen": 3, "frozen_pieces": 1}),
        ("densenet121", {"frozen": 9, "frozen_pieces": 2}),
    ],
)
def test_training_random_frozen_layers_calibrates_their_norms(
    model: str, fields: dict[str, int], store: Store
) -> None:
    run = cell(model, start=None, calibration="images", **fields)
    training = training_of(run, store)
    frozen, trained = (
        [each for each in part.modules() if isinstance(each, _BatchNorm)]
        for part in (training.parts.prefix, training.parts.suffix)
    )
    for norm in frozen:
        assert not norm.training and norm.momentum is not None
        assert norm.running_mean is not None and (norm.running_mean != 0).any()
        assert (norm.weight == 1).all()
    assert all((norm.running_mean == 0).all() for norm in trained)
    assert frozen and trained
    live = to_the_end(training_of(run, store, cached=False))
    assert outcome(to_the_end(training)) == outcome(live)


@pytest.mark.parametrize("by_images", [False, True])
def test_calibrate_weighs_images_or_batches(by_images: bool) -> None:
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


def test_training_with_moving_statistics_changes_them_and_no_frozen_parameter(
    store: Store,
) -> None:
    start = network().state_dict()
    run = cell(frozen_batchnorm="training")
    training = to_the_end(training_of(run, store, start))
    assert training.inputs.train_features is None  # they change with the statistics
    prefix = training.parts.prefix
    assert all(torch.equal(value, start[key]) for key, value in prefix.named_parameters())
    moving = [(k, v) for k, v in prefix.named_buffers() if k.endswith("running_mean")]
    assert moving and not any(torch.equal(value, start[key]) for key, value in moving)


@pytest.mark.parametrize("frozen_batchnorm", ["evaluation", "training"])
def test_set_training_reaches_the_suffix_and_at_most_frozen_norms(frozen_batchnorm: str) -> None:
    layers = network()
    for block in layers[1:-1]:
        block.drop_path = DropPath(0.5)
    parts = cut(layers, cell())
    set_training(parts, frozen_batchnorm)
    assert all(module.training for module in parts.suffix.modules())
    leaves = [m for m in parts.prefix.modules() if not list(m.children())]
    is_training = frozen_batchnorm == "training"
    assert {m.training for m in leaves if isinstance(m, _BatchNorm)} == {is_training}
    assert {m.training for m in leaves if not isinstance(m, _BatchNorm)} == {False}


def test_room_without_memory_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMemory:
        available = 0

    monkeypatch.setattr("study.training.features.psutil.virtual_memory", NoMemory)
    held = room(10, torch.zeros(2, 3, 4, dtype=torch.bfloat16))
    assert (held.shape, held.dtype) == ((10, 3, 4), torch.bfloat16)
    values = torch.arange(120, dtype=torch.bfloat16).view(10, 3, 4)
    held[:] = values
    assert torch.equal(held, values)


# Trained channels of the last layer before the head

NETWORKS = pytest.mark.parametrize("model", ["resnet18", "resnet50", "densenet121", "vit_tiny"])


def channels_cell(model: str, num_trained: int, **fields: Any) -> Run:
    return cell(model, frozen=num_layers(model) - 1, trained_channels=num_trained, **fields)


@NETWORKS
def test_part_last_any_channels_compute_the_layer_and_train_less_than_the_next_cut(
    model: str,
) -> None:
    layers, most = network(model), num_channels(model, WIDTHS[model])
    counts = [sum(p.numel() for p in layers[-1].parameters())]
    with torch.no_grad():
        images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
        before = layers[:-2](images)
        expected = layers[-2](before)
        for num_trained in sorted({1, 3, 4, most // 2, most - 1, most}):
            part = part_last(layers, model, num_trained)
            found = part.trained(part.frozen.eval()(before))
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            suffix = cut(layers, channels_cell(model, num_trained)).suffix
            counts.append(sum(p.numel() for p in suffix.parameters()))
    assert counts == sorted(set(counts))
    assert counts[-1] < sum(p.numel() for p in layers[-2:].parameters())


@slow
@NETWORKS
def test_training_channels_changes_only_them_and_the_head_and_resumes(
    model: str, store: Store
) -> None:
    num_trained = num_channels(model, WIDTHS[model]) // 2 + 1
    run = channels_cell(model, num_trained, num_epochs=2)
    start = network(model).state_dict()
    training = to_the_end(training_of(run, store, start))
    after = training.weights()
    assert any(not torch.equal(after[key], start[key]) for key in start if HEAD not in key)
    error = measured_test_error(after, run, store, training)
    # The whole layer rounds differently from its two parts.
    assert error == pytest.approx(training.rows[-1].test_error, abs=2 / 179)
    assert outcome(to_the_end(resumed(run, store, start, at=3))) == outcome(training)

    # With the start's values in the trained channels, all but the head is the start.
    trainings = (training, training_of(run, store, start))
    trained, fresh = (part_last(t.layers, model, num_trained).links.pairs for t in trainings)
    for (_, ours), (_, theirs) in zip(trained, fresh, strict=True):
        ours.copy_(theirs)
    restored = training.layers.state_dict()
    for key, value in start.items():
        assert key.startswith(HEAD) or torch.equal(restored[key], value), key


def test_training_channels_of_random_layers_calibrates_the_frozen_ones(store: Store) -> None:
    run = channels_cell("resnet18", 3, start=None)
    assert (training_of(run, store).layers[-2].bn2.running_mean[:-3] != 0).all()


# Cost


@pytest.mark.parametrize(
    ("model", "cuts"),  # of each cut: frozen, frozen pieces, trained channels
    [
        ("resnet18", [(3, 0, 0), (3, 1, 0), (4, 0, 0)]),
        ("resnet18", [(8, 0, 0), (9, 0, 32), (9, 0, 8), (9, 0, 0)]),
        pytest.param("densenet121", [(9, 0, 0), (9, 5, 0), (10, 0, 0)], marks=slow),
        ("vit_tiny", [(6, 0, 0), (6, 1, 0), (7, 0, 0)]),
    ],
)
def test_cost_of_a_cut_inside_a_layer_is_between_its_neighbours(
    model: str, cuts: list[tuple[int, int, int]]
) -> None:
    names = ("frozen", "frozen_pieces", "trained_channels")
    runs = [cell(model, **dict(zip(names, each, strict=True))) for each in cuts]
    costs = [cost_of(run, INFO) for run in runs]
    for values in ([c.flops for c in costs], [c.memory.optimiser for c in costs]):
        assert values == sorted(set(values), reverse=True)
    frozen, pieces, _ = cuts[1]
    if pieces:
        whole = layer_costs(model, WIDTHS[model], 5, SHAPE, None)
        divided = layer_costs(model, WIDTHS[model], 5, SHAPE, (frozen, 0, pieces))
        assert len(divided) == len(whole) + 1
        for name in ("flops", "parameters"):
            assert sum(getattr(c, name) for c in whole) == sum(getattr(c, name) for c in divided)


def test_cost_of_the_head_alone_keeps_one_token_of_an_image() -> None:
    cuts = ({"frozen": 13, "frozen_pieces": 1}, {"frozen": 13}, {"frozen": 12})
    runs = [cell("vit_tiny", **fields) for fields in cuts]
    inside, head, below = (cost_of(run, INFO).memory.images_and_features for run in runs)
    assert inside == head
    tokens = INFO.image_shape[1] * INFO.image_shape[2] // 4**2
    assert below - inside == (runs[0].size + INFO.num_test) * tokens * 12 * 4
