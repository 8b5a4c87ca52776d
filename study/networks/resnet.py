"""ResNet for small images: timm's own class with a stem that fits 32×32, and its layers.

He et al. 2016, section 4.2, for the stem (3×3, stride 1, no max-pooling) at 32×32; the blocks and the
widths (w, 2w, 4w, 8w) are those of the ImageNet networks. Refuses subclasses of timm's ResNet: what
they changed in the forward pass is unknown here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from timm.models.resnet import BasicBlock, Bottleneck, ResNet, make_blocks
from torch import nn

from study.networks.table import NUM_CHANNELS, Architecture, resnet_layer_names


def network(architecture: Architecture, width: int, num_classes: int) -> ResNet:
    """timm's ResNet with `width` channels in the stem. Takes (n, 3, h, w), gives (n, num_classes)."""
    block = Bottleneck if architecture.bottleneck else BasicBlock
    channels = tuple(width * 2**stage for stage in range(len(architecture.depths)))
    made = ResNet(
        block,
        architecture.depths,
        num_classes=num_classes,
        in_chans=NUM_CHANNELS,
        channels=channels,
    )
    # timm's `channels` leaves the stem at 64, so the first stage too expects 64.
    made.conv1 = nn.Conv2d(NUM_CHANNELS, width, kernel_size=3, padding=1, bias=False)
    made.bn1 = nn.BatchNorm2d(width)
    made.maxpool = nn.Identity()
    [(name, first_stage)], _ = make_blocks(
        (block,), (width,), architecture.depths[:1], width, norm_layer=nn.BatchNorm2d
    )
    setattr(made, name, first_stage)
    return made


def layers(whole: ResNet) -> OrderedDict[str, nn.Module]:
    """The layers of a ResNet, sharing its modules: stem, each residual block, head."""
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


def fill(module: Any) -> None:
    """Draws one module's own initial values from torch's default generator, as timm's ResNet does."""
    module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
