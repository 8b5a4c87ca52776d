"""CUDA graphs, as far as a CPU can test them: captured steps, failed captures, and no waits in a step."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from study.networks.build import network
from study.networks.families import layers_of
from study.run import Recipe, Run
from study.store import Store
from study.tasks.draws import TrainingSet
from study.training import cuda_graphs, loop
from study.training.cuda_graphs import NUM_WARM, Replay, Steps, capture_on
from study.training.loop import Training
from tests.trainings import outcome, to_the_end, training_of

CUDA = torch.device("cuda")


class Recorder:
    """Stands in for a CUDA graph: capturing does not run the step, each replay does."""

    def __init__(self) -> None:
        self.num_captured = self.num_replayed = 0

    def __call__(self, step: Replay) -> Replay:
        self.num_captured += 1

        def replay() -> None:
            self.num_replayed += 1
            step()

        return replay


def test_steps_capture_one_length_once_after_warming_up() -> None:
    taken: list[list[int]] = []
    recorder = Recorder()
    steps = Steps(2, recorder)

    def compute(positions: Tensor) -> None:
        taken.append(positions.tolist())

    wanted = [[i, i + 1] if i % 3 else [i] for i in range(12)]
    for each in wanted:
        steps.take(compute, torch.tensor(each))
    assert taken == wanted
    assert recorder.num_captured == 1
    assert recorder.num_replayed == 8 - NUM_WARM
    steps.forget()
    for each in wanted:
        steps.take(compute, torch.tensor(each))
    assert taken == wanted * 2
    assert recorder.num_captured == 2
    assert recorder.num_replayed == 2 * (8 - NUM_WARM)


def test_steps_failed_capture_runs_all_steps_and_warns_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cuda_graphs._say_once.cache_clear()
    taken: list[int] = []
    num_tries = 0

    def refuse(step: Replay) -> Replay:
        nonlocal num_tries
        num_tries += 1
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    for _ in range(2):
        steps = Steps(1, refuse)
        for number in range(10):
            steps.take(lambda positions: taken.append(int(positions)), torch.tensor([number]))
    assert taken == [*range(10)] * 2
    assert num_tries == 2
    said = capsys.readouterr().err
    assert said.count("are not captured") == 1
    assert "not permitted" in said and "and more" not in said


def test_capture_on_needs_a_gpu_and_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(cuda_graphs.SWITCH, raising=False)
    assert capture_on(torch.device("cpu")) is None
    assert capture_on(CUDA) is cuda_graphs.cuda_graph
    assert capture_on(CUDA, is_possible=False) is None, "features are the host's"
    monkeypatch.setenv(cuda_graphs.SWITCH, "0")
    assert capture_on(CUDA) is None


RECIPE = Recipe(num_epochs=4, batch_size=20, learning_rate=1e-2)
RUN = Run(
    task="digits-low", size=90, label_noise=0.2, model="resnet18", width=2, recipe=RECIPE, seed=1
)
OTHER = {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "augmentation": "crop_flip"}


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["adam", "sgd-cosine-augmented"])
def test_training_captured_steps_give_the_same_outcome(
    store: Store, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    run = dataclasses.replace(RUN, recipe=dataclasses.replace(RECIPE, **changes))
    plain = to_the_end(training_of(run, store))
    recorder = Recorder()
    monkeypatch.setattr(loop, "capture_on", lambda *_, **__: recorder)
    training = training_of(run, store)
    places: set[tuple[int, ...]] = set()
    for _ in training:
        drawn = training.augment
        if drawn is not None:
            places.add(tuple(each.data_ptr() for each in (drawn.top, drawn.left, drawn.mirror)))
    # Five batches an epoch, of which the last has ten images.
    assert (recorder.num_captured, recorder.num_replayed) == (1, 4 * 4 - NUM_WARM)
    assert len(places) == bool(changes.get("augmentation")), "a captured step would read old ones"
    assert outcome(training) == outcome(plain)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("keep", [False, True], ids=["rows", "predictions-too"])
@pytest.mark.parametrize(
    "changes",
    [{}, OTHER, {"optimizer": "adamw", "precision": "bfloat16", "schedule": "cosine"}],
    ids=["adam", "sgd-cosine-augmented", "adamw-bfloat16"],
)
def test_training_on_a_gpu_waits_for_the_device_once_per_row(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], keep: bool
) -> None:
    # Tensors without values, on a device that does not exist: reading a value, or mixing host and
    # device, is an error.
    recipe = dataclasses.replace(RECIPE, **changes)
    run = dataclasses.replace(RUN, size=30, recipe=recipe)
    copied: list[int] = []
    updated: list[int] = []

    def tolist(values: Tensor) -> list[float]:
        assert values.device == torch.device("cuda", 0)
        copied.append(len(values))
        return [0.5] * len(values)

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad and loss.device.type == "cuda"
        for parameter in training.parts.suffix.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def update(*given: list[Tensor], lr: Tensor, **_: Any) -> None:
        everything = [lr, *(each for tensors in given for each in tensors)]
        assert {each.device.type for each in everything} == {"cuda"}
        updated.append(len(given[0]))

    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    # torch's own backward pass and fused updates need a real GPU.
    monkeypatch.setattr(Tensor, "backward", backward)
    for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_"):
        monkeypatch.setattr(torch, name, update)
    with FakeTensorMode():
        torch.set_default_device("cuda")
        layers = layers_of(network("resnet18", 2, 5, (3, 8, 8)))
        torch.set_default_device(None)
        monkeypatch.setattr(layers, "to", lambda device: layers)
        training = Training(
            run,
            layers,
            TrainingSet(
                indices=np.arange(30),
                clean_labels=np.arange(30) % 5,
                labels=np.arange(30) % 5,
                flipped=np.arange(30) < 6,
            ),
            np.zeros((30, 3, 8, 8), np.uint8),
            np.zeros((40, 3, 8, 8), np.uint8),
            np.arange(40) % 5,
            device=CUDA,
            keep_predictions=keep,
        )
        assert training._steps._capture is cuda_graphs.cuda_graph
        training._steps._capture = None
        monkeypatch.setattr(FakeTensor, "tolist", tolist)
        training._measure()
        for _ in range(4):
            training._train_step()
        training._measure()
    assert copied == [9, 9]
    assert updated == [len(list(layers.parameters()))] * 4
