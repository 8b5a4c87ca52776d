"""`narrow` and `wide`: the training of a cell, against scripts that a user would write."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import nn

from study.launching.options import LaunchOptions
from study.launching.train_run import execute_block
from study.networks.build import build, normalisation
from study.networks.catalogue import standard_width
from study.networks.initial_values import initialise
from study.planning.cost import TRAINING_FACTOR, layer_costs
from study.run import Recipe, Run
from study.store import Store, open_store
from study.tasks.draws import TrainingSet
from study.tasks.prepared_file import TaskInfo, fingerprint_of, publish
from study.training.loop import Training
from study.training.preprocessing import normalisation as normalise_by
from study.training.preprocessing import set_precision
from study.training.steps import evaluated_steps, total_steps
from tests.benchmarks.table import Line

NUM_CLASSES: Final = 10
EVALUATION_BATCH: Final = 256
CPU: Final = torch.device("cpu")


class Script:
    """A network as a user would train it: tensors in memory, no gradient below the cut, torch's defaults.

    `images`: uint8, the first `num_train` for training. `caches_features`: compute frozen layers once.
    """

    def __init__(
        self,
        model: str,
        width: int,
        frozen: int,
        images: np.ndarray,
        num_train: int,
        *,
        batch: int,
        device: torch.device = CPU,
        precision: str = "float32",
        caches_features: bool = False,
    ) -> None:
        layers = network(model, width, images.shape[-1]).to(device)
        self.frozen: nn.Module = layers[:frozen].eval().requires_grad_(False)
        self.trained = layers[frozen:]
        normalise = normalise_by(*normalisation(model), device)
        self.inputs = normalise(torch.from_numpy(images).to(device))
        self.labels = torch.arange(len(images), device=device) % NUM_CLASSES
        self.num_train, self.batch, self.precision = num_train, batch, precision
        self.optimizer = torch.optim.Adam(self.trained.parameters(), lr=1e-4)
        if caches_features:
            with torch.no_grad():
                parts = self.inputs.split(EVALUATION_BATCH)
                self.inputs = torch.cat([self.frozen(part) for part in parts])
            self.frozen = nn.Identity()

    def epoch(self) -> None:
        self._use_defaults()
        self.trained.train()
        order = torch.randperm(self.num_train, device=self.inputs.device)
        for batch in order.split(self.batch):
            with self._cast():
                logits = self.trained(self.frozen(self.inputs[batch]))
                loss = nn.functional.cross_entropy(logits, self.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def evaluate(self) -> None:
        self._use_defaults()
        self.trained.eval()
        with torch.no_grad(), self._cast():
            parts = self.inputs.split(EVALUATION_BATCH)
            logits = torch.cat([self.trained(self.frozen(part)) for part in parts]).float()
            nn.functional.cross_entropy(logits, self.labels).item()
            (logits.argmax(1) != self.labels).float().mean().item()

    def _use_defaults(self) -> None:
        # The switches are global, and a Training sets them: by default, torch's convolutions use TF32.
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")

    def _cast(self) -> torch.autocast:
        is_low = self.precision == "bfloat16"
        return torch.autocast(self.inputs.device.type, torch.bfloat16, enabled=is_low)


def network(model: str, width: int, side: int) -> nn.Sequential:
    layers = build(model, width, NUM_CLASSES, (3, side, side))
    initialise(layers, model, 0)
    return layers


def pictures(labels: np.ndarray, side: int) -> np.ndarray:
    """Return noise around a picture of each class, uint8."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (NUM_CLASSES, 3, side, side)).astype(np.int16)
    noise = rng.integers(0, 128, (len(labels), 3, side, side))
    return np.clip(base[labels] // 2 + noise, 0, 255).astype(np.uint8)


def training_on(run: Run, side: int, num_test: int, device: torch.device = CPU) -> Training:
    """Return a training on `pictures`, a fifth of the labels wrong."""
    assert run.width is not None
    labels, tests = np.arange(run.size) % NUM_CLASSES, np.arange(num_test) % NUM_CLASSES
    flipped = np.arange(run.size) % 5 == 0
    drawn = TrainingSet(
        indices=np.arange(run.size),
        clean_labels=labels,
        labels=np.where(flipped, (labels + 1) % NUM_CLASSES, labels),
        flipped=flipped,
    )
    images = pictures(labels, side), pictures(tests, side)
    layers = network(run.model, run.width, side)
    return Training(run, layers, drawn, *images, tests, device=device)


def store_of_pictures(folder: Path, num_train: int, num_test: int, side: int) -> Store:
    """Return a store with the task "noise"."""
    store = open_store(folder)
    info = TaskInfo(
        name="noise",
        num_train=num_train,
        num_test=num_test,
        classes=tuple(map(str, range(NUM_CLASSES))),
        image_shape=(3, side, side),
    )
    labels = np.arange(num_train + num_test) % NUM_CLASSES
    images = pictures(labels, side)
    fingerprint = fingerprint_of(info, images, labels)
    publish(store, info, images, labels, fingerprint=fingerprint, definition="", origin="")
    return store


# A quarter of a Run of search_spaces/reduced: a quarter of the epochs and of the test images. So steps,
# evaluations and the pass through the frozen layers take their usual shares.
SIDE: Final = 16
SIZE: Final = 500
NUM_TEST: Final = 2_500
NARROW_RECIPE: Final = Recipe(
    learning_rate=1e-4, batch_size=64, num_epochs=100, evaluation="log_spaced", num_evaluations=40
)
NARROW_CUTS: Final = (6, 7, 8, 9)
TOGETHER: Final = 10
ALONE_AT_LEAST: Final = 1.1
TOGETHER_AT_LEAST: Final = {4: 2.5, 8: 1.75}


def narrow(*, quick: bool, folder: Path) -> Iterator[Line]:
    """ResNet-18 of width 4 and 8 at 16×16, whole Runs at four cuts (--quick: an eighth of the epochs)."""
    torch.set_num_threads(1)
    store = store_of_pictures(folder / "narrow", SIZE, NUM_TEST, SIDE)
    recipe = replace(NARROW_RECIPE, num_epochs=12, num_evaluations=5)
    _narrow_seconds(store, 2, 8, recipe)  # warms up
    for width in TOGETHER_AT_LEAST:
        found = [
            _narrow_seconds(store, width, cut, recipe if quick else NARROW_RECIPE)
            for cut in NARROW_CUTS
        ]
        yield from narrow_lines(width, [sum(each) for each in zip(*found, strict=True)])


def narrow_lines(width: int, seconds: Sequence[float]) -> Iterator[Line]:
    """`seconds`: of a plain script, of one that caches features, of our Runs alone and together."""
    plain, caching, alone, together = seconds
    case = f"ResNet-18 width {width}, 16×16, a Run at cuts {', '.join(map(str, NARROW_CUTS))}"
    for text, ours, baseline, goal in (
        ("against a plain script", alone, plain, None),
        ("against a script that caches features", alone, caching, ALONE_AT_LEAST),
        (f"{TOGETHER} seeds together, against that", together, caching, TOGETHER_AT_LEAST[width]),
    ):
        yield Line(
            group="narrow",
            case=f"{case}, {text}",
            unit="s of CPU",
            baseline=baseline,
            ours=ours,
            at_least=goal,
        )


def _narrow_seconds(store: Store, width: int, cut: int, recipe: Recipe) -> tuple[float, ...]:
    run = Run(
        task="noise",
        size=SIZE,
        model="resnet18",
        width=width,
        frozen=cut,
        recipe=recipe,
        seed=TOGETHER,  # its features must not be those of the block
    )
    stacked = replace(recipe, seeds_together=TOGETHER)
    block = [replace(run, recipe=stacked, seed=seed) for seed in range(TOGETHER)]
    images = pictures(np.arange(SIZE + NUM_TEST) % NUM_CLASSES, SIDE)
    num_steps = total_steps(recipe, SIZE)
    evaluations = len(evaluated_steps(recipe, SIZE)) / num_steps  # per step
    assert recipe.num_epochs is not None
    num_epochs = recipe.num_epochs

    def train_script(num_epochs: int, *, caches_features: bool) -> None:
        given = ("resnet18", width, cut, images, SIZE)
        script = Script(*given, batch=recipe.batch_size, caches_features=caches_features)
        due = 0.0
        for _ in range(num_epochs):
            script.epoch()
            due += evaluations * num_steps / recipe.num_epochs
            while due >= 1:
                script.evaluate()
                due -= 1

    return (
        # A quarter is enough, because a plain script computes nothing only once.
        4 * _cpu(lambda: train_script(num_epochs // 4, caches_features=False)),
        _cpu(lambda: train_script(num_epochs, caches_features=True)),
        _cpu(lambda: _execute([run], store)),
        _cpu(lambda: _execute(block, store)) / TOGETHER,
    )


def _execute(runs: Sequence[Run], store: Store) -> None:
    outcomes = execute_block(
        runs,
        store,
        LaunchOptions(),
        keep_weights=[],
        keep_predictions=[],
        on_row=None,
        on_remark=None,
        should_stop=None,
    )
    assert set(outcomes.values()) == {"finished"}, outcomes


def _cpu(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


# Nothing frozen, about a half and three quarters of the depth. At standard width and 32×32, a step and an
# evaluation take as long per image in a small sample as in the whole.
WIDE_SIDE: Final = 32
WIDE_CUTS: Final = {"resnet18": (0, 5, 7), "densenet121": (0, 6, 8), "vit_tiny": (0, 7, 10)}
SHARES: Final = ("nothing", "½", "¾")
GOALS: Final = {
    "resnet18": (None, 2.2, 4.5),
    "densenet121": (None, 8.0, 38.0),
    "vit_tiny": (None, 1.7, 4.0),
}
NUM_TRAIN, NUM_EVALUATED, NUM_EPOCHS, NUM_SPACED = 1_000, 11_000, 1_000, 150
GEMM_SIDE: Final = 1_024


class Seconds(NamedTuple):
    """CPU seconds per image, of a step, of an evaluation, and of the features of the frozen layers."""

    step: float
    evaluation: float
    feature: float = 0.0

    def run(self, num_epochs: int, num_evaluations: int) -> float:
        """Return the seconds of NUM_TRAIN images in these epochs and NUM_EVALUATED in each evaluation."""
        per_epoch, per_evaluation = NUM_TRAIN * self.step, NUM_EVALUATED * self.evaluation
        return num_epochs * per_epoch + num_evaluations * per_evaluation


def wide(*, quick: bool, folder: Path) -> Iterator[Line]:
    """Networks of standard width at 32×32: an epoch of 1,000 images with an evaluation of 11,000."""
    del folder
    torch.set_num_threads(1)
    for model in WIDE_CUTS:
        num = 16 if quick else 128 if model == "vit_tiny" else 32
        yield from wide_lines(model, measure(model, None, num, 1 if quick else 3))


def measure(model: str, width: int | None, num_train: int, rounds: int) -> list[list[Seconds]]:
    """Return for each cut the seconds of a plain script, of ours, and of a matrix product's operations."""
    width = width or standard_width(model)
    num_test = EVALUATION_BATCH - num_train
    images = pictures(np.arange(EVALUATION_BATCH) % NUM_CLASSES, WIDE_SIDE)
    recipe = Recipe(
        num_steps=10**6, batch_size=num_train, evaluation="log_spaced", num_evaluations=2
    )
    costs = layer_costs(model, width, NUM_CLASSES, (3, WIDE_SIDE, WIDE_SIDE))
    factor = torch.ones(GEMM_SIDE, GEMM_SIDE)
    rate = 2 * GEMM_SIDE**3 / min(_cpu(lambda: factor @ factor) for _ in range(10))
    found = []
    for cut in WIDE_CUTS[model]:
        run = Run(
            task="noise",
            size=num_train,
            model=model,
            width=width,
            frozen=cut,
            recipe=recipe,
            seed=0,
        )
        script = Script(model, width, cut, images, num_train, batch=num_train)
        began = time.process_time()
        training = training_on(run, WIDE_SIDE, num_test)
        feature = time.process_time() - began if cut else 0.0
        training._train_step()  # makes the state of the optimizer
        script.epoch()
        times = []
        for _ in range(rounds):
            set_precision(recipe)  # a script has its own
            ours = (_cpu(training._train_step), _cpu(training.measure))
            times.append((*ours, _cpu(script.epoch), _cpu(script.evaluate)))
            training.rows.clear()
        step, evaluation, script_step, script_evaluation = map(median, zip(*times, strict=True))
        flops = sum(layer.flops for layer in costs[cut:])
        each, every = 1 / num_train, 1 / EVALUATION_BATCH
        found.append(
            [
                Seconds(script_step * each, script_evaluation * every),
                Seconds(step * each, evaluation * every, feature * every),
                Seconds(TRAINING_FACTOR * flops / rate, flops / rate),
            ]
        )
    return found


def wide_lines(model: str, found: Sequence[Sequence[Seconds]]) -> Iterator[Line]:
    for share, goal, (script, ours, floor) in zip(SHARES, GOALS[model], found, strict=True):
        case = f"{model}, {share} frozen"
        epochs = [each.run(1, 1) for each in (script, ours, floor)]
        yield Line(
            group="wide",
            case=f"{case}: an epoch and an evaluation, against a plain script",
            unit="s of CPU",
            baseline=epochs[0],
            ours=epochs[1],
            floor=epochs[2],
            at_least=goal,
        )
        if share == "½":
            every, spaced = (ours.run(NUM_EPOCHS, num) / 3600 for num in (NUM_EPOCHS, NUM_SPACED))
            yield Line(
                group="wide",
                case=f"{case}: {NUM_EPOCHS:,} epochs, {NUM_SPACED} evaluations against one per epoch",
                unit="h",
                baseline=every,
                ours=spaced,
            )
            yield Line(
                group="wide",
                case=f"{case}: features of {NUM_EVALUATED:,} images, once per start and cut",
                unit="s of CPU",
                ours=NUM_EVALUATED * ours.feature,
            )
