"""Where on the axis of frozen layers a cut lies: for every network, no two in one place."""

from __future__ import annotations

from itertools import pairwise

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analysis.load.cells import cells_of, cut_in_words, cut_place
from analysis.load.rows import Survey
from study.networks.build import build
from study.networks.catalogue import (
    last_piece_channels,
    num_channels,
    num_features,
    num_layers,
    num_pieces,
    pieces_to_freeze,
)
from study.networks.table import ARCHITECTURES
from study.run import Recipe, Run
from study.training.cut import divide

Cut = tuple[int, int, int, int]  # frozen, trained_channels, frozen_pieces, head_inputs


def cuts(model: str, width: int) -> list[Cut]:
    last = num_layers(model) - 1
    inside = [(cut, 0, some, 0) for cut in range(last + 1) for some in pieces_to_freeze(model, cut)]
    inside += [(last, some, 0, 0) for some in range(1, num_channels(model, width) + 1)]
    is_linear = ARCHITECTURES[model].family != "vit"
    num_read = range(1, num_features(model, width)) if is_linear else ()
    return inside + [(last, 0, 0, some) for some in num_read]


def places(model: str, width: int, asked: list[Cut]) -> list[float]:
    frozen, channels, pieces, read = (pd.Series(each) for each in zip(*asked, strict=True))
    return cut_place(
        frozen,
        channels,
        pieces,
        read,
        last=pd.Series(num_layers(model) - 1, frozen.index),
        num_channels=pd.Series(num_channels(model, width), frozen.index),
        last_piece_channels=pd.Series(last_piece_channels(model, width), frozen.index),
        num_pieces=frozen.map(lambda cut: num_pieces(model, cut)),
    ).tolist()


@pytest.mark.parametrize("model", ARCHITECTURES)
@given(of_heads=st.integers(1, 40))
def test_no_two_cuts_of_a_network_have_one_place(model: str, of_heads: int) -> None:
    width = of_heads * ARCHITECTURES[model].num_heads
    asked = cuts(model, width)
    found = sorted(zip(places(model, width, asked), asked, strict=True))
    # Further apart than rounding: as numbers in a file or a query they stay different ones.
    assert all(b - a > 1e-6 for (a, _), (b, _) in pairwise(found))
    assert all(cut[0] - bool(cut[1]) <= place < cut[0] + 1 for place, cut in found)
    assert all(place == cut[0] for place, cut in found if not any(cut[1:]))


@pytest.mark.parametrize(
    ("model", "width"), [("resnet18", 4), ("resnet50", 4), ("densenet121", 4), ("vit_tiny", 12)]
)
def test_places_have_the_order_of_trained_parameters(model: str, width: int) -> None:
    with torch.device("meta"):
        layers = build(model, width, 10, (3, 32, 32))

    def trained(cut: Cut) -> int:
        parts = divide(layers, model, *cut[:3])
        trained = sum(parameter.numel() for parameter in parts.suffix.parameters())
        return 10 * (cut[3] + 1) if cut[3] else trained

    asked = cuts(model, width)
    found = sorted(zip(places(model, width, asked), asked, strict=True))
    # A DenseNet's final norm has about as many as one channel: there alone the order is another.
    of_channels = [trained(cut) for _, cut in found if not cut[2] or model != "densenet121"]
    of_pieces = [trained(cut) for _, cut in found if not cut[1]]
    for counts in (of_channels, of_pieces):
        assert counts == sorted(set(counts), reverse=True)
    if model == "densenet121":
        for pieces in range(1, 6):
            channels = width * (5 - pieces)
            fewer, more = (trained((11, some, 0, 0)) for some in (channels, channels + 2))
            assert fewer < trained((10, 0, pieces, 0)) < more


@pytest.mark.parametrize(
    ("model", "width"), [("densenet121", 1), ("densenet121", 3), ("vit_tiny", 3), ("resnet18", 1)]
)
def test_nor_have_they_before_anything_is_known_of_the_network(model: str, width: int) -> None:
    start = Run(task="a", size=9, model=model, width=width, recipe=Recipe(num_epochs=1), seed=0)
    asked = cuts(model, width)
    for some in (asked, asked[1::2], asked[:-3]):
        runs = [
            Run(
                task="b", size=9, model=model, width=width, recipe=start.recipe, seed=0, start=start,
                frozen=frozen, trained_channels=channels, frozen_pieces=pieces, head_inputs=read,
            )
            for frozen, channels, pieces, read in some
        ]  # fmt: skip
        cells = cells_of(runs, Survey(facts={}, evaluations={}, damaged={}), {})
        assert cells["frozen"].is_unique and cells["cut"].is_unique


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ((0, 0, 0), "nothing frozen"),
        ((1, 0, 0), "1 layer frozen"),
        ((8, 0, 0), "8 layers frozen"),
        ((9, 32, 0), "8 layers + part of layer 9 frozen"),
        ((9, 4, 0), "8 layers + 28 of 32 channels frozen"),
        ((9, 0, 0), "head only"),
        ((6, 0, 3), "6 layers + 3 of 5 pieces frozen"),
        ((0, 0, 1), "1 of 5 pieces frozen"),
        ((9, 0, 0, 1), "head only, 1 feature"),
        ((9, 0, 0, 4), "head only, 4 features"),
    ],
)
def test_cut_in_words_names_what_is_frozen(cut: tuple[int, ...], words: str) -> None:
    frozen, channels, pieces, *read = cut
    assert cut_in_words(frozen, channels, pieces, 9, 32, 5, *read) == words
