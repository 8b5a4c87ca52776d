"""Published data sets in their official layouts, and what is known of them before a download."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections import Counter
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
from tests.image_files import encoded, images_of, pixels_of, prepare_quietly, save


def test_prepare_tiny_imagenet_reads_the_official_layout(tmp_path: Path, empty: Store) -> None:
    task = Task(name="tiny", images=TinyImageNetImages(folder="tin"))
    assert describe(task, tmp_path).num_train == 100_000  # known before the files are there
    root = tmp_path / "tin"
    for label, wnid in enumerate(("n01", "n02", "n03")):
        for number in range(3):
            save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", pixels_of(label))
        save(root / "val" / "images" / f"val_{label}.JPEG", pixels_of(50 + label))
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


Split = tuple[np.ndarray, tuple[int, ...]]  # uint8, shape (images, 32, 32, 3), and labels


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_mnist(data: Path, splits: list[Split], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = data / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, (pixels, labels) in zip(("train", "t10k"), splits, strict=True):
        for kind, values in (("images-idx3", pixels[..., 0]), ("labels-idx1", np.array(labels))):
            head = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">i4").tobytes()
            (raw / f"{name}-{kind}-ubyte").write_bytes(head + values.astype(np.uint8).tobytes())


def write_cifar10(data: Path, splits: list[Split], monkeypatch: pytest.MonkeyPatch) -> None:
    kind = datasets.CIFAR10

    def write(name: str, content: object) -> list[str]:
        path = data / kind.base_folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps(content))
        return [name, md5_of(path)]

    for name, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
        file = write(f"{name}_batch", {"data": rows, "labels": list(labels)})
        monkeypatch.setattr(kind, f"{name}_list", [file])
    name, md5 = write("meta", {"names": ["ant", "bee"]})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": "names", "md5": md5})


def write_svhn(data: Path, splits: list[Split], monkeypatch: pytest.MonkeyPatch) -> None:
    files = {}
    for name, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        path = data / f"{name}_32x32.mat"
        tens = np.where(np.array(labels) == 0, 10, labels)[:, None]  # its zero is a ten
        savemat(path, {"X": pixels.transpose(1, 2, 3, 0), "y": tens})
        files[name] = ["", path.name, md5_of(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", files)


def write_food101(data: Path, splits: list[Split], monkeypatch: pytest.MonkeyPatch) -> None:
    root = data / "food-101"
    (root / "meta").mkdir(parents=True)
    for split, (pixels, labels) in zip(("train", "test"), splits, strict=True):
        listed: dict[str, list[str]] = {"bee": [], "ant": []}
        for number, (image, label) in enumerate(zip(pixels, labels, strict=True)):
            name = f"{('ant', 'bee')[label]}/{split}{number}"
            listed[name.split("/")[0]].append(name)
            path = root / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(Image.fromarray(image)))  # PNG, which loses nothing
        (root / "meta" / f"{split}.json").write_text(json.dumps(listed))


@pytest.mark.parametrize(
    ("dataset", "write"),
    [
        ("MNIST", write_mnist),
        ("CIFAR10", write_cifar10),
        ("SVHN", write_svhn),
        ("Food101", write_food101),
    ],
)
def test_prepare_torchvision_set_reads_its_official_layout(
    dataset: str, write: Any, tmp_path: Path, empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.stack([pixels_of(seed, 32, 32) for seed in range(5)])
    if dataset == "MNIST":
        pixels[..., 1:] = pixels[..., :1]
    labels = (1, 0, 1, 0, 1)
    write(tmp_path, [(pixels[:3], labels[:3]), (pixels[3:], labels[3:])], monkeypatch)
    few = Known(class_names=("ant", "bee"), train_counts=(1, 2), test_counts=(1, 1), side=None)
    monkeypatch.setitem(KNOWN, dataset, few)
    task = Task(name="few", images=TorchvisionImages(dataset=dataset))
    prepared = prepare_quietly(task, empty, tmp_path)
    assert images_of(prepared) == Counter(
        (image.transpose(2, 0, 1).tobytes(), label)
        for image, label in zip(pixels, labels, strict=True)
    )
    assert {image.tobytes() for image in prepared.test_images.transpose(0, 2, 3, 1)} == {
        image.tobytes() for image in pixels[3:]
    }
    monkeypatch.setitem(KNOWN, dataset, replace(few, train_counts=(2, 1)))
    with pytest.raises(ValueError, match=f"dataset='{dataset}': .* not the official data set"):
        prepare_quietly(replace(task, name="more"), empty, tmp_path)


def test_known_sets_agree_with_torchvision_and_with_themselves() -> None:
    for known in KNOWN.values():
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


def test_describe_needs_no_files_of_known_sets() -> None:
    for name, task in BUILTIN.items():
        assert describe(task, None).name == name
    info = describe(replace(BUILTIN["cifar100"], classes=("whale", 0)), None)
    assert (info.num_train, info.num_test, info.classes) == (1000, 200, ("whale", "apple"))
    with pytest.raises(ValueError, match="image_size=None: its images have several sizes"):
        describe(replace(BUILTIN["food101"], image_size=None), None)
    with pytest.raises(ValueError, match="dataset='EMNIST': choose one of MNIST, FashionMNIST"):
        TorchvisionImages(dataset="EMNIST")


@pytest.mark.slow
def test_prepare_fashion_mnist_has_the_known_classes(
    shared_data: Path, tmp_path: Path, empty: Store
) -> None:
    shutil.copytree(shared_data / "FashionMNIST", tmp_path / "FashionMNIST")
    images = TorchvisionImages(dataset="FashionMNIST")
    task = Task(name="bags", images=images, classes=("Bag", "Sandal"))
    prepared = prepare_quietly(task, empty, tmp_path)
    assert prepared.info == describe(task, None)
    assert prepared.info.image_shape == (3, 28, 28)
    assert (prepared.info.num_train, prepared.info.num_test) == (12_000, 2_000)
    # A bag is a large bright thing, a sandal a small one.
    brightness = [prepared.train_images[prepared.train_labels == k].mean() for k in (0, 1)]
    assert brightness[0] > 2 * brightness[1]
