"""Train Runs that differ only in the seed as one wide network: grouped convolutions, one step for all.

Each seed has a fixed place in the wide network, and no values pass between places. So a Run's bits do not
depend on the other seeds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, Final, TypeVar

import torch
from timm.layers import SelectAdaptivePool2d
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn

from study.networks.build import build
from study.networks.families import part_head
from study.networks.initial_values import CLASSIFIER
from study.networks.timm_models import image_shape, outline
from study.networks.vit import Head
from study.store.schema import Row
from study.training.cut import set_training
from study.training.evaluation import losses_of
from study.training.features import room
from study.training.loop import Diverged, StartPenalty, Training, optimizer_for, set_rate
from study.training.preprocessing import on_device, precision
from study.training.steps import learning_rate

Module = TypeVar("Module", bound=nn.Module)


class WideLinear(nn.Module):
    """The linear layers of several networks: (n, networks · inputs) to (n, networks, outputs)."""

    def __init__(self, linear: nn.Linear, networks: int) -> None:
        super().__init__()
        self.networks = networks
        self.weight = nn.Parameter(
            linear.weight.new_empty(networks * linear.out_features, linear.in_features)
        )
        if linear.bias is None:
            self.register_parameter("bias", None)
        else:
            self.bias = nn.Parameter(linear.weight.new_empty(networks * linear.out_features))

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.unflatten(-1, (self.networks, -1)).transpose(0, 1)
        weight = self.weight.unflatten(0, (self.networks, -1)).transpose(1, 2)
        if self.bias is None:
            return torch.bmm(inputs, weight).transpose(0, 1)
        bias = self.bias.unflatten(0, (self.networks, 1, -1))
        return torch.baddbmm(bias, inputs, weight).transpose(0, 1)


class WideLayerNorm(nn.Module):
    """The LayerNorms of several networks: (n, …, networks · width) to the same shape."""

    def __init__(self, norm: nn.LayerNorm, networks: int) -> None:
        super().__init__()
        self.networks, self.shape, self.eps = networks, norm.normalized_shape, norm.eps
        self.weight, self.bias = (
            nn.Parameter(norm.weight.new_empty(networks * norm.weight.numel())) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        normed = nn.functional.layer_norm(
            x.unflatten(-1, (self.networks, -1)), self.shape, eps=self.eps
        )
        return torch.addcmul(self.bias, normed.flatten(-2), self.weight)


# Modules without parameters of their own that treat every channel alike.
_CHANNELWISE: Final = (
    *(nn.Sequential, BasicBlock, Bottleneck, Head, SelectAdaptivePool2d, nn.Flatten),
    *(nn.ReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)


def widened(suffix: nn.Sequential, networks: int) -> nn.Sequential:
    """Return one module that computes the trained layers of `networks` networks, with arbitrary values.

    It maps `joined` inputs to logits (n, networks, classes). The first dimension of each parameter and
    buffer concatenates the values of all networks. Raises ValueError, with the name, for a module of
    another type, because it might mix the networks' channels.
    """
    made = copy.deepcopy(suffix)
    for name, module in list(made.named_modules()):
        above, _, last = name.rpartition(".")
        wide: nn.Module = module
        if type(module) is nn.Conv2d:
            wide = _wide(module, networks, "in_channels", "out_channels", "groups")
        elif type(module) is nn.BatchNorm2d:
            wide = _wide(module, networks, "num_features")
        elif type(module) is nn.Linear and last == CLASSIFIER:
            wide = WideLinear(module, networks)
        elif isinstance(module, nn.LayerNorm) and module.weight is not None:
            wide = WideLayerNorm(module, networks)
        elif hasattr(module, "networks"):  # partial layers of a ResNet
            module.networks = networks
        elif not (type(module) in _CHANNELWISE or (type(module) is nn.Dropout and not module.p)):
            raise ValueError(
                f"Recipe.seeds_together: {name}, a {type(module).__name__}, cannot be trained for several "
                "seeds at once; choose 1, or train the head alone"
            )
        if wide is not module:
            setattr(made.get_submodule(above), last, wide)
    return made.to(memory_format=torch.channels_last)


def check_timm_layers(model: str, frozen: int) -> None:
    """Raise ValueError unless `widened` supports this timm network with `frozen` layers."""
    layers = build(model, None, 2, image_shape(outline(model)))
    suffix, (_, head) = layers[frozen:], part_head(layers, model)
    widened(nn.Sequential(head) if len(suffix) == 1 else suffix, 2)


def _wide(module: Module, networks: int, *numbers: str) -> Module:
    """Return a convolution or BatchNorm for all networks. `numbers`: the attributes to multiply."""
    made = copy.deepcopy(module)
    for name in numbers:
        setattr(made, name, networks * getattr(module, name))
    for name, parameter in module.named_parameters():
        setattr(made, name, nn.Parameter(torch.cat([parameter.detach()] * networks)))
    for name, buffer in module.named_buffers():
        if buffer.ndim:  # not num_batches_tracked
            setattr(made, name, torch.cat([buffer] * networks))
    return made


def joined(inputs: Sequence[Tensor]) -> Tensor:
    """Concatenate the inputs of several networks along the channels, for `widened`."""
    return _joined(torch.stack(list(inputs), dim=1))


def _joined(inputs: Tensor) -> Tensor:
    """Concatenate maps, (n, networks, c, …), or tokens, (n, networks, t, c), along the channels."""
    if inputs.ndim == 4:
        return inputs.transpose(1, 2).flatten(2)
    wide = inputs.flatten(1, 2)
    return wide.contiguous(memory_format=torch.channels_last) if wide.ndim == 4 else wide


class Alone:
    """One Run in training, with the interface of `Stack`."""

    def __init__(self, training: Training) -> None:
        self._training = training
        self.diverged: dict[str, int] = {}

    @property
    def step(self) -> int:
        return self._training.step

    @property
    def not_captured(self) -> str:
        return self._training.not_captured

    def __iter__(self) -> Iterator[list[tuple[Training, Row]]]:
        """Train to the last step; yield after each step [(training, Row)], empty if not evaluated."""
        try:
            for row in self._training:
                yield [] if row is None else [(self._training, row)]
        except Diverged as diverged:
            self.diverged[self._training.run.id] = diverged.step

    def copy_back(self) -> None:
        """Do nothing: the Run's own weights are trained directly."""


