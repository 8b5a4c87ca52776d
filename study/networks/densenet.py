"""DenseNet for small images: timm's own class with a stem that fits 32×32, and its layers.

Huang et al. 2017: section 4.2 for the stem (3×3, stride 1, no max-pooling), table 1 for the depths of
DenseNet-121. A cut inside a dense block carries the concatenation so far. Refuses subclasses.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from timm.models.densenet import DenseBlock, DenseNet
from torch import nn

from study.networks.table import NUM_CHANNELS, Architecture, densenet_layer_names, densenet_parts


def network(architecture: Architecture, width: int, num_classes: int) -> DenseNet:
    """timm's DenseNet of growth rate `width`. Takes (n, 3, h, w), gives (n, num_classes)."""
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
    """The layers of a DenseNet, sharing its modules: stem, parts of each dense block, head.

    The last part of a block holds the transition that follows it, or the final norm, so that the head
    is pooling and one linear map, as in a ResNet.
    """
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    parts: list[nn.Module] = []
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


def _parts(block: DenseBlock) -> list[nn.Module]:
    """The block cut into timm's own smaller blocks, each of which passes on all that it was given."""
    dense_layers = list(block.items())
    ends = densenet_parts(len(dense_layers))
    made = []
    for first, end in zip((0, *ends), ends, strict=False):
        part = DenseBlock(num_layers=0, num_input_features=0, bn_size=0, growth_rate=0)
        for name, layer in dense_layers[first:end]:
            part.add_module(name, layer)
        made.append(part)
    return made


def fill(module: Any) -> None:
    """Draws one module's own initial values from torch's default generator, as timm's DenseNet does."""
    module.reset_parameters()
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
    elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
