"""The networks: each sequence of layers is timm's own network, cut into named layers."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from study.networks import families, resnet
from study.networks.build import build, network
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
    """The whole network after three steps on random images: no norm is fresh any more."""
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
def test_composition_is_timms_forward_pass_bit_for_bit(model, width, size, training):
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
def test_layers_pass_tensors_on_and_leave_their_input_alone(model, width, size):
    # A cached feature is given to the layer above the cut many times.
    whole, images = trained(model, width, size)
    with torch.no_grad():
        for name, layer in layers_of(whole).named_children():
            before = images.clone()
            after = layer(images)
            assert isinstance(after, torch.Tensor) and torch.equal(images, before), name
            images = after


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_layers_have_their_names_and_each_further_cut_trains_less(model):
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
def test_parameter_counts_at_standard_width(model, count):
    with torch.device("meta"):
        layers = build(model, standard_width(model), 10, (3, 32, 32))
    assert sum(parameter.numel() for parameter in layers.parameters()) == count


def test_every_module_has_the_width_asked_for():
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
    """The family of ResNets with layers that are not the network's."""

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
def test_a_sequence_that_is_not_the_network_is_refused(monkeypatch, change, reason):
    monkeypatch.setattr(families, "FAMILIES", broken(change))
    with pytest.raises(ValueError, match=reason):
        check_composition("resnet18", 4, (3, 8, 8))


def test_a_wrong_network_is_refused_when_building():
    with pytest.raises(ValueError, match="num_classes=1"):
        build("resnet18", 4, 1, (3, 8, 8))
    with pytest.raises(ValueError, match="multiples of 4"):
        build("vit_tiny", 12, 5, (3, 6, 6))
    with pytest.raises(ValueError, match="width=None"):
        build("resnet18", None, 5, (3, 8, 8))


def test_keys_are_mapped_one_to_one():
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
