"""Where a Run starts, and the cut: a frozen prefix and a trained suffix.

Owns how start weights enter a network, and what frozen means. Refuses partial loading: weights that do
not fit are an error with their keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from study.networks.build import build
from study.networks.channels import Ties
from study.networks.families import part_last
from study.networks.initial_values import initialise
from study.run import HEAD, Run


@dataclass(frozen=True)
class Cut:
    """A network cut in two: `prefix` is never changed by training, `suffix` is trained.

    `ties`: what of the suffix stands for channels of a layer that is otherwise frozen.
    """

    prefix: nn.Sequential
    suffix: nn.Sequential
    ties: Ties


def starting_network(
    run: Run,
    num_classes: int,
    image_shape: tuple[int, int, int],
    start_weights: Mapping[str, Tensor] | None,
) -> nn.Sequential:
    """The network as `run` starts: initial values by its seed, then what comes from its start.

    `start_weights`: by "<layer>.<parameter or buffer>", the start's whole network or all of it but the
    head; None for a Run that starts from nothing. The head is always new; the other layers above the
    cut are new too where the recipe says "reinitialised".

    Raises ValueError with the keys where the weights do not fit the network.
    """
    assert (run.start is None) == (start_weights is None), run.id
    layers = build(run.model, run.width, num_classes, image_shape)
    names = list(dict(layers.named_children()))
    assert names[-1] == HEAD, names
    initialise(
        layers,
        run.model,
        run.seed,
        generation=run.generation,
        frozen=run.frozen if run.start is None else 0,
    )
    if start_weights is not None:
        is_new = run.recipe.above_cut == "reinitialised"
        drawn = Ties()
        if is_new and run.trained_channels:
            drawn = part_last(layers, run.model, run.trained_channels).ties
        _load(layers, start_weights, names[: run.frozen if is_new else len(names) - 1])
        drawn.copy_back()  # channels above the cut, too, are as they were drawn
    return layers


def _load(layers: nn.Sequential, weights: Mapping[str, Tensor], names: list[str]) -> None:
    wanted = {key: value for key, value in layers.state_dict().items() if _layer(key) in names}
    given = {key: value for key, value in weights.items() if _layer(key) in names}
    wrong_shape = [k for k in wanted.keys() & given.keys() if wanted[k].shape != given[k].shape]
    unknown = sorted(key for key in weights if _layer(key) not in dict(layers.named_children()))
    missing, extra = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or extra or unknown or wrong_shape:
        raise ValueError(
            "the start's weights do not fit the network: "
            f"missing {missing}, not in the network {extra + unknown}, "
            f"of another shape {sorted(wrong_shape)}"
        )
    with torch.no_grad():
        for key, value in wanted.items():
            value.copy_(given[key])


def _layer(key: str) -> str:
    return key.split(".", 1)[0]


def cut(layers: nn.Sequential, run: Run) -> Cut:
    """Cuts the network as `run` says, and freezes what lies before the cut.

    The frozen parameters take no gradient; modes are set by `set_training` and `set_evaluation`.
    With `trained_channels` the last frozen layer stands in both parts, its trained channels with values
    of their own: `ties.copy_back` brings them to `layers`.
    """
    assert 0 <= run.frozen < len(layers), (run.frozen, len(layers))
    prefix, suffix, ties = layers[: run.frozen], layers[run.frozen :], Ties()
    if run.trained_channels:
        assert run.frozen == len(layers) - 1, run.id
        layers[-2].requires_grad_(False)
        parted = part_last(layers, run.model, run.trained_channels)
        prefix = nn.Sequential(*prefix[:-1], parted.frozen)
        suffix = nn.Sequential(parted.trained, *suffix)
        ties = parted.ties
    prefix.requires_grad_(False)
    parts = Cut(prefix=prefix, suffix=suffix, ties=ties)
    set_evaluation(parts)
    return parts


def set_training(parts: Cut, frozen_batchnorm: str) -> None:
    """The suffix in training mode; of the prefix nothing, or its BatchNorm layers alone."""
    parts.suffix.train()
    if frozen_batchnorm == "training":
        for module in parts.prefix.modules():
            if isinstance(module, _BatchNorm):
                module.train()


def set_evaluation(parts: Cut) -> None:
    """Both parts in evaluation mode."""
    parts.prefix.eval()
    parts.suffix.eval()
