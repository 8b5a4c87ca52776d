"""Split a module by output channels into a frozen and a trained part, and merge them again."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_BUFFERS = ("running_mean", "running_var")


@dataclass(eq=False)
class ChannelLinks:
    """Pairs of a tensor that is trained and the place in a whole layer that it stands for."""

    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def own(self, place: Tensor) -> Tensor:
        """A copy of its own of this place, tied to it."""
        mine = place.detach().clone().contiguous()
        self.pairs.append((mine, place.detach()))
        return mine

    def copy_back(self) -> None:
        """Writes what was trained to where it was taken from."""
        for mine, place in self.pairs:
            place.copy_(mine)

    def take_again(self) -> None:
        """Reads it from there, as after other values were loaded into the whole layer."""
        for mine, place in self.pairs:
            mine.copy_(place)


@dataclass(frozen=True, eq=False)
class PartialLayer:
    """A layer in two: `frozen` gives what is constant, `trained` makes the layer's output of it.

    The frozen part shares its values with the layer; those of the trained part are its own, by `links`.
    """

    frozen: nn.Module
    trained: nn.Module
    links: ChannelLinks


def outputs(module: Module, which: slice, links: ChannelLinks | None) -> Module:
    """A convolution, linear map or BatchNorm with these of its output channels alone.

    With `links` its values are copies, tied to the module's; without, they are the module's own, frozen.
    """
    part = copy.deepcopy(module)
    for name in ("weight", "bias"):
        whole = getattr(module, name)
        if whole is not None:
            setattr(part, name, _parameter(whole[which], links))
    for name in _BUFFERS:
        if hasattr(module, name):
            place = getattr(module, name)[which]
            setattr(part, name, place if links is None else links.own(place))
    if hasattr(module, "num_batches_tracked"):
        place = module.num_batches_tracked
        assert isinstance(place, Tensor)
        part.num_batches_tracked = place if links is None else links.own(place)
    for name in ("out_channels", "out_features", "num_features"):
        if hasattr(part, name):
            num = len(range(*which.indices(getattr(module, name))))
            setattr(part, name, num)
    return part


def inputs(linear: nn.Linear, which: slice, links: ChannelLinks | None, *, bias: bool) -> nn.Linear:
    """A linear map from these of its inputs alone; `bias`: whether it adds the whole map's."""
    part = copy.deepcopy(linear)
    part.weight = _parameter(linear.weight[:, which], links)
    part.register_parameter("bias", linear.bias if bias else None)
    part.in_features = part.weight.shape[1]
    return part


def owned(module: Module, links: ChannelLinks) -> Module:
    """The whole module with values of its own, tied to the module's."""
    part = copy.deepcopy(module)
    mine, theirs = (
        dict([*each.named_parameters(), *each.named_buffers()]) for each in (part, module)
    )
    with torch.no_grad():
        for name, value in mine.items():
            value.requires_grad_(isinstance(value, nn.Parameter))
            links.pairs.append((value.detach(), theirs[name].detach()))
    return part


def _parameter(place: Tensor, links: ChannelLinks | None) -> nn.Parameter:
    if links is None:
        return nn.Parameter(place.detach(), requires_grad=False)
    return nn.Parameter(links.own(place))


def split(features: Tensor, *sizes: int) -> tuple[Tensor, ...]:
    """Features that were joined along their channels, (n, c, …), apart again."""
    return torch.split(features, list(sizes), dim=1)
