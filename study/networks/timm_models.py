"""Use timm's networks by name, "timm/<name>" or "timm/<name>.<tag>", in their original form.

Only the classes ResNet, DenseNet and VisionTransformer are supported; similar names may have other
classes (ByobNet, ResNetV2, Eva).
"""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from study.networks.table import NUM_CHANNELS, TIMM
from study.networks.timm_names import DenseNet, ResNet, VisionTransformer, timm

CLASSES: Final = (ResNet, DenseNet, VisionTransformer)
TOTAL_STRIDE: Final = 32  # image side / side of the last map, in timm's ResNets and DenseNets


def create(model: str, num_classes: int | None = None) -> Any:
    """Return the network with random initial values from torch's default generator.

    `num_classes=None` keeps the original head. Raises ValueError for an unsupported name or class.
    """
    outline(model)
    classes = {} if num_classes is None else {"num_classes": num_classes}
    return timm.create_model(model.removeprefix(TIMM), **classes)


@lru_cache(maxsize=32)
def outline(model: str) -> Any:
    """Return the network with its original head, on torch's "meta" device: cheap, without values.

    Raises ValueError for an unsupported name or class.
    """
    name = model.removeprefix(TIMM)
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
        raise ValueError(
            f"model={model!r}: timm {timm.__version__} has no such network; "
            f"close to it: {', '.join(close) or 'none'}"
        )
    tags = [each.partition(".")[2] for each in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"model={model!r}: timm {timm.__version__} has no weights {tag!r} for {architecture}; "
            f"choose one of {', '.join(tags) or 'none'}"
        )
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        whole = timm.create_model(name)
    if type(whole) not in CLASSES:
        raise ValueError(
            f"model={model!r} is a {type(whole).__module__}.{type(whole).__name__}: the class must "
            f"be exactly one of {', '.join(each.__name__ for each in CLASSES)}"
        )
    if image_shape(whole)[0] != NUM_CHANNELS:
        raise ValueError(f"model={model!r} takes {image_shape(whole)[0]} channels, not 3")
    return whole


def image_shape(whole: Any) -> tuple[int, int, int]:
    """Return (channels, height, width) of the network's standard images."""
    channels, height, width = whole.pretrained_cfg["input_size"]
    return channels, height, width


def check_images(model: str, shape: tuple[int, int, int]) -> None:
    """Raise ValueError if the network cannot take images of this shape (channels, height, width)."""
    whole = outline(model)
    if type(whole) is VisionTransformer:
        if shape != image_shape(whole):
            raise ValueError(
                f"image_shape={shape}: {model} takes {image_shape(whole)} only; "
                f"give the task image_size={image_shape(whole)[1]}"
            )
    elif min(shape[1:]) < TOTAL_STRIDE:
        raise ValueError(
            f"image_shape={shape}: {model} takes images of {TOTAL_STRIDE}×{TOTAL_STRIDE} pixels or "
            f"more; it was made for image_size={image_shape(whole)[1]}"
        )


def check_pretrained(model: str) -> None:
    """Raise ValueError if timm has no weights for this network. Does not download weights."""
    source = outline(model).pretrained_cfg
    if not any(source.get(key) for key in ("url", "hf_hub_id", "file")):
        raise ValueError(f"start='pretrained': timm {timm.__version__} has no weights for {model}")


def with_weights(model: str, path: Path | None) -> nn.Module:
    """Return the network with its original head and timm's weights, downloaded or read from `path`.

    Raises ValueError, with the keys, if the weights do not fit.
    """
    overlay = {"file": str(path)} if path is not None else {}
    if path is not None and not path.is_file():
        raise ValueError(f"pretrained weights of {model}: there is no file {path}")
    # With the original head, because timm does not load strictly for another number of classes.
    try:
        with torch.random.fork_rng(devices=[]):
            whole: nn.Module = timm.create_model(
                model.removeprefix(TIMM), pretrained=True, pretrained_cfg_overlay=overlay
            )
    except RuntimeError as error:
        raise ValueError(f"pretrained weights of {model} do not fit: {error}") from error
    return whole
