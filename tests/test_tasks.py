"""Tasks: what is decoded, how it is stored, what is refused, and by which words."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision import datasets

from study import task_files
from study.draws import draw
from study.image_sets.images import ImageFolderImages, to_pixels
from study.image_sets.known_data_sets import KNOWN, Known
from study.image_sets.parquet_images import ParquetImages
from study.image_sets.torchvision_tasks import TinyImageNetImages, TorchvisionImages
from study.store import Damaged, Store, open_store
from study.tasks import BUILTIN, PreparedTask, Task, describe, load, load_info, prepare

FOLDER = Task(name="photos", images=ImageFolderImages(train="photos"))


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    """A store with nothing in it."""
    return open_store(tmp_path / "empty")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data directory with a tree of 3 × 10 images, 6×4 pixels, of 3 classes."""
    for label, name in enumerate(("ant", "bee", "cow")):
        for number in range(10):
            _save(tmp_path / "photos" / name / f"{number}.png", _pixels(label * 10 + number))
    return tmp_path


def _pixels(seed: int, height: int = 4, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _parquet(path: Path, labels: Any, names: list[str] | None = None, **columns: Any) -> Path:
    """A Parquet file in the hub's form; the image in row i has the pixels of seed i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"bytes": _png(Image.fromarray(_pixels(row))), "path": f"{row}.png"}
        for row in range(len(labels))
    ]
    table = pa.table({"image": images, "label": labels} | columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path, row_group_size=4)
    return path


def _prepared(task: Task, store: Store, data: Path | None) -> PreparedTask:
    return prepare(task, store, data, progress=False)


# The digits.


def test_the_digits_are_pinned(store: Store) -> None:
    digits = load("digits", store)
    assert digits.info == describe(BUILTIN["digits"], None) == load_info("digits", store)
    assert (digits.info.num_train, digits.info.num_test) == (1438, 359)
    assert digits.train_images.shape == (1438, 3, 16, 16)
    fingerprints = {
        name: load(name, store).fingerprint for name in ("digits", "digits-low", "digits-high")
    }
    assert fingerprints == {
        "digits": "796027d7bae7519cd189fd6c9305deb9bcffe0cbfd0202a321178fb03dff1c35",
        "digits-low": "ce1dde5fc1b8fa14c9205c652c74b9597bd6fdca8674e3e0b877a900750d8b60",
        "digits-high": "50ae5a13f42d35e9d4963a68ead230ecc7147d59f7e0e1a25d2b3ec91decf401",
    }
    drawn = draw(digits, part="a", size=12, seed=3, label_noise=0.25)
    assert drawn.indices.tolist() == [70, 377, 157, 77, 994, 1047, 71, 302, 107, 1139, 450, 651]
    assert drawn.clean_labels.tolist() == [1, 3, 6, 9, 4, 5, 7, 2, 8, 0, 1, 3]
    assert drawn.labels.tolist() == [1, 3, 6, 9, 4, 5, 7, 6, 8, 1, 1, 7]


def test_the_digits_without_resizing_are_those_of_scikit_learn(empty: Store) -> None:
    digits = _prepared(replace(BUILTIN["digits"], name="own-size", image_size=None), empty, None)
    theirs = load_digits()
    expected = np.rint(theirs.images / 16 * 255).astype(np.uint8)
    # Each of their images stands once in one of the splits, in their order.
    ours = np.concatenate([digits.train_images, digits.test_images])
    labels = np.concatenate([digits.train_labels, digits.test_labels])
    assert np.array_equal(ours[:, 0], ours[:, 1]) and np.array_equal(ours[:, 0], ours[:, 2])
    key = sorted((image.tobytes(), label) for image, label in zip(ours[:, 0], labels, strict=True))
    assert key == sorted(
        (image.tobytes(), label) for image, label in zip(expected, theirs.target, strict=True)
    )


def test_narrowed_tasks_agree_on_what_is_for_testing(store: Store) -> None:
    whole, low, high = (load(name, store) for name in ("digits", "digits-low", "digits-high"))
    assert low.info.classes == ("0", "1", "2", "3", "4")
    assert high.info.classes == ("5", "6", "7", "8", "9")
    assert np.array_equal(low.test_images, whole.test_images[whole.test_labels < 5])
    assert np.array_equal(high.test_images, whole.test_images[whole.test_labels >= 5])
    assert np.array_equal(high.train_labels + 5, whole.train_labels[whole.train_labels >= 5])


def test_a_drawn_test_split_has_its_fraction_of_each_class(store: Store) -> None:
    digits = load("digits", store)
    counts = np.bincount(load_digits().target)
    assert np.bincount(digits.test_labels).tolist() == np.rint(counts * 0.2).tolist()


def test_arrays_are_read_only_and_of_the_promised_types(store: Store) -> None:
    digits = load("digits", store)
    for images in (digits.train_images, digits.test_images):
        assert images.dtype == np.uint8 and not images.flags.writeable
        assert images.flags.c_contiguous
    for labels in (digits.train_labels, digits.test_labels):
        assert labels.dtype == np.int64 and not labels.flags.writeable


def test_the_file_can_be_read_by_any_arrow_reader(store: Store) -> None:
    digits = load("digits", store)
    path = store.local_path("tasks/digits.arrow")
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.column_names == ["image", "label", "split"]
    assert table["split"].to_pylist() == ["train"] * 1438 + ["test"] * 359
    assert table["image"][1437].as_py() == digits.train_images[1437].ravel().tolist()
    assert table["label"].to_pylist()[-1] == digits.test_labels[-1]


# Decoding.


def test_every_kind_of_image_becomes_three_channels() -> None:
    grey = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
    three = np.stack([grey] * 3)
    colour = _pixels(0)
    for image, expected in [
        (Image.fromarray(colour), colour.transpose(2, 0, 1)),
        (Image.fromarray(grey), three),
        (Image.fromarray(grey.astype(np.uint16) * 256 + 255), three),
        (Image.fromarray(grey >= 120), np.where(three >= 120, 255, 0)),
        (Image.fromarray(grey).convert("P"), three),
    ]:
        assert np.array_equal(to_pixels(_png(image), "x", None), expected), image.mode
    assert np.array_equal(to_pixels(grey, "x", None), three)


def test_transparent_parts_become_white() -> None:
    colour = _pixels(1)
    alpha = np.zeros((4, 6), dtype=np.uint8)
    alpha[:2] = 255
    expected = np.where(alpha[..., None] == 255, colour, 255).transpose(2, 0, 1)
    image = Image.fromarray(np.dstack([colour, alpha]))
    assert np.array_equal(to_pixels(_png(image), "x", None), expected)
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([9, 8, 7, 6, 5, 4])
    pixels = to_pixels(_png(palette, transparency=0), "x", None)
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [6, 5, 4]]


def test_a_cameras_orientation_is_obeyed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    colour = _pixels(2)
    pixels = to_pixels(_png(Image.fromarray(colour), exif=exif), "x", None)
    assert np.array_equal(pixels.transpose(1, 2, 0), np.rot90(colour, -1))


def test_resizing_keeps_the_middle_square_and_does_not_alias() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert (to_pixels(wide, "x", 8) == 200).all()
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 200
    inner = to_pixels(stripes, "x", 8)[:, 1:-1, 1:-1].astype(int)
    assert np.abs(inner - 100).max() <= 2  # picking every eighth column would give 0 or 200


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_no_known_range_are_refused(mode: str) -> None:
    image = Image.fromarray(_pixels(3)).convert("L").convert(mode)
    with pytest.raises(ValueError, match=f"a.tif: '{mode}' pixels"):
        to_pixels(_png(image, "TIFF"), "a.tif", None)


# Folder trees.


def test_a_folder_tree(photos: Path, empty: Store) -> None:
    (photos / "photos" / "ant" / "notes.txt").write_text("not an image")
    (photos / "photos" / ".cache").mkdir()
    task = _prepared(FOLDER, empty, photos)
    assert task.info == describe(FOLDER, photos)
    assert task.info.classes == ("ant", "bee", "cow")
    assert task.info.image_shape == (3, 4, 6)
    assert np.bincount(task.train_labels).tolist() == [8, 8, 8]
    assert np.bincount(task.test_labels).tolist() == [2, 2, 2]
    expected = {
        _pixels(label * 10 + number).transpose(2, 0, 1).tobytes(): label
        for label in range(3)
        for number in range(10)
    }
    for images, labels in (
        (task.train_images, task.train_labels),
        (task.test_images, task.test_labels),
    ):
        for image, label in zip(images, labels, strict=True):
            assert expected.pop(image.tobytes()) == label
    assert not expected


def test_a_given_test_folder_is_the_test_split(photos: Path, empty: Store) -> None:
    for label, name in enumerate(("ant", "bee", "cow")):
        _save(photos / "held-out" / name / "one.png", _pixels(100 + label))
    images = ImageFolderImages(train="photos", test="held-out")
    task = _prepared(replace(FOLDER, images=images), empty, photos)
    assert (task.info.num_train, task.test_labels.tolist()) == (30, [0, 1, 2])
    _save(photos / "held-out" / "dog" / "one.png", _pixels(0))
    with pytest.raises(ValueError, match=r"held-out/dog is not a class .*'ant', 'bee', 'cow'"):
        describe(replace(FOLDER, images=images), photos)


def test_classes_by_name_and_by_index_in_the_order_given(photos: Path, empty: Store) -> None:
    task = _prepared(replace(FOLDER, classes=("cow", 0)), empty, photos)
    assert task.info.classes == ("cow", "ant")
    cows = {_pixels(20 + number).transpose(2, 0, 1).tobytes() for number in range(10)}
    is_cow = [image.tobytes() in cows for image in task.train_images]
    assert is_cow == (task.train_labels == 0).tolist()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cow", "dog"), "classes: 'dog' is none, choose 0 to 2 or from 'ant', 'bee', 'cow'"),
        ((0, 3), "classes: 3 is none, choose 0 to 2"),
        ((0, "ant"), r"classes: 'ant' is given twice \(class 0\)"),
    ],
)
def test_classes_named_wrongly(photos: Path, classes: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"task 'photos': {message}"):
        describe(replace(FOLDER, classes=classes), photos)


def test_too_few_images_in_a_class(photos: Path) -> None:
    for number in range(1, 10):
        (photos / "photos" / "bee" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=r"class 'bee' has 1 images: a test split .* 2 or more"):
        describe(FOLDER, photos)
    shutil.copytree(photos / "photos", photos / "held-out")
    (photos / "held-out" / "bee" / "0.png").unlink()
    images = ImageFolderImages(train="photos", test="held-out")
    with pytest.raises(ValueError, match="class 'bee' has no test image"):
        describe(replace(FOLDER, images=images), photos)


def test_images_of_several_sizes_need_an_image_size(photos: Path, empty: Store) -> None:
    _save(photos / "photos" / "cow" / "9.png", _pixels(0, 5, 5))
    with pytest.raises(ValueError, match=r"photos/cow/9.png is 5×5 pixels, the first image 6×4"):
        _prepared(FOLDER, empty, photos)
    task = _prepared(replace(FOLDER, image_size=4), empty, photos)
    assert task.info.image_shape == (3, 4, 4)


def test_a_corrupt_image_is_named_and_nothing_is_published(photos: Path, empty: Store) -> None:
    path = photos / "photos" / "bee" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"task 'photos': photos/bee/3.png: not a readable image"):
        _prepared(FOLDER, empty, photos)
    assert not [path for path in Path(empty.root).rglob("*") if path.is_file()]


def test_a_wrong_data_directory(photos: Path) -> None:
    with pytest.raises(ValueError, match="task 'photos': it needs a data directory"):
        describe(FOLDER, None)
    wrong = photos / "elsewhere"
    with pytest.raises(
        ValueError, match=f"train='photos': no folder {wrong}/photos .data directory: {wrong}"
    ):
        describe(FOLDER, wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "a/b"), ("name", ""), ("classes", (1,)), ("image_size", 0), ("test_fraction", 1.0)],
)
def test_a_wrong_field_of_a_task(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Task.{field}="):
        replace(FOLDER, **{field: value})


# Parquet files.


def test_parquet_files_with_the_hubs_class_names(tmp_path: Path, empty: Store) -> None:
    _parquet(tmp_path / "set" / "train.parquet", [1, 0, 1, 1, 0, 0, 1, 0, 0], ["no", "yes"])
    _parquet(tmp_path / "set" / "test.parquet", [1, 0], ["no", "yes"])
    images = ParquetImages(train="set/train.parquet", test="set/test.parquet")
    task = _prepared(Task(name="p", images=images), empty, tmp_path)
    assert task.info == describe(Task(name="p", images=images), tmp_path)
    assert task.info.classes == ("no", "yes")
    assert task.train_labels.tolist() == [1, 0, 1, 1, 0, 0, 1, 0, 0]
    assert task.test_labels.tolist() == [1, 0]
    for row in range(9):
        assert np.array_equal(task.train_images[row], _pixels(row).transpose(2, 0, 1))


def test_parquet_shards_in_a_folder_a_pattern_or_a_list(tmp_path: Path, empty: Store) -> None:
    for shard in range(2):
        _parquet(tmp_path / "set" / f"train-{shard}.parquet", [shard, 1, 0, 1, 2, 2])
    both = ("set/train-0.parquet", "set/train-1.parquet")
    ways: list[str | tuple[str, ...]] = ["set", "set/train-*.parquet", both]
    prepared = [
        _prepared(
            Task(name=f"p{i}", images=ParquetImages(train=train), classes=(2, "0")), empty, tmp_path
        )
        for i, train in enumerate(ways)
    ]
    assert len({task.fingerprint for task in prepared}) == 1
    # Class 2 lies in rows 4 and 5 of each file, class 0 in rows 0 and 2, and in row 2.
    task = prepared[0]
    assert task.info.classes == ("2", "0")
    images = np.concatenate([task.train_images, task.test_images])
    labels = np.concatenate([task.train_labels, task.test_labels])
    found = sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )
    rows = [(4, 0), (5, 0), (4, 0), (5, 0), (0, 1), (2, 1), (2, 1)]
    expected = sorted((_pixels(row).transpose(2, 0, 1).tobytes(), label) for row, label in rows)
    assert found == expected


def test_parquet_files_that_disagree_on_the_class_names(tmp_path: Path) -> None:
    _parquet(tmp_path / "train.parquet", [0, 1, 0, 1], ["no", "yes"])
    _parquet(tmp_path / "test.parquet", [0, 1], ["yes", "no"])
    images = ParquetImages(train="train.parquet", test="test.parquet")
    with pytest.raises(
        ValueError, match=r"test.parquet: its class names 'yes', 'no' are not .*train"
    ):
        describe(Task(name="p", images=images), tmp_path)


def test_parquet_labels_may_be_names_and_images_plain_bytes(tmp_path: Path, empty: Store) -> None:
    plain = [_png(Image.fromarray(_pixels(row))) for row in range(4)]
    _parquet(tmp_path / "t.parquet", ["b", "a", "b", "a"], img=plain)
    images = ParquetImages(train="t.parquet", test="t.parquet", image_column="img")
    task = _prepared(Task(name="p", images=images), empty, tmp_path)
    assert task.info.classes == ("a", "b")
    assert task.test_labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        ([0, 1, 0, 1, 2, 1], {}, r"t.parquet row 4: label=2 is not a class, choose from 0, 1"),
        ([0, 1, 0, 1, -1, 1], {}, r"t.parquet row 4: label=-1 is not a class"),
        ([0, 1, None, 1], {}, "t.parquet row 2: no label"),
        ([0.5, 1.0], {}, "label_column='label': t.parquet has double there"),
        ([0, 1], {"label_column": "y"}, "label_column='y': not in t.parquet, .* 'image', 'label'"),
        ([0, 1], {"image_column": "x"}, "image_column='x': not in t.parquet, .* 'image', 'label'"),
        ([0, 1], {"train": "u.parquet"}, "train='u.parquet': no Parquet file at .*data directory"),
    ],
)
def test_what_is_wrong_with_a_parquet_file(
    tmp_path: Path, labels: Any, fields: dict[str, str], message: str
) -> None:
    _parquet(tmp_path / "t.parquet", labels, ["no", "yes"])
    images = replace(ParquetImages(train="t.parquet", test="t.parquet"), **fields)
    with pytest.raises(ValueError, match=f"task 'p': {message}"):
        describe(Task(name="p", images=images), tmp_path)


def test_a_row_without_a_readable_image_is_named(tmp_path: Path, empty: Store) -> None:
    _parquet(tmp_path / "a.parquet", [0, 1, 0, 1, 0, 1])
    table = pq.read_table(tmp_path / "a.parquet")
    images = table["image"].to_pylist()
    task = Task(name="p", images=ParquetImages(train=("a.parquet", "b.parquet")))
    for content, message in (
        (b"\x89PNG nonsense", "not a readable image"),
        (None, "no image bytes"),
    ):
        images[5]["bytes"] = content
        pq.write_table(table.set_column(0, "image", [images]), tmp_path / "b.parquet")
        with pytest.raises(ValueError, match=f"task 'p': b.parquet row 5: {message}"):
            _prepared(task, empty, tmp_path)


def test_a_torn_parquet_file_is_named(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "t.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t.parquet: not a readable Parquet file"):
        describe(Task(name="p", images=ParquetImages(train="t.parquet")), tmp_path)


# Tiny ImageNet, torchvision.


def test_tiny_imagenet_in_its_official_layout(tmp_path: Path, empty: Store) -> None:
    task = Task(name="tiny", images=TinyImageNetImages(folder="tin"))
    assert describe(task, tmp_path).num_train == 100_000  # known before the files are there
    root = tmp_path / "tin"
    for label, wnid in enumerate(("n01", "n02", "n03")):
        for number in range(3):
            _save(root / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", _pixels(label))
    for number in range(3):
        _save(root / "val" / "images" / f"val_{number}.JPEG", _pixels(50 + number))
    _save(root / "test" / "images" / "test_0.JPEG", _pixels(60))
    lines = [f"val_{n}.JPEG\t{wnid}\t0\t0\t5\t3\n" for n, wnid in enumerate(("n03", "n01", "n02"))]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "words.txt").write_text("n03\tcrane, bird\nn00\tother\nn02\tox\nn01\tcrane, machine\n")
    prepared = _prepared(task, empty, tmp_path)
    assert prepared.info == describe(task, tmp_path)
    assert prepared.info.classes == ("crane, machine", "ox", "crane, bird")
    assert prepared.train_labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert prepared.test_labels.tolist() == [2, 0, 1]
    (root / "words.txt").unlink()
    assert _prepared(task, empty, tmp_path) is prepared
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
            path.write_bytes(_png(Image.fromarray(image)))  # without loss, whatever its name says
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
        (np.stack([_pixels(seed + i, 32, 32) for i in range(len(labels))]), labels)
        for seed, labels in ((0, TRAIN_LABELS), (50, TEST_LABELS))
    ]
    if dataset == "MNIST":
        splits = [(np.repeat(pixels[..., :1], 3, axis=3), labels) for pixels, labels in splits]
    write(tmp_path, splits, monkeypatch)
    few = Known(class_names=("ant", "bee"), train_counts=(1, 2), test_counts=(1, 1), side=None)
    monkeypatch.setitem(KNOWN, dataset, few)
    task = Task(name="few", images=TorchvisionImages(dataset=dataset))
    prepared = _prepared(task, empty, tmp_path)
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
        _prepared(replace(task, name="more"), empty, tmp_path)


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


# The store.


def test_preparing_again_reads_nothing(photos: Path, empty: Store) -> None:
    task = _prepared(FOLDER, empty, photos)
    path = empty.local_path("tasks/photos.arrow")
    assert path is not None
    written = path.stat()
    assert _prepared(FOLDER, empty, photos) is task
    assert _prepared(FOLDER, empty, None) is task
    shutil.rmtree(photos / "photos")
    assert _prepared(FOLDER, empty, photos) is task
    assert path.stat().st_mtime_ns == written.st_mtime_ns
    assert [p.name for p in path.parent.iterdir()] == ["photos.arrow"]


def test_a_changed_pixel_is_another_version_and_refused(photos: Path, empty: Store) -> None:
    before = _prepared(FOLDER, empty, photos)
    pixels = _pixels(10)
    pixels[0, 0, 0] ^= 1
    _save(photos / "photos" / "bee" / "0.png", pixels)
    with pytest.raises(ValueError, match="holds another version") as raised:
        _prepared(FOLDER, empty, photos)
    other = open_store(photos / "other")
    after = _prepared(FOLDER, other, photos)
    assert after.fingerprint != before.fingerprint
    for fingerprint in (before.fingerprint, after.fingerprint):
        assert fingerprint[:12] in str(raised.value)
    assert load("photos", empty).fingerprint == before.fingerprint


def test_another_definition_is_refused_unless_it_gives_the_same(photos: Path, empty: Store) -> None:
    task = _prepared(FOLDER, empty, photos)
    with pytest.raises(ValueError, match="holds another version") as raised:
        _prepared(replace(FOLDER, image_size=4), empty, photos)
    assert '"image_size":null' in str(raised.value) and '"image_size":4' in str(raised.value)
    (photos / "photos").rename(photos / "moved")
    moved = replace(FOLDER, images=ImageFolderImages(train="moved"))
    assert _prepared(moved, empty, photos).fingerprint == task.fingerprint
    again = load("photos", empty)
    assert '"train":"moved"' in again.definition
    assert _prepared(moved, empty, photos) is again  # not decoded each time


def test_the_fingerprint_covers_labels_split_and_class_names(photos: Path) -> None:
    def fingerprint(number: int) -> str:
        return _prepared(FOLDER, open_store(photos / f"store{number}"), photos).fingerprint

    first = fingerprint(0)
    assert fingerprint(1) == first  # the split is drawn equally each time
    (photos / "photos" / "bee").rename(photos / "photos" / "bug")
    renamed = fingerprint(2)
    (photos / "photos" / "bug" / "0.png").rename(photos / "photos" / "cow" / "x.png")
    assert len({first, renamed, fingerprint(3)}) == 3


def test_a_damaged_task_is_noticed_and_made_anew(photos: Path, empty: Store) -> None:
    task = _prepared(FOLDER, empty, photos)
    path = empty.local_path("tasks/photos.arrow")
    assert path is not None
    whole = path.read_bytes()
    at = whole.index(task.train_images[3].tobytes())
    changed = bytearray(whole)
    changed[at] ^= 1
    for content in (bytes(changed), whole[: len(whole) // 2], whole[:-1], b""):
        path.unlink()  # the old one stays mapped where it is
        path.write_bytes(content)
        with pytest.raises(Damaged, match=r"tasks/photos.arrow is damaged"):
            load("photos", empty)
    assert _prepared(FOLDER, empty, photos).fingerprint == task.fingerprint
    aside = list((Path(empty.root) / "damaged").rglob("photos.arrow*"))
    assert len(aside) == 1


def test_no_flipped_bit_is_ever_read_as_data(photos: Path, empty: Store) -> None:
    task = _prepared(FOLDER, empty, photos)
    path = empty.local_path("tasks/photos.arrow")
    assert path is not None
    whole = path.read_bytes()
    num_damaged = 0
    for at in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        path.unlink()
        path.write_bytes(changed)
        task_files._opened.cache_clear()
        try:
            found = load("photos", empty)
        except Damaged:
            num_damaged += 1
        else:  # padding, or what is written twice
            assert (found.info, found.definition) == (task.info, task.definition)
            assert np.array_equal(found.train_images, task.train_images)
            assert np.array_equal(found.test_labels, task.test_labels)
    assert num_damaged > 0


def test_a_task_that_is_not_prepared(empty: Store) -> None:
    with pytest.raises(
        ValueError, match=r"task='digits': not prepared in .*: study prepare digits"
    ):
        load("digits", empty)
    assert load_info("digits", empty) is None


def test_a_file_under_another_tasks_name(store: Store) -> None:
    shutil.copy(f"{store.root}/tasks/digits-low.arrow", f"{store.root}/tasks/other.arrow")
    with pytest.raises(Damaged, match="it holds the task 'digits-low'"):
        load("other", store)


def test_a_bucket_is_fetched_once_and_again_where_the_copy_is_damaged(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(photos / "cache"))
    # A file system that is not the local one, so that nothing in it can be mapped.
    bucket = pafs.SubTreeFileSystem(str(photos), pafs.LocalFileSystem())
    (photos / "bucket" / "tasks").mkdir(parents=True)
    store = Store("mock://bucket", bucket, "bucket")
    task = _prepared(FOLDER, store, photos)
    (copy,) = (photos / "cache").rglob("*.arrow")
    assert task.fingerprint[:16] in copy.name
    assert load_info("photos", store) == task.info
    assert load("photos", store) is task
    copy.unlink()
    copy.write_bytes(b"torn")
    assert np.array_equal(load("photos", store).train_images, task.train_images)
    (photos / "bucket" / "tasks" / "photos.arrow").write_bytes(b"torn")
    with pytest.raises(Damaged):
        load("photos", store)
    assert not list((photos / "cache").rglob("*.tmp"))


# Real image sets.


def test_cifar10_in_parquet_files(shared_data: Path, empty: Store) -> None:
    images = ParquetImages(train="cifar10-25k/test.parquet")
    task = _prepared(Task(name="ships", images=images, classes=("ship", "cat")), empty, shared_data)
    assert (task.info.num_train, task.info.num_test) == (1600, 400)
    table = pq.read_table(shared_data / "cifar10-25k" / "test.parquet")
    labels = np.array(table["label"])
    row = int(np.flatnonzero(labels == 3)[0])
    with Image.open(io.BytesIO(table["image"][row]["bytes"].as_py())) as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    cats = np.concatenate(
        [task.train_images[task.train_labels == 1], task.test_images[task.test_labels == 1]]
    )
    assert any(np.array_equal(cat, expected) for cat in cats)


def test_cifar100s_class_names_are_those_of_the_files(shared_data: Path) -> None:
    images = ParquetImages(train="cifar100-20k/train.parquet")
    info = describe(Task(name="c", images=images), shared_data)
    assert info.classes == KNOWN["CIFAR100"].class_names


def test_tiny_imagenet_images_some_of_them_grey(shared_data: Path, empty: Store) -> None:
    images = ParquetImages(train="tiny-imagenet-near/test.parquet")
    task = _prepared(Task(name="near", images=images, image_size=32), empty, shared_data)
    assert task.info.image_shape == (3, 32, 32)
    assert (task.info.num_train, task.info.num_test) == (400, 100)


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
    prepared = _prepared(task, empty, tmp_path)
    assert prepared.info == describe(task, None)
    assert prepared.info.image_shape == (3, 28, 28)
    assert (prepared.info.num_train, prepared.info.num_test) == (12_000, 2_000)
    # A bag is a large bright thing, a sandal a small one.
    brightness = [prepared.train_images[prepared.train_labels == k].mean() for k in (0, 1)]
    assert brightness[0] > 2 * brightness[1]


def test_importing_tasks_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, study.tasks, study.draws\n"
        "print({'torch', 'torchvision', 'sklearn', 'ray'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
