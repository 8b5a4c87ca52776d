"""Tasks: what is prepared, how it is stored, and which errors there are."""

from __future__ import annotations

import io
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from study.store import Damaged, Newer, Store, buckets, open_store
from study.store.prepared_tasks import metadata_of, read_task_head
from study.tasks import BUILTIN, describe, load, load_info, prepare
from study.tasks.draws import draw
from study.tasks.images import ImageFolderImages
from study.tasks.torchvision_sets import KNOWN
from tests.image_files import PHOTOS, images_of, parquet_task, pixels_of, prepare_quietly, save
from tests.stored import a_bucket_in

# Digits


def test_prepare_digits_are_pinned(store: Store) -> None:
    digits = load("digits", store)
    assert digits.info == describe(BUILTIN["digits"], None) == load_info("digits", store)
    assert (digits.info.num_train, digits.info.num_test) == (1438, 359)
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


def test_prepare_digits_without_resizing_are_those_of_scikit_learn(empty: Store) -> None:
    task = replace(BUILTIN["digits"], name="own-size", image_size=None)
    digits, theirs = prepare_quietly(task, empty, None), load_digits()
    grey = np.rint(theirs.images / 16 * 255).astype(np.uint8)
    expected = np.repeat(grey[:, None], 3, axis=1)
    assert images_of(digits) == Counter(
        (image.tobytes(), label) for image, label in zip(expected, theirs.target, strict=True)
    )
    fifths = np.rint(np.bincount(theirs.target) * 0.2)
    assert np.bincount(digits.test_labels).tolist() == fifths.tolist()


def test_prepare_narrowed_tasks_have_the_test_images_of_the_whole(store: Store) -> None:
    whole, low, high = (load(name, store) for name in ("digits", "digits-low", "digits-high"))
    assert low.info.classes + high.info.classes == whole.info.classes
    assert np.array_equal(low.test_images, whole.test_images[whole.test_labels < 5])
    assert np.array_equal(high.test_images, whole.test_images[whole.test_labels >= 5])
    assert np.array_equal(high.train_labels + 5, whole.train_labels[whole.train_labels >= 5])


def test_load_arrays_are_read_only_and_any_arrow_reader_reads_them(store: Store) -> None:
    digits = load("digits", store)
    for images in (digits.train_images, digits.test_images):
        assert images.dtype == np.uint8 and not images.flags.writeable
        assert images.shape[1:] == (3, 16, 16) and images.flags.c_contiguous
    for labels in (digits.train_labels, digits.test_labels):
        assert labels.dtype == np.int64 and not labels.flags.writeable
    with pa.memory_map(str(store.local_path("tasks/digits.arrow"))) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.column_names == ["image", "label", "split"]
    assert table["split"].to_pylist() == ["train"] * 1438 + ["test"] * 359
    assert table["image"][1437].as_py() == digits.train_images[1437].ravel().tolist()
    assert table["label"].to_pylist()[-1] == digits.test_labels[-1]


# The store


def test_prepare_again_reads_nothing(photos: Path, empty: Store) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
    [path] = (Path(empty.root) / "tasks").iterdir()
    written = path.stat()
    for _ in range(2):
        for data in (photos, None):
            assert prepare_quietly(PHOTOS, empty, data) is task
        shutil.rmtree(photos / "photos", ignore_errors=True)
    assert path.stat().st_mtime_ns == written.st_mtime_ns
    assert [*path.parent.iterdir()] == [path]


def test_prepare_another_version_is_an_error_that_names_both(photos: Path, empty: Store) -> None:
    before = prepare_quietly(PHOTOS, empty, photos)
    with pytest.raises(ValueError, match="holds another version") as raised:
        prepare_quietly(replace(PHOTOS, image_size=4), empty, photos)
    assert '"image_size":null' in str(raised.value) and '"image_size":4' in str(raised.value)
    pixels = pixels_of(10)
    pixels[0, 0, 0] ^= 1
    save(photos / "photos" / "bee" / "0.png", pixels)
    with pytest.raises(ValueError, match="holds another version") as raised:
        prepare_quietly(PHOTOS, empty, photos)
    after = prepare_quietly(PHOTOS, open_store(photos / "other"), photos)
    assert after.fingerprint != before.fingerprint
    for fingerprint in (before.fingerprint, after.fingerprint):
        assert fingerprint[:12] in str(raised.value)
    assert load("photos", empty).fingerprint == before.fingerprint


def test_prepare_another_definition_of_the_same_images_replaces_it(
    photos: Path, empty: Store
) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
    (photos / "photos").rename(photos / "moved")
    moved = replace(PHOTOS, images=ImageFolderImages(train="moved"))
    assert prepare_quietly(moved, empty, photos).fingerprint == task.fingerprint
    again = load("photos", empty)
    assert '"train":"moved"' in again.definition
    assert prepare_quietly(moved, empty, photos) is again  # not decoded each time


