"""Test images that are also training images: warnings of `prepare`, `run` and the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis import load
from analysis.report.overview import warnings
from study.cli.main import main
from study.store import Store, open_store
from study.store.prepared_tasks import num_repeated, repeated_text
from study.tasks import Task
from study.tasks.images import ImageFolderImages
from tests import synthetic
from tests.image_files import pixels_of, prepare_quietly, save

SPACE = """
from study.run import Recipe, Run
from study.tasks import ImageFolderImages, Task

TASKS = [Task(name="birds", images=ImageFolderImages(train="train", test="test"))]
RUNS = [Run(task="birds", size=4, model="resnet18", width=1, recipe=Recipe(num_steps=1), seed=0)]
"""


def folders(data: Path, test_seeds: tuple[int, ...]) -> Task:
    """Write six training images and test images; those of seeds below 6 are training images, too."""
    for seed in range(6):
        save(data / "train" / "ab"[seed % 2] / f"{seed}.png", pixels_of(seed))
    for seed in test_seeds:
        save(data / "test" / "ab"[seed % 2] / f"{seed}.png", pixels_of(seed))
    return Task(name="target", images=ImageFolderImages(train="train", test="test"))


@pytest.mark.parametrize(
    ("test_seeds", "number", "text"),
    [
        ((6, 7, 8), 0, None),
        ((6, 7, 1), 1, "Task target: 1 test image is also"),
        ((2, 7, 1), 2, "Task target: 2 test images are also"),
    ],
)
def test_num_repeated_counts_test_images_with_equal_pixels(
    empty: Store, tmp_path: Path, test_seeds: tuple[int, ...], number: int, text: str | None
) -> None:
    task = folders(tmp_path / "data", test_seeds)
    assert num_repeated(empty, "target") is None, "not prepared yet"
    prepare_quietly(task, empty, tmp_path / "data")
    assert num_repeated(empty, "target") == number
    said = repeated_text(empty, "target")
    assert said == text if text is None else said is not None and said.startswith(text)


def test_prepare_repeated_images_are_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data", (1, 8))
    space = tmp_path / "birds.py"
    space.write_text(SPACE)
    where = ["--root", str(tmp_path / "store"), "--data", str(tmp_path / "data")]
    assert main(["prepare", str(space), *where]) == 0
    assert "warning: Task birds: 1 test image is also a training image" in capsys.readouterr().err


def test_report_repeated_images_are_a_warning(tmp_path: Path) -> None:
    root = tmp_path / "store"
    synthetic.write(
        root, synthetic.runs(num_epochs=4, sizes=(250,), frozen=(0, 9), seeds=(0, 1, 2))
    )
    study = load.open_study(root)
    assert not [each for each in warnings(study) if "also a training image" in each]
    target = next(run.task for run in study.wanted if run.source is not None)
    task = folders(tmp_path / "data", (1, 8))
    named = Task(name=target, images=task.images)
    prepare_quietly(named, open_store(root), tmp_path / "data")
    found = [each for each in warnings(study) if "also a training image" in each]
    assert len(found) == 1
    assert found[0].startswith(f"Task {target}: 1 test image")
