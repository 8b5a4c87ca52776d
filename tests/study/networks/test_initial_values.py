"""Initial values: seeded by names, with timm's distributions."""

import math

import pytest
import timm
import torch

from study.networks.build import build
from study.networks.catalogue import layer_names, num_layers
from study.networks.families import layers_of
from study.networks.initial_values import initialise

torch.set_num_threads(1)


def drawn(model, width, seed=0, classes=5, size=16, **options):
    layers = build(model, width, classes, (3, size, size))
    initialise(layers, model, seed, **options)
    return layers.state_dict()


FEW = [
    ("resnet18", 4, 16),
    ("resnet50", 2, 16),
    ("densenet121", 2, 16),
    ("vit_tiny", 12, 16),
    ("timm/test_resnet", None, 32),
    ("timm/test_vit3", None, 160),
]


def is_random(tensor):
    return bool((tensor != tensor.flatten()[0]).any()) if tensor.ndim else False


@pytest.mark.parametrize(("model", "width", "size"), FEW)
def test_initialise_depends_on_names_seed_and_generation_only(model, width, size):
    state = torch.get_rng_state()
    first = drawn(model, width, size=size)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    again = drawn(model, width, size=size)
    assert all(torch.equal(first[key], again[key]) for key in first)
    varied = [key for key in first if is_random(first[key])]
    assert varied
    for change in ({"seed": 1}, {"generation": 1}):
        other = drawn(model, width, size=size, **change)
        assert not any(torch.equal(first[key], other[key]) for key in varied)
    more = drawn(model, width, classes=7, size=size)
    assert all(torch.equal(first[k], more[k]) for k in first if not k.startswith("head.classifier"))
    # No two layers share their values.
    ends = [first[key].flatten()[:4].tolist() for key in varied if first[key].numel() >= 4]
    assert len(set(map(tuple, ends))) == len(ends)


@pytest.mark.parametrize(("model", "width", "size"), FEW)
@pytest.mark.parametrize("num_wanted", [0, 2])  # of the last layers; 0: all of them
def test_initialise_fills_all_or_only_the_named_layers(model, width, size, num_wanted):
    layers = build(model, width, 5, (3, size, size))
    for tensor in layers.state_dict().values():
        tensor.fill_(7)
    wanted = [name for name, _ in layers.named_children()][-num_wanted:]
    initialise(layers, model, 0, only=wanted if num_wanted else None)
    fresh = drawn(model, width, size=size)
    for key, tensor in layers.state_dict().items():
        expected = fresh[key] if key.partition(".")[0] in wanted else torch.full_like(tensor, 7)
        assert torch.equal(tensor, expected), key
    with pytest.raises(ValueError, match=r"only=\['neck'\].*head"):
        initialise(layers, model, 0, only=["neck"])


@pytest.mark.parametrize(("model", "width"), [("resnet18", 4), ("timm/test_resnet", None)])
def test_initialise_last_norms_are_zero_except_in_random_frozen_layers(model, width):
    usual, cut = drawn(model, width, size=32), drawn(model, width, size=32, frozen=3)
    last = [key for key in usual if key.endswith("weight") and not usual[key].any()]
    assert len(last) == num_layers(model) - 2  # one in each residual block
    frozen = layer_names(model)[:3]
    for key in usual:
        if key in last and key.partition(".")[0] in frozen:
            assert torch.equal(cut[key], torch.ones_like(cut[key])), key
        else:
            assert torch.equal(cut[key], usual[key]), key


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("resnet18", "resnet18"),
        ("resnet50", "resnet26"),
        ("densenet121", "densenet121"),
        ("vit_tiny", "vit_tiny_patch16_224"),
        ("timm/test_vit3", "test_vit3"),
        ("timm/test_resnet", "test_resnet"),
    ],
)
def test_initialise_has_the_distribution_of_timm(model, name):
    # The whole of timm's own network, as timm's own constructor draws it.
    torch.manual_seed(5)
    whole = timm.create_model(name, num_classes=50)
    layers = layers_of(whole)
    theirs = {key: value.clone() for key, value in layers.state_dict().items()}
    for tensor in layers.state_dict().values():
        tensor.fill_(7)
    initialise(layers, model, 0)
    for key, ours in layers.state_dict().items():
        expected = theirs[key].double()
        if not is_random(expected):
            assert torch.equal(ours.double(), expected), key  # constants: biases, norms, statistics
            continue
        # Mean, and second and fourth moment (which tells uniform from normal), within sampling
        # error: the fourth power of a normal value has a relative standard deviation of 3.3.
        n, scale, given = expected.numel(), expected.std(), ours.double()
        assert not torch.equal(ours, theirs[key]), key
        assert abs(given.mean() - expected.mean()) < 6 * scale * math.sqrt(2 / n), key
        for power, spread in ((2, 1.5), (4, 3.3)):
            ratio = (given / scale).pow(power).mean() / (expected / scale).pow(power).mean()
            assert abs(ratio - 1) < 7 * spread * math.sqrt(2 / n), (key, power)
