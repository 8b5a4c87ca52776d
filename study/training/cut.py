"""Set a Run's start values, and cut its network into a frozen prefix and a trained suffix."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import build
from study.networks.families import between_pieces, part_head, part_last
from study.networks.initial_values import initialise
from study.networks.partial_layers import ChannelLinks, reading_first
from study.run import HEAD, Run


@dataclass(frozen=True)
class Cut:
    """A network cut in two: training changes the parameters of `suffix` only.

    `links`: connect the trained channels of a partly frozen layer to the whole layer.
    """

    prefix: nn.Sequential
    suffix: nn.Sequential
    links: ChannelLinks


def starting_network(
    run: Run,
    num_classes: int,
    image_shape: tuple[int, int, int],
    start_weights: Mapping[str, Tensor] | None,
) -> nn.Sequential:
    """Return the network before training: initial values by the Run's seed, then the start's weights.

    `start_weights`: the start's whole network, with or without the head, by "<layer>.<parameter or
    buffer>"; None for a Run without a start. The head always keeps its initial values, except its frozen
    pieces. With `above_cut="reinitialised"`, so do all layers above the cut.

    Raises ValueError, with the keys, if the weights do not fit the network.
    """
    assert (run.start is None) == (start_weights is None), run.id
    layers = build(run.model, run.width, num_classes, image_shape)
    names = list(dict(layers.named_children()))
    assert names[-1] == HEAD, names
    is_new = start_weights is None or run.recipe.above_cut == "reinitialised"
    initialise(
        layers,
        run.model,
        run.seed,
        generation=run.generation,
        frozen=run.frozen if run.start is None else 0,
        only=None if is_new else [HEAD],
    )
    if start_weights is not None:
        drawn = ChannelLinks()
        if is_new and run.trained_channels:
            drawn = part_last(layers, run.model, run.trained_channels).links
        whole = names[: run.frozen if is_new else len(names) - 1]
        keys = {key for key in layers.state_dict() if _layer(key) in whole}
        _load(layers, start_weights, keys | _keys_of_frozen_pieces(layers, run))
        drawn.copy_back()  # restores the initial values of the trained channels
    return layers


def _keys_of_frozen_pieces(layers: nn.Sequential, run: Run) -> set[str]:
    if not run.frozen_pieces:
        return set()
    frozen, _ = between_pieces(layers, run.model, run.frozen, run.frozen_pieces)
    held = {id(tensor) for tensor in frozen.state_dict(keep_vars=True).values()}
    return {key for key, each in layers.state_dict(keep_vars=True).items() if id(each) in held}


def _load(layers: nn.Sequential, weights: Mapping[str, Tensor], keys: set[str]) -> None:
    there = layers.state_dict()
    missing, unknown = sorted(keys - weights.keys()), sorted(weights.keys() - there.keys())
    wrong_shape = [k for k in keys & weights.keys() if there[k].shape != weights[k].shape]
    if missing or unknown or wrong_shape:
        raise ValueError(
            "the start's weights do not fit the network: "
            f"missing {missing}, not in the network {unknown}, "
            f"of another shape {sorted(wrong_shape)}"
        )
    with torch.no_grad():
        for key in keys:
            there[key].copy_(weights[key])


def _layer(key: str) -> str:
    return key.split(".", 1)[0]


def cut(layers: nn.Sequential, run: Run) -> Cut:
    """Cut the network at the cut of `run`, freeze the prefix, and set both parts to evaluation mode.

    Frozen parameters get no gradient. With `trained_channels`, `links.copy_back` copies trained values to
    `layers`. If only the head is trained, its part without parameters moves to the prefix. With
    `head_inputs`, the head's weights for all other inputs are set to zero.
    """
    layers[: run.frozen].requires_grad_(False)
    parts = divide(layers, run.model, run.frozen, run.trained_channels, run.frozen_pieces)
    if len(parts.suffix) == 1 and not run.frozen_pieces:
        constant, trained = part_head(layers, run.model)
        if run.head_inputs:
            assert isinstance(trained, nn.Sequential), run.model
            trained = reading_first(trained, run.head_inputs, parts.links)
        parts = Cut(
            prefix=nn.Sequential(*parts.prefix, constant),
            suffix=nn.Sequential(OrderedDict({HEAD: trained})),
            links=parts.links,
        )
    parts.prefix.requires_grad_(False)
    set_evaluation(parts)
    return parts


def divide(
    layers: nn.Sequential,
    model: str,
    frozen: int,
    trained_channels: int = 0,
    frozen_pieces: int = 0,
) -> Cut:
    """Split the network at the cut of a Run with these fields; prefix, then suffix, compute the network.

    Both parts share the modules of `layers`. With `trained_channels`, both contain part of the last frozen
    layer, the suffix has copies of the trained values, and the output is equal except for rounding.
    """
    assert 0 <= frozen < len(layers), (frozen, len(layers))
    prefix, suffix = layers[:frozen], layers[frozen:]
    if trained_channels:
        assert frozen == len(layers) - 1 and not frozen_pieces, (frozen, frozen_pieces)
        partial_layer = part_last(layers, model, trained_channels)
        return Cut(
            prefix=nn.Sequential(*prefix[:-1], partial_layer.frozen),
            suffix=nn.Sequential(partial_layer.trained, *suffix),
            links=partial_layer.links,
        )
    if frozen_pieces:
        below, above = between_pieces(layers, model, frozen, frozen_pieces)
        prefix, suffix = nn.Sequential(*prefix, below), nn.Sequential(above, *suffix[1:])
    return Cut(prefix=prefix, suffix=suffix, links=ChannelLinks())


def set_training(parts: Cut, frozen_batchnorm: str) -> None:
    """Set the suffix to training mode; with `frozen_batchnorm="training"`, the prefix's BatchNorms too."""
    parts.suffix.train()
    if frozen_batchnorm == "training":
        for module in parts.prefix.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def set_evaluation(parts: Cut) -> None:
    parts.prefix.eval()
    parts.suffix.eval()
