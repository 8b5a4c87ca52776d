"""Train Runs that differ only in the seed as one network: grouped convolutions, one step for all.

A seed's place in the network is fixed, and no value of one place reaches another. So a Run's bits do not
depend on which other seeds are trained beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
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
from study.training.cuda_graphs import Steps, capture_on, not_captured_on
from study.training.cut import set_evaluation, set_training
from study.training.evaluation import losses_of
from study.training.features import CHUNK, room
from study.training.loop import Diverged, StartPenalty, Training, optimizer_for, set_rate
from study.training.preprocessing import on_device, precision
from study.training.steps import batch_spans, learning_rate

Module = TypeVar("Module", bound=nn.Module)


class WideLinear(nn.Module):
    """The linear maps of several networks: (n, networks · inputs) to (n, networks, outputs)."""

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


# Modules without values of their own that treat every channel alike.
_CHANNELWISE: Final = (
    *(nn.Sequential, BasicBlock, Bottleneck, Head, SelectAdaptivePool2d, nn.Flatten),
    *(nn.ReLU, nn.Identity, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d),
)


def widened(suffix: nn.Sequential, networks: int) -> nn.Sequential:
    """Return the trained layers of this many networks as one, with arbitrary values.

    `joined` inputs go to logits (n, networks, classes). Each parameter and buffer has the values of all
    networks, one after another along its first dimension. Raises ValueError, with the name, for a module
    that may compute across channels in another way.
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
    """Raise ValueError unless seeds of this timm network can be trained as one network at this cut."""
    layers = build(model, None, 2, image_shape(outline(model)))
    suffix, (_, head) = layers[frozen:], part_head(layers, model)
    widened(nn.Sequential(head) if len(suffix) == 1 else suffix, 2)


def _wide(module: Module, networks: int, *numbers: str) -> Module:
    """Return a convolution or BatchNorm of all networks; `numbers`: its attributes that count channels."""
    made = copy.deepcopy(module)
    for name in numbers:
        setattr(made, name, networks * getattr(module, name))
    for name, parameter in module.named_parameters():
        setattr(made, name, nn.Parameter(torch.cat([parameter.detach()] * networks)))
    for name, buffer in module.named_buffers():
        if buffer.ndim:  # not the number of batches
            setattr(made, name, torch.cat([buffer] * networks))
    return made


def _channels_at_end(inputs: Tensor) -> Tensor:
    """Return maps, (n, c, h, w), as (n, h, w, c); tokens, (n, t, c), and vectors, (n, c), as they are."""
    return inputs.movedim(1, -1) if inputs.ndim == 4 else inputs


def _as_inputs(values: Tensor) -> Tensor:
    """Return (n, …, networks, c) as (n, networks · c, h, w), or as (n, …, networks · c)."""
    flat = values.flatten(-2)
    return flat.movedim(-1, 1) if flat.ndim == 4 else flat


def joined(inputs: Sequence[Tensor]) -> Tensor:
    """Join the inputs of several networks, one after another along the channels, for `widened`."""
    return _as_inputs(torch.stack([_channels_at_end(each) for each in inputs], dim=-2))


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
        """Train to the end; yield after each step its Row, if one is measured."""
        try:
            for row in self._training:
                yield [] if row is None else [(self._training, row)]
        except Diverged as diverged:
            self.diverged[self._training.run.id] = diverged.step

    def copy_back(self) -> None:
        """Do nothing: the Run has its own weights."""


def together(members: Sequence[Training]) -> Stack | Alone:
    """Return what trains these Runs of one block, which are at the same step."""
    if members[0].run.recipe.seeds_together > 1:
        return Stack(members)
    assert len(members) == 1, [m.run.id for m in members]
    return Alone(members[0])


