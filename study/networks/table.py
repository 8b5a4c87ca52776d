"""Which networks can be named, what their layers are called, and what their width counts.

A table of plain values, so that a grid can be checked without importing torch; `models` builds what
stands here. A network that is not in the table is named "timm/<name>" and asked of timm itself, which
imports torch then. Refuses to say how many parameters a network has: that is known once it is built.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

TIMM: Final = "timm/"
NUM_CHANNELS: Final = 3  # grey images are repeated to three channels by `tasks`

# What a width counts, and how small an image may be, in each family.
WIDTH_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "resnet": "channels of the stem",
        "densenet": "growth rate",
        "vit": "embedding size",
    }
)
PATCH_SIZE: Final = 4
DENSE_LAYERS_PER_CUT: Final = 6


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One network of the table, at any width.

    - `depths`: blocks per stage (ResNet), dense layers per dense block (DenseNet), or the number of
      encoder blocks (ViT, one value).
    - `standard_width`: the width of the published network, in the unit of WIDTH_UNITS.
    - `layer_names`: from the stem to the head, in order; a cut lies between two of them.
    - `bottleneck`: whether the residual blocks are bottlenecks; `num_heads`: attention heads (ViT).
    """

    name: str
    family: str
    depths: tuple[int, ...]
    standard_width: int
    layer_names: tuple[str, ...]
    bottleneck: bool = False
    num_heads: int = 1


def resnet_layer_names(depths: tuple[int, ...]) -> tuple[str, ...]:
    """Stem, each residual block, head."""
    blocks = [
        f"stage{stage}_block{block}"
        for stage, depth in enumerate(depths, 1)
        for block in range(1, depth + 1)
    ]
    return ("stem", *blocks, "head")


def densenet_parts(depth: int) -> tuple[int, ...]:
    """Where a dense block of `depth` dense layers is cut: the last dense layer of each part.

    The parts hold about six dense layers each, as evenly as whole numbers allow.
    """
    num_parts = max(1, round(depth / DENSE_LAYERS_PER_CUT))
    return tuple(round(depth * part / num_parts) for part in range(1, num_parts + 1))


def densenet_layer_names(depths: tuple[int, ...]) -> tuple[str, ...]:
    """Stem, the parts of each dense block, head; a layer is named by what it ends with.

    "block3_layer12" ends with the 12th dense layer of the third dense block, "transition3" with the
    transition that follows that block.
    """
    names = ["stem"]
    for block, depth in enumerate(depths, 1):
        names += [f"block{block}_layer{last}" for last in densenet_parts(depth)]
        if block < len(depths):
            names[-1] = f"transition{block}"
    return (*names, "head")


def vit_layer_names(depth: int) -> tuple[str, ...]:
    """Patch and position embedding, each encoder block, final norm and head."""
    return ("embedding", *(f"block{block}" for block in range(1, depth + 1)), "head")


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


def check_model(model: str, width: int | None) -> None:
    """Raises ValueError, with the choices, if there is no such network of that width.

    A network of the table needs a width; "timm/<name>" comes in its original form, without one. For
    the latter timm is asked: the class must be exactly one of the three families', and the sequence
    of layers must equal timm's own forward pass.
    """
    if model.startswith(TIMM):
        if width is not None:
            raise ValueError(
                f"width={width!r}: {model} comes in its original form, its width must be None"
            )
        from study.networks.build import check_timm  # torch only where timm must be asked

        check_timm(model)
        return
    architecture = _architecture(model)
    unit = WIDTH_UNITS[architecture.family]
    if type(width) is not int or width < 1:
        raise ValueError(
            f"width={width!r}: {model} needs a whole number, 1 or more ({unit}; "
            f"the published network has {architecture.standard_width})"
        )
    if width % architecture.num_heads:
        below = width - width % architecture.num_heads
        nearest = [each for each in (below, below + architecture.num_heads) if each]
        raise ValueError(
            f"width={width!r}: {model} has {architecture.num_heads} attention heads and its {unit} "
            f"must be a multiple of that, e.g. {' or '.join(map(str, nearest))}"
        )


def check_images(model: str, image_shape: tuple[int, int, int]) -> None:
    """Raises ValueError if the network cannot take images of this shape (channels, height, width)."""
    channels, height, width = image_shape
    if channels != NUM_CHANNELS:
        raise ValueError(f"image_shape={image_shape}: {model} takes {NUM_CHANNELS} channels")
    if model.startswith(TIMM):
        from study.networks.timm_models import check_images as check_timm_images

        check_timm_images(model, image_shape)
        return
    architecture = _architecture(model)
    if architecture.family == "vit" and (height % PATCH_SIZE or width % PATCH_SIZE):
        raise ValueError(
            f"image_shape={image_shape}: {model} cuts images into patches of {PATCH_SIZE}×"
            f"{PATCH_SIZE} pixels, height and width must be multiples of {PATCH_SIZE}"
        )
    # A transition of DenseNet halves the map and drops what is left over, down to nothing.
    least = 2 ** (len(architecture.depths) - 1) if architecture.family == "densenet" else 1
    if min(height, width) < least:
        raise ValueError(
            f"image_shape={image_shape}: {model} takes images of {least}×{least} pixels or more"
        )


def check_pretrained(model: str) -> None:
    """Raises ValueError if there are no pretrained weights for this network. Does not fetch them."""
    if not model.startswith(TIMM):
        raise ValueError(
            f"start='pretrained': there are no pretrained weights for {model}, whose stem fits small "
            "images; choose a timm network, 'timm/<name>'"
        )
    from study.networks.timm_models import check_pretrained as check_timm_pretrained

    check_timm_pretrained(model)


def layer_names(model: str) -> tuple[str, ...]:
    """The names of the network's layers, from the input to the head."""
    if model.startswith(TIMM):
        from study.networks.build import timm_layer_names

        return timm_layer_names(model)
    return _architecture(model).layer_names


def num_layers(model: str) -> int:
    """Number of layers L, the head counted; `frozen` may be 0 … L − 1."""
    return len(layer_names(model))


def standard_width(model: str) -> int | None:
    """The width of the published network; None for "timm/<name>"."""
    return None if model.startswith(TIMM) else _architecture(model).standard_width


def _architecture(model: str) -> Architecture:
    if model not in ARCHITECTURES:
        close = difflib.get_close_matches(model, ARCHITECTURES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"model={model!r}: choose one of {', '.join(ARCHITECTURES)}, or 'timm/<name>' for a "
            f"timm network of class ResNet, DenseNet or VisionTransformer{hint}"
        )
    return ARCHITECTURES[model]
