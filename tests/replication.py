"""Train three cells of bundled studies again in plain PyTorch: `python -m tests.replication --data DIR`.

Network, random draws, training loop and test error are written here once more, from the descriptions of
the Runs. Nothing is imported from `study.training` or `study.networks`, so an error there would show. The
random numbers differ, so the test errors of ten seeds are compared by Welch's t-test. Half an hour on one
core; writes `analysis/results/replication.csv`, from which the README there has its table.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

from analysis import load
from analysis.load.export import FOLDER, kept_path
from study import store
from study.planning.spaces import load_space
from study.run import Run
from study.tasks import BUILTIN
from study.tasks.prepare import prepare
from study.tasks.prepared_file import PreparedTask

# On digits, a head that reads a part of its features; on CIFAR-10, one whole block trained; the long
# training on Fashion-MNIST.
CELLS: Final = (
    ("reduced_heads", "digits, 8 features", {"task": "digits-high", "head_inputs": 8}),
    ("reduced_heads", "CIFAR-10, 8 layers frozen", {"task": "cifar10-16px", "frozen": 8}),
    (
        "reduced_epochs",
        "2,000 images, noise 0.4",
        {"task": "fashion-b", "size": 2_000, "label_noise": 0.4},
    ),
)
NUM_SEEDS: Final = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class Block(nn.Module):
    """A residual block of two 3×3 convolutions (He et al. 2016)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        stride = 1 if inside == outside else 2
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride == 2:
            convolution = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return relu(inner + self.shortcut(x))


class Head(nn.Module):
    """Average pooling and a linear map of the first `num_inputs` features."""

    def __init__(self, num_inputs: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(num_inputs, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3))[:, : self.linear.in_features])


def resnet18(width: int, num_classes: int, head_inputs: int = 0) -> nn.Sequential:
    """Return the ten layers: stem, eight blocks, head. Images: float32, (n, 3, h, w)."""
    stem = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
    outside = [width * 2**stage for stage in (0, 0, 1, 1, 2, 2, 3, 3)]
    blocks = [Block(i, o) for i, o in zip([width, *outside], outside, strict=False)]
    for module in [stem, *blocks]:
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    for block in blocks:
        nn.init.zeros_(block.bn2.weight)
    return nn.Sequential(stem, *blocks, Head(head_inputs or outside[-1], num_classes))


def train(run: Run, tasks: dict[str, PreparedTask], seed: int) -> tuple[nn.Sequential, float]:
    """Train a Run with new random numbers, its source first. Return the network and its test error."""
    source = None if run.source is None else train(run.source, tasks, seed + 1_000)[0]
    torch.manual_seed(seed)
    network = resnet18(run.width or 64, tasks[run.task].info.num_classes, run.head_inputs)
    if source is not None:
        for mine, learnt in zip(network[:-1], source[:-1], strict=True):
            mine.load_state_dict(learnt.state_dict())
    frozen, trained = network[: run.frozen].eval(), network[run.frozen :]
    task, random = tasks[run.task], np.random.default_rng([seed, run.size])
    chosen = _balanced(task.train_labels, run.size, random)
    labels = _with_wrong(task.train_labels[chosen], run.label_noise, task.info.num_classes, random)
    with torch.no_grad():
        inputs = _through(frozen, task.train_images[chosen])
        test_inputs = _through(frozen, task.test_images)
    recipe = run.recipe
    assert (recipe.optimizer, recipe.schedule, recipe.loss) == ("adam", "constant", "cross_entropy")
    assert recipe.num_epochs is not None and not run.trained_channels and not run.frozen_pieces
    optimizer = torch.optim.Adam(trained.parameters(), lr=recipe.learning_rate)
    trained.train()
    for _ in range(recipe.num_epochs):
        for batch in torch.from_numpy(random.permutation(run.size)).split(recipe.batch_size):
            optimizer.zero_grad()
            cross_entropy(trained(inputs[batch]), labels[batch]).backward()
            optimizer.step()
    trained.eval()
    with torch.no_grad():
        predicted = torch.cat([trained(part).argmax(1) for part in test_inputs.split(1_000)])
    return network, float((predicted.numpy() != task.test_labels).mean())


def _balanced(labels: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Return the indices of `size` images with equally many of each class, up to one."""
    order = random.permutation(len(labels))
    of_class = [order[labels[order] == label] for label in range(labels.max() + 1)]
    turns = [index for turn in zip(*of_class, strict=False) for index in turn]
    return np.array(turns[:size])


def _with_wrong(
    labels: np.ndarray, noise: float, num_classes: int, random: np.random.Generator
) -> Tensor:
    """Replace a fraction `noise` of the labels, each by another class."""
    some = random.permutation(len(labels))[: round(noise * len(labels))]
    noisy = labels.copy()
    noisy[some] = (labels[some] + random.integers(1, num_classes, len(some))) % num_classes
    return torch.from_numpy(noisy)


def _through(frozen: nn.Sequential, images: np.ndarray) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    parts = torch.from_numpy(np.array(images)).split(1_000)
    return torch.cat([frozen((part / 255 - mean) / std) for part in parts])


def _last_test_errors(study: load.Study, run_ids: list[str]) -> list[float]:
    found: list[float] = []

    def use(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        found.append(float(columns["test_error"][-1]))

    study.read_values(run_ids, ["test_error"], use)
    return found


def compared(data: Path) -> Iterator[dict[str, str | float]]:
    """Yield one line of the table for each cell: means and standard deviations over seeds, and p."""
    with tempfile.TemporaryDirectory() as folder:
        for space, name, select in CELLS:
            path = kept_path(space)
            assert path is not None, space
            study = load.open_study(path)
            cells = study.cells[study.cells["arm"] == "transfer"]
            for column, value in select.items():
                cells = cells[cells[column] == value]
            ours = _last_test_errors(study, list(cells.index))
            assert len(ours) == NUM_SEEDS, (name, len(ours))
            (run,) = (run for run in study.wanted if run.id == cells.index[0])
            assert run.source is not None
            known = {**BUILTIN, **load_space(space).tasks}
            tasks = {
                task: prepare(known[task], store.open_store(folder), data, progress=False)
                for task in (run.source.task, run.task)
            }
            plain = [train(run, tasks, seed)[1] for seed in range(NUM_SEEDS)]
            yield {
                "study_name": space,
                "cell": name,
                "study": float(np.mean(ours)),
                "study_std": float(np.std(ours, ddof=1)),
                "plain": float(np.mean(plain)),
                "plain_std": float(np.std(plain, ddof=1)),
                "p": float(stats.ttest_ind(ours, plain, equal_var=False).pvalue),
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.replication", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the image sets")
    torch.set_num_threads(1)
    lines = []
    for line in compared(parser.parse_args().data):
        lines.append(line)
        print(line, flush=True)
    pd.DataFrame(lines).to_csv(FOLDER / "replication.csv", index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
