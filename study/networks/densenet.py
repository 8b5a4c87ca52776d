"""DenseNet for small images: timm's own class with a stem that fits 32×32, and its layers.

Huang et al. 2017: section 4.2 for the stem (3×3, stride 1, no max-pooling), table 1 for the depths of
DenseNet-121. At a cut inside a dense block, the features are the concatenation of all earlier outputs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from study.networks.partial_layers import ChannelLinks, PartialLayer, outputs, owned, split
from study.networks.table import NUM_CHANNELS, Architecture, densenet_layer_names, densenet_parts
from study.networks.timm_names import DenseBlock, DenseNet


def network(architecture: Architecture, width: int, num_classes: int) -> DenseNet:
    """Return timm's DenseNet of growth rate `width`: (n, 3, h, w) to (n, num_classes)."""
    made = DenseNet(
        growth_rate=width,
        block_config=architecture.depths,
        num_classes=num_classes,
        in_chans=NUM_CHANNELS,
        memory_efficient=False,
    )
    made.features.conv0 = nn.Conv2d(NUM_CHANNELS, 2 * width, kernel_size=3, padding=1, bias=False)
    made.features.pool0 = nn.Identity()
    return made


def layers(whole: DenseNet) -> OrderedDict[str, nn.Module]:
    """Split a DenseNet into layers that share its modules: stem, parts of each dense block, head.

    The last part of a block includes the transition after it, or the final norm. So the head is pooling
    and one linear map, as in a ResNet.
    """
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    parts: list[Any] = []
    depths: list[int] = []
    for name, module in whole.features.named_children():
        if isinstance(module, DenseBlock):
            depths.append(len(module))
            parts += _parts(module)
        elif parts:
            kind = "transition" if name.startswith("transition") else "norm"
            parts[-1] = nn.Sequential(OrderedDict([("block", parts[-1]), (kind, module)]))
        else:
            stem[name] = module
    head = nn.Sequential(
        OrderedDict(pool=whole.global_pool, dropout=whole.head_drop, classifier=whole.classifier)
    )
    names = densenet_layer_names(tuple(depths))
    return OrderedDict(zip(names, (nn.Sequential(stem), *parts, head), strict=True))


def _parts(block: DenseBlock) -> list[DenseBlock]:
    dense_layers = list(block.items())
    ends = densenet_parts(len(dense_layers))
    made = []
    for first, end in zip((0, *ends), ends, strict=False):
        made.append(_dense_block(dense_layers[first:end]))
    return made


def _dense_block(dense_layers: Iterable[tuple[str, nn.Module]]) -> DenseBlock:
    made = DenseBlock(num_layers=0, num_input_features=0, bn_size=0, growth_rate=0)
    for name, layer in dense_layers:
        made.add_module(name, layer)
    return made


class _FrozenPart(nn.Module):
    """Computes the constants of the last part of a DenseNet: (n, c, h, w), concatenated channels.

    Frozen channels before the final norm (if a whole dense layer is trained), frozen channels after the
    norm, input of the partly trained convolution (if any).
    """

    def __init__(self, last: Any, num_whole: int, num_channels: int) -> None:
        super().__init__()
        dense = list(last.block.values())
        self.before = nn.ModuleList(dense[: len(dense) - num_whole - bool(num_channels)])
        self.partial = dense[len(self.before)] if num_channels else None
        self.passes_on = num_whole > 0
        if self.partial is not None:
            kept = slice(0, self.partial.conv2.out_channels - num_channels)
            self.convolution = outputs(self.partial.conv2, kept, None)
        growth_rate = dense[-1].conv2.out_channels
        num_trained = num_whole * growth_rate + num_channels
        self.norm = outputs(last.norm, slice(0, last.norm.num_features - num_trained), None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        so_far = [x]
        for layer in self.before:
            so_far.append(layer(so_far))
        further = []
        if self.partial is not None:
            between = self.partial.norm2(self.partial.bottleneck_fn(so_far))
            so_far.append(self.convolution(between))
            further.append(between)
        frozen = torch.cat(so_far, dim=1)
        return torch.cat([*[frozen][: self.passes_on], self.norm(frozen), *further], dim=1)


class _TrainedPart(nn.Module):
    """Computes the part's output, (n, channels, h, w), from the output of `_FrozenPart`."""

    def __init__(self, last: Any, num_whole: int, num_channels: int, links: ChannelLinks) -> None:
        super().__init__()
        dense = list(last.block.values())
        growth_rate = dense[-1].conv2.out_channels
        num_trained = num_whole * growth_rate + num_channels
        num_frozen = last.norm.num_features - num_trained
        self.sizes = [num_frozen] if num_whole else []
        self.sizes.append(num_frozen)
        self.convolution = None
        if num_channels:
            partial = dense[len(dense) - num_whole - 1]
            kept = partial.conv2.out_channels - num_channels
            self.convolution = outputs(partial.conv2, slice(kept, None), links)
            self.sizes.append(partial.conv2.in_channels)
        self.whole = nn.ModuleList(owned(layer, links) for layer in dense[len(dense) - num_whole :])
        self.norm = outputs(last.norm, slice(num_frozen, None), links)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        parts = list(split(features, *self.sizes))
        seen = [parts.pop(0)] if len(self.whole) else []
        kept, new = parts[0], []
        if self.convolution is not None:
            new.append(self.convolution(parts[1]))
        for layer in self.whole:
            new.append(layer([*seen, *new]))
        return torch.cat([kept, self.norm(torch.cat(new, dim=1))], dim=1)


def part(last: Any, num_trained: int) -> PartialLayer:
    """Split the last part of a DenseNet, dense layers and final norm, to train its last output channels.

    The last `num_trained` channels are those of whole dense layers at the end, and then the last channels
    of the dense layer before them.
    """
    growth_rate = list(last.block.values())[-1].conv2.out_channels
    num_whole, num_channels = divmod(num_trained, growth_rate)
    links = ChannelLinks()
    return PartialLayer(
        _FrozenPart(last, num_whole, num_channels),
        _TrainedPart(last, num_whole, num_channels, links),
        links,
    )


def pieces(layer: Any, num_frozen: int) -> tuple[nn.Module, nn.Module]:
    """Split a part of the last dense block after `num_frozen` dense layers; both share its modules.

    The second module includes the final norm if the part does.
    """
    is_last = not isinstance(layer, DenseBlock)
    dense_layers = list((layer.block if is_last else layer).items())
    assert 0 < num_frozen < len(dense_layers) + is_last, (num_frozen, len(dense_layers))
    kept = dense_layers[num_frozen:]
    trained: OrderedDict[str, nn.Module] = OrderedDict()
    if kept:
        trained["block"] = _dense_block(kept)
    if is_last:
        trained["norm"] = layer.norm
    return _dense_block(dense_layers[:num_frozen]), nn.Sequential(trained)


def fill(module: Any) -> None:
    """Draw one module's initial values from torch's default generator, as timm's DenseNet does."""
    module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
