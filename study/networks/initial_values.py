"""Draw a network's initial values from random streams that do not depend on cut or classes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import torch
from torch import nn

from study.networks import timm_models
from study.networks.families import family_of, layers_of
from study.networks.table import TIMM
from study.run import HEAD
from study.seeds import seed_of

CLASSIFIER: Final = "classifier"  # the head's linear map, in every family


def initialise(
    layers: nn.Sequential,
    model: str,
    seed: int,
    *,
    generation: int = 0,
    frozen: int = 0,
    only: Iterable[str] | None = None,
) -> None:
    """Draw initial values in place, on the CPU, by timm's scheme; reset BatchNorm statistics.

    In a network of ARCHITECTURES, each module has its own stream, named (model, seed, generation, layer,
    module). "timm/<name>" has two streams: (model, seed, generation) for timm's constructor, and another
    for the classifier. The state of torch's generators does not change.

    - `generation`: `Run.generation`, the number of trainings before this Run. A new head gets other
      initial values than the head of its start, because the start's layers have adapted to those.
    - `frozen`: ResNets only. In this many leading layers, the last BatchNorm of a residual block starts
      at one, not at timm's zero; otherwise a randomly frozen block would be the identity.
    - `only`: names of the layers to draw (default: all).

    Raises ValueError for unknown names in `only`.
    """
    children = OrderedDict(layers.named_children())
    wanted = list(children) if only is None else list(only)
    if unknown := set(wanted) - set(children):
        raise ValueError(
            f"only={sorted(unknown)}: {model} has no such layers, choose from {', '.join(children)}"
        )
    assert all(tensor.device.type == "cpu" for tensor in layers.state_dict().values())
    names = (model, seed, generation)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if model.startswith(TIMM):
            _fill_as_timm_creates(children, wanted, model, names)
        else:
            for name in wanted:
                _fill(children[name], family_of(model).fill, (*names, name))
        for index, (name, layer) in enumerate(children.items()):
            if name in wanted:
                _fill_last_norms(layer, model, is_frozen=index < frozen)


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
    # Always two classes, because the number of values that timm draws must not depend on the task.
    _seed(*names)
    drawn = OrderedDict(layers_of(timm_models.create(model, 2)).named_children())
    for name in wanted:
        values, state = drawn[name].state_dict(), children[name].state_dict()
        for key, tensor in state.items():
            if not (name == HEAD and key.startswith(f"{CLASSIFIER}.")):
                tensor.copy_(values[key])
        if name == HEAD:
            _seed(*names, HEAD, CLASSIFIER)
            family_of(model).fill(getattr(children[HEAD], CLASSIFIER))


def _seed(*names: str | int) -> None:
    # torch.manual_seed would seed the GPUs' generators too.
    torch.default_generator.manual_seed(seed_of("initial", *names))


def _fill_last_norms(layer: nn.Module, model: str, *, is_frozen: bool) -> None:
    blocks: list[Any] = [each for each in layer.modules() if hasattr(each, "zero_init_last")]
    for block in blocks:
        if not model.startswith(TIMM):
            if not is_frozen:
                block.zero_init_last()
        elif is_frozen:
            # timm has already set the scale of a norm to zero; the norm's name differs by block.
            for module in block.modules():
                scale = getattr(module, "weight", None)
                if scale is not None and scale.ndim == 1 and not scale.any():
                    module.reset_parameters()
