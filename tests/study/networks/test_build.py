"""Networks: each sequence of layers computes the same as timm's network."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from study.networks import families, resnet
from study.networks.build import build, network, replica
from study.networks.catalogue import standard_width
from study.networks.families import check_composition, layer_keys, layers_of
from study.networks.initial_values import initialise
from study.networks.table import ARCHITECTURES

torch.set_num_threads(1)

NARROW = [
    ("resnet18", 4, 8),
    ("resnet18", 5, 32),
    ("resnet34", 4, 16),
    ("resnet50", 3, 16),
    ("densenet121", 1, 8),
    pytest.param("densenet121", 4, 16, marks=pytest.mark.slow),
    ("vit_tiny", 12, 8),
    ("vit_tiny", 24, 32),
    ("vit_small", 24, 16),
]
# Attention, groups, a deep stem and average-pooled shortcuts; a blurred stem; a map of patches instead
# of a sequence; register tokens and mean pooling; attention pooling.
TIMM = [
    ("timm/test_resnet", None, 32),
    pytest.param("timm/seresnext26t_32x4d", None, 32, marks=pytest.mark.slow),
    pytest.param("timm/resnetblur18", None, 32, marks=pytest.mark.slow),
    pytest.param("timm/densenet121", None, 32, marks=pytest.mark.slow),
    ("timm/test_vit", None, 160),
    ("timm/test_vit2", None, 160),
    ("timm/test_vit3", None, 160),
]


def trained(model, width, size):
    """Return a network after three steps on random images, and images: no norm has its initial values."""
    whole = network(model, width, 5, (3, size, size))
    initialise(layers_of(whole), model, 0)
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.SGD(whole.parameters(), lr=0.05)
    for _ in range(3):
        images = torch.randn(4, 3, size, size, generator=generator)
        labels = torch.randint(5, (4,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(whole.train()(images), labels).backward()
        optimiser.step()
    with torch.no_grad():
        for name, buffer in whole.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.mul_(0.5 + torch.rand(buffer.shape, generator=generator))
    return whole.eval(), torch.randn(3, 3, size, size, generator=generator)


def logits_and_gradients(module, parameters, images):
    logits = module(images)
    loss = nn.functional.cross_entropy(logits, torch.arange(len(images)))
    return [logits, *torch.autograd.grad(loss, parameters)]


@pytest.mark.parametrize(("model", "width", "size"), NARROW + TIMM)
@pytest.mark.parametrize("training", [False, True])
def test_layers_of_compute_timms_forward_pass_bit_for_bit(model, width, size, training):
    whole, images = trained(model, width, size)
    composed = layers_of(copy.deepcopy(whole))
    whole.train(training)
    composed.train(training)
    theirs = list(whole.parameters())
    names = {key: name for name, key in layer_keys(whole).items()}
    by_key = dict(whole.named_parameters())
    ours = {names[key]: parameter for key, parameter in composed.named_parameters()}
    assert ours.keys() == by_key.keys()
    expected = logits_and_gradients(whole, theirs, images)
    given = logits_and_gradients(composed, [ours[name] for name in by_key], images)
    assert all(torch.equal(a, b) for a, b in zip(expected, given, strict=True))
    # … and BatchNorm has taken the same step.
    buffers = dict(whole.named_buffers())
    for key, buffer in composed.named_buffers():
        if key in names:  # buffers that are not stored, like a blur's kernel, never change
            assert torch.equal(buffer, buffers[names[key]]), key


@pytest.mark.parametrize(("model", "width", "size"), NARROW[::2] + TIMM)
def test_layers_do_not_change_their_input(model, width, size):
    # A cached feature is given to the layer above the cut many times.
    whole, images = trained(model, width, size)
    with torch.no_grad():
        for name, layer in layers_of(whole).named_children():
            before = images.clone()
            after = layer(images)
            assert isinstance(after, torch.Tensor) and torch.equal(images, before), name
            images = after


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_build_layers_have_their_names_and_each_further_cut_trains_less(model):
    with torch.device("meta"):
        layers = build(model, standard_width(model), 10, (3, 32, 32))
    assert tuple(name for name, _ in layers.named_children()) == ARCHITECTURES[model].layer_names
    assert {key.partition(".")[0] for key in layers.state_dict()} == set(
        ARCHITECTURES[model].layer_names
    )
    assert [key for key in layers.state_dict() if key.startswith("head.classifier.")] == [
        "head.classifier.weight",
        "head.classifier.bias",
    ]
    trained_counts = [
        sum(parameter.numel() for parameter in layers[cut:].parameters())
        for cut in range(len(layers) + 1)
    ]
    assert all(more > fewer for more, fewer in itertools.pairwise(trained_counts))


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("resnet18", 11_173_962),
        ("resnet34", 21_282_122),
        ("resnet50", 23_520_842),
        ("densenet121", 6_956_426),
        ("vit_tiny", 5_362_762),
        ("vit_small", 21_342_346),
    ],
)
def test_build_standard_width_has_the_published_parameter_count(model, count):
    with torch.device("meta"):
        layers = build(model, standard_width(model), 10, (3, 32, 32))
    assert sum(parameter.numel() for parameter in layers.parameters()) == count


def test_build_width_reaches_every_module():
    layers = build("resnet18", 5, 10, (3, 8, 8))
    assert layers.stem.conv1.weight.shape == (5, 3, 3, 3)
    assert layers.stage1_block1.conv1.weight.shape == (5, 5, 3, 3)
    assert layers.head.classifier.in_features == 40
    layers = build("densenet121", 3, 10, (3, 8, 8))
    assert layers.stem.conv0.weight.shape == (6, 3, 3, 3)
    layers = build("vit_small", 24, 10, (3, 8, 8))
    assert layers.embedding.pos_embed.shape == (1, 1 + 4, 24)
    assert layers.block1.attn.num_heads == 6


def broken(change):
    """Return the family of ResNets with wrong layers."""

    def cut(whole):
        layers = resnet.layers(whole)
        change(layers)
        return layers

    kind = type(network("resnet18", 4, 5, (3, 8, 8)))
    return {kind: replace(families.FAMILIES[kind], layers=cut)}


class Detached(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).detach()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layers: setattr(layers["stem"], "act1", nn.Identity()), "logits"),
        (lambda layers: layers.update(stem=Detached(layers["stem"])), "gradient of conv1.weight"),
        (lambda layers: layers.pop("stage2_block2"), "exactly one"),
        (lambda layers: layers.update(extra=nn.Identity()), "no parameters in extra"),
        (
            lambda layers: layers.update(
                stage1_block2=nn.Sequential(layers["stage1_block2"], layers["stage1_block1"])
            ),
            "exactly one",
        ),
    ],
)
def test_check_composition_wrong_sequence_is_an_error(monkeypatch, change, reason):
    monkeypatch.setattr(families, "FAMILIES", broken(change))
    with pytest.raises(ValueError, match=reason):
        check_composition("resnet18", 4, (3, 8, 8))


def test_build_wrong_arguments_are_an_error():
    with pytest.raises(ValueError, match="num_classes=1"):
        build("resnet18", 4, 1, (3, 8, 8))
    with pytest.raises(ValueError, match="multiples of 4"):
        build("vit_tiny", 12, 5, (3, 6, 6))
    with pytest.raises(ValueError, match="width=None"):
        build("resnet18", None, 5, (3, 8, 8))


def test_layer_keys_are_mapped_one_to_one():
    whole = network("densenet121", 2, 5, (3, 8, 8))
    keys = layer_keys(whole)
    assert keys["features.conv0.weight"] == "stem.conv0.weight"
    assert (
        keys["features.denseblock3.denselayer12.conv2.weight"]
        == "block3_layer12.denselayer12.conv2.weight"
    )
    assert keys["features.transition1.conv.weight"] == "transition1.transition.conv.weight"
    assert keys["features.norm5.weight"] == "block4_layer16.norm.weight"
    assert keys["classifier.bias"] == "head.classifier.bias"
    assert len(set(keys.values())) == len(keys)


# Replicas: as copy.deepcopy, but faster, and with new memory for parameters


def containers(module):
    """Return the ids of all dictionaries, lists and sets in the modules' attributes."""
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


@pytest.mark.parametrize(("model", "width", "size"), NARROW[::2] + TIMM[::3])
def test_replica_computes_the_same_and_shares_nothing(model, width, size):
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


def test_replica_keeps_shared_parameters_and_extra_attributes():
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layers[1].weight = layers[0].weight
    layers.friend = {"first": layers[0]}
    made = replica(layers)
    assert made[1].weight is made[0].weight is not layers[0].weight
    assert made.friend["first"] is made[0]
    assert made[0].bias is not layers[0].bias


def test_replica_on_the_meta_device_has_no_values():
    layers = build("resnet18", 4, 5, (3, 8, 8))
    assert {p.device.type for p in replica(layers, "meta").parameters()} == {"meta"}
    with torch.device("meta"):
        assert {
            t.device.type for t in build("resnet18", 4, 5, (3, 8, 8)).state_dict().values()
        } == {"meta"}
    assert {p.device.type for p in build("resnet18", 4, 5, (3, 8, 8)).parameters()} == {"cpu"}