class Stack:
    """Runs of one block (`Run.block`) in training, all at the same step.

    A place in the block without a member computes a copy of the first member, and its results are
    dropped. `members`: as they start or as they were restored; after `copy_back` each has its own weights
    and optimizer state again. `diverged`: the last sound step of members whose loss was not finite.
    """

    def __init__(self, members: Sequence[Training]) -> None:
        first = members[0]
        run = first.run
        self.members = list(members)
        self.num_places = networks = run.recipe.seeds_together
        self.diverged: dict[str, int] = {}
        self.step = first.step
        assert all((m.step, len(m.rows)) == (self.step, len(first.rows)) for m in members)
        self._place = {m.run.id: m.run.seed % networks for m in members}
        by_place = {self._place[m.run.id]: m for m in members}
        assert len(by_place) == len(members), "two members in one place"
        self._at = [by_place.get(place, first) for place in range(networks)]
        self._device, self._recipe = first.device, run.recipe

        self._suffix = widened(first.parts.suffix, networks)
        self._tensors = dict([*self._suffix.named_parameters(), *self._suffix.named_buffers()])
        with torch.no_grad():
            for name, wide in self._tensors.items():
                _fill(wide, [_tensors(m)[name] for m in self._at])
        self._optimizer = optimizer_for(self._recipe, self._suffix)
        self._penalty = self._start_penalty()
        self._take_optimizer_states()

        self._labels = torch.stack([m.labels for m in self._at], dim=1)  # (images, places)
        self._finite = torch.stack([m.finite for m in self._at])
        for m in members:
            m.finite = self._finite[self._place[m.run.id]]
        self._train_features, self._test_features = self._joined_features()
        self._places = torch.arange(networks, device=first.inputs.place)
        is_possible = first.inputs.place.type == self._device.type
        capture = capture_on(self._device, is_possible=is_possible)
        reason = not_captured_on(self._device, is_possible=is_possible)
        self._steps = Steps(first.spans[0].stop, capture, reason)
        self._epoch = -1
        self._orders = torch.empty(0)
        self._in_training = False

    @property
    def not_captured(self) -> str:
        """Return `Training.not_captured` of the steps that are taken together."""
        return self._steps.not_captured

    def __iter__(self) -> Iterator[list[tuple[Training, Row]]]:
        """Train to the end; yield after each step the Rows measured, with their members.

        The loop may be left at any yield and continued later.
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
            self._orders = torch.stack([m.order for m in self._at], dim=1)
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
        """Take a step on the images at `positions`: (images, places). Must not read from the device."""
        with precision(self._recipe, self._device):
            logits = self._suffix(self._of_training(positions))
            here = on_device(positions, self._device)
            labels = self._labels.gather(0, here)
            losses = losses_of(logits.flatten(0, 1), labels.flatten(), self._recipe.loss)
            means = losses.unflatten(0, labels.shape).mean(0)
        self._optimizer.zero_grad(set_to_none=True)
        means.sum().backward()
        self._penalty.add_gradient()
        self._optimizer.step()
        self._finite &= torch.isfinite(means.detach())

    def _of_training(self, positions: Tensor) -> Tensor:
        if self._train_features is None:
            return self._joined(
                lambda m: m.inputs.of_training(positions[:, self._place[m.run.id]], m.augment)
            )
        picked = self._train_features[self._places, positions]
        return _as_inputs(on_device(picked, self._device).movedim(1, -2))

    def _of_test(self, span: slice) -> Tensor:
        if self._test_features is None:
            return self._joined(lambda m: m.inputs.of_test(span))
        return _as_inputs(on_device(self._test_features[span], self._device))

    def _joined(self, inputs: Callable[[Training], Tensor]) -> Tensor:
        made = {m.run.id: inputs(m) for m in self.members}
        return joined([made[m.run.id] for m in self._at])

    def _joined_features(self) -> tuple[Tensor | None, Tensor | None]:
        """Move the members' features to two tensors, with the channels at the end.

        Training images: (places, images, …, c), of which members keep views. Test images:
        (images, …, places, c).
        """
        inputs = self.members[0].inputs
        if inputs.train_features is None or inputs.test_features is None:
            return None, None
        some = _channels_at_end(inputs.train_features[:1])[0]  # (…, c)
        num_places, num_train = self.num_places, len(inputs.train_features)
        num_test = self.members[0].evaluator.num_test
        train = room(num_places * num_train, some[None]).unflatten(0, (num_places, num_train))
        test = room(num_test, some.unsqueeze(-2).expand(*some.shape[:-1], num_places, -1)[None])
        for place, m in enumerate(self._at):
            assert m.inputs.train_features is not None and m.inputs.test_features is not None
            train[place] = _channels_at_end(m.inputs.train_features)
            for span in batch_spans(num_test, CHUNK):
                test[span].select(-2, place).copy_(_channels_at_end(m.inputs.test_features[span]))
        for m in self.members:
            own = train[self._place[m.run.id]]
            m.inputs.train_features = own.movedim(-1, 1) if own.ndim == 4 else own
            m.inputs.test_features = None
        return train, test

    def _measure(self) -> list[tuple[Training, Row]]:
        self._suffix.eval()
        self._in_training = False
        for m in self.members:
            set_evaluation(m.parts)
        first, rows = self.members[0], []
        with precision(self._recipe, self._device):
            train, test = first.evaluator.logits(
                self._suffix,
                lambda span: self._joined(lambda m: m.inputs.of_training(span)),
                self._of_test,
                [*first.inputs.prefix, *first.parts.suffix],
                first.inputs.image_shape,
                seeds_together=self.num_places,
            )
            for m in self.members:
                if m.run.id in self.diverged:
                    continue
                place = self._place[m.run.id]
                judged = m.evaluator.judge(
                    train[:, place].contiguous(), test[:, place].contiguous()
                )
                m.step = self.step
                try:
                    rows.append((m, m.record(*judged)))
                except Diverged as diverged:
                    self.diverged[m.run.id] = diverged.step
                    m.finite.fill_(False)  # so that a restored member diverges again
        return rows

    def copy_back(self) -> None:
        """Copy weights, statistics and optimizer state of each place to its member."""
        with torch.no_grad():
            for m in self.members:
                m.step, place, own = self.step, self._place[m.run.id], _tensors(m)
                for name, wide in self._tensors.items():
                    value = _of_place(wide, place, self.num_places, like=own[name])
                    own[name].copy_(value)
                    if state := self._optimizer.state.get(wide):
                        m.optimizer.state[own[name]] = {
                            key: None
                            if each is None
                            else _of_place(each, place, self.num_places, like=wide).contiguous()
                            for key, each in state.items()
                        }

    def _start_penalty(self) -> StartPenalty:
        # Restored members have moved away from their start.
        start = {
            name: torch.cat([m.penalty.start[name] for m in self._at])
            for name in self.members[0].penalty.start
        }
        return StartPenalty(self._recipe.l2_start, self._suffix, start)

    def _take_optimizer_states(self) -> None:
        for name, wide in self._suffix.named_parameters():
            states: list[dict[str, Any]] = [
                m.optimizer.state.get(_tensors(m)[name], {}) for m in self._at
            ]
            if not states[0]:
                continue  # no step yet
            self._optimizer.state[wide] = made = {}
            for key, first in states[0].items():
                if first is None or first.ndim == 0:  # the number of steps
                    made[key] = None if first is None else first.clone()
                else:
                    values = torch.empty_like(wide)
                    _fill(values, [state[key] for state in states])
                    made[key] = values


def _tensors(member: Training) -> dict[str, Tensor]:
    suffix = member.parts.suffix
    return dict([*suffix.named_parameters(), *suffix.named_buffers()])


def _fill(wide: Tensor, values: Sequence[Tensor]) -> None:
    """Set the values of all places; a number is the same for all of them."""
    wide.copy_(values[0] if values[0].ndim == 0 else torch.cat(list(values)))


def _of_place(wide: Tensor, place: int, num_places: int, *, like: Tensor) -> Tensor:
    return wide if like.ndim == 0 or wide.ndim == 0 else wide.unflatten(0, (num_places, -1))[place]
