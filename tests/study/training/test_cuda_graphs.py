"""Training on a GPU, as far as a CPU can test it: fake CUDA tensors, device "meta", counted operations,
and stand-ins for graphs of torch. None of these tests was run on a GPU."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from study.networks.build import build, network
from study.networks.families import layers_of
from study.networks.initial_values import initialise
from study.run import Run
from study.store import Store
from study.tasks.draws import TrainingSet
from study.training import cuda_graphs, evaluation, features, loop
from study.training.cuda_graphs import NUM_WARM, Replay, Steps, cuda_graph
from study.training.cut import cut
from study.training.evaluation import MOST_ON_GPU, images_on_gpu
from study.training.loop import Training
from study.training.preprocessing import CHANNELS_LAST, layout
from tests.trainings import WIDTHS, cell, changed, outcome, resumed, source, to_the_end, training_of

CPU, CUDA, META = map(torch.device, ("cpu", "cuda", "meta"))


class Recorder:
    """In place of a CUDA graph: a step is recorded without being taken, and taken at each replay."""

    def __init__(self) -> None:
        self.num_captured = self.num_replayed = 0

    def __call__(self, step: Replay) -> Replay:
        self.num_captured += 1

        def replay() -> None:
            self.num_replayed += 1
            step()

        return replay


class Graphs:
    """Stand-in for `torch.cuda`'s streams and graphs; `fails`: ending a capture raises.

    As torch does, a failed end leaves the stream of the capture as the current one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: bool = False) -> None:
        self.current, self.fails, self.num_replayed = "the worker's", fails, 0
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "set_stream", self._set_stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=self._replay))
        monkeypatch.setattr(torch.cuda, "graph", self._graph)

    def _set_stream(self, stream: str) -> None:
        self.current = stream

    def _replay(self) -> None:
        self.num_replayed += 1

    @contextmanager
    def _graph(self, graph: Any) -> Iterator[None]:
        before, self.current = self.current, "the capture's"
        yield
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        self.current = before


def test_steps_capture_one_length_after_warm_up_and_never_the_tail() -> None:
    taken: list[list[int]] = []
    recorder = Recorder()
    steps = Steps(2, recorder)

    def compute(positions: Tensor) -> None:
        taken.append(positions.tolist())

    wanted = [[i, i + 1] if i % 3 else [i] for i in range(12)]
    for times in (1, 2):
        for each in wanted:
            steps.take(compute, torch.tensor(each))
        assert taken == wanted * times
        assert recorder.num_captured == times
        assert recorder.num_replayed == times * (8 - NUM_WARM)
        steps.forget()


def test_capture_on_any_device_returns_the_reason_if_it_does_not_capture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    do_not_fit = "the features of the frozen layers do not fit in the GPU's memory"
    for switch, device, is_possible, expected in (
        ("1", CPU, True, (None, "")),
        ("1", CUDA, True, (cuda_graph, "")),
        ("1", CUDA, False, (None, do_not_fit)),
        ("0", CUDA, True, (None, "STUDY_CUDA_GRAPHS=0")),
    ):
        monkeypatch.setenv(cuda_graphs.SWITCH, switch)
        capture = cuda_graphs.capture_on(device, is_possible=is_possible)
        assert (capture, cuda_graphs.not_captured_on(device, is_possible=is_possible)) == expected


