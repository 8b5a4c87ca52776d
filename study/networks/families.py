"""Build, cut and check the three families of networks: ResNet, DenseNet, VisionTransformer.

Only timm's own classes are accepted. The layers in sequence must equal the whole network bit for bit.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import nn

from study.networks import densenet, resnet, timm_models, vit
from study.networks.partial_layers import PartialLayer
from study.networks.table import ARCHITECTURES, TIMM
from study.networks.timm_names import DenseNet, ResNet, VisionTransformer


def check(
    model: str, whole: nn.Module, layers: nn.Sequential, image_shape: tuple[int, int, int]
) -> None:
    """Raise ValueError, with the reason, unless `layers` in sequence compute the network `whole`.

    Logits of two random images in evaluation mode and all gradients must be equal. Every parameter must
    belong to exactly one layer, and every layer must have parameters. Changes the values that `whole` and
    `layers` share; random numbers come from torch's default generator.
    """
    parameters = dict(whole.named_parameters())
    ours = [p for _, layer in layers.named_children() for p in layer.parameters()]
    if sorted(map(id, ours)) != sorted(map(id, parameters.values())):
        raise ValueError(
            f"model={model!r}: its parameters are not each in exactly one of its layers"
        )
    if empty := [name for name, layer in layers.named_children() if not [*layer.parameters()]]:
        raise ValueError(f"model={model!r}: no parameters in {', '.join(empty)}")
    whole.eval()
    layers.eval()
    as_after_training(whole)
    images = torch.randn(2, *image_shape)
    expected, composed = whole(images), layers(images)
    if not torch.equal(expected, composed):
        raise ValueError(
            f"model={model!r}: the logits of its layers in sequence differ from those of timm's own "
            f"forward pass, by up to {(expected - composed).abs().max().item():.3g}"
        )
    gradients = [
        torch.autograd.grad(logits.square().mean(), list(parameters.values()), allow_unused=True)
        for logits in (expected, composed)
    ]
    for name, first, second in zip(parameters, *gradients, strict=True):
        if first is None or second is None or not torch.equal(first, second):
            raise ValueError(
                f"model={model!r}: the gradient of {name} differs between its layers in sequence "
                "and timm's own forward pass"
            )


def as_after_training(whole: nn.Module) -> None:
    """Set all 1-d parameters and BatchNorm statistics to random values, as after training.

    With initial values, a missing norm would not change the logits.
    """
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if parameter.ndim == 1:
                low, high = (0.5, 1.5) if name.endswith("weight") else (-0.1, 0.1)
                nn.init.uniform_(parameter, low, high)
        for name, buffer in whole.named_buffers():
            if name.endswith("running_mean"):
                nn.init.normal_(buffer, std=0.1)
            elif name.endswith("running_var"):
                nn.init.uniform_(buffer, 0.5, 1.5)


ImageShape = tuple[int, int, int]
# Convolutional networks have the same layers at any image size, so checking one small size is enough.
CHECKED_IMAGE_SIZE: Final = 64


@dataclass(frozen=True)
class Family:
    """Functions for one of timm's classes: split a network into layers, draw a module's initial values,
    split the last layer before the head by channels, split a layer by pieces, split the head.
    """

    layers: Callable[[Any], OrderedDict[str, nn.Module]]
    fill: Callable[[Any], None]
    part: Callable[[Any, int], PartialLayer]
    pieces: Callable[[Any, int], tuple[nn.Module, nn.Module]]
    part_head: Callable[[Any], tuple[nn.Module, nn.Module]]


FAMILIES: Final[Mapping[type[nn.Module], Family]] = MappingProxyType(
    {
        ResNet: Family(resnet.layers, resnet.fill, resnet.part, resnet.pieces, resnet.part_head),
        DenseNet: Family(
            densenet.layers, densenet.fill, densenet.part, densenet.pieces, resnet.part_head
        ),
        VisionTransformer: Family(vit.layers, vit.fill, vit.part, vit.pieces, vit.part_head),
    }
)


def construct(
    model: str, width: int | None, num_classes: int, image_shape: ImageShape
) -> nn.Module:
    if model.startswith(TIMM):
        return timm_models.create(model, num_classes)
    assert width is not None
    architecture = ARCHITECTURES[model]
    if architecture.family == "resnet":
        return resnet.network(architecture, width, num_classes)
    if architecture.family == "densenet":
        return densenet.network(architecture, width, num_classes)
    assert architecture.family == "vit", architecture
    return vit.network(architecture, width, num_classes, image_shape)


def layers_of(whole: nn.Module) -> nn.Sequential:
    """Return the named layers of timm's network, in order; the layers share its modules."""
    return nn.Sequential(FAMILIES[type(whole)].layers(whole))


def part_last(layers: nn.Sequential, model: str, num_trained: int) -> PartialLayer:
    """Split the last layer before the head, to train its last `num_trained` output channels.

    In a ViT, these are hidden units of the MLP. Both parts in sequence compute the layer, except for
    rounding.
    """
    assert not model.startswith(TIMM), model
    return family_of(model).part(layers[-2], num_trained)


def between_pieces(
    layers: nn.Sequential, model: str, index: int, num_frozen: int
) -> tuple[nn.Module, nn.Module]:
    """Split the layer at `index` into its first `num_frozen` pieces and the rest.

    Both share the layer's modules; in sequence they compute the layer, bit for bit.
    """
    assert not model.startswith(TIMM), model
    return family_of(model).pieces(layers[index], num_frozen)


def part_head(layers: nn.Sequential, model: str) -> tuple[nn.Module, nn.Module]:
    """Split the head into a part without parameters and the rest. Names of parameters do not change.

    In sequence, both compute the head's output and gradients, bit for bit.
    """
    return family_of(model).part_head(layers[-1])


def family_of(model: str) -> Family:
    if model.startswith(TIMM):
        return FAMILIES[type(timm_models.outline(model))]
    classes = {"resnet": ResNet, "densenet": DenseNet, "vit": VisionTransformer}
    return FAMILIES[classes[ARCHITECTURES[model].family]]


def layer_keys(whole: nn.Module) -> dict[str, str]:
    """Return a dict from timm's state-dict keys to the keys of `layers_of`, for the same tensors."""
    ours = {id(t): key for key, t in layers_of(whole).state_dict(keep_vars=True).items()}
    theirs = {key: id(t) for key, t in whole.state_dict(keep_vars=True).items()}
    assert len(set(theirs.values())) == len(theirs) and set(theirs.values()) == set(ours)
    return {key: ours[tensor] for key, tensor in theirs.items()}


def check_composition(model: str, width: int | None, image_shape: ImageShape) -> None:
    """Raise ValueError, with the reason, unless the layers in sequence equal timm's forward pass."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        whole = construct(model, width, 10, image_shape)
        check(model, whole, layers_of(whole), image_shape)


@lru_cache(maxsize=32)
def check_timm(model: str) -> None:
    """Raise ValueError, with the reason, unless "timm/<name>" is supported and `check` passes."""
    whole = timm_models.outline(model)
    shape = timm_models.image_shape(whole)
    if type(whole) is not VisionTransformer:
        shape = (shape[0], CHECKED_IMAGE_SIZE, CHECKED_IMAGE_SIZE)
    check_composition(model, None, shape)


def timm_layer_names(model: str) -> tuple[str, ...]:
    """Return the names of a timm network's layers, from the input to the head."""
    return tuple(name for name, _ in layers_of(timm_models.outline(model)).named_children())
