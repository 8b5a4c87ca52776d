"""A replica of a network: what `copy.deepcopy` would make, but for the parameters' values."""

import copy

import pytest
import torch
from torch import nn

from study.networks.build import build, network, replica
from study.networks.families import layers_of
from study.networks.initial_values import initialise

torch.set_num_threads(1)

NARROW = [
    ("resnet18", 4, 8),
    ("resnet50", 3, 16),
    ("densenet121", 1, 8),
    ("vit_tiny", 12, 8),
    ("timm/test_resnet", None, 32),
    ("timm/test_vit", None, 160),
    ("timm/test_vit2", None, 160),
    ("timm/test_vit3", None, 160),
]
many = pytest.mark.parametrize(("model", "width", "size"), NARROW)


def containers(module):
    """Every dictionary, list and set that a module's own attributes hold."""
    return {
        id(value)
        for each in module.modules()
        for value in each.__dict__.values()
        if isinstance(value, (dict, list, set))
    }


def form(module):
    return [
        (name, type(each), each.training, sorted(each.__dict__), each.extra_repr())
        for name, each in module.named_modules()
    ]


@many
def test_a_replica_computes_the_same_and_shares_nothing(model, width, size):
    layers = layers_of(network(model, width, 5, (3, size, size)))
    initialise(layers, model, 0)
    made = replica(layers)
    assert form(made) == form(copy.deepcopy(layers))
    assert str(made) == str(layers)
    assert not containers(made) & containers(layers)
    storages = [{t.data_ptr() for t in each.state_dict().values()} for each in (made, layers)]
    assert not storages[0] & storages[1]
    assert not {id(m) for m in made.modules()} & {id(m) for m in layers.modules()}
    made.load_state_dict(layers.state_dict(), strict=True)
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made.eval()(images), layers.eval()(images))
    before = {key: value.clone() for key, value in layers.state_dict().items()}
    optimiser = torch.optim.SGD(made.parameters(), lr=0.1)
    made.train()(images).square().mean().backward()
    optimiser.step()
    assert all(torch.equal(before[key], value) for key, value in layers.state_dict().items())
    assert all(parameter.grad is None for parameter in layers.parameters())


@many
def test_initial_values_fill_every_parameter_of_a_network_that_is_built(model, width, size):
    expected = build(model, width, 5, (3, size, size))
    layers = build(model, width, 5, (3, size, size))
    with torch.no_grad():
        for tensor in layers.state_dict().values():
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    for each in (expected, layers):
        initialise(each, model, 3)
    state = layers.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in expected.state_dict().items())
    assert all(torch.isfinite(value).all() for value in state.values())


def test_parameters_that_are_shared_stay_shared_and_odd_attributes_follow():
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layers[1].weight = layers[0].weight
    layers.friend = {"first": layers[0]}
    made = replica(layers)
    assert made[1].weight is made[0].weight is not layers[0].weight
    assert made.friend["first"] is made[0]
    assert made[0].bias is not layers[0].bias


def test_a_replica_may_lie_on_the_meta_device():
    layers = build("resnet18", 4, 5, (3, 8, 8))
    assert {p.device.type for p in replica(layers, "meta").parameters()} == {"meta"}
    with torch.device("meta"):
        assert {
            t.device.type for t in build("resnet18", 4, 5, (3, 8, 8)).state_dict().values()
        } == {"meta"}
    assert {p.device.type for p in build("resnet18", 4, 5, (3, 8, 8)).parameters()} == {"cpu"}
