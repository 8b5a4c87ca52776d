"""Networks as sequences of layers: built from timm's own classes, cut by slicing, drawn by name.

Owns how a network's name becomes an `nn.Sequential`, its initial values, and the check that the
sequence is the network. Refuses any network whose class is not exactly timm's ResNet, DenseNet or
VisionTransformer. Freezing itself is `transfer`'s: `layers[:k]` is the prefix, `layers[k:]` is trained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.resnet import ResNet
from torch import nn

from study import resnet
from study.architectures import ARCHITECTURES, check_images, check_model
from study.seeds import seed_of

Triple = tuple[float, ...]


@dataclass(frozen=True)
class _Family:
    """How one class of timm's is cut into layers, and how its modules' initial values are drawn."""

    layers: Callable[[Any], OrderedDict[str, nn.Module]]
    fill: Callable[[nn.Module], None]


_FAMILIES: Final[Mapping[type[nn.Module], _Family]] = MappingProxyType(
    {
        ResNet: _Family(resnet.layers, resnet.fill),
    }
)
_CLASS_OF: Final = MappingProxyType({"resnet": ResNet})


def network(
    model: str, width: int | None, num_classes: int, image_shape: tuple[int, int, int]
) -> nn.Module:
    """timm's own whole network: (n, *image_shape) to logits (n, num_classes).

    Its initial values are whatever torch's default generator gives; see `initialise`. Raises
    ValueError for an unknown model, a width it cannot have or images it cannot take.
    """
    check_model(model, width)
    check_images(model, image_shape)
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a classifier needs 2 or more")
    with torch.random.fork_rng(devices=[]):
        architecture = ARCHITECTURES[model]
        assert width is not None
        return resnet.network(architecture, width, num_classes)


def layers_of(whole: nn.Module) -> nn.Sequential:
    """The layers of timm's network, in order, named; they share its modules and parameters."""
    family = _FAMILIES.get(type(whole))
    if family is None:
        choices = ", ".join(each.__name__ for each in _FAMILIES)
        raise ValueError(
            f"class {type(whole).__module__}.{type(whole).__name__}: its layers are not known here, "
            f"the class must be exactly one of {choices}"
        )
    return nn.Sequential(family.layers(whole))


def build(
    model: str, width: int | None, num_classes: int, image_shape: tuple[int, int, int]
) -> nn.Sequential:
    """The network as a sequence of its named layers: (n, *image_shape) to (n, num_classes).

    The composition equals timm's own forward pass bit for bit. State-dict keys are
    "<layer name>.<…>". Call `initialise` before use. Raises ValueError as `network` does.
    """
    return layers_of(network(model, width, num_classes, image_shape))


def initialise(
    layers: nn.Sequential,
    model: str,
    seed: int,
    *,
    frozen: int = 0,
    only: Iterable[str] | None = None,
) -> None:
    """Draws initial values in place, on the CPU, by timm's scheme; BatchNorm statistics start anew.

    Each module's values come from a stream named by (model, seed, layer, module), so that they depend
    neither on the cut nor on the number of classes, and torch's generators are left as they were.

    - `frozen`: in that many leading layers the last BatchNorm of a residual block starts at one, not
      at timm's zero, or a block frozen at random would be the identity (with ResNets only).
    - `only`: names of the layers to draw; all of them by default.
    """
    names = [name for name, _ in layers.named_children()]
    wanted = set(names if only is None else only)
    if unknown := wanted - set(names):
        raise ValueError(
            f"only={sorted(unknown)}: {model} has no such layers, choose of {', '.join(names)}"
        )
    fill = _FAMILIES[_CLASS_OF[ARCHITECTURES[model].family]].fill
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for index, (name, layer) in enumerate(layers.named_children()):
            if name not in wanted:
                continue
            for module_name, module in layer.named_modules():
                own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
                if own:
                    assert all(tensor.device.type == "cpu" for tensor in own), name
                    # Not torch.manual_seed, which would seed the GPUs' generators too.
                    key = seed_of("initial", model, seed, name, module_name)
                    torch.default_generator.manual_seed(key)
                    fill(module)
            if index >= frozen:
                for module in layer.modules():
                    if hasattr(module, "zero_init_last"):
                        module.zero_init_last()


def normalisation(model: str) -> tuple[Triple, Triple]:
    """Mean and standard deviation per channel, applied as (x / 255 − mean) / std before the layers."""
    assert model in ARCHITECTURES, model
    return tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)
