"""Published data sets in their official layouts, and what is known of them before a download."""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from study.store import Store
from study.tasks import BUILTIN, Task, describe
from study.tasks.torchvision_sets import KNOWN, Known, TinyImageNetImages, TorchvisionImages
from tests.image_files import encoded, pixels_of, prepare_quietly, save


def test_tiny_imagenet_in_its_official_layout(tmp_path: Path, empty: Store) -> None:
    task = Task(name="tiny", images=TinyImageNetImages(folder="tin"))
    assert describe(task, tmp_path).num_train == 100_000  # known before the files are there
    root = tmp_path / "tin"
    for label, wnid in enumerate(("n01", "n02", "n03")):
        for number in range(3):
            save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", pixels_of(label))
    for number in range(3):
        save(root / "val" / "images" / f"val_{number}.JPEG", pixels_of(50 + number))
    save(root / "test" / "images" / "test_0.JPEG", pixels_of(60))
    lines = [f"val_{n}.JPEG\t{wnid}\t0\t0\t5\t3\n" for n, wnid in enumerate(("n03", "n01", "n02"))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text("n03\tcrane, bird\nn00\tother\nn02\tox\nn01\tcrane, machine\n")
    prepared = prepare_quietly(task, empty, tmp_path)
    assert prepared.info == describe(task, tmp_path)
    assert prepared.info.classes == ("crane, machine", "ox", "crane, bird")
    assert prepared.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert prepared.test_labels.tolist() == [2, 0, 1]
    (root / "words.txt").unlink()
    assert prepare_quietly(task, empty, tmp_path) is prepared
    with pytest.raises(ValueError, match=r"folder='tin': no .*words.txt"):
        describe(task, tmp_path)


TRAIN_LABELS, TEST_LABELS = (1, 0, 1), (0, 1)


def _mnist(data: Path, splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = data / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, (pixels, labels) in zip(("train", "t10k"), splits, strict=True):
        for kind, values in (("images-idx3", pixels[..., 0]), ("labels-idx1", np.array(labels))):
            head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())


def _cifar(data: Path, splits: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, key: str) -> None:
    def write(name: str, content: object) -> list[str]:
        path = data / kind.base_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content))
        return [name, hashlib.md5(path.read_bytes()).hexdigest()]

    for name, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        file = write(f"{name}_batch", {"data": rows, key: list(labels)})
        monkeypatch.setattr(kind, f"{name}_list", [file])
    meta = write("meta", {"names": ["ant", "bee"]})
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": "names", "md5": meta[1]})


def _cifar10(data: Path, splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _cifar(data, splits, monkeypatch, datasets.CIFAR10, "labels")


def _cifar100(data: Path, splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its list is the parent's until it has one of its own.
    _cifar(data, splits, monkeypatch, datasets.CIFAR100, "fine_labels")


def _svhn(data: Path, splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for name, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        path = data / f"{name}_32x32.mat"
        tens = np.where(np.array(labels) == 0, 10, labels)[:, None]  # its zero is a ten
        savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": tens})
        files[name] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", files)


def _food101(data: Path, splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = data / "food-101"
    (root / "meta").mkdir(parents=True)
    for split, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        listed: dict[str, list[str]] = {"bee": [], "ant": []}
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            name = f"{('ant', 'bee')[label]}/{split}{number}"
            listed[name.split("/")[0]].append(name)
            path = root / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                encoded(Image.fromarray(image))
            )  # without loss, whatever its name says
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))


@pytest.mark.parametrize(
    ("dataset", "write"),
    [
        ("MNIST", _mnist),
        ("CIFAR10", _cifar10),
        ("CIFAR100", _cifar100),
        ("SVHN", _svhn),
        ("Food101", _food101),
    ],
)
def test_every_data_set_of_torchvision_is_read_in_its_official_layout(
    dataset: str, write: Any, tmp_path: Path, empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = [
        (np.stack([pixels_of(seed + i, 32, 32) for i in range(len(labels))]), labels)
        for seed, labels in ((0, TRAIN_LABELS), (50, TEST_LABELS))
    ]
    if dataset == "MNIST":
        splits = [(np.repeat(pixels[..., :1], 3, axis=3), labels) for pixels, labels in splits]
    write(tmp_path, splits, monkeypatch)
    few = Known(class_names=("ant", "bee"), train_counts=(1, 2), test_counts=(1, 1), side=None)
    monkeypatch.setitem(KNOWN, dataset, few)
    task = Task(name="few", images=TorchvisionImages(dataset=dataset))
    prepared = prepare_quietly(task, empty, tmp_path)
    for (pixels, labels), images, ours in zip(
        splits,
        (prepared.train_images, prepared.test_images),
        (prepared.train_labels, prepared.test_labels),
        strict=True,
    ):
        expected = sorted((i.tobytes(), n) for i, n in zip(pixels, labels, strict=True))
        found = (i.transpose(1, 2, 0).tobytes() for i in images)
        assert sorted(zip(found, ours.tolist(), strict=True)) == expected
    more = replace(few, train_counts=(2, 1))
    monkeypatch.setitem(KNOWN, dataset, more)
    with pytest.raises(ValueError, match=f"dataset='{dataset}': .* not the official data set"):
        prepare_quietly(replace(task, name="more"), empty, tmp_path)


def test_known_data_sets_agree_with_torchvision_and_with_themselves() -> None:
    for name, known in KNOWN.items():
        assert hasattr(datasets, name)
        assert len(known.class_names) == len(set(known.class_names))
        assert len(known.class_names) == len(known.train_counts) == len(known.test_counts)
    assert list(KNOWN["FashionMNIST"].class_names) == datasets.FashionMNIST.classes
    sizes = {name: (sum(k.train_counts), sum(k.test_counts)) for name, k in KNOWN.items()}
    assert sizes == {
        "MNIST": (60_000, 10_000),
        "FashionMNIST": (60_000, 10_000),
        "CIFAR10": (50_000, 10_000),
        "CIFAR100": (50_000, 10_000),
        "SVHN": (73_257, 26_032),
        "Food101": (75_750, 25_250),
    }


def test_narrowing_what_is_not_downloaded_yet() -> None:
    info = describe(replace(BUILTIN["cifar100"], classes=("whale", 0)), None)
    assert (info.num_train, info.num_test, info.classes) == (1000, 200, ("whale", "apple"))
    with pytest.raises(ValueError, match="image_size=None: its images have several sizes"):
        describe(replace(BUILTIN["food101"], image_size=None), None)
    with pytest.raises(ValueError, match="dataset='EMNIST': choose one of MNIST, FashionMNIST"):
        TorchvisionImages(dataset="EMNIST")


def test_all_builtin_tasks_can_be_described_without_their_files() -> None:
    for name, task in BUILTIN.items():
        assert describe(task, None).name == name


@pytest.mark.slow
def test_fashion_mnist_where_it_already_lies(
    shared_data: Path, tmp_path: Path, empty: Store
) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (shared_data / "FashionMNIST" / "raw").iterdir():
        (raw / file.name).write_bytes(file.read_bytes())
    task = Task(
        name="bags", images=TorchvisionImages(dataset="FashionMNIST"), classes=("Bag", "Sandal")
    )
    prepared = prepare_quietly(task, empty, tmp_path)
    assert prepared.info == describe(task, None)
    assert prepared.info.image_shape == (3, 28, 28)
    assert (prepared.info.num_train, prepared.info.num_test) == (12_000, 2_000)
    # A bag is a large bright thing, a sandal a small one.
    brightness = [prepared.train_images[prepared.train_labels == k].mean() for k in (0, 1)]
    assert brightness[0] > 2 * brightness[1]
