"""Layers cut between their pieces: the allowed cuts, and both parts compute the layer, bit for bit."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from study.networks.build import build
from study.networks.catalogue import (
    check_frozen_pieces,
    check_trained_channels,
    num_channels,
    num_layers,
    num_pieces,
    standard_width,
)
from study.networks.families import between_pieces
from study.networks.table import ARCHITECTURES
from study.training.cut import divide
from tests.trainings import SHAPE, network


def places(model: str) -> list[tuple[int, int]]:
    """Return all cuts inside layers, as (frozen, frozen_pieces)."""
    layers = range(num_layers(model))
    return [(index, some) for index in layers for some in range(1, num_pieces(model, index))]


@pytest.mark.parametrize(
    ("model", "pieces"),
    [
        ("resnet18", [1, *8 * [2], 1]),
        ("resnet34", [1, *16 * [2], 1]),
        ("resnet50", 18 * [1]),
        ("densenet121", [*8 * [1], 5, 6, 6, 1]),
        ("vit_tiny", [1, *13 * [2]]),
        ("vit_small", [1, *13 * [2]]),
    ],
)
def test_num_pieces_is_pinned(model: str, pieces: list[int]) -> None:
    # `Run.frozen_pieces` counts them: of a stored Run it must always mean the same.
    assert [num_pieces(model, index) for index in range(num_layers(model))] == pieces


@pytest.mark.parametrize("model", ARCHITECTURES)
def test_divide_each_further_piece_trains_less(model: str) -> None:
    with torch.device("meta"):
        layers = build(model, standard_width(model), 10, (3, 32, 32))
    total = sum(parameter.numel() for parameter in layers.parameters())
    trained = []
    for index in range(num_layers(model)):
        for some in range(num_pieces(model, index)):
            parts = divide(layers, model, index, frozen_pieces=some)
            below, above = (
                sum(parameter.numel() for parameter in part.parameters())
                for part in (parts.prefix, parts.suffix)
            )
            assert below + above == total
            trained.append(above)
    assert all(more > fewer > 0 for more, fewer in pairwise(trained))


def gradients(logits: torch.Tensor, parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    loss = nn.functional.cross_entropy(logits, torch.arange(len(logits)))
    return [logits.detach(), *torch.autograd.grad(loss, parameters)]


@pytest.mark.parametrize(
    "model",
    ["resnet18", pytest.param("resnet34", marks=pytest.mark.slow), "densenet121", "vit_tiny"],
)
@pytest.mark.parametrize("training", [False, True])
def test_divide_parts_compute_the_network_bit_for_bit(model: str, training: bool) -> None:
    layers = network(model)
    images = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    for index, some in places(model):
        parts = divide(layers, model, index, frozen_pieces=some)
        layers.eval()
        parts.suffix.train(training)  # … in the whole network too: the modules are its own
        trained = list(parts.suffix.parameters())
        ids = {id(parameter) for parameter in trained}
        assert ids < {id(parameter) for parameter in layers[index:].parameters()}
        whole = gradients(layers(images), trained)
        with torch.no_grad():
            features = parts.prefix(images)
            before = features.clone()
        composed = gradients(parts.suffix(features), trained)
        assert all(torch.equal(a, b) for a, b in zip(whole, composed, strict=True)), (index, some)
        assert torch.equal(features, before)  # a cached feature is given many times


def test_between_pieces_keeps_the_keys_of_the_network() -> None:
    layers = build("vit_tiny", 12, 5, SHAPE)
    keys = list(layers.state_dict())
    frozen, trained = between_pieces(layers, "vit_tiny", 13, 1)
    assert [*frozen.state_dict(), *trained.state_dict()] == [
        "norm.weight", "norm.bias", "classifier.weight", "classifier.bias",
    ]  # fmt: skip
    assert list(layers.state_dict()) == keys


@pytest.mark.parametrize(
    ("model", "width", "frozen", "inside", "message"),
    [
        ("resnet18", 4, 0, {"pieces": 1}, "cut of resnet18, stem, has no pieces; choose 0"),
        ("resnet18", 4, 3, {"pieces": 2}, "frozen_pieces=2: no layer of resnet18 has more than 1"),
        ("resnet18", 4, 8, {"pieces": 1}, "frozen=9 with trained_channels=32 .*choose that"),
        ("resnet18", 4, 9, {"pieces": 1}, "head, has no pieces; choose 0"),
        ("resnet50", 4, 3, {"pieces": 1}, "resnet50 is cut between layers only; choose 0"),
        ("densenet121", 4, 7, {"pieces": 1}, "transition3, has no pieces; choose 0"),
        ("densenet121", 4, 8, {"pieces": 5}, "block4_layer5, has 5 pieces; choose 0 to 4"),
        ("densenet121", 4, 9, {"pieces": 6}, "no layer of densenet121 has more than 5"),
        ("vit_tiny", 12, 0, {"pieces": 1}, "embedding, has no pieces; choose 0"),
        ("timm/resnet18", None, 3, {"pieces": 1}, "is cut between layers only; .*resnet18"),
        ("resnet18", 4, 9, {"channels": 33}, "has 32; choose 0 to 32"),
        ("resnet18", 4, 8, {"channels": 1}, "resnet18 needs frozen=9; choose 0, or frozen=9"),
        ("timm/resnet18", None, 9, {"channels": 1}, "timm/resnet18 is cut between layers only"),
    ],
    ids=str,
)
def test_check_cut_outside_a_divisible_layer_is_an_error(
    model: str, width: int | None, frozen: int, inside: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check_frozen_pieces(model, width, frozen, inside.get("pieces", 0))
        check_trained_channels(model, width, frozen, inside.get("channels", 0))


def test_divide_all_channels_of_a_basic_block_equal_its_second_piece() -> None:
    check_trained_channels("resnet18", 4, 9, num_channels("resnet18", 4))
    layers = build("resnet18", 4, 5, SHAPE)
    by_channels = divide(layers, "resnet18", 9, trained_channels=32)
    by_pieces = divide(layers, "resnet18", 8, frozen_pieces=1)
    assert [p.shape for p in by_channels.suffix.parameters()] == [
        p.shape for p in by_pieces.suffix.parameters()
    ]
