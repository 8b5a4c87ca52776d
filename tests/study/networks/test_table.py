"""The table of networks: pinned names and layer counts, and errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from study.networks.catalogue import (
    check_images,
    check_model,
    layer_names,
    num_layers,
    standard_width,
)
from study.networks.table import ARCHITECTURES, densenet_parts


def test_layer_counts_are_pinned():
    assert {name: num_layers(name) for name in ARCHITECTURES} == {
        "resnet18": 10,
        "resnet34": 18,
        "resnet50": 18,
        "densenet121": 12,
        "vit_tiny": 14,
        "vit_small": 14,
    }


def test_layer_names_are_pinned():
    # A layer's name is part of every stored weight's key and of the stream of its initial values.
    blocks = [f"stage{stage}_block{block}" for stage in (1, 2, 3, 4) for block in (1, 2)]
    assert layer_names("resnet18") == ("stem", *blocks, "head")
    parts = {2: (6,), 3: (6, 12, 18), 4: (5, 11, 16)}
    second, third, fourth = ([f"block{b}_layer{i}" for i in ends] for b, ends in parts.items())
    first, last = ["stem", "transition1", *second, "transition2"], ["transition3", *fourth, "head"]
    assert [*layer_names("densenet121")] == [*first, *third, *last]
    assert layer_names("vit_tiny") == ("embedding", *(f"block{i}" for i in range(1, 13)), "head")


def test_architectures_have_unique_names_and_valid_standard_widths():
    for name, architecture in ARCHITECTURES.items():
        assert architecture.name == name
        assert len(set(architecture.layer_names)) == len(architecture.layer_names)
        check_model(name, standard_width(name))


@given(st.integers(1, 100))
def test_densenet_parts_have_about_six_layers(depth):
    ends = densenet_parts(depth)
    sizes = [end - first for first, end in zip((0, *ends), ends, strict=False)]
    assert ends[-1] == depth
    assert all(size >= 1 for size in sizes)
    assert max(sizes) <= 9 and (depth < 6 or min(sizes) >= 4)


@pytest.mark.parametrize(
    ("model", "width", "words"),
    [
        ("resnet19", 64, ["model='resnet19'", "resnet18", "vit_small", "timm/<name>"]),
        ("resnet18", None, ["width=None", "channels of the stem", "64"]),
        ("resnet18", 0, ["width=0"]),
        ("densenet121", 8.0, ["width=8.0", "growth rate"]),
        ("resnet18", True, ["width=True"]),
        ("vit_tiny", 64, ["width=64", "3 attention heads", "63 or 66"]),
        ("vit_small", 3, ["width=3", "e.g. 6"]),
        ("timm/resnet18", 64, ["width=64", "choose None"]),
    ],
)
def test_check_model_wrong_model_or_width_names_the_choices(model, width, words):
    with pytest.raises(ValueError) as caught:
        check_model(model, width)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("model", "shape", "word"),
    [
        ("resnet18", (1, 32, 32), "3 channels"),
        ("vit_tiny", (3, 28, 30), "multiples of 4"),
        ("densenet121", (3, 7, 32), "8×8"),
        ("resnet18", (3, 0, 8), "1×1"),
        ("vit_tiny", (3, 0, 4), "1×1"),
    ],
)
def test_check_images_wrong_shape_is_an_error(model, shape, word):
    with pytest.raises(ValueError, match=word):
        check_images(model, shape)
