"""Train one Run step by step in plain PyTorch; a saved state restores the training bit for bit.

Must not import Ray or access files; the caller saves the state.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from study.networks.catalogue import last_piece_channels, num_channels, num_pieces
from study.run import Recipe, Run
from study.seeds import permutation
from study.store.schema import Row, Sizes
from study.tasks.draws import TrainingSet
from study.training.cuda_graphs import Steps, capture_on, not_captured_on
from study.training.cut import cut, set_evaluation, set_training
from study.training.evaluation import Evaluator, losses_of
from study.training.inputs import Inputs
from study.training.preprocessing import (
    CropsAndFlips,
    crops_and_flips,
    layout,
    on_device,
    precision,
    set_precision,
)
from study.training.steps import batch_spans, evaluated_steps, learning_rate, total_steps

_PLAIN: Final = "plain"  # key in a state: step, rows and other plain values, as JSON

PREDICTED: Final = "predicted"  # key in a state: the predictions, if `keep_predictions`


class Diverged(Exception):
    """A loss was not finite; `step` is the last evaluated step with finite losses."""

    def __init__(self, step: int) -> None:
        super().__init__(f"the loss was not finite after step {step}")
        self.step = step


class Training:
    """One Run in training. It begins at step 0; `restore` moves it to the step of a saved state.

    `layers`: the network before training (`starting_network`), on the CPU. `train_images`: the images of
    `drawn`; `test_images`: the task's; both uint8, shape (n, c, h, w). `cached`, `shared_features`: see
    `Inputs`. `keep_predictions`: keep the predicted test labels of each evaluation in memory and in
    `state`: 40 MB for 4,000 evaluations on 10,000 images, twice that for more than 256 classes.
    """

    def __init__(
        self,
        run: Run,
        layers: nn.Sequential,
        drawn: TrainingSet,
        train_images: np.ndarray,
        test_images: np.ndarray,
        test_labels: np.ndarray,
        *,
        device: torch.device,
        cached: bool = True,
        shared_features: Path | None = None,
        keep_predictions: bool = False,
    ) -> None:
        recipe = run.recipe
        assert len(train_images) == len(drawn.labels) == run.size, run.id
        self.run = run
        self.layers = layers.to(device)
        if layout(recipe, device) == torch.channels_last:
            self.layers.to(memory_format=torch.channels_last)
        self.device = device
        self.step = 0
        self.rows: list[Row] = []
        self.keep_predictions = keep_predictions
        self._predicted: Tensor | None = None  # allocated for all evaluations at the first one
        self.last_step = total_steps(recipe, run.size)
        self._seconds_before = 0.0
        self._began = time.perf_counter()
        self.finite = torch.ones((), dtype=torch.bool, device=device)
        self._sound_step = 0
        self.spans = batch_spans(run.size, recipe.batch_size)
        self.evaluated = set(evaluated_steps(recipe, run.size))
        self._in_training = False
        self._epoch = -1  # the epoch for which `order` and `augment` were drawn
        self.order = torch.empty(0)
        self.augment: CropsAndFlips | None = None

        self.parts = cut(self.layers, run)
        set_precision(recipe)
        self.labels = torch.from_numpy(drawn.labels).to(device)
        cut_at = (run.frozen, run.frozen_pieces, run.trained_channels)
        images_are = (test_images.shape[1:], recipe.precision, str(device))
        form = (run.model, run.width, *cut_at, *images_are)
        self.evaluator = Evaluator(drawn, test_labels, device, form, recipe.loss)
        self.optimizer = optimizer_for(recipe, self.parts.suffix)
        self.penalty = StartPenalty(recipe.l2_start, self.parts.suffix)
        self.inputs = Inputs(
            run,
            self.parts,
            train_images,
            test_images,
            device=device,
            cached=cached,
            shared=shared_features,
        )
        self._steps = self.new_steps()

    def new_steps(self) -> Steps:
        """Return a new `Steps` for this Run, with CUDA graphs if possible."""
        is_possible = self.inputs.place.type == self.device.type
        capture = capture_on(self.device, is_possible=is_possible)
        reason = not_captured_on(self.device, is_possible=is_possible)
        return Steps(self.spans[0].stop, capture, reason)

    @property
    def not_captured(self) -> str:
        """Return why GPU steps are not captured as a CUDA graph; else ""."""
        return self._steps.not_captured

    def at_cut(self) -> Tensor | None:
        """Return `Inputs.at_cut` of the training images."""
        return self.inputs.at_cut()

    def sizes(self, num_classes: int) -> Sizes:
        total, trained = (
            sum(p.numel() for p in module.parameters())
            for module in (self.layers, self.parts.suffix)
        )
        return Sizes(
            num_layers=len(self.layers),
            num_classes=num_classes,
            parameters_total=total,
            parameters_trained=trained,
            num_channels=num_channels(self.run.model, self.run.width),
            num_pieces=num_pieces(self.run.model, self.run.frozen),
            last_piece_channels=last_piece_channels(self.run.model, self.run.width),
            num_test=self.evaluator.num_test,
        )

    def __iter__(self) -> Iterator[Row | None]:
        """Train to the last step; yield a Row after each evaluated step, None after any other step.

        The caller may stop at any yield and iterate again. Raises Diverged; `rows` has the earlier rows.
        """
        if self.step == 0 and not self.rows:
            yield self.measure()
        while self.step < self.last_step:
            self._train_step()
            yield self.measure() if self.step in self.evaluated else None

    def _train_step(self) -> None:
        recipe = self.run.recipe
        epoch, position = divmod(self.step, len(self.spans))
        if epoch != self._epoch:
            self.begin_epoch(epoch)
        set_rate(self.optimizer, learning_rate(recipe, self.step, self.last_step))
        if not self._in_training:
            set_training(self.parts, recipe.frozen_batchnorm)
            self._in_training = True
        self._steps.take(self._compute_step, self.order[self.spans[position]])
        self.step += 1

    def _compute_step(self, positions: Tensor) -> None:
        # Must not read a value from the device: a CUDA graph cannot capture that.
        with precision(self.run.recipe, self.device):
            inputs = self.inputs.of_training(positions, self.augment)
            labels = self.labels[on_device(positions, self.device)]
            logits = self.parts.suffix(inputs)
            if (
                self.run.recipe.loss == "cross_entropy"
            ):  # one operation less than a mean of `losses_of`
                loss = nn.functional.cross_entropy(logits, labels)
            else:
                loss = losses_of(logits, labels, self.run.recipe.loss).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.penalty.add_gradient()
        self.optimizer.step()
        # The flag stays on the device; reading it at every step would block the host.
        self.finite &= torch.isfinite(loss.detach())

    def begin_epoch(self, epoch: int) -> None:
        """Draw the epoch's order of images and augmentation."""
        run = self.run
        names = (run.task, run.part, run.size, run.seed, epoch)
        order = torch.from_numpy(permutation(run.size, "order", *names))
        self.order = on_device(order, self.inputs.place)
        if run.recipe.augmentation == "crop_flip":
            height = self.inputs.train_images.shape[-2]
            drawn = crops_and_flips(run.size, height, self.device, *names)
            if self.augment is None:
                self.augment = drawn
            else:
                self.augment.take(drawn)
        self._epoch = epoch

    def measure(self) -> Row:
        """Evaluate the network; return the Row and add it to `rows`. Raises Diverged."""
        set_evaluation(self.parts)
        self._in_training = False
        with precision(self.run.recipe, self.device):
            values, predicted = self.evaluator(self.parts.suffix, self.inputs)
        if self.keep_predictions:
            self._keep(predicted)
        # The host waits for the device only here.
        *numbers, finite = torch.cat([values, self.finite[None].double()]).tolist()
        measured = self.evaluator.measured(numbers)
        if not (finite and all(math.isfinite(loss) for loss in measured.losses)):
            raise Diverged(self._sound_step)
        self._sound_step = self.step
        row = Row(
            epoch=self.step / len(self.spans),
            step=self.step,
            **vars(measured),
            learning_rate=learning_rate(self.run.recipe, max(self.step - 1, 0), self.last_step),
            wall_seconds=self.seconds(),
        )
        self.rows.append(row)
        return row

    def _keep(self, predicted: Tensor) -> None:
        if self._predicted is None:
            self._predicted = self._room_for(predicted)
        self._predicted[len(self.rows)].copy_(predicted, non_blocking=True)

    def _room_for(self, predicted: Tensor) -> Tensor:
        shape = (len(self.evaluated), len(predicted))
        return torch.empty(shape, dtype=predicted.dtype, pin_memory=self.device.type == "cuda")

    def predictions(self) -> Tensor:
        """Return the predicted test labels by row: (rows, test images), uint8 or int16, on the CPU."""
        assert self._predicted is not None, "no evaluation has been kept"
        return self._predicted[: len(self.rows)]

    def probabilities(self) -> Tensor:
        """Return 255 × the class probabilities, rounded: (test images, classes), uint8, on the CPU.

        Evaluates the present weights; the Run must be trained by cross-entropy.
        """
        set_evaluation(self.parts)
        self._in_training = False
        with precision(self.run.recipe, self.device):
            return self.evaluator.probabilities(self.parts.suffix, self.inputs).cpu()

    def seconds(self) -> float:
        """Return the seconds spent on this Run, including the time before an interruption."""
        return self._seconds_before + time.perf_counter() - self._began

    def weights(self) -> dict[str, Tensor]:
        """Return all parameters and buffers by "<layer>.<name>", on the CPU."""
        self.parts.links.copy_back()
        return {key: value.cpu().contiguous() for key, value in self.layers.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """Return everything that `restore` needs: tensors by name; they may share the Run's memory.

        Named random streams draw order and augmentation again.
        """
        names = [name for name, _ in self.parts.suffix.named_parameters()]
        tensors = {f"weights.{key}": value for key, value in self.weights().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer.{names[index]}/{key}": value.cpu().contiguous()
                for key, value in values.items()
                if value is not None
            }
        plain = {
            "run": self.run.id,
            "step": self.step,
            "sound_step": self._sound_step,
            "finite": bool(self.finite),
            "wall_seconds": self.seconds(),
            "rows": [asdict(row) for row in self.rows],
        }
        tensors[_PLAIN] = torch.tensor(list(json.dumps(plain).encode()), dtype=torch.uint8)
        if self._predicted is not None:
            tensors[PREDICTED] = self.predictions()
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the training from a result of `state`, in any process on the same kind of CPU."""
        values = json.loads(bytes(tensors[_PLAIN].tolist()))
        assert values["run"] == self.run.id, (values["run"], self.run.id)
        weights = {
            key.removeprefix("weights."): value
            for key, value in tensors.items()
            if key.startswith("weights.")
        }
        self.layers.load_state_dict(weights, strict=True)
        self.parts.links.take_again()
        parameters = dict(self.parts.suffix.named_parameters())
        index = {name: i for i, name in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                name, field = key.removeprefix("optimizer.").rsplit("/", 1)
                if value.shape == parameters[name].shape:  # a fused update needs equal layouts
                    value = torch.empty_like(parameters[name], dtype=value.dtype).copy_(value)
                state.setdefault(index[name], {})[field] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self._steps.forget()
        self.step, self._sound_step = values["step"], values["sound_step"]
        self.finite.fill_(values["finite"])
        self.rows = [Row(**row) for row in values["rows"]]
        if self.keep_predictions:
            kept = tensors[PREDICTED]
            self._predicted = self._room_for(kept[0])
            self._predicted[: len(kept)] = kept
        self._seconds_before, self._began = values["wall_seconds"], time.perf_counter()


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate, also of captured steps."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class StartPenalty:
    """The penalty λ/2 · Σ(θ − θ₀)² on the parameters of `suffix`.

    `strength`: λ, `Recipe.l2_start`. `start`: θ₀ by parameter name; by default the current values.
    """

    def __init__(
        self, strength: float, suffix: nn.Module, start: Mapping[str, Tensor] | None = None
    ) -> None:
        self._strength = strength
        self._parameters = dict(suffix.named_parameters()) if strength else {}
        self.start = start or {k: p.detach().clone() for k, p in self._parameters.items()}

    def add_gradient(self) -> None:
        """Add λ (θ − θ₀) to each parameter's gradient."""
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None, name
            parameter.grad.add_(parameter.detach() - self.start[name], alpha=self._strength)


_FUSED: Final = ("cpu", "cuda")


def optimizer_for(recipe: Recipe, suffix: nn.Sequential) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for the parameters of the trained layers."""
    parameters = list(suffix.parameters())
    device, decay = parameters[0].device, recipe.weight_decay
    fused = device.type in _FUSED
    on_cuda = device.type == "cuda"
    rate = recipe.learning_rate
    if recipe.optimizer == "sgd":
        kind: Callable[..., torch.optim.Optimizer] = partial(
            torch.optim.SGD, momentum=recipe.momentum
        )
    else:
        adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
        kind = partial(adam, capturable=on_cuda)
    optimizer = kind(parameters, lr=rate, weight_decay=decay, fused=fused)
    if on_cuda:
        for group in optimizer.param_groups:
            # A tensor, because a captured step would keep a plain number as a constant.
            group["lr"] = torch.full((), rate, device=device)
    return optimizer
