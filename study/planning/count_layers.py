"""Count the operations, values and parameters of a network's layers with torch, without data.

`python -m study.planning.count_layers` writes layer_costs.json: the counts of the networks in
`networks.table`, as polynomials in width, classes and map sizes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from study.networks.build import build
from study.networks.catalogue import (
    check_model,
    num_channels,
    num_layers,
    pieces_to_freeze,
)
from study.networks.families import part_head
from study.networks.table import ARCHITECTURES
from study.planning.layer_costs import (
    PATH,
    ImageShape,
    Inside,
    LayerCost,
    divided,
    map_sizes,
)
from study.run import HEAD
from study.training.cut import divide


class _Counter:
    """Passes two images through layers, first to last, and counts the cost of each layer."""

    def __init__(self, model: str, layers: nn.Sequential, values: Tensor) -> None:
        self.values = values
        self.saved: dict[int, int] = {}  # bytes by storage
        self._alive: list[Tensor] = []  # kept, so that no address in `saved` is reused
        self._head_gets = part_head(layers, model)[0]

    def copy(self) -> _Counter:
        made = copy.copy(self)
        made.saved, made._alive = dict(self.saved), list(self._alive)
        return made

    def count(self, name: str, layer: nn.Module) -> LayerCost:
        images, saved_before = len(self.values), sum(self.saved.values())
        keep = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        with sdpa_kernel(SDPBackend.MATH), keep, FlopCounterMode(display=False) as counter:
            given = self.values if name != HEAD else self._head_gets(self.values)
            self.values = layer(self.values)
        return LayerCost(
            name=name,
            flops=counter.get_total_flops() // images,
            inputs=given.numel() // images,
            outputs=self.values.numel() // images,
            saved_bytes=(sum(self.saved.values()) - saved_before) // images,
            parameters=sum(parameter.numel() for parameter in layer.parameters()),
            modules=sum(not any(True for _ in each.children()) for each in layer.modules()),
        )

    def _keep(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            storage = tensor.untyped_storage()
            self.saved[storage._cdata] = storage.nbytes()
            self._alive.append(tensor)
        return tensor


def count_layers(
    model: str, width: int | None, num_classes: int, image_shape: ImageShape, inside: Inside | None
) -> list[LayerCost]:
    """Return the cost of each layer of this network, first to last.

    `inside`: a cut inside a layer (a Run's `frozen`, `trained_channels` and `frozen_pieces`); this layer
    gets two entries, for its frozen and its trained part.

    Attention is counted unfused, because torch counts nothing for the CPU's fused kernel. For a ViT
    `saved_bytes` is therefore up to twice too large.
    """
    layers, costs, counters = _whole(model, width, num_classes, image_shape)
    if inside is None:
        return costs
    with torch.device("meta"):
        parts = divide(layers, model, *inside)
        at = len(parts.prefix) - 1
        names = list(dict(layers.named_children()))
        counter = counters[at].copy()
        above = zip([f"{names[at]}, trained", *names[at + 1 :]], parts.suffix, strict=True)
        divided = [(names[at], parts.prefix[-1]), *above]
        return costs[:at] + [counter.count(name, layer) for name, layer in divided]


@lru_cache(maxsize=32)
def _whole(
    model: str, width: int | None, num_classes: int, image_shape: ImageShape
) -> tuple[nn.Sequential, list[LayerCost], list[_Counter]]:
    """Return the network, the costs of its layers, and the counter's state before each layer."""
    check_model(model, width)  # not on the meta device: checks of timm networks need values
    with torch.device("meta"):
        layers = build(model, width, num_classes, image_shape)
        counter = _Counter(
            model, layers, torch.empty(2, *image_shape)
        )  # BatchNorm needs two images
        costs, counters = [], []
        for name, layer in layers.named_children():
            counters.append(counter.copy())
            costs.append(counter.count(name, layer))
    return layers, costs, counters


WIDTHS: Final = {"resnet": (4, 5, 7), "densenet": (4, 5, 7), "vit": (6, 12, 18)}
SHAPES: Final = {"vit": ((3, 4, 8), (3, 8, 8), (3, 12, 16))}
ODD_SHAPES: Final = ((3, 9, 13), (3, 17, 16), (3, 11, 30))  # so that halved map sizes are rounded
CLASSES: Final = (2, 5)
CHANNELS: Final = (1, 3)  # trained channels besides whole dense layers

Values = Mapping[str, int]


def write_laws(path: Path) -> None:
    """Write the laws of all networks in `networks.table`."""
    laws = {model: _laws(model) for model in ARCHITECTURES}
    text = json.dumps(laws).replace('{"name"', '\n{"name"').replace('"parts"', '\n"parts"')
    path.write_text(text + "\n")  # one layer per line


def _laws(model: str) -> dict[str, Any]:
    family, whole = ARCHITECTURES[model].family, slice(None)
    cuts: dict[str, list[tuple[int, Inside]]] = {}
    for width in WIDTHS[family]:
        for inside in _cuts_inside(model, width):
            cuts.setdefault(divided(model, width, inside)[0], []).append((width, inside))
    parts = {}
    for case, of_case in cuts.items():
        width, inside = of_case[0]
        _, at, _ = divided(model, width, inside)
        parts[case] = _fitted(model, of_case, slice(at, at + 2))
    return {
        "layers": _fitted(model, [(width, None) for width in WIDTHS[family]], whole),
        "parts": parts,
    }


def _fitted(
    model: str, cuts: Sequence[tuple[int, Inside | None]], layers: slice
) -> list[dict[str, Any]]:
    """Return the law of each of these layers, fitted to cuts of one kind at several widths."""
    has_head = layers.stop is None or layers.stop > num_layers(model)
    counted = [
        _with_values(model, width, num_classes, shape, inside)[layers]
        for width, inside in cuts
        for shape in SHAPES.get(ARCHITECTURES[model].family, ODD_SHAPES)
        for num_classes in CLASSES[: 1 + has_head]
    ]
    return [_law(each) for each in zip(*counted, strict=True)]


def _cuts_inside(model: str, width: int) -> Iterator[Inside]:
    for frozen in range(num_layers(model)):
        for pieces in pieces_to_freeze(model, frozen)[1:]:
            yield frozen, 0, pieces
    most = num_channels(model, width)
    unit = width if ARCHITECTURES[model].family == "densenet" else most
    for whole, rest in product(range(0, most + 1, unit), (0, *CHANNELS)):
        if 0 < whole + rest <= most:
            yield num_layers(model) - 1, whole + rest, 0


def _with_values(
    model: str, width: int, num_classes: int, shape: ImageShape, inside: Inside | None
) -> list[tuple[Values, LayerCost]]:
    sizes, channels = map_sizes(model, shape), 0
    if inside is not None:
        _, at, channels = divided(model, width, inside)
        sizes.insert(at, sizes[at])
    costs = count_layers(model, width, num_classes, shape, inside)
    values = {"width": width, "classes": num_classes, "channels": channels}
    return [
        (values | {"before": before, "after": after}, cost)
        for (before, after), cost in zip(sizes, costs, strict=True)
    ]


def _law(counted: Sequence[tuple[Values, LayerCost]]) -> dict[str, Any]:
    """Return the exact polynomial of each count; variables with always equal values count as one."""
    varied = {name for name in counted[0][0] if len({values[name] for values, _ in counted}) > 1}
    terms: dict[str, np.ndarray] = {}
    for names in product(
        ((), ("width",), ("width", "width")), ((), ("after",), ("before",)), ((), ("channels",)),
        ((), ("classes",)),
    ):  # fmt: skip
        term = [name for some in names for name in some]
        column = np.array([float(np.prod([v[name] for name in term])) for v, _ in counted])
        is_new = not any(np.array_equal(column, each) for each in terms.values())
        if varied.issuperset(term) and is_new:
            terms["*".join(term) or "1"] = column
    law: dict[str, Any] = {"name": counted[0][1].name}
    columns = np.stack(list(terms.values()), axis=1)
    scale = columns.max(axis=0)
    for count in (each for each in asdict(counted[0][1]) if each != "name"):
        wanted = np.array([float(getattr(cost, count)) for _, cost in counted])
        factors = np.linalg.lstsq(columns / scale, wanted, rcond=1e-14)[0] / scale
        whole = factors.round()
        assert np.array_equal(columns @ whole, wanted), (law["name"], count, factors)
        law[count] = {term: int(each) for term, each in zip(terms, whole, strict=True) if each}
    return law


if __name__ == "__main__":
    write_laws(PATH)
