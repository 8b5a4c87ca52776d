"""Networks: each sequence of layers computes the same as timm's network."""

import copy
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
    """Return timm's network, with no norm at its initial values, and images."""
    whole = network(model, width, 5, (3, size, size))
    initialise(layers_of(whole), model, 0)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        families.as_after_training(whole)
        return whole.eval(), torch.randn(3, 3, size, size)


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
    names = {key: name for name, key in layer_keys(whole).items()}
    theirs = dict(whole.named_parameters())
    ours = {names[key]: parameter for key, parameter in composed.named_parameters()}
    assert ours.keys() == theirs.keys()
    expected = logits_and_gradients(whole, [*theirs.values()], images)
    given = logits_and_gradients(composed, [ours[name] for name in theirs], images)
    assert all(torch.equal(a, b) for a, b in zip(expected, given, strict=True))
    # … and BatchNorm has taken the same step.
    buffers = dict(whole.named_buffers())
    for key, buffer in composed.named_buffers():
        if key in names:  # buffers that are not stored, like a blur's kernel, never change
            assert torch.equal(buffer, buffers[names[key]]), key
    with torch.no_grad():
        for name, layer in composed.named_children():
            before = images.clone()
            after = layer(images)
            assert torch.equal(images, before), f"{name} changes its input, a cached feature"
            images = after


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
def test_build_has_named_layers_and_the_published_parameter_count(model, count):
    with torch.device("meta"):
        layers = build(model, standard_width(model), 10, (3, 32, 32))
    assert tuple(name for name, _ in layers.named_children()) == ARCHITECTURES[model].layer_names
    keys = [*layers.state_dict()]
    assert keys[-2:] == ["head.classifier.weight", "head.classifier.bias"]
    assert {key.partition(".")[0] for key in keys} == set(ARCHITECTURES[model].layer_names)
    assert sum(parameter.numel() for parameter in layers.parameters()) == count


def test_build_width_reaches_every_module():
    layers = build("resnet18", 5, 10, (3, 8, 8))
    assert layers.stem.conv1.weight.shape == (5, 3, 3, 3)
    assert layers.stage1_block1.conv1.weight.shape == (5, 5, 3, 3)
    assert layers.head.classifier.in_features == 40
    assert build("densenet121", 3, 10, (3, 8, 8)).stem.conv0.weight.shape == (6, 3, 3, 3)
    layers = build("vit_small", 24, 10, (3, 8, 8))
    assert layers.embedding.pos_embed.shape == (1, 1 + 4, 24)
    assert layers.block1.attn.num_heads == 6


@pytest.mark.parametrize(
    ("model", "width", "num_classes", "size", "message"),
    [
        ("resnet18", 4, 1, 8, "num_classes=1"),
        ("vit_tiny", 12, 5, 6, "multiples of 4"),
        ("resnet18", None, 5, 8, "width=None"),
    ],
)
def test_build_wrong_arguments_are_an_error(model, width, num_classes, size, message):
    with pytest.raises(ValueError, match=message):
        build(model, width, num_classes, (3, size, size))


class Detached(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).detach()


def nested(layers):
    return nn.Sequential(layers["stage1_block2"], layers["stage1_block1"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layers: setattr(layers["stem"], "act1", nn.Identity()), "logits"),
        (lambda layers: layers.update(stem=Detached(layers["stem"])), "gradient of conv1.weight"),
        (lambda layers: layers.pop("stage2_block2"), "exactly one"),
        (lambda layers: layers.update(extra=nn.Identity()), "no parameters in extra"),
        (lambda layers: layers.update(stage1_block2=nested(layers)), "exactly one"),
    ],
)
def test_check_composition_wrong_sequence_is_an_error(monkeypatch, change, reason):
    def changed(whole):
        layers = resnet.layers(whole)
        change(layers)
        return layers

    kind = type(network("resnet18", 4, 5, (3, 8, 8)))
    wrong = replace(families.FAMILIES[kind], layers=changed)
    monkeypatch.setattr(families, "FAMILIES", {kind: wrong})
    with pytest.raises(ValueError, match=reason):
        check_composition("resnet18", 4, (3, 8, 8))


def test_layer_keys_are_mapped_one_to_one():
    keys = layer_keys(network("densenet121", 2, 5, (3, 8, 8)))
    for theirs, ours in (
        ("features.conv0.weight", "stem.conv0.weight"),
        (
            "features.denseblock3.denselayer12.conv2.weight",
            "block3_layer12.denselayer12.conv2.weight",
        ),
        ("features.transition1.conv.weight", "transition1.transition.conv.weight"),
        ("features.norm5.weight", "block4_layer16.norm.weight"),
        ("classifier.bias", "head.classifier.bias"),
    ):
        assert keys[theirs] == ours
    assert len(set(keys.values())) == len(keys)


# Networks are built as replicas of one that is kept


def containers(module):
    """Return the ids of all dictionaries, lists and sets in the modules' attributes."""
    return {
        id(value)
        for each in module.modules()
        for value in each.__dict__.values()
        if isinstance(value, (dict, list, set))
    }


@pytest.mark.parametrize(("model", "width", "size"), NARROW[::2] + TIMM[::3])
def test_build_twice_computes_the_same_and_shares_nothing(model, width, size):
    first, second = (build(model, width, 5, (3, size, size)) for _ in range(2))
    expected = layers_of(network(model, width, 5, (3, size, size)))
    initialise(expected, model, 0)
    for made in (first, second):
        assert str(made) == str(expected)
        assert [*made.__dict__] == [*expected.__dict__]
        made.load_state_dict(expected.state_dict(), strict=True)
    assert not containers(first) & containers(second)
    storages = [{t.data_ptr() for t in each.state_dict().values()} for each in (first, second)]
    assert not storages[0] & storages[1]
    assert not {*map(id, first.modules())} & {*map(id, second.modules())}
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        expected.train(training)
        assert torch.equal(first.train(training)(images), expected(images))


def test_replica_keeps_shared_parameters():
    layers = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    layers[1].weight = layers[0].weight
    layers.friend = {"first": layers[0]}
    made = replica(layers)
    assert made[1].weight is made[0].weight is not layers[0].weight
    assert made.friend["first"] is made[0]
    assert made[0].bias is not layers[0].bias


def test_build_is_on_the_default_device_of_each_call():
    for device in ("cpu", "meta", "cpu"):
        with torch.device(device):
            tensors = build("resnet18", 4, 5, (3, 8, 8)).state_dict().values()
        assert {tensor.device.type for tensor in tensors} == {device}
