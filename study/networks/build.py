"""A network by its name: an `nn.Sequential` of its layers, its normalisation, its pretrained weights.

Owns how a name becomes layers; `initial_values` fills them. Freezing is slicing: `layers[:k]` is the
prefix, `layers[k:]` is trained (`study.training.cut`).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn

from study.networks import timm_models
from study.networks.catalogue import check_images, check_model, check_pretrained
from study.networks.families import ImageShape, construct, layer_keys, layers_of
from study.networks.replica import replica
from study.networks.table import ARCHITECTURES, TIMM
from study.run import HEAD


def network(model: str, width: int | None, num_classes: int, image_shape: ImageShape) -> nn.Module:
    """timm's own whole network: (n, *image_shape) to logits (n, num_classes).

    Its values are arbitrary; see `initialise`. Raises ValueError for an unknown model, a width that it
    cannot have, or images that it cannot take.
    """
    check_model(model, width)
    check_images(model, image_shape)
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a classifier needs 2 or more")
    with torch.random.fork_rng(devices=[]):
        return construct(model, width, num_classes, image_shape)


def build(
    model: str, width: int | None, num_classes: int, image_shape: ImageShape
) -> nn.Sequential:
    """The network as a sequence of its named layers: (n, *image_shape) to (n, num_classes).

    The composition equals timm's own forward pass bit for bit. State-dict keys are
    "<layer name>.<…>". Call `initialise` before use. Raises ValueError as `network` does.
    """
    outline = _outline(
        model,
        width,
        num_classes,
        image_shape,
        torch.get_default_device(),
        torch.get_default_dtype(),
    )
    return replica(outline)


@lru_cache(maxsize=32)
def _outline(
    model: str,
    width: int | None,
    num_classes: int,
    image_shape: ImageShape,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Sequential:
    """The layers of this form as torch's defaults (`device`, `dtype`) make them; without values."""
    assert (device, dtype) == (torch.get_default_device(), torch.get_default_dtype())
    return replica(layers_of(network(model, width, num_classes, image_shape)), "meta")


def normalisation(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, applied as (x / 255 − mean) / std before the layers.

    ImageNet's for all networks of the table, the network's own for a timm network by name.
    """
    if model.startswith(TIMM):
        made_for = timm_models.outline(model).pretrained_cfg
        return tuple(made_for["mean"]), tuple(made_for["std"])
    assert model in ARCHITECTURES, model
    return tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)


def pretrained(
    model: str, image_shape: ImageShape, path: Path | None = None
) -> dict[str, torch.Tensor]:
    """timm's weights under the keys of `build`'s state dict, without the head's.

    Fetched by timm, or read from the file `path`. Raises ValueError if there are none for this model,
    or if they do not fit, naming the keys.
    """
    if path is None:
        check_pretrained(model)
    check_images(model, image_shape)
    whole = timm_models.with_weights(model, path)
    names = layer_keys(whole)
    return {
        names[key]: tensor
        for key, tensor in whole.state_dict().items()
        if not names[key].startswith(f"{HEAD}.")
    }
