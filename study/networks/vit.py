"""Vision transformer for small images: timm's own class with patches of 4×4, and its layers.

The architecture is from Dosovitskiy et al. 2021; depth, heads and embedding size of ViT-Tiny and ViT-Small
from Touvron et al. 2021, table 1. The first layer includes class token and position embedding.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

import torch
from torch import nn

from study.networks.partial_layers import ChannelLinks, PartialLayer, inputs, outputs
from study.networks.table import NUM_CHANNELS, PATCH_SIZE, Architecture, vit_layer_names
from study.networks.timm_names import VisionTransformer, global_pool_nlc, trunc_normal_


def network(
    architecture: Architecture, width: int, num_classes: int, image_shape: tuple[int, int, int]
) -> VisionTransformer:
    """Return timm's ViT of embedding size `width`: (n, *image_shape) to (n, num_classes)."""
    return VisionTransformer(
        img_size=image_shape[1:],
        patch_size=PATCH_SIZE,
        in_chans=NUM_CHANNELS,
        num_classes=num_classes,
        embed_dim=width,
        depth=architecture.depths[0],
        num_heads=architecture.num_heads,
    )


# torch splits the rows of a LayerNorm's gradient among threads; one or two threads get whole images each.
MAX_THREADS: Final = 2


class Embedding(nn.Module):
    """The network before timm's encoder blocks: images to tokens, (n, c, h, w) to (n, tokens, width)."""

    def __init__(self, whole: VisionTransformer) -> None:
        super().__init__()
        self.patch_embed = whole.patch_embed
        self.cls_token = whole.cls_token
        self.reg_token = whole.reg_token
        self.pos_embed = whole.pos_embed
        self.pos_drop = whole.pos_drop
        self.patch_drop = whole.patch_drop
        self.norm_pre = whole.norm_pre
        self.no_embed_class = whole.no_embed_class

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed(images)
        if patches.ndim == 4:  # (n, rows, columns, width), if timm accepts any image size
            patches = patches.flatten(1, 2)
        if self.no_embed_class and self.pos_embed is not None:
            patches = patches + self.pos_embed
        tokens = [token for token in (self.cls_token, self.reg_token) if token is not None]
        if tokens:
            patches = torch.cat([*(t.expand(len(images), -1, -1) for t in tokens), patches], dim=1)
        if not self.no_embed_class and self.pos_embed is not None:
            patches = patches + self.pos_embed
        return self.norm_pre(self.patch_drop(self.pos_drop(patches)))


class Head(nn.Module):
    """The network after timm's encoder blocks: tokens to logits, (n, tokens, width) to (n, classes)."""

    def __init__(self, whole: VisionTransformer) -> None:
        super().__init__()
        self.norm = whole.norm
        self.attn_pool = whole.attn_pool
        self.fc_norm = whole.fc_norm
        self.dropout = whole.head_drop
        self.classifier = whole.head
        self.pool_type = whole.global_pool
        self.num_prefix_tokens = whole.num_prefix_tokens
        self.pool_include_prefix = whole.pool_include_prefix

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(tokens)
        if self.attn_pool is not None:
            first = 0 if self.pool_include_prefix else self.num_prefix_tokens
            pooled = self.attn_pool(tokens[:, first:])
        else:
            pooled = global_pool_nlc(
                tokens,
                pool_type=self.pool_type,
                num_prefix_tokens=self.num_prefix_tokens,
                reduce_include_prefix=self.pool_include_prefix,
            )
        return self.classifier(self.dropout(self.fc_norm(pooled)))


def layers(whole: VisionTransformer) -> OrderedDict[str, nn.Module]:
    """Split a ViT into layers that share its modules: embedding, each encoder block, norm and head."""
    names = vit_layer_names(len(whole.blocks))
    return OrderedDict(zip(names, (Embedding(whole), *whole.blocks, Head(whole)), strict=True))


