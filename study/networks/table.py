"""The table of networks, with their layer names and width units.

Must stay importable without torch. Numbers of parameters are not included, because they need torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from study.run import HEAD

TIMM: Final = "timm/"
NUM_CHANNELS: Final = 3  # `tasks` repeats grey images to three channels

# The unit of a width in each family.
WIDTH_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "resnet": "channels of the stem",
        "densenet": "growth rate",
        "vit": "embedding size",
    }
)
PATCH_SIZE: Final = 4
BOTTLENECK_EXPANSION: Final = 4  # output channels of a bottleneck / channels of its 3×3 convolution
MLP_RATIO: Final = 4  # hidden units of a ViT's MLP / embedding size
DENSE_LAYERS_PER_CUT: Final = 6


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network of the table, at any width.

    - `depths`: blocks per stage (ResNet), dense layers per dense block (DenseNet), or the number of
      encoder blocks (ViT, one value).
    - `standard_width`: the width of the published network, in the unit of WIDTH_UNITS.
    - `layer_names`: from the stem to the head; a network is cut between two layers.
    - `bottleneck`: whether the residual blocks are bottlenecks.
    - `num_heads`: attention heads (ViT).
    """

    name: str
    family: str
    depths: tuple[int, ...]
    standard_width: int
    layer_names: tuple[str, ...]
    bottleneck: bool = False
    num_heads: int = 1


def resnet_layer_names(depths: tuple[int, ...]) -> tuple[str, ...]:
    blocks = [
        f"stage{stage}_block{block}"
        for stage, depth in enumerate(depths, 1)
        for block in range(1, depth + 1)
    ]
    return ("stem", *blocks, HEAD)


def densenet_parts(depth: int) -> tuple[int, ...]:
    """Split a dense block into parts; return the number of the last dense layer in each part, from 1.

    The parts have about six dense layers each, and as equal numbers as possible.
    """
    num_parts = max(1, round(depth / DENSE_LAYERS_PER_CUT))
    return tuple(round(depth * part / num_parts) for part in range(1, num_parts + 1))


def densenet_layer_names(depths: tuple[int, ...]) -> tuple[str, ...]:
    """Return the names of stem, parts of each dense block, and head. A part is named by its end.

    "block3_layer12" ends with the 12th dense layer of the third dense block, "transition3" with the
    transition after that block.
    """
    names = ["stem"]
    for block, depth in enumerate(depths, 1):
        names += [f"block{block}_layer{last}" for last in densenet_parts(depth)]
        if block < len(depths):
            names[-1] = f"transition{block}"
    return (*names, HEAD)


def vit_layer_names(depth: int) -> tuple[str, ...]:
    """Return the names of embedding, each encoder block, and head (with the final norm)."""
    return ("embedding", *(f"block{block}" for block in range(1, depth + 1)), HEAD)


def _resnet(name: str, depths: tuple[int, ...], *, bottleneck: bool = False) -> Architecture:
    return Architecture(
        name=name,
        family="resnet",
        depths=depths,
        standard_width=64,
        layer_names=resnet_layer_names(depths),
        bottleneck=bottleneck,
    )


def _densenet(name: str, depths: tuple[int, ...]) -> Architecture:
    return Architecture(
        name=name,
        family="densenet",
        depths=depths,
        standard_width=32,
        layer_names=densenet_layer_names(depths),
    )


def _vit(name: str, *, width: int, num_heads: int) -> Architecture:
    return Architecture(
        name=name,
        family="vit",
        depths=(12,),
        standard_width=width,
        layer_names=vit_layer_names(12),
        num_heads=num_heads,
    )


ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {
        each.name: each
        for each in (
            _resnet("resnet18", (2, 2, 2, 2)),
            _resnet("resnet34", (3, 4, 6, 3)),
            _resnet("resnet50", (3, 4, 6, 3), bottleneck=True),
            _densenet("densenet121", (6, 12, 24, 16)),
            _vit("vit_tiny", width=192, num_heads=3),
            _vit("vit_small", width=384, num_heads=6),
        )
    }
)
