"""Tasks: what is prepared, how it is stored, what is refused, and by which words."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
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
from study.tasks import BUILTIN, Task, describe, load, load_info, prepare, prepared_file
from study.tasks.draws import draw
from study.tasks.images import ImageFolderImages
from study.tasks.parquet import ParquetImages
from study.tasks.torchvision_sets import KNOWN
from tests.image_files import PHOTOS, pixels_of, prepare_quietly, save
from tests.stored import a_bucket_in

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
    digits = prepare_quietly(
        replace(BUILTIN["digits"], name="own-size", image_size=None), empty, None
    )
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


# The store.


def test_preparing_again_reads_nothing(photos: Path, empty: Store) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
    path = empty.local_path("tasks/photos.arrow")
    assert path is not None
    written = path.stat()
    assert prepare_quietly(PHOTOS, empty, photos) is task
    assert prepare_quietly(PHOTOS, empty, None) is task
    shutil.rmtree(photos / "photos")
    assert prepare_quietly(PHOTOS, empty, photos) is task
    assert path.stat().st_mtime_ns == written.st_mtime_ns
    assert [p.name for p in path.parent.iterdir()] == ["photos.arrow"]


def test_a_changed_pixel_is_another_version_and_refused(photos: Path, empty: Store) -> None:
    before = prepare_quietly(PHOTOS, empty, photos)
    pixels = pixels_of(10)
    pixels[0, 0, 0] ^= 1
    save(photos / "photos" / "bee" / "0.png", pixels)
    with pytest.raises(ValueError, match="holds another version") as raised:
        prepare_quietly(PHOTOS, empty, photos)
    other = open_store(photos / "other")
    after = prepare_quietly(PHOTOS, other, photos)
    assert after.fingerprint != before.fingerprint
    for fingerprint in (before.fingerprint, after.fingerprint):
        assert fingerprint[:12] in str(raised.value)
    assert load("photos", empty).fingerprint == before.fingerprint


def test_another_definition_is_refused_unless_it_gives_the_same(photos: Path, empty: Store) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
    with pytest.raises(ValueError, match="holds another version") as raised:
        prepare_quietly(replace(PHOTOS, image_size=4), empty, photos)
    assert '"image_size":null' in str(raised.value) and '"image_size":4' in str(raised.value)
    (photos / "photos").rename(photos / "moved")
    moved = replace(PHOTOS, images=ImageFolderImages(train="moved"))
    assert prepare_quietly(moved, empty, photos).fingerprint == task.fingerprint
    again = load("photos", empty)
    assert '"train":"moved"' in again.definition
    assert prepare_quietly(moved, empty, photos) is again  # not decoded each time


def test_the_fingerprint_covers_labels_split_and_class_names(photos: Path) -> None:
    def fingerprint(number: int) -> str:
        return prepare_quietly(PHOTOS, open_store(photos / f"store{number}"), photos).fingerprint

    first = fingerprint(0)
    assert fingerprint(1) == first  # the split is drawn equally each time
    (photos / "photos" / "bee").rename(photos / "photos" / "bug")
    renamed = fingerprint(2)
    (photos / "photos" / "bug" / "0.png").rename(photos / "photos" / "cow" / "x.png")
    assert len({first, renamed, fingerprint(3)}) == 3


def test_a_damaged_task_is_noticed_and_made_anew(photos: Path, empty: Store) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
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
    assert prepare_quietly(PHOTOS, empty, photos).fingerprint == task.fingerprint
    aside = list((Path(empty.root) / "damaged").rglob("photos.arrow*"))
    assert len(aside) == 1


def test_no_flipped_bit_is_ever_read_as_data(photos: Path, empty: Store) -> None:
    task = prepare_quietly(PHOTOS, empty, photos)
    path = empty.local_path("tasks/photos.arrow")
    assert path is not None
    whole = path.read_bytes()
    num_damaged = 0
    for at in range(0, len(whole), 13):
        changed = bytearray(whole)
        changed[at] ^= 1 << (at % 8)
        path.unlink()
        path.write_bytes(changed)
        prepared_file._opened.cache_clear()
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


# Real image sets.


@pytest.mark.slow
def test_cifar10_in_parquet_files(shared_data: Path, empty: Store) -> None:
    images = ParquetImages(train="cifar10-25k/test.parquet")
    task = prepare_quietly(
        Task(name="ships", images=images, classes=("ship", "cat")), empty, shared_data
    )
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
    task = prepare_quietly(Task(name="near", images=images, image_size=32), empty, shared_data)
    assert task.info.image_shape == (3, 32, 32)
    assert (task.info.num_train, task.info.num_test) == (400, 100)


def test_importing_tasks_imports_neither_torch_nor_scikit_learn() -> None:
    code = (
        "import sys, study.tasks, study.tasks.draws\n"
        "print({'torch', 'torchvision', 'sklearn', 'ray'} & {*sys.modules})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize(
    "later", [{"format": "freezewise task 2"}, {"info": {"name": "digits-low", "depth": 7}}]
)
def test_a_task_of_a_later_release_is_named_with_it_and_left(
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
