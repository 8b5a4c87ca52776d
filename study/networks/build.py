"""Build a network by name, as an `nn.Sequential` of layers, and copy it quickly.

A cut is a slice: `layers[:k]` is frozen, `layers[k:]` is trained (`study.training.cut`)."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from study.networks import timm_models
from study.networks.catalogue import check_images, check_model, check_pretrained
from study.networks.families import ImageShape, construct, layer_keys, layers_of
from study.networks.table import ARCHITECTURES, TIMM
from study.networks.timm_names import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from study.run import HEAD

Module = TypeVar("Module", bound=nn.Module)

_UNCHANGING: Final = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype)
_CONTAINERS: Final = (dict, OrderedDict, list, set)


def replica(module: Module, device: str | torch.device | None = None) -> Module:
    """Return an independent copy of the module, with equal structure, modes and buffers.

    The copy's parameters are uninitialised, on `device` (default: torch's default device).
    """
    made: Module = _module(module, device, {})
    return made


def _module(module: nn.Module, device: Any, memo: dict[int, Any]) -> Any:
    if id(module) in memo:
        return memo[id(module)]
    made = memo[id(module)] = object.__new__(type(module))
    for name, value in module.__dict__.items():
        if name == "_parameters":
            own: Any = {key: _parameter(each, device, memo) for key, each in value.items()}
        elif name == "_buffers":
            own = {key: _buffer(each, memo) for key, each in value.items()}
        elif name == "_modules":
            own = {
                key: None if each is None else _module(each, device, memo)
                for key, each in value.items()
            }
        elif _is_unchanging(value):
            own = value
        elif type(value) in _CONTAINERS and not value:
            own = type(value)()
        else:
            own = copy.deepcopy(value, memo)
        made.__dict__[name] = own
    return made


def _is_unchanging(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_unchanging, value))
    return type(value) in _UNCHANGING or type(value) is type


def _parameter(parameter: nn.Parameter | None, device: Any, memo: dict[int, Any]) -> Any:
    if parameter is None:
        return None
    if id(parameter) not in memo:
        room = torch.empty_strided(
            parameter.size(), parameter.stride(), dtype=parameter.dtype, device=device
        )
        memo[id(parameter)] = nn.Parameter(room, requires_grad=parameter.requires_grad)
    return memo[id(parameter)]


def _buffer(buffer: Tensor | None, memo: dict[int, Any]) -> Any:
    if buffer is None:
        return None
    if id(buffer) not in memo:
        memo[id(buffer)] = buffer.detach().clone()
    return memo[id(buffer)]


def network(model: str, width: int | None, num_classes: int, image_shape: ImageShape) -> nn.Module:
    """Return timm's network, not split into layers: (n, *image_shape) to logits (n, num_classes).

    The parameters are arbitrary; see `initialise`. Raises ValueError for an unknown model, or an invalid
    width, number of classes or image shape.
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
    """Return the network as a sequence of its named layers: (n, *image_shape) to (n, num_classes).

    The output equals timm's forward pass bit for bit. State-dict keys begin with "<layer name>.". Call
    `initialise` before use. Raises ValueError as `network` does.
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
    """Return the layers on the meta device. `device`, `dtype`: torch's defaults, for the cache's key."""
    assert (device, dtype) == (torch.get_default_device(), torch.get_default_dtype())
    return replica(layers_of(network(model, width, num_classes, image_shape)), "meta")


def normalisation(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return (mean, std) per channel; images enter the first layer as (x / 255 − mean) / std.

    ImageNet's values for networks in ARCHITECTURES; for "timm/<name>", the network's own values.
    """
    if model.startswith(TIMM):
        made_for = timm_models.outline(model).pretrained_cfg
        return tuple(made_for["mean"]), tuple(made_for["std"])
    assert model in ARCHITECTURES, model
    return tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)


def pretrained(
    model: str, image_shape: ImageShape, path: Path | None = None
) -> dict[str, torch.Tensor]:
    """Return timm's pretrained weights, without the head, by the keys of `build`'s state dict.

    timm downloads the weights, or reads the file `path`. Raises ValueError if this model has none, or,
    with the keys, if they do not fit.
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
