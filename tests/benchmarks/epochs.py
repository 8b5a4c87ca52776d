"""One cut of one network, trained three ways: as a user would write it, as this project does, and as fast
as the machine multiplies.

Owns what is timed (a step, an evaluation, the pass by which features are made) and how an epoch, and a
whole Run, is put together from them: linear in the images, but for a head alone, whose epochs are
measured as they are. The images are noise: their values cost what others' would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from study.networks.build import build, normalisation
from study.networks.catalogue import num_layers, standard_width
from study.networks.initial_values import initialise
from study.planning.cost import TRAINING_FACTOR, layer_costs
from study.run import Recipe, Run
from study.tasks.draws import TrainingSet
from study.training import features
from study.training.cuda_graphs import NUM_WARM
from study.training.cut import cut
from study.training.inputs import TEST_WORTH_SECONDS
from study.training.loop import Training
from study.training.preprocessing import normalisation as normalise_by
from study.training.preprocessing import set_precision
from study.training.steps import batch_spans
from tests.benchmarks.clocks import clock

NUM_TRAIN: Final = 1_000
NUM_TEST: Final = 10_000
BATCH: Final = 128
NUM_CLASSES: Final = 10
SHAPE: Final = (3, 32, 32)
GEMM_SIDE: Final = 1024

# Of each network: nothing, about a quarter, a half and three quarters of its depth, all but the head.
FIVE_CUTS: Final = {
    "resnet18": (0, 3, 5, 7, 9),
    "densenet121": (0, 3, 6, 8, 11),
    "vit_tiny": (0, 4, 7, 10, 13),
}


@dataclass(frozen=True)
class Sample:
    """How much is computed to tell what all would cost: images of a step and of an evaluation, rounds."""

    num_train: int
    num_test: int
    rounds: int


# Of a ViT, which is the cheapest here, a whole batch and more rounds fit into the same minutes.
FULL: Final = {
    "resnet18": Sample(32, 224, 3),
    "densenet121": Sample(32, 224, 3),
    "vit_tiny": Sample(BATCH, 256 - BATCH, 5),
}
QUICK: Final = Sample(16, 240, 1)


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """Of one cut, an image: `step` trained, `evaluation` evaluated, `feature` made (0: there is none).

    `again`: the seconds that another Run of the same start and cut takes to find all images' features.
    """

    step: float
    evaluation: float
    feature: float = 0.0
    again: float = 0.0

    def epoch(self, num_train: int = NUM_TRAIN, num_test: int = NUM_TEST) -> float:
        """One pass over the training images, and one evaluation of all."""
        return num_train * self.step + (num_train + num_test) * self.evaluation

    def run(
        self,
        num_epochs: int,
        num_evaluations: int,
        sharing: int = 1,
        num_train: int = NUM_TRAIN,
        num_test: int = NUM_TEST,
    ) -> float:
        """A whole Run; its features are made for so many Runs at once."""
        images = num_train + num_test
        return (
            num_epochs * num_train * self.step
            + num_evaluations * images * self.evaluation
            + images * self.feature / sharing
        )


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Of one cut, the three ways; each list has a value a round."""

    cut: int
    baseline: list[Seconds]
    ours: list[Seconds]
    floor: list[Seconds]

    def ratio(self, seconds: Callable[[Seconds], float]) -> float:
        """baseline ÷ ours, the median over rounds."""
        pairs = zip(self.baseline, self.ours, strict=True)
        return median(seconds(theirs) / seconds(mine) for theirs, mine in pairs)


