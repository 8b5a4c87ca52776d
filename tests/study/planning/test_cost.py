"""Counts of operations and memory, compared with the networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study.networks.build import build
from study.networks.catalogue import num_layers
from study.planning.cost import cost_of, layer_costs
from tests.made_up import INFO, run

NETWORKS = [("resnet18", 8), ("resnet50", 4), ("densenet121", 4), ("vit_tiny", 12)]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_layer_costs_add_up_to_the_network(model: str, width: int) -> None:
    layers = layer_costs(model, width, INFO.num_classes, INFO.image_shape)
    network = build(model, width, INFO.num_classes, INFO.image_shape)
    assert [layer.name for layer in layers] == [name for name, _ in network.named_children()]
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    # torch counts nothing for the CPU's fused attention.
    plain = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), plain:
        logits = network.eval()(torch.zeros(2, *INFO.image_shape))
    assert sum(layer.flops for layer in layers) * 2 == counter.get_total_flops()
    assert layers[-1].outputs == logits.shape[1]


def test_layer_costs_count_attention() -> None:
    tokens, width, patch = 1 + 8 * 8, 12, 3 * 4 * 4
    block = layer_costs("vit_tiny", width, INFO.num_classes, INFO.image_shape)[1]
    linear_maps = 2 * tokens * width * width * (3 + 1 + 4 + 4)
    assert block.flops == linear_maps + 2 * (2 * tokens * tokens * width)
    embedding = layer_costs("vit_tiny", width, INFO.num_classes, INFO.image_shape)[0]
    assert embedding.flops == 2 * (tokens - 1) * patch * width


@pytest.mark.parametrize(("model", "width"), NETWORKS)
def test_layer_costs_saved_bytes_equal_a_training_step(model: str, width: int) -> None:
    network = build(model, width, INFO.num_classes, INFO.image_shape)
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    saved: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.zeros(8, *INFO.image_shape))
    layers = layer_costs(model, width, INFO.num_classes, INFO.image_shape)
    counted = 8 * sum(layer.saved_bytes for layer in layers)
    if model.startswith("vit"):
        assert sum(saved.values()) <= counted <= 2.1 * sum(saved.values())
    else:
        assert counted == pytest.approx(sum(saved.values()), rel=0.01)


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
