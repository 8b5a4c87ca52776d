"""A network of the same form as another, made in a fraction of the time that its constructors take.

Owns what of a module may be shared: values that nothing can change. All else is the replica's own, as
`copy.deepcopy` would make it; parameters have room and no values.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

_UNCHANGING: Final = (bool, int, float, complex, str, bytes, type(None), type, torch.dtype)
_CONTAINERS: Final = (dict, OrderedDict, list, set)


def replica(module: Module, device: str | torch.device | None = None) -> Module:
    """The module anew: same form, modes and buffers, sharing no tensor and no container with it.

    Its parameters are not filled; they lie on `device`, by default torch's default device.
    """
    made: Module = _module(module, device, {})
    return made


def _module(module: nn.Module, device: Any, memo: dict[int, Any]) -> Any:
    if id(module) in memo:
        return memo[id(module)]
    made = memo[id(module)] = object.__new__(type(module))
    for name, value in module.__dict__.items():
        if name == "_parameters":
            own: Any = {key: _parameter(each, device, memo) for key, each in value.items()}
        elif name == "_buffers":
            own = {key: _buffer(each, memo) for key, each in value.items()}
        elif name == "_modules":
            own = {
                key: None if each is None else _module(each, device, memo)
                for key, each in value.items()
            }
        elif _is_unchanging(value):
            own = value
        elif type(value) in _CONTAINERS and not value:
            own = type(value)()
        else:
            own = copy.deepcopy(value, memo)
        made.__dict__[name] = own
    return made


def _is_unchanging(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_unchanging, value))
    return type(value) in _UNCHANGING or type(value) is type


def _parameter(parameter: nn.Parameter | None, device: Any, memo: dict[int, Any]) -> Any:
    if parameter is None:
        return None
    if id(parameter) not in memo:
        room = torch.empty_strided(
            parameter.size(), parameter.stride(), dtype=parameter.dtype, device=device
        )
        memo[id(parameter)] = nn.Parameter(room, requires_grad=parameter.requires_grad)
    return memo[id(parameter)]


def _buffer(buffer: Tensor | None, memo: dict[int, Any]) -> Any:
    if buffer is None:
        return None
    if id(buffer) not in memo:
        memo[id(buffer)] = buffer.detach().clone()
    return memo[id(buffer)]
