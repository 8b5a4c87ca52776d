"""Whether a sequence of layers is the network that it was cut from: bit for bit, or refused.

Knows nothing of names or families; it only runs both and compares.
"""

from __future__ import annotations

import torch
from torch import nn


def check(
    model: str, whole: nn.Module, layers: nn.Sequential, image_shape: tuple[int, int, int]
) -> None:
    """Raises ValueError, with the reason, unless `layers`, in sequence, are the network `whole`.

    Compared are the logits of two random images in evaluation mode, and the gradient of every
    parameter, with BatchNorm as after training: fresh statistics would hide a norm left out. Every
    parameter must belong to exactly one layer, and every layer must have some, so that each further
    frozen layer lowers the number trained. `layers` share the parameters of `whole`, whose values are
    changed; images and values come from torch's default generator.
    """
    parameters = dict(whole.named_parameters())
    ours = [p for _, layer in layers.named_children() for p in layer.parameters()]
    if sorted(map(id, ours)) != sorted(map(id, parameters.values())):
        raise ValueError(
            f"model={model!r}: its parameters are not each in exactly one of its layers"
        )
    if empty := [name for name, layer in layers.named_children() if not [*layer.parameters()]]:
        raise ValueError(f"model={model!r}: no parameters in {', '.join(empty)}")
    whole.eval()
    layers.eval()
    as_after_training(whole)
    images = torch.randn(2, *image_shape)
    expected, composed = whole(images), layers(images)
    if not torch.equal(expected, composed):
        raise ValueError(
            f"model={model!r}: the logits of its layers in sequence differ from those of timm's own "
            f"forward pass, by up to {(expected - composed).abs().max().item():.3g}"
        )
    gradients = [
        torch.autograd.grad(logits.square().mean(), list(parameters.values()), allow_unused=True)
        for logits in (expected, composed)
    ]
    for name, first, second in zip(parameters, *gradients, strict=True):
        if first is None or second is None or not torch.equal(first, second):
            raise ValueError(
                f"model={model!r}: the gradient of {name} differs between its layers in sequence "
                "and timm's own forward pass"
            )


def as_after_training(whole: nn.Module) -> None:
    """Gives the norms scales, shifts and statistics that no fresh network has."""
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if parameter.ndim == 1:
                low, high = (0.5, 1.5) if name.endswith("weight") else (-0.1, 0.1)
                nn.init.uniform_(parameter, low, high)
        for name, buffer in whole.named_buffers():
            if name.endswith("running_mean"):
                nn.init.normal_(buffer, std=0.1)
            elif name.endswith("running_var"):
                nn.init.uniform_(buffer, 0.5, 1.5)