class ClassToken(nn.Module):
    """Selects the class token: (n, tokens, width) to (n, 1, width)."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, :1]


def part_head(head: Head) -> tuple[nn.Module, nn.Module]:
    """Split the head into a part without parameters, which selects the class token, and the head itself.

    The head's norm treats each token separately, so the other tokens are not needed. The first part is the
    identity if the head averages or attends to tokens, or a CPU has more than MAX_THREADS threads, which
    would sum the norm's gradients in another order.
    """
    reads_one = head.attn_pool is None and head.pool_type == "token"
    on_cpu = head.classifier.weight.device.type == "cpu"
    sums_alike = not on_cpu or torch.get_num_threads() <= MAX_THREADS
    return ClassToken() if reads_one and sums_alike else nn.Identity(), head


class _FrozenPart(nn.Module):
    """Computes the constants of an encoder block: (n, tokens, width) to (n, tokens, 2 · width).

    Last dimension: the block's output without the MLP's trained hidden units, then the MLP's input.
    """

    def __init__(self, block: Any, frozen: slice) -> None:
        super().__init__()
        self.block = block
        self.first = outputs(block.mlp.fc1, frozen, None)
        self.second = inputs(block.mlp.fc2, frozen, None, bias=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        block = self.block
        tokens = tokens + block.attn(block.norm1(tokens))
        seen = block.norm2(tokens)
        return torch.cat([tokens + self.second(block.mlp.act(self.first(seen))), seen], dim=-1)


class _TrainedPart(nn.Module):
    """Computes the block's output, (n, tokens, width), from the output of `_FrozenPart`."""

    def __init__(self, block: Any, trained: slice, links: ChannelLinks) -> None:
        super().__init__()
        self.first = outputs(block.mlp.fc1, trained, links)
        self.second = inputs(block.mlp.fc2, trained, links, bias=False)
        self.activation = block.mlp.act

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        kept, seen = features.chunk(2, dim=-1)
        return kept + self.second(self.activation(self.first(seen)))


def part(block: Any, num_trained: int) -> PartialLayer:
    """Split an encoder block, to train the last `num_trained` hidden units of its MLP.

    Their weights in both linear maps are trained; the bias of the MLP's output is frozen.
    """
    _check_plain(block)
    assert isinstance(block.mlp.norm, nn.Identity), block
    num_frozen = block.mlp.fc1.out_features - num_trained
    links = ChannelLinks()
    return PartialLayer(
        _FrozenPart(block, slice(0, num_frozen)),
        _TrainedPart(block, slice(num_frozen, None), links),
        links,
    )


class _Attention(nn.Module):
    """An encoder block before its MLP: tokens, (n, tokens, width), to tokens."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn = block.norm1, block.attn

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        attended: torch.Tensor = self.attn(self.norm1(tokens))
        return tokens + attended


class _MLP(nn.Module):
    """An encoder block from its MLP on: tokens, (n, tokens, width), to tokens."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm2, self.mlp = block.norm2, block.mlp

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        new: torch.Tensor = self.mlp(self.norm2(tokens))
        return tokens + new


class _NormAndPool(nn.Module):
    """The head before its classifier: tokens, (n, tokens, width), to vectors, (n, width)."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        assert head.attn_pool is None, head
        self.norm, self.pool_type = head.norm, head.pool_type
        self.num_prefix_tokens = head.num_prefix_tokens
        self.pool_include_prefix = head.pool_include_prefix

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return global_pool_nlc(
            self.norm(tokens),
            pool_type=self.pool_type,
            num_prefix_tokens=self.num_prefix_tokens,
            reduce_include_prefix=self.pool_include_prefix,
        )


def pieces(layer: Any, num_frozen: int) -> tuple[nn.Module, nn.Module]:
    """Split an encoder block into (attention, MLP), or the head into (norm and pooling, classifier)."""
    assert num_frozen == 1, num_frozen
    if isinstance(layer, Head):
        assert isinstance(layer.fc_norm, nn.Identity), layer
        classifier = OrderedDict(dropout=layer.dropout, classifier=layer.classifier)
        return _NormAndPool(layer), nn.Sequential(classifier)
    _check_plain(layer)
    return _Attention(layer), _MLP(layer)


def _check_plain(block: Any) -> None:
    plain = (block.ls1, block.ls2, block.drop_path1, block.drop_path2)
    assert all(isinstance(each, nn.Identity) for each in plain), block


def fill(module: Any) -> None:
    """Draw one module's initial values from torch's default generator, as timm's ViT does."""
    if isinstance(module, Embedding):
        for token in (module.cls_token, module.reg_token):
            if token is not None:
                nn.init.normal_(token, std=1e-6)
        if module.pos_embed is not None:
            trunc_normal_(module.pos_embed, std=0.02)
        return
    module.reset_parameters()
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