def together(members: Sequence[Training]) -> Stack | Alone:
    """Return an object that trains these Runs of one block; all must be at the same step."""
    if members[0].run.recipe.seeds_together > 1:
        return Stack(members)
    assert len(members) == 1, [m.run.id for m in members]
    return Alone(members[0])


class Stack:
    """Runs of one block (`Run.block`) in training, all at the same step.

    One step trains all members. Each member is evaluated alone, because a joint evaluation is not faster
    at width 4, and slower at width 8. A place without a member computes a copy of the first member, whose
    results are dropped.

    `members`: new or restored; `copy_back` copies weights and optimizer state to them. `diverged`: for
    members whose loss was not finite, the last evaluated step with finite losses, by run id.
    """

    def __init__(self, members: Sequence[Training]) -> None:
        first = members[0]
        self._recipe, self._device = first.run.recipe, first.device
        self.members = list(members)
        self.num_places = networks = self._recipe.seeds_together
        self.diverged: dict[str, int] = {}
        self.step = first.step
        assert all((m.step, len(m.rows)) == (self.step, len(first.rows)) for m in members)
        self._in_place = {m.run.seed % networks: m for m in members}
        assert len(self._in_place) == len(members), "two members in one place"
        everywhere = [self._in_place.get(place, first) for place in range(networks)]

        self._suffix = widened(first.parts.suffix, networks)
        self._optimizer = optimizer_for(self._recipe, self._suffix)
        tensors = [_tensors(m.parts.suffix) for m in everywhere]
        # Pairs of a tensor of the wide network and the matching tensors of all places.
        self._pairs = list(zip(_tensors(self._suffix), zip(*tensors, strict=True), strict=True))
        with torch.no_grad():
            for wide, own in self._pairs:
                _fill(wide, own)
                pairs = zip(everywhere, own, strict=True)
                states = [m.optimizer.state.get(each, {}) for m, each in pairs]
                if states[0]:  # empty before the first step
                    self._optimizer.state[wide] = _joined_states(states, like=wide)
        # Not the parameters, which have changed in restored members.
        starts = [m.penalty.start for m in everywhere]
        start = {name: torch.cat([each[name] for each in starts]) for name in starts[0]}
        self._penalty = StartPenalty(self._recipe.l2_start, self._suffix, start)

        self._labels = torch.stack([m.labels for m in everywhere], dim=1)  # (images, places)
        self._finite = torch.stack([m.finite for m in everywhere])
        self._features = self._features_of(everywhere)
        for place, m in self._in_place.items():
            m.finite = self._finite[place]
            if self._features is not None:
                m.inputs.train_features = self._features[place]
        self._everywhere = everywhere
        self._places = torch.arange(networks, device=first.inputs.place)
        self._steps = first.new_steps()
        self._epoch = -1
        self._orders = torch.empty(0)
        self._in_training = False

    @property
    def not_captured(self) -> str:
        """Return why joint steps on a GPU are not captured; see `Training.not_captured`."""
        return self._steps.not_captured

    def __iter__(self) -> Iterator[list[tuple[Training, Row]]]:
        """Train to the last step; yield after each step a list of (member, Row), empty if not evaluated.

        The caller may leave the loop at any yield and iterate again later.
        """
        first = self.members[0]
        if self.step == 0 and not first.rows:
            yield self._measure()
        while self.step < first.last_step and len(self.diverged) < len(self.members):
            self._train_step()
            yield self._measure() if self.step in first.evaluated else []

    def _train_step(self) -> None:
        first = self.members[0]
        epoch, position = divmod(self.step, len(first.spans))
        if epoch != self._epoch:
            for m in self.members:
                m.begin_epoch(epoch)
            self._orders = torch.stack([m.order for m in self._everywhere], dim=1)
            self._epoch = epoch
        set_rate(self._optimizer, learning_rate(self._recipe, self.step, first.last_step))
        if not self._in_training:
            self._suffix.train()
            for m in self.members:
                set_training(m.parts, self._recipe.frozen_batchnorm)
            self._in_training = True
        self._steps.take(self._compute_step, self._orders[first.spans[position]])
        self.step += 1

    def _compute_step(self, positions: Tensor) -> None:
        """Take a step on the images at `positions`: (images, places). Must not read device values."""
        with precision(self._recipe, self._device):
            logits = self._suffix(self._inputs(positions))
            here = on_device(positions, self._device)
            labels = self._labels.gather(0, here)
            losses = losses_of(logits.flatten(0, 1), labels.flatten(), self._recipe.loss)
            means = losses.unflatten(0, labels.shape).mean(0)
        self._optimizer.zero_grad(set_to_none=True)
        means.sum().backward()
        self._penalty.add_gradient()
        self._optimizer.step()
        self._finite &= torch.isfinite(means.detach())

    def _inputs(self, positions: Tensor) -> Tensor:
        if self._features is not None:
            return _joined(on_device(self._features[self._places, positions], self._device))
        made = {
            place: m.inputs.of_training(positions[:, place], m.augment)
            for place, m in self._in_place.items()
        }
        empty = next(iter(made.values()))
        return joined([made.get(place, empty) for place in range(self.num_places)])

    def _features_of(self, everywhere: Sequence[Training]) -> Tensor | None:
        """Return the features of the training images: (places, images, …)."""
        features = [m.inputs.train_features for m in everywhere]
        first = features[0]
        if first is None:
            return None
        held = room(self.num_places * len(first), first)
        held = held.unflatten(0, (self.num_places, len(first)))
        for place, own in enumerate(features):
            assert own is not None
            held[place].copy_(own)
        return held

    def _measure(self) -> list[tuple[Training, Row]]:
        self._in_training = False
        self._copy_weights()
        rows = []
        for m in self.members:
            if m.run.id in self.diverged:
                continue
            try:
                rows.append((m, m.measure()))
            except Diverged as diverged:
                self.diverged[m.run.id] = diverged.step
                m.finite.fill_(False)  # a member restored from this state diverges again
        return rows

    def copy_back(self) -> None:
        """Copy weights, BatchNorm statistics and optimizer state from each place to its member."""
        self._copy_weights()
        for wide, own in self._pairs:
            state = self._optimizer.state.get(wide, {})
            for place, m in self._in_place.items():
                if state:
                    m.optimizer.state[own[place]] = {
                        key: None
                        if value is None
                        else _of_place(value, place, self.num_places, like=wide).contiguous()
                        for key, value in state.items()
                    }

    def _copy_weights(self) -> None:
        with torch.no_grad():
            for place, m in self._in_place.items():
                m.step = self.step
                for wide, each in self._pairs:
                    own = each[place]
                    own.copy_(_of_place(wide, place, self.num_places, like=own))


def _tensors(suffix: nn.Sequential) -> list[Tensor]:
    return [*suffix.parameters(), *suffix.buffers()]


def _fill(wide: Tensor, values: Sequence[Tensor]) -> None:
    wide.copy_(values[0] if values[0].ndim == 0 else torch.cat(list(values)))


def _joined_states(states: Sequence[dict[str, Any]], *, like: Tensor) -> dict[str, Tensor | None]:
    made: dict[str, Tensor | None] = {}
    for key, first in states[0].items():
        if first is None or first.ndim == 0:  # the number of steps
            made[key] = None if first is None else first.clone()
        else:
            made[key] = values = torch.empty_like(like)
            _fill(values, [state[key] for state in states])
    return made


def _of_place(wide: Tensor, place: int, num_places: int, *, like: Tensor) -> Tensor:
    return wide if like.ndim == 0 or wide.ndim == 0 else wide.unflatten(0, (num_places, -1))[place]
