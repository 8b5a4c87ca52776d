"""Counts of operations and memory, compared with the networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study import user_cache
from study.networks.build import build
from study.networks.catalogue import num_layers
from study.planning import count_layers
from study.planning.cost import cost_of, layer_costs
from study.planning.layer_costs import Inside
from study.planning.spaces import load_space, packaged
from tests.made_up import INFO, run

NETWORKS = [("resnet18", 8), ("resnet50", 4), ("densenet121", 4), ("vit_tiny", 12)]


# Widths and shapes that the laws were not made from, and one cut inside a layer of each kind.
LAWS = [
    ("resnet18", 6, (3, 10, 15), None),
    ("resnet18", 6, (3, 16, 16), (9, 5, 0)),
    ("resnet34", 2, (3, 16, 16), (7, 0, 1)),
    ("resnet50", 3, (3, 13, 8), (17, 96, 0)),
    ("densenet121", 6, (3, 8, 17), (11, 13, 0)),
    ("densenet121", 4, (3, 16, 16), (10, 0, 3)),
    ("vit_tiny", 9, (3, 8, 20), (13, 7, 0)),
    ("vit_small", 30, (3, 8, 8), (13, 0, 1)),
]


@pytest.mark.parametrize(("model", "width", "shape", "inside"), LAWS)
def test_layer_costs_equal_a_count_with_torch(
    model: str, width: int, shape: tuple[int, int, int], inside: Inside | None
) -> None:
    counted = count_layers.count_layers(model, width, 7, shape, inside)
    assert list(layer_costs(model, width, 7, shape, inside)) == counted


@pytest.mark.slow
def test_layer_costs_of_bundled_spaces_equal_a_count_with_torch() -> None:
    networks = {
        (run.model, run.width, (run.frozen, run.trained_channels, run.frozen_pieces))
        for name in packaged()
        for run in load_space(name).runs
        if run.trained_channels or run.frozen_pieces or not run.frozen
    }
    assert len(networks) > 40
    for model, width, cut in networks:
        shape, inside = (
            (3, 16, 16) if width in (4, 8, 48) else (3, 32, 32),
            cut if any(cut) else None,
        )
        counted = count_layers.count_layers(model, width, 10, shape, inside)
        assert list(layer_costs(model, width, 10, shape, inside)) == counted, (model, width, cut)


def test_layer_costs_of_a_timm_network_are_counted_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(user_cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    network = ("timm/resnet10t", None, 5, (3, 32, 32))
    costs = layer_costs(*network)
    count = count_layers.count_layers
    monkeypatch.setattr(count_layers, "count_layers", lambda *_: pytest.fail("counted again"))
    layer_costs.cache_clear()
    assert layer_costs(*network) == costs
    for kept in (tmp_path / "cache").iterdir():
        kept.write_text("not JSON")
    monkeypatch.setattr(count_layers, "count_layers", count)
    layer_costs.cache_clear()
    assert layer_costs(*network) == costs


@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_layer_costs_equal_a_training_step(model: str, width: int) -> None:
    network = build(model, width, INFO.num_classes, INFO.image_shape)
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        return saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)

    # torch counts nothing for the CPU's fused attention.
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):
        logits = network.train()(torch.zeros(8, *INFO.image_shape))
    layers = layer_costs(model, width, INFO.num_classes, INFO.image_shape)
    assert [layer.name for layer in layers] == [name for name, _ in network.named_children()]
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    assert sum(layer.flops for layer in layers) * 8 == counter.get_total_flops()
    assert layers[-1].outputs == logits.shape[1]
    kept = sum(t.untyped_storage().nbytes() for at, t in saved.items() if at not in parameters)
    assert 8 * sum(layer.saved_bytes for layer in layers) == pytest.approx(kept, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_cost_of_each_further_frozen_layer_is_lower(model: str, width: int) -> None:
    costs = [cost_of(run(model, width, frozen), INFO) for frozen in range(num_layers(model))]
    assert all(a.flops > b.flops for a, b in pairwise(costs))
    assert all(a.memory.optimiser > b.memory.optimiser for a, b in pairwise(costs))


def test_cost_of_depends_on_the_recipe() -> None:
    base = cost_of(run(), INFO).flops
    assert cost_of(run(num_steps=50), INFO).flops == base, "ten epochs of five steps"
    assert cost_of(run(num_epochs=20), INFO).flops > 1.9 * base
    rare = cost_of(run(evaluation="log_spaced", num_evaluations=3), INFO).flops
    assert rare < base
    frozen = run(frozen=5)
    live = replace(frozen, recipe=replace(frozen.recipe, augmentation="crop_flip"))
    assert cost_of(live, INFO).flops > cost_of(frozen, INFO).flops, "its prefix runs at every step"
    last, head = (cost_of(run(frozen=k), INFO).memory.images_and_features for k in (8, 9))
    images = (INFO.num_test + 500) * 3 * 32 * 32
    assert last - images == 16 * (head - images), "of a map of 4×4 the head is given the mean"
    adam, plain = cost_of(run(), INFO).memory, cost_of(run(optimizer="sgd"), INFO).memory
    assert adam.optimiser == 2 * plain.optimiser
    assert adam.total > plain.total