def measure(
    model: str,
    cuts: Sequence[int],
    sample: Sample,
    folder: Path,
    *,
    width: int | None = None,
    device: str = "cpu",
) -> list[Measured]:
    """These cuts, each once a round, after the baseline and the machine's rate of multiplying."""
    width = width or standard_width(model)
    torch.set_num_threads(1)
    images = np.random.default_rng(0).integers(
        0, 256, (sample.num_train + sample.num_test, *SHAPE), np.uint8
    )
    found = {k: Measured(cut=k, baseline=[], ours=[], floor=[]) for k in cuts}
    ways = {k: _Way(model, width, k, images, sample, folder, device) for k in cuts}
    plain = {k: Plain(model, width, k, images, sample.num_train, device=device) for k in cuts}
    for _ in range(sample.rounds):
        rate = _rate(device)
        evaluation = _timed(plain[cuts[0]].evaluate, device) / len(images)
        for k in cuts:
            step = _timed(plain[k].epoch, device) / sample.num_train
            found[k].baseline.append(Seconds(step=step, evaluation=evaluation))
            found[k].ours.append(ways[k].seconds())
            flops = sum(layer.flops for layer in _layers(model, width)[k:])
            found[k].floor.append(
                Seconds(step=TRAINING_FACTOR * flops / rate, evaluation=flops / rate)
            )
    return list(found.values())


class Plain:
    """A network as a user would train it: tensors in memory, all layers forward, no gradient below the
    cut, torch's default switches, no graph.

    `images`: uint8, `num_train` of them for training; `batch`: None for all of those at once.
    """

    def __init__(
        self,
        model: str,
        width: int,
        frozen: int,
        images: np.ndarray,
        num_train: int,
        *,
        batch: int | None = None,
        device: str,
        precision: str = "float32",
    ) -> None:
        self.layers = _network(model, width, images.shape[1:]).to(device)
        self.layers[:frozen].requires_grad_(False)
        self.frozen = self.layers[:frozen]
        normalise = normalise_by(*normalisation(model), torch.device(device))
        self.images = normalise(torch.from_numpy(images).to(device))
        self.num_train, self.batch, self.precision = num_train, batch or num_train, precision
        self.labels = torch.arange(len(images), device=device) % NUM_CLASSES
        trained = [p for p in self.layers.parameters() if p.requires_grad]
        self.optimiser = torch.optim.Adam(trained, lr=1e-4)

    def epoch(self) -> None:
        self._use_defaults()
        self.layers.train()
        self.frozen.eval()
        order = torch.randperm(self.num_train, device=self.images.device)
        for batch in order.split(self.batch):
            with self._cast():
                loss = nn.functional.cross_entropy(
                    self.layers(self.images[batch]), self.labels[batch]
                )
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()

    def evaluate(self) -> None:
        self._use_defaults()
        self.layers.eval()
        with torch.no_grad(), self._cast():
            logits = torch.cat([self.layers(part) for part in self.images.split(256)]).float()
            nn.functional.cross_entropy(logits, self.labels).item()
            (logits.argmax(1) != self.labels).float().mean().item()

    def _use_defaults(self) -> None:
        # The switches are global, and a Training sets them: by default, torch's convolutions use TF32.
        torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = True, False
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")

    def _cast(self) -> torch.autocast:
        is_low = self.precision == "bfloat16"
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=is_low)


