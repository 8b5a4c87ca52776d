"""Import the names of timm that this package uses, without wandb, which timm imports if installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make imports of `module` fail in the block, unless it is already loaded."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[module]


# wandb would double timm's import time in every worker.
with _hidden("wandb"):
    import timm
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.layers import trunc_normal_
    from timm.models.densenet import DenseBlock, DenseNet
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet, make_blocks
    from timm.models.vision_transformer import VisionTransformer, global_pool_nlc

__all__ = [
    "IMAGENET_DEFAULT_MEAN",
    "IMAGENET_DEFAULT_STD",
    "BasicBlock",
    "Bottleneck",
    "DenseBlock",
    "DenseNet",
    "ResNet",
    "VisionTransformer",
    "global_pool_nlc",
    "make_blocks",
    "timm",
    "trunc_normal_",
]
