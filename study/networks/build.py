"""Networks as sequences of layers: built from timm's own classes, cut by slicing, drawn by name.

Owns how a network's name becomes an `nn.Sequential`, its initial values, its pretrained weights under
the layers' names, and the check that the sequence is the network. Refuses any network whose class is
not exactly timm's ResNet, DenseNet or VisionTransformer. Freezing itself is `transfer`'s:
`layers[:k]` is the prefix, `layers[k:]` is trained.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.densenet import DenseNet
from timm.models.resnet import ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from study.networks import composition, densenet, resnet, timm_models, vit
from study.networks.table import ARCHITECTURES, TIMM, check_images, check_model, check_pretrained
from study.seeds import seed_of

ImageShape = tuple[int, int, int]
HEAD: Final = "head"
CLASSIFIER: Final = "classifier"  # the head's linear map, in every family

# The convolutional networks compute the same at any image size, so a small one settles it.
CHECKED_IMAGE_SIZE: Final = 64


@dataclass(frozen=True)
class _Family:
    """How one class of timm's is cut into layers, and how its modules' initial values are drawn."""

    layers: Callable[[Any], OrderedDict[str, nn.Module]]
    fill: Callable[[Any], None]


_FAMILIES: Final[Mapping[type[nn.Module], _Family]] = MappingProxyType(
    {
        ResNet: _Family(resnet.layers, resnet.fill),
        DenseNet: _Family(densenet.layers, densenet.fill),
        VisionTransformer: _Family(vit.layers, vit.fill),
    }
)


def network(model: str, width: int | None, num_classes: int, image_shape: ImageShape) -> nn.Module:
    """timm's own whole network: (n, *image_shape) to logits (n, num_classes).

    Its values are arbitrary; see `initialise`. Raises ValueError for an unknown model, a width that it
    cannot have, or images that it cannot take.
    """
    check_model(model, width)
    check_images(model, image_shape)
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes}: a classifier needs 2 or more")
    with torch.random.fork_rng(devices=[]):
        return _network(model, width, num_classes, image_shape)


def _network(model: str, width: int | None, num_classes: int, image_shape: ImageShape) -> nn.Module:
    if model.startswith(TIMM):
        return timm_models.create(model, num_classes)
    assert width is not None
    architecture = ARCHITECTURES[model]
    if architecture.family == "resnet":
        return resnet.network(architecture, width, num_classes)
    if architecture.family == "densenet":
        return densenet.network(architecture, width, num_classes)
    assert architecture.family == "vit", architecture
    return vit.network(architecture, width, num_classes, image_shape)


def layers_of(whole: nn.Module) -> nn.Sequential:
    """The layers of timm's network, in order, named; they share its modules and parameters."""
    return nn.Sequential(_FAMILIES[type(whole)].layers(whole))


def build(
    model: str, width: int | None, num_classes: int, image_shape: ImageShape
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
    generation: int = 0,
    frozen: int = 0,
    only: Iterable[str] | None = None,
) -> None:
    """Draws initial values in place, on the CPU, by timm's scheme; BatchNorm statistics start anew.

    In a network of the table each module's values come from a stream named by (model, seed, generation,
    layer, module), so that they depend neither on the cut nor on the number of classes. In a timm
    network by name all but the classifier is what timm's constructor draws from one stream named by
    (model, seed, generation). torch's generators are left as they were.

    - `generation`: `Run.generation`. A start's layers have learnt to work with the values that the
      others began with: a new head that began with those of the start's head would know of its classes.
    - `frozen`: in that many leading layers the last BatchNorm of a residual block starts at one, not
      at timm's zero, or a block frozen at random would be the identity (with ResNets only).
    - `only`: names of the layers to draw; all of them by default.

    Raises ValueError for names in `only` that are none of the layers'.
    """
    children = OrderedDict(layers.named_children())
    wanted = list(children) if only is None else list(only)
    if unknown := set(wanted) - set(children):
        raise ValueError(
            f"only={sorted(unknown)}: {model} has no such layers, choose of {', '.join(children)}"
        )
    assert all(tensor.device.type == "cpu" for tensor in layers.state_dict().values())
    names = (model, seed, generation)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if model.startswith(TIMM):
            _fill_as_timm_creates(children, wanted, model, names)
        else:
            for name in wanted:
                _fill(children[name], _family_of(model).fill, (*names, name))
        for index, (name, layer) in enumerate(children.items()):
            if name in wanted:
                _fill_last_norms(layer, model, is_frozen=index < frozen)


