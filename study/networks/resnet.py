"""ResNet for small images: timm's own class with a stem that fits 32×32, and its layers.

The stem (3×3, stride 1, no max-pooling) is from He et al. 2016, section 4.2; blocks and widths (w, 2w, 4w,
8w) are those of the ImageNet networks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from study.networks.partial_layers import ChannelLinks, PartialLayer, join, outputs, split
from study.networks.table import NUM_CHANNELS, Architecture, resnet_layer_names
from study.networks.timm_names import BasicBlock, Bottleneck, ResNet, make_blocks


def network(architecture: Architecture, width: int, num_classes: int) -> ResNet:
    """Return timm's ResNet with `width` channels in the stem: (n, 3, h, w) to (n, num_classes)."""
    block = Bottleneck if architecture.bottleneck else BasicBlock
    channels = tuple(width * 2**stage for stage in range(len(architecture.depths)))
    made = ResNet(
        block,
        architecture.depths,
        num_classes=num_classes,
        in_chans=NUM_CHANNELS,
        channels=channels,
    )
    # timm's `channels` does not change the stem's 64 channels, so stem and first stage are replaced.
    made.conv1 = nn.Conv2d(NUM_CHANNELS, width, kernel_size=3, padding=1, bias=False)
    made.bn1 = nn.BatchNorm2d(width)
    made.maxpool = nn.Identity()
    [(name, first_stage)], _ = make_blocks(
        (block,), (width,), architecture.depths[:1], width, norm_layer=nn.BatchNorm2d
    )
    setattr(made, name, first_stage)
    return made


def layers(whole: ResNet) -> OrderedDict[str, nn.Module]:
    """Split a ResNet into layers that share its modules: stem, each residual block, head."""
    stages = [whole.layer1, whole.layer2, whole.layer3, whole.layer4]
    stem = nn.Sequential(
        OrderedDict(conv1=whole.conv1, bn1=whole.bn1, act1=whole.act1, maxpool=whole.maxpool)
    )
    head = OrderedDict(pool=whole.global_pool)
    if whole.drop_rate:
        head["dropout"] = nn.Dropout(whole.drop_rate)
    head["classifier"] = whole.fc
    blocks = [block for stage in stages for block in stage]
    names = resnet_layer_names(tuple(len(stage) for stage in stages))
    return OrderedDict(zip(names, (stem, *blocks, nn.Sequential(head)), strict=True))


class _FrozenPart(nn.Module):
    """Computes the constants of a residual block: (n, c, h, w), concatenated channels.

    Input of the last convolution, frozen output channels, shortcut of the trained channels.
    """

    def __init__(self, block: Any, frozen: slice, trained: slice) -> None:
        super().__init__()
        self.block, self.trained = block, trained
        convolution, norm, _ = _last(block)
        self.frozen = frozen
        self.any_frozen = frozen.stop > 0
        if self.any_frozen:
            self.convolution = outputs(convolution, frozen, None)
            self.norm = outputs(norm, frozen, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        block = self.block
        shortcut = x if block.downsample is None else block.downsample(x)
        x = (
            block.drop_block(block.bn1(block.conv1(x)))
            if _is_basic(block)
            else block.bn1(block.conv1(x))
        )
        x = block.act1(x)
        if _is_basic(block):
            x = block.aa(x)
        else:
            x = block.aa(block.act2(block.drop_block(block.bn2(block.conv2(x)))))
        kept = []
        if self.any_frozen:
            sums = self.norm(self.convolution(x)) + shortcut[:, self.frozen]
            kept.append(_last(block)[2](sums))
        return torch.cat([x, *kept, shortcut[:, self.trained]], dim=1)


class _TrainedPart(nn.Module):
    """Computes the block's output, (n, channels, h, w), from the output of `_FrozenPart`."""

    networks = 1  # number of networks whose channels the features contain

    def __init__(self, block: Any, num_frozen: int, trained: slice, links: ChannelLinks) -> None:
        super().__init__()
        convolution, norm, activation = _last(block)
        self.convolution = outputs(convolution, trained, links)
        self.norm = outputs(norm, trained, links)
        self.activation = activation
        self.sizes = (convolution.in_channels, num_frozen, self.norm.num_features)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x, kept, shortcut = split(features, *self.sizes, networks=self.networks)
        new = self.activation(self.norm(self.convolution(x)) + shortcut)
        return join([kept, new], networks=self.networks)


def part(block: Any, num_trained: int) -> PartialLayer:
    """Split a residual block, to train the last `num_trained` channels of its last conv and norm."""
    assert block.se is None and block.drop_path is None, block
    num_frozen = _last(block)[0].out_channels - num_trained
    frozen, trained = slice(0, num_frozen), slice(num_frozen, None)
    links = ChannelLinks()
    return PartialLayer(
        _FrozenPart(block, frozen, trained), _TrainedPart(block, num_frozen, trained, links), links
    )


class _FirstPiece(nn.Module):
    """A basic block before its second convolution.

    Returns the second convolution's input and the shortcut, of equal shape, concatenated by channels.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv1, self.bn1, self.drop_block = block.conv1, block.bn1, block.drop_block
        self.act1, self.aa, self.downsample = block.act1, block.aa, block.downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.aa(self.act1(self.drop_block(self.bn1(self.conv1(x)))))
        return torch.cat([x, shortcut], dim=1)


class _SecondPiece(nn.Module):
    """Computes the block's output from the output of `_FirstPiece`."""

    networks = 1  # number of networks whose channels the features contain

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.conv2, self.bn2, self.act2 = block.conv2, block.bn2, block.act2

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        half = features.shape[1] // (2 * self.networks)
        x, shortcut = split(features, half, half, networks=self.networks)
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.act2(x)


def pieces(block: Any, num_frozen: int) -> tuple[nn.Module, nn.Module]:
    """Split a basic block into first convolution with shortcut and the rest; both share its modules."""
    assert _is_basic(block) and num_frozen == 1, (block, num_frozen)
    assert block.se is None and block.drop_path is None, block
    return _FirstPiece(block), _SecondPiece(block)


def part_head(head: nn.Sequential) -> tuple[nn.Module, nn.Module]:
    """Split the head of a ResNet or DenseNet into pooling, (n, c, h, w) to (n, c), and the rest."""
    assert not [*head[0].parameters()], head
    return head[:1], head[1:]


def _is_basic(block: Any) -> bool:
    return isinstance(block, BasicBlock)


def _last(block: Any) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.Module]:
    """Return the block's last convolution, the norm after it, and the activation after the sum."""
    if _is_basic(block):
        return block.conv2, block.bn2, block.act2
    return block.conv3, block.bn3, block.act3


def fill(module: Any) -> None:
    """Draw one module's initial values from torch's default generator, as timm's ResNet does."""
    module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