def test_fingerprint_changes_with_labels_and_class_names_only(photos: Path) -> None:
    def fingerprint(number: int) -> str:
        return prepare_quietly(PHOTOS, open_store(photos / f"store{number}"), photos).fingerprint

    first = fingerprint(0)
    assert fingerprint(1) == first  # the split is drawn equally each time
    (photos / "photos" / "bee").rename(photos / "photos" / "bug")
    renamed = fingerprint(2)
    (photos / "photos" / "bug" / "0.png").rename(photos / "photos" / "cow" / "x.png")
    assert len({first, renamed, fingerprint(3)}) == 3


def test_prepare_damaged_task_is_quarantined_and_created_again(photos: Path, empty: Store) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
    [path] = (Path(empty.root) / "tasks").iterdir()
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(task.train_images[3].tobytes())] ^= 1
    path.unlink()  # the old one stays memory-mapped
    path.write_bytes(damaged)
    assert prepare_quietly(PHOTOS, empty, photos).fingerprint == task.fingerprint
    assert len([*(Path(empty.root) / "damaged").rglob("photos.arrow*")]) == 1


def test_load_task_that_is_not_prepared_names_the_command(empty: Store) -> None:
    expected = r"task='digits': not prepared in .*: study prepare digits"
    with pytest.raises(ValueError, match=expected):
        load("digits", empty)
    assert load_info("digits", empty) is None


def test_load_file_under_another_tasks_name_is_damaged(store: Store) -> None:
    shutil.copy(f"{store.root}/tasks/digits-low.arrow", f"{store.root}/tasks/other.arrow")
    with pytest.raises(Damaged, match="it holds the task 'digits-low'"):
        load("other", store)


def test_load_from_a_bucket_fetches_once_and_again_if_the_copy_is_damaged(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(photos / "cache"))
    monkeypatch.setattr(buckets, "client_of", lambda *_: a_bucket_in(photos / "bucket"))
    store = open_store("s3://bucket/root")
    task = prepare_quietly(PHOTOS, store, photos)
    (copy,) = (photos / "cache").rglob("*.arrow")
    assert task.fingerprint[:16] in copy.name
    assert load_info("photos", store) == task.info
    assert load("photos", store) is task
    copy.unlink()
    copy.write_bytes(b"torn")
    assert np.array_equal(load("photos", store).train_images, task.train_images)
    (photos / "bucket" / "root" / "tasks" / "photos.arrow").write_bytes(b"torn")
    with pytest.raises(Damaged):
        load("photos", store)
    assert not list((photos / "cache").rglob("*.tmp"))


# Real image sets


@pytest.mark.slow
def test_prepare_cifar10_has_the_images_of_its_classes(shared_data: Path, empty: Store) -> None:
    task = replace(parquet_task("cifar10-25k/test.parquet"), classes=("ship", "cat"))
    prepared = prepare_quietly(task, empty, shared_data)
    assert (prepared.info.num_train, prepared.info.num_test) == (1600, 400)
    table = pq.read_table(shared_data / "cifar10-25k" / "test.parquet")
    cat = table["image"][table["label"].to_pylist().index(3)]["bytes"].as_py()
    with Image.open(io.BytesIO(cat)) as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    assert (expected.tobytes(), 1) in images_of(prepared)


def test_describe_cifar100_has_the_known_class_names(shared_data: Path) -> None:
    info = describe(parquet_task("cifar100-20k/train.parquet"), shared_data)
    assert info.classes == KNOWN["CIFAR100"].class_names


def test_prepare_tiny_imagenet_has_grey_images(shared_data: Path, empty: Store) -> None:
    task = replace(parquet_task("tiny-imagenet-near/test.parquet"), image_size=32)
    info = prepare_quietly(task, empty, shared_data).info
    assert (info.num_train, info.num_test, info.image_shape) == (400, 100, (3, 32, 32))


@pytest.mark.parametrize(
    "later", [{"format": "freezewise task 2"}, {"info": {"name": "digits-low", "depth": 7}}]
)
def test_load_task_of_a_later_release_names_it_and_keeps_it(
    store: Store, later: dict[str, object]
) -> None:
    path = Path(store.base) / "tasks" / "digits-low.arrow"
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        about = read_task_head(file, "x") | {"written_by": "7.0.0"} | later
        batch = reader.get_batch(0).replace_schema_metadata(metadata_of(about))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    path.write_bytes(sink.getvalue())
    words = r"tasks/digits-low.arrow was written by freezewise 7.0.0 \((freezewise task 2|.*depth)"
    task = BUILTIN["digits-low"]
    for read in (
        lambda: load("digits-low", store),
        lambda: load_info("digits-low", store),
        lambda: prepare(task, store, None, progress=False),
    ):
        with pytest.raises(Newer, match=words):
            read()
    assert not store.quarantined()
