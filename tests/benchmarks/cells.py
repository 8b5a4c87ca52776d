"""`cells`: an epoch of one cell, against what a user would write. `grid`: whole Runs at all cuts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final

import torch

from study.networks.catalogue import num_layers
from tests.benchmarks.epochs import (
    FIVE_CUTS,
    FULL,
    NUM_TEST,
    NUM_TRAIN,
    QUICK,
    Measured,
    Sample,
    Seconds,
    measure,
)
from tests.benchmarks.table import Line

# What the ratio was to reach, at FIVE_CUTS; nothing frozen has no goal.
GOALS: Final = {
    "resnet18": (None, 1.5, None, 4.5, 5_000.0),
    "densenet121": (None, 2.5, None, 38.0, 5_000.0),
    "vit_tiny": (None, 1.4, None, 4.0, 5_000.0),
}
MOST_AGAIN: Final = 0.05
SHARES: Final = ("nothing", "¼", "½", "¾", "all but the head")
NUM_EPOCHS: Final = 1_000
NUM_EVALUATIONS: Final = 150
NUM_SHARING: Final = 8  # cells of one start and cut: four sizes, two noises


def cells(*, quick: bool, folder: Path) -> Iterator[Line]:
    """Epochs of 1,000 training images, with 10,000 test images evaluated."""
    for model, cuts in FIVE_CUTS.items():
        sample = QUICK if quick else FULL[model]
        lines = cell_lines(model, measure(model, cuts, sample, folder))
        yield from lines
    if not torch.cuda.is_available():
        yield Line(group="cells", case="on a GPU", missing="no GPU here")
        return
    for model, cuts in FIVE_CUTS.items():
        found = measure(model, cuts, Sample(128, 1024, 3), folder, device="cuda")
        yield from cell_lines(model, found, where=" on the GPU")


def cell_lines(model: str, found: list[Measured], where: str = "") -> Iterator[Line]:
    for share, goal, each in zip(SHARES, GOALS[model], found, strict=True):
        yield Line(
            group="cells",
            case=f"{model}, {share} frozen{where}",
            unit="s an epoch",
            baseline=_epoch(each.baseline),
            ours=_epoch(each.ours),
            floor=_epoch(each.floor),
            ratio=each.ratio(Seconds.epoch),
            at_least=None if where else goal,
        )
    for share, each in zip(SHARES[1:], found[1:], strict=True):
        yield Line(
            group="cells",
            case=f"{model}, {share} frozen: features of {NUM_TRAIN + NUM_TEST:,} images{where}",
            unit="s once",
            ours=(NUM_TRAIN + NUM_TEST) * each.ours[0].feature,
        )
        if each.ours[0].feature:
            yield Line(
                group="cells",
                case=f"{model}, {share} frozen: of that, for the second cell to the eighth{where}",
                unit="fraction",
                ours=each.ours[0].again / ((NUM_TRAIN + NUM_TEST) * each.ours[0].feature),
                at_most=MOST_AGAIN,
            )


def grid(*, quick: bool, folder: Path) -> Iterator[Line]:
    """A Run at each cut, from its first step to its last, by two schedules of evaluation."""
    models = list(FIVE_CUTS)
    for model in models[:1] if quick else models:
        found = measure(model, list(range(num_layers(model))), QUICK, folder)
        yield from grid_lines(model, found)
    if quick:
        yield Line(
            group="grid",
            case=", ".join(models[1:]),
            missing="left out by --quick",
        )


def grid_lines(model: str, found: list[Measured]) -> Iterator[Line]:
    for case, num_evaluations in (
        ("evaluated after every epoch", NUM_EPOCHS + 1),
        (f"{NUM_EVALUATIONS} log-spaced evaluations", NUM_EVALUATIONS + 1),
    ):
        baseline, ours, floor = (
            sum(
                median(seconds.run(NUM_EPOCHS, num_evaluations, NUM_SHARING) for seconds in each)
                for each in way
            )
            / len(found)
            / 3600
            for way in (
                [each.baseline for each in found],
                [each.ours for each in found],
                [each.floor for each in found],
            )
        )
        yield Line(
            group="grid",
            case=f"{model}, {len(found)} cuts × {NUM_EPOCHS:,} epochs, {case}",
            unit="h a Run",
            baseline=baseline,
            ours=ours,
            floor=floor,
        )


def _epoch(each: list[Seconds]) -> float:
    return median(seconds.epoch() for seconds in each)