def _family_of(model: str) -> _Family:
    if model.startswith(TIMM):
        return _FAMILIES[type(timm_models.outline(model))]
    classes = {"resnet": ResNet, "densenet": DenseNet, "vit": VisionTransformer}
    return _FAMILIES[classes[ARCHITECTURES[model].family]]


def _fill(layer: nn.Module, fill: Callable[[Any], None], names: tuple[str | int, ...]) -> None:
    for module_name, module in layer.named_modules():
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            _seed(*names, module_name)
            fill(module)


def _fill_as_timm_creates(
    children: Mapping[str, nn.Module],
    wanted: Iterable[str],
    model: str,
    names: tuple[str | int, ...],
) -> None:
    # Two classes whatever the task has: the number of values that timm draws must not depend on it.
    _seed(*names)
    drawn = OrderedDict(layers_of(timm_models.create(model, 2)).named_children())
    for name in wanted:
        values, state = drawn[name].state_dict(), children[name].state_dict()
        for key, tensor in state.items():
            if not (name == HEAD and key.startswith(f"{CLASSIFIER}.")):
                tensor.copy_(values[key])
        if name == HEAD:
            _seed(*names, HEAD, CLASSIFIER)
            _family_of(model).fill(getattr(children[HEAD], CLASSIFIER))


def _seed(*names: str | int) -> None:
    # Not torch.manual_seed, which would seed the GPUs' generators too.
    torch.default_generator.manual_seed(seed_of("initial", *names))


def _fill_last_norms(layer: nn.Module, model: str, *, is_frozen: bool) -> None:
    blocks: list[Any] = [each for each in layer.modules() if hasattr(each, "zero_init_last")]
    for block in blocks:
        if not model.startswith(TIMM):
            if not is_frozen:
                block.zero_init_last()
        elif is_frozen:
            # timm has set some norm's scale to zero already; what it is called differs by block.
            for module in block.modules():
                scale = getattr(module, "weight", None)
                if scale is not None and scale.ndim == 1 and not scale.any():
                    module.reset_parameters()


def normalisation(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, applied as (x / 255 − mean) / std before the layers.

    ImageNet's for all networks of the table, the network's own for a timm network by name.
    """
    if model.startswith(TIMM):
        made_for = timm_models.outline(model).pretrained_cfg
        return tuple(made_for["mean"]), tuple(made_for["std"])
    assert model in ARCHITECTURES, model
    return tuple(IMAGENET_DEFAULT_MEAN), tuple(IMAGENET_DEFAULT_STD)


def pretrained(
    model: str, image_shape: ImageShape, path: Path | None = None
) -> dict[str, torch.Tensor]:
    """timm's weights under the keys of `build`'s state dict, without the head's.

    Fetched by timm, or read from the file `path`. Raises ValueError if there are none for this model,
    or if they do not fit, naming the keys.
    """
    if path is None:
        check_pretrained(model)
    check_images(model, image_shape)
    whole = timm_models.with_weights(model, path)
    names = layer_keys(whole)
    return {
        names[key]: tensor
        for key, tensor in whole.state_dict().items()
        if not names[key].startswith(f"{HEAD}.")
    }


def layer_keys(whole: nn.Module) -> dict[str, str]:
    """timm's state-dict keys to ours: found by the tensors themselves, one to one."""
    ours = {id(t): key for key, t in layers_of(whole).state_dict(keep_vars=True).items()}
    theirs = {key: id(t) for key, t in whole.state_dict(keep_vars=True).items()}
    assert len(set(theirs.values())) == len(theirs) and set(theirs.values()) == set(ours)
    return {key: ours[tensor] for key, tensor in theirs.items()}


def check_composition(model: str, width: int | None, image_shape: ImageShape) -> None:
    """Raises ValueError, with the reason, unless the layers' composition is timm's forward pass."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        whole = _network(model, width, 10, image_shape)
        composition.check(model, whole, layers_of(whole), image_shape)


@lru_cache(maxsize=32)
def check_timm(model: str) -> None:
    """Raises ValueError, with the reason, if "timm/<name>" is refused; checks its composition."""
    whole = timm_models.outline(model)
    shape = timm_models.image_shape(whole)
    if type(whole) is not VisionTransformer:
        shape = (shape[0], CHECKED_IMAGE_SIZE, CHECKED_IMAGE_SIZE)
    check_composition(model, None, shape)


def timm_layer_names(model: str) -> tuple[str, ...]:
    """The names of a timm network's layers, from the input to the head."""
    return tuple(name for name, _ in layers_of(timm_models.outline(model)).named_children())