class _Way:
    """As a Run of this project is trained: `study.training.loop`, with features of this machine."""

    def __init__(
        self,
        model: str,
        width: int,
        frozen: int,
        images: np.ndarray,
        sample: Sample,
        folder: Path,
        device: str,
    ) -> None:
        self.device = device
        self.is_whole = frozen == num_layers(model) - 1
        num_train = NUM_TRAIN if self.is_whole else sample.num_train
        num_test = NUM_TEST if self.is_whole else sample.num_test
        start = Run(
            task="source",
            size=64,
            model=model,
            width=width,
            seed=0,
            recipe=Recipe(num_epochs=1),
        )
        batch = BATCH if self.is_whole else num_train
        run = replace(
            start,
            task="noise",
            size=num_train,
            start=start,
            frozen=frozen,
            recipe=Recipe(
                num_epochs=100_000, batch_size=batch, evaluation="log_spaced", num_evaluations=2
            ),
        )
        layers = _network(model, width)
        train, test = images[: sample.num_train], images[sample.num_train :]
        if self.is_whole:
            # The sample's images again and again: their features are found where the first have left
            # theirs, so that the real numbers of images cost no pass over as many.
            assert features.CHUNK % len(images) == 0, len(images)
            train, test = (np.resize(images, (num, *SHAPE)) for num in (num_train, num_test))
        self.feature = self.again = 0.0
        if frozen and device == "cpu":
            self.feature, self.again = _made(run, layers, [train, test], folder)
        labels = np.arange(num_train) % NUM_CLASSES
        drawn = TrainingSet(
            indices=np.arange(num_train),
            clean_labels=labels,
            labels=labels,
            flipped=np.zeros(num_train, bool),
        )
        self.training = Training(
            run,
            layers,
            drawn,
            train,
            test,
            np.arange(num_test) % NUM_CLASSES,
            device=torch.device(device),
            shared_features=folder if device == "cpu" else None,
        )
        self.num_train, self.num_images = num_train, num_train + num_test
        self.steps = -(-num_train // batch)
        # The first makes the optimiser's room. On a GPU, more follow until a step is captured: only
        # replays are timed.
        for _ in range(NUM_WARM + 1 if self.training._steps._capture is not None else 1):
            self._step()

    def seconds(self) -> Seconds:
        """A step and an evaluation, an image; of a head alone each repeated, as they take milliseconds."""
        set_precision(self.training.run.recipe)  # the baseline has its own
        num = 20 if self.is_whole else 1
        step = _timed(self._step, self.device, num * self.steps) * self.steps / self.num_train
        evaluation = _timed(self.training._measure, self.device, num) / self.num_images
        self.training.rows.clear()
        return Seconds(step=step, evaluation=evaluation, feature=self.feature, again=self.again)

    def _step(self) -> None:
        self.training._train_step()


def _made(
    run: Run, layers: nn.Sequential, parts: list[np.ndarray], folder: Path
) -> tuple[float, float]:
    """Leaves the features of these images in the folder.

    Returns the seconds that took an image, and those in which the next Run has them of all images.
    """
    prefix = cut(layers, run).prefix
    began = clock("cpu")
    key = features.prefix_key(run, prefix)
    key_seconds = clock("cpu") - began
    normalise = normalise_by(*normalisation(run.model), torch.device("cpu"))
    chunks = [part[s] for part in parts for s in batch_spans(len(part), features.CHUNK)]
    different = list({chunk.tobytes(): torch.from_numpy(chunk.copy()) for chunk in chunks}.values())
    num_images = sum(map(len, different))
    seconds = []
    for _ in range(2):
        began = clock("cpu")
        for images in different:
            features.shared_features(
                prefix,
                images,
                lambda span, images=images: normalise(images[span]),
                folder,
                key,
                worth_seconds=TEST_WORTH_SECONDS,
            )
        seconds.append((clock("cpu") - began) / num_images)
    made, found = seconds
    return made, key_seconds + (NUM_TRAIN + NUM_TEST) * found


def _network(model: str, width: int, shape: tuple[int, ...] = SHAPE) -> nn.Sequential:
    channels, height, side = shape
    layers = build(model, width, NUM_CLASSES, (channels, height, side))
    initialise(layers, model, 0)
    return layers


def _layers(model: str, width: int) -> tuple[Any, ...]:
    return layer_costs(model, width, NUM_CLASSES, SHAPE)


def _timed(call: Callable[[], object], device: str, num: int = 1) -> float:
    began = clock(device)
    for _ in range(num):
        call()
    return (clock(device) - began) / num


def _rate(device: str) -> float:
    """Operations a second of a float32 matrix product."""
    side = GEMM_SIDE * (4 if device == "cuda" else 1)
    factor = torch.ones(side, side, device=device)
    factor @ factor
    return 2 * side**3 / _timed(lambda: factor @ factor, device, 5)
