"""Split a module by output channels into a frozen and a trained part, and merge both again."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_BUFFERS = ("running_mean", "running_var")


@dataclass(eq=False)
class ChannelLinks:
    """Pairs of a trained tensor and its place, a view into a tensor of the whole layer."""

    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def own(self, place: Tensor) -> Tensor:
        """Return a copy of `place`, and add the pair to `pairs`."""
        mine = place.detach().clone().contiguous()
        self.pairs.append((mine, place.detach()))
        return mine

    def copy_back(self) -> None:
        """Write trained values to their places in the whole layer."""
        for mine, place in self.pairs:
            place.copy_(mine)

    def take_again(self) -> None:
        """Copy values from the whole layer to the trained tensors, after new weights were loaded."""
        for mine, place in self.pairs:
            mine.copy_(place)


@dataclass(frozen=True, eq=False)
class PartialLayer:
    """A layer in two parts: `trained` computes the layer's output from the output of `frozen`.

    The frozen part shares its values with the layer; the trained part has copies, paired by `links`.
    """

    frozen: nn.Module
    trained: nn.Module
    links: ChannelLinks


def outputs(module: Module, which: slice, links: ChannelLinks | None) -> Module:
    """Return a convolution, linear map or BatchNorm with only the output channels `which`.

    With `links`, its values are copies, paired with the module's; with None, the module's own, frozen.
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
    """Return a linear map of only the inputs `which`. `bias`: include the bias. `links`: see `outputs`."""
    part = copy.deepcopy(linear)
    part.weight = _parameter(linear.weight[:, which], links)
    part.register_parameter("bias", linear.bias if bias else None)
    part.in_features = part.weight.shape[1]
    return part


class First(nn.Module):
    """Keeps the first `num` features of each network: (n, networks · c) to (n, networks · num)."""

    networks = 1

    def __init__(self, num: int) -> None:
        super().__init__()
        self.num = num

    def forward(self, features: Tensor) -> Tensor:
        return features.unflatten(-1, (self.networks, -1))[..., : self.num].flatten(-2)


def reading_first(head: nn.Sequential, num: int, links: ChannelLinks) -> nn.Sequential:
    """Return a head that reads the first `num` features; set the other weights of `head` to zero.

    The new head's weights are copies, paired by `links`; its bias is shared with `head`.
    """
    *rest, (name, linear) = head.named_children()
    assert isinstance(linear, nn.Linear), name
    with torch.no_grad():
        linear.weight[:, num:] = 0  # `head` must compute the same output
    part = inputs(linear, slice(num), links, bias=True)
    return nn.Sequential(OrderedDict([*rest, ("first", First(num)), (name, part)]))


def owned(module: Module, links: ChannelLinks) -> Module:
    """Return a copy of the module to train; add pairs of its and the module's values to `links`."""
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


def split(features: Tensor, *sizes: int, networks: int = 1) -> tuple[Tensor, ...]:
    """Split features, (n, c, …), into parts of `sizes` channels; the inverse of `join`.

    `networks`: features and parts contain the channels of this many networks, one after another. `sizes`:
    channels per network.
    """
    if networks == 1:
        return torch.split(features, list(sizes), dim=1)
    last = features.movedim(1, -1).unflatten(-1, (networks, -1))
    return tuple(part.flatten(-2).movedim(-1, 1) for part in torch.split(last, list(sizes), dim=-1))


def join(parts: Sequence[Tensor], *, networks: int = 1) -> Tensor:
    """Concatenate features, (n, c, …), along the channels, for each network separately; see `split`."""
    if networks == 1:
        return torch.cat(list(parts), dim=1)
    last = [part.movedim(1, -1).unflatten(-1, (networks, -1)) for part in parts]
    return torch.cat(last, dim=-1).flatten(-2).movedim(-1, 1)