RUN = source(size=90, label_noise=0.2, width=2, num_epochs=4, batch_size=20)
OTHER = {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "augmentation": "crop_flip"}


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["adam", "sgd-cosine-augmented"])
def test_captured_steps_give_the_rows_and_weights_of_eager_steps(
    store: Store, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    run = changed(RUN, **changes)
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


def test_capture_that_cannot_be_ended_leaves_the_worker_as_if_it_was_not_tried(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = to_the_end(training_of(RUN, store))
    monkeypatch.setattr(loop, "capture_on", lambda *_, **__: _without_effects)
    graphs = Graphs(monkeypatch, fails=True)
    training = to_the_end(training_of(RUN, store))
    assert graphs.current == "the worker's"
    assert training.not_captured == "operation not permitted when stream is capturing"
    assert outcome(training) == outcome(plain)
    graphs.fails = False
    monkeypatch.setattr(loop, "capture_on", lambda *_, **__: cuda_graph)
    following = to_the_end(training_of(RUN, store))
    assert following.not_captured == ""
    assert graphs.num_replayed == 4 * 4 - NUM_WARM


def _without_effects(step: Replay) -> Replay:
    return cuda_graph(lambda: None)  # while a step is captured, a GPU does not compute it


def test_training_with_captured_steps_is_freed_without_garbage_collection(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Graphs(monkeypatch)
    monkeypatch.setattr(loop, "capture_on", lambda *_, **__: cuda_graph)
    training = to_the_end(training_of(RUN, store))
    assert training._steps._replay is not None
    reference = weakref.ref(training)
    gc.disable()
    try:
        del training
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("model", ["resnet18", "densenet121"])
def test_training_in_channels_last_resumes_to_the_same_bits(
    store: Store, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(loop, "layout", lambda *_: torch.channels_last)
    run = replace(RUN, model=model, size=40)
    whole = to_the_end(training_of(run, store))
    assert not all(each.is_contiguous() for each in whole.parts.suffix.parameters())
    assert outcome(to_the_end(resumed(run, store, None, at=5))) == outcome(whole)


def test_layout_is_channels_last_on_a_gpu_in_reduced_precision_or_by_the_switch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(CHANNELS_LAST, raising=False)
    recipes = [replace(RUN.recipe, precision=p) for p in ("float32", "tf32", "bfloat16")]
    plain, last = torch.contiguous_format, torch.channels_last
    assert [layout(each, CPU) for each in recipes] == [plain] * 3
    assert [layout(each, CUDA) for each in recipes] == [plain, last, last]
    for switch, wanted in (("0", plain), ("1", last)):
        monkeypatch.setenv(CHANNELS_LAST, switch)
        assert [layout(each, CUDA) for each in recipes] == [wanted] * 3
        assert layout(recipes[2], CPU) == plain


GIB = 2**30


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "share", "expected"),
    [
        (70, 0, 0, 1.0, 70),
        (10, 60, 2, 1.0, 68),  # a finished Run's memory is in torch's cache
        (70, 15, 5, 0.25, 15),  # one of four workers of this GPU
    ],
)
def test_free_bytes_counts_the_cache_of_torch_and_the_share_of_this_process(
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    reserved: int,
    allocated: int,
    share: float,
    expected: int,
) -> None:
    for name, value in {
        "mem_get_info": (free * GIB, 80 * GIB),
        "memory_reserved": reserved * GIB,
        "memory_allocated": allocated * GIB,
        "get_per_process_memory_fraction": share,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    assert features.free_bytes(CUDA) == expected * GIB
    with FakeTensorMode():
        like = torch.empty(1, GIB // 4, device="cuda")
        assert features.room(expected // 2, like).device.type == "cuda"
        assert features.room(expected // 2 + 1, like).device.type == "cpu"


@pytest.mark.parametrize(
    ("model", "width", "frozen", "inside", "expected"),
    [
        ("resnet18", 4, 0, {}, MOST_ON_GPU),
        ("resnet18", 64, 0, {}, 512),
        ("resnet18", 64, 9, {"trained_channels": 4}, 512),
        ("densenet121", 8, 0, {}, 1638),
        ("densenet121", 8, 8, {"frozen_pieces": 1}, 1638),
        ("vit_tiny", 12, 13, {"trained_channels": 4}, MOST_ON_GPU),
    ],
)
def test_images_on_gpu_depend_on_free_memory_and_width(
    model: str, width: int, frozen: int, inside: dict[str, int], expected: int
) -> None:
    layers = build(model, width, 10, (3, 32, 32)).eval()
    parts = cut(layers, replace(RUN, model=model, width=width, frozen=frozen, **inside))
    both = [*parts.prefix, *parts.suffix]
    counts = [images_on_gpu(both, (3, 32, 32), free) for free in (0, 8 * GIB, 200 * GIB)]
    assert counts == [256, expected, MOST_ON_GPU]
    assert {each.device.type for each in layers.state_dict().values()} == {"cpu"}


class Operations(TorchDispatchMode):
    """Counts the operations that launch work on a GPU; `reads`: those that wait for a value."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    @property
    def reads(self) -> set[str]:
        return self.counts.keys() & {"_local_scalar_dense", "nonzero", "masked_select", "equal"}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name.partition("::")[2]
        launches = not func.is_view and func.namespace != "prim"
        # torch 2.15 makes more of `_unsafe_view`, which launches nothing either, than 2.14.
        if launches and name not in ("empty", "empty_like", "set_data", "_unsafe_view"):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Reads(list[int]):
    """In place of `Tensor.tolist`: has the number of values of each call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: type[Tensor], device: str) -> None:
        def tolist(values: Tensor) -> list[float]:
            assert values.device.type == device
            self.append(len(values))
            return [0.5] * len(values)

        monkeypatch.setattr(kind, "tolist", tolist)


# Operations of a step with nothing, half and all but the head frozen. What is beyond the network's own is
# the loop's: gathering images and labels, the loss, the optimiser, the check of the loss.
STEPS = {
    "resnet18": (182, 101, 27),
    "densenet121": (1_160, 560, 27),
    "vit_tiny": (403, 209, 30),
}
# An evaluation of two sets that take a batch each, on fake CUDA tensors.
EVALUATIONS = {
    "resnet18": (176, 102, 36),
    "densenet121": (920, 460, 36),
    "vit_tiny": (640, 330, 38),
}
CUTS = {"resnet18": (0, 5, 9), "densenet121": (0, 6, 11), "vit_tiny": (0, 7, 13)}


def training_on(
    device: torch.device, layers: torch.nn.Sequential, run: Run, *, keep: bool = False
) -> Training:
    """A training on images of zeros, 30 to train on and 40 to test on."""
    drawn = TrainingSet(
        indices=np.arange(run.size),
        clean_labels=np.arange(run.size) % 5,
        labels=np.arange(run.size) % 5,
        flipped=np.arange(run.size) < 6,
    )
    train, test = (np.zeros((num, 3, 8, 8), np.uint8) for num in (run.size, 40))
    tests = np.arange(40) % 5
    return Training(run, layers, drawn, train, test, tests, device=device, keep_predictions=keep)


few = partial(cell, size=30, num_epochs=2, batch_size=20)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize(
    ("model", "cut", "changes"),
    [
        *(("resnet18", cut, {}) for cut in range(3)),
        ("resnet18", 0, OTHER),
        ("resnet18", 0, {"optimizer": "adamw", "precision": "bfloat16", "schedule": "cosine"}),
        *(
            pytest.param(model, cut, {}, marks=pytest.mark.slow)
            for model in ("densenet121", "vit_tiny")
            for cut in range(3)
        ),
    ],
)
def test_on_a_gpu_a_step_reads_nothing_and_a_row_is_read_once(
    monkeypatch: pytest.MonkeyPatch, model: str, cut: int, changes: dict[str, Any]
) -> None:
    # Fake tensors have a device but no values: reading a value, or mixing devices, is an error.
    run = few(model, frozen=CUTS[model][cut], **changes)
    updated: list[int] = []

    def backward(loss: Tensor) -> None:
        assert loss.requires_grad and loss.device.type == "cuda"
        for parameter in training.parts.suffix.parameters():
            parameter.grad = torch.zeros_like(parameter)

    def update(*given: list[Tensor], lr: Tensor, **_: Any) -> None:
        everything = [lr, *(each for tensors in given for each in tensors)]
        assert {each.device.type for each in everything} == {"cuda"}
        updated.append(len(given[0]))

    monkeypatch.setattr(Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(features, "free_bytes", lambda _: GIB)
    monkeypatch.setattr(evaluation, "free_bytes", lambda _: GIB)
    monkeypatch.setattr(evaluation, "_at_once", {})
    # torch's own backward pass and fused updates need a real GPU.
    monkeypatch.setattr(Tensor, "backward", backward)
    for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_"):
        monkeypatch.setattr(torch, name, update)
    drop_path = "timm.models.vision_transformer.calculate_drop_path_rates"
    monkeypatch.setattr(drop_path, lambda _, depth: [0.0] * depth)  # it reads values
    mode = FakeTensorMode()
    mode.cache_enabled = False
    with mode:
        with CUDA:
            layers = layers_of(network(model, WIDTHS[model], 5, (3, 8, 8)))
        monkeypatch.setattr(layers, "to", lambda *_, **__: layers)
        training = training_on(CUDA, layers, run, keep=bool(changes))
        assert training._steps._capture is cuda_graph
        assert (training.inputs.train_features is not None) == (cut > 0)
        training._steps._capture = None
        reads = Reads(monkeypatch, FakeTensor, "cuda")
        training.measure()
        for _ in range(4):
            training._train_step()
        with Operations() as measured:
            training.measure()
    assert reads == [9, 9]
    assert updated == [len(list(training.parts.suffix.parameters()))] * 4
    assert not measured.reads
    assert measured.counts.total() <= EVALUATIONS[model][cut], measured.counts


@pytest.mark.parametrize("model", CUTS)
def test_steps_and_evaluations_have_a_bounded_number_of_operations(model: str) -> None:
    for frozen, most in zip(CUTS[model], STEPS[model], strict=True):
        layers = build(model, WIDTHS[model], 5, (3, 8, 8))
        initialise(layers, model, 0)
        training = training_on(CPU, layers, few(model, frozen=frozen))
        training.measure()
        training._train_step()  # the first one makes the state of the optimiser
        with Operations() as step:
            training._train_step()
        assert not step.reads
        assert step.counts.total() <= most, (frozen, step.counts)


@pytest.mark.parametrize(
    ("model", "frozen", "fields"),
    [
        *((model, CUTS[model][1], {}) for model in CUTS),
        ("resnet18", 9, {"trained_channels": 4}),
        ("resnet18", 4, {"frozen_pieces": 1}),
        ("resnet18", 5, {"frozen_batchnorm": "training"}),
        ("resnet18", 0, OTHER),
    ],
)
def test_whole_training_on_meta_never_mixes_devices_or_reads_a_value(
    monkeypatch: pytest.MonkeyPatch, model: str, frozen: int, fields: dict[str, Any]
) -> None:
    with META:
        layers = build(model, WIDTHS[model], 5, (3, 8, 8))
    monkeypatch.setattr(
        features, "room", lambda num, like: torch.empty(num, *like.shape[1:], device=META)
    )
    training = training_on(META, layers, few(model, frozen=frozen, **fields))
    reads = Reads(monkeypatch, Tensor, "meta")
    to_the_end(training)
    assert (training.step, len(training.rows)) == (4, 3)
    assert reads == [9, 9, 9]
