"""How each of timm's three classes is built, cut into layers, and held against timm's own forward pass.

Owns the one table of families. Refuses any network whose class is not exactly timm's ResNet, DenseNet or
VisionTransformer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import torch
from timm.models.densenet import DenseNet
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from study.networks import composition, densenet, resnet, timm_models, vit
from study.networks.channels import Parted
from study.networks.table import ARCHITECTURES, TIMM

ImageShape = tuple[int, int, int]
# The convolutional networks compute the same at any image size, so a small one settles it.
CHECKED_IMAGE_SIZE: Final = 64


@dataclass(frozen=True)
class Family:
    """How one class of timm's is cut into layers, how its modules' initial values are drawn, how its last
    layer before the head is parted by channels, how a layer is cut between its pieces, and its head into
    what is constant and the rest."""

    layers: Callable[[Any], OrderedDict[str, nn.Module]]
    fill: Callable[[Any], None]
    part: Callable[[Any, int], Parted]
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
    """The layers of timm's network, in order, named; they share its modules and parameters."""
    return nn.Sequential(FAMILIES[type(whole)].layers(whole))


def part_last(layers: nn.Sequential, model: str, num_trained: int) -> Parted:
    """The last layer before the head, of which the last `num_trained` output channels (ViT: hidden units
    of the MLP) are trained. Together its parts compute what the layer computes, but for rounding."""
    assert not model.startswith(TIMM), model
    return family_of(model).part(layers[-2], num_trained)


def between_pieces(
    layers: nn.Sequential, model: str, index: int, num_frozen: int
) -> tuple[nn.Module, nn.Module]:
    """The layer of this index in two: its first `num_frozen` pieces, and what makes the layer's output of
    theirs. Both share its modules; together they compute what the layer computes, bit for bit."""
    assert not model.startswith(TIMM), model
    return family_of(model).pieces(layers[index], num_frozen)


def part_head(layers: nn.Sequential, model: str) -> tuple[nn.Module, nn.Module]:
    """The head in two: what no parameter of it touches, and the rest, whose parameters keep their names.

    One after the other they are the head, bit for bit, in values and in the rest's gradients.
    """
    return family_of(model).part_head(layers[-1])


def family_of(model: str) -> Family:
    if model.startswith(TIMM):
        return FAMILIES[type(timm_models.outline(model))]
    classes = {"resnet": ResNet, "densenet": DenseNet, "vit": VisionTransformer}
    return FAMILIES[classes[ARCHITECTURES[model].family]]


def layer_keys(whole: nn.Module) -> dict[str, str]:
    """timm's state-dict keys to ours: found by the tensors themselves, one to one."""
    ours = {id(t): key for key, t in layers_of(whole).state_dict(keep_vars=True).items()}
    theirs = {key: id(t) for key, t in whole.state_dict(keep_vars=True).items()}
    assert len(set(theirs.values())) == len(theirs) and set(theirs.values()) == set(ours)
    return {key: ours[tensor] for key, tensor in theirs.items()}


def check_composition(model: str, width: int | None, image_shape: ImageShape) -> None:
    """Raises ValueError, with the reason, unless the layers' composition is timm's forward pass."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        whole = construct(model, width, 10, image_shape)
        composition.check(model, whole, layers_of(whole), image_shape)


@lru_cache(maxsize=32)
def check_timm(model: str) -> None:
    """Raises ValueError, with the reason, if "timm/<name>" is refused; checks its composition."""
    whole = timm_models.outline(model)
    shape = timm_models.image_shape(whole)
    if type(whole) is not VisionTransformer:
        shape = (shape[0], CHECKED_IMAGE_SIZE, CHECKED_IMAGE_SIZE)
    check_composition(model, None, shape)


def timm_layer_names(model: str) -> tuple[str, ...]:
    """The names of a timm network's layers, from the input to the head."""
    return tuple(name for name, _ in layers_of(timm_models.outline(model)).named_children())
