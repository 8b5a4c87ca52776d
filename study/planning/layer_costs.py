"""Compute the costs of the layers of networks in `networks.table` from polynomials, the laws.

Must stay importable without torch. `count_layers` writes the laws to layer_costs.json."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from study.networks.catalogue import num_channels
from study.networks.table import ARCHITECTURES, PATCH_SIZE

PATH: Final = Path(__file__).with_name("layer_costs.json")

ImageShape = tuple[int, int, int]
Inside = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """The costs of one layer of a network.

    - Per image: `flops` of a forward pass; `inputs`: values that the layer receives if all layers before
      it are constant; `outputs`: values that it returns; `saved_bytes`: kept for a backward pass.
    - `parameters`: number of the layer's parameters; `modules`: number of modules that the layer calls.
    """

    name: str
    flops: int
    inputs: int
    outputs: int
    saved_bytes: int
    parameters: int
    modules: int


# Each cost of a layer is a sum of terms such as "width*width*after" with integer factors.
Law = Mapping[str, Any]


@cache
def laws() -> dict[str, dict[str, Any]]:
    """Return the laws by network: of its `layers`, and by cut of the two `parts` of a divided layer."""
    laws: dict[str, dict[str, Any]] = json.loads(PATH.read_bytes())
    return laws


def by_law(
    model: str, width: int, num_classes: int, image_shape: ImageShape, inside: Inside | None
) -> list[LayerCost]:
    of_layers: list[Law] = list(laws()[model]["layers"])
    sizes = map_sizes(model, image_shape)
    channels = 0
    if inside is not None:
        case, at, channels = divided(model, width, inside)
        of_layers[at : at + 1] = laws()[model]["parts"][case]
        sizes.insert(at, sizes[at])
    values = {"1": 1, "width": width, "classes": num_classes, "channels": channels}
    return [
        LayerCost(
            name=law["name"],
            **{
                count: _sum(terms, values | {"before": before, "after": after})
                for count, terms in law.items()
                if count != "name"
            },
        )
        for law, (before, after) in zip(of_layers, sizes, strict=True)
    ]


def _sum(terms: Mapping[str, int], values: Mapping[str, int]) -> int:
    return sum(
        factor * math.prod(values[name] for name in term.split("*"))
        for term, factor in terms.items()
    )


def map_sizes(model: str, image_shape: ImageShape) -> list[tuple[int, int]]:
    """Return the variables (`before`, `after`) of each layer: positions of its input and output map.

    For a ViT, `before` is the number of tokens, and `after` the square of this number.
    """
    architecture, (_, height, width) = ARCHITECTURES[model], image_shape
    if architecture.family == "vit":
        tokens = 1 + (height // PATCH_SIZE) * (width // PATCH_SIZE)
        return [(tokens, tokens**2)] * len(architecture.layer_names)
    sizes = []
    for name in architecture.layer_names:
        before = height * width
        if name.endswith("_block1") and name != "stage1_block1":
            height, width = -(-height // 2), -(-width // 2)
        elif name.startswith("transition"):
            height, width = height // 2, width // 2
        sizes.append((before, height * width))
    return sizes


def divided(model: str, width: int, inside: Inside) -> tuple[str, int, int]:
    """Return the name of this cut's law, the index of the divided layer, and the variable `channels`.

    A DenseNet's trained channels are whole dense layers of `width` channels; `channels` is the remainder.
    """
    frozen, channels, pieces = inside
    if pieces:
        return f"{frozen} layers, {pieces} pieces", frozen, 0
    unit = width if ARCHITECTURES[model].family == "densenet" else num_channels(model, width)
    whole, rest = divmod(channels, unit)
    return f"{whole} trained{' and channels' if rest else ''}", frozen - 1, rest
