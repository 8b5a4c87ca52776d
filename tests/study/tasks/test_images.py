"""Images as pixels, in folder trees and in Parquet files: what is read, and what is refused."""

from __future__ import annotations

import io
import re
import shutil
import struct
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.fields import canonical_json, digest_of
from study.store import Store, open_store
from study.tasks import Task, describe, prepare
from study.tasks import parquet as parquet_module
from study.tasks.images import (
    FORMATS,
    ImageFolderImages,
    first_folder_files,
    folder_files,
    to_pixels,
)
from study.tasks.parquet import ParquetImages
from study.tasks.task import is_origin
from tests.image_files import PHOTOS, encoded, parquet, pixels_of, prepare_quietly, save

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""

# Decoding.


def test_every_kind_of_image_becomes_three_channels() -> None:
    grey = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
    three = np.stack([grey] * 3)
    colour = pixels_of(0)
    for image, expected in [
        (Image.fromarray(colour), colour.transpose(2, 0, 1)),
        (Image.fromarray(grey), three),
        (Image.fromarray(grey.astype(np.uint16) * 256 + 255), three),
        (Image.fromarray(grey >= 120), np.where(three >= 120, 255, 0)),
        (Image.fromarray(grey).convert("P"), three),
    ]:
        assert np.array_equal(to_pixels(encoded(image), "x", None), expected), image.mode
    assert np.array_equal(to_pixels(grey, "x", None), three)


def test_transparent_parts_become_white() -> None:
    colour = pixels_of(1)
    alpha = np.zeros((4, 6), dtype=np.uint8)
    alpha[:2] = 255
    expected = np.where(alpha[..., None] == 255, colour, 255).transpose(2, 0, 1)
    image = Image.fromarray(np.dstack([colour, alpha]))
    assert np.array_equal(to_pixels(encoded(image), "x", None), expected)
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([9, 8, 7, 6, 5, 4])
    pixels = to_pixels(encoded(palette, transparency=0), "x", None)
    assert pixels[:, 0].T.tolist() == [[255, 255, 255], [6, 5, 4]]


def test_a_cameras_orientation_is_obeyed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    colour = pixels_of(2)
    pixels = to_pixels(encoded(Image.fromarray(colour), exif=exif), "x", None)
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
    image = Image.fromarray(pixels_of(3)).convert("L").convert(mode)
    with pytest.raises(ValueError, match=f"a.tif: '{mode}' pixels"):
        to_pixels(encoded(image, "TIFF"), "a.tif", None)


def test_to_pixels_cmyk_jpeg_equals_its_rgb_twin() -> None:
    colour = Image.fromarray(np.kron(pixels_of(4), np.ones((16, 16, 1), dtype=np.uint8)))
    twins = [encoded(colour.convert(mode), "JPEG", quality=95) for mode in ("CMYK", "RGB")]
    cmyk, rgb = (to_pixels(twin, "x", None).astype(int) for twin in twins)
    assert np.abs(cmyk - rgb).mean() < 5  # JPEG's own loss; inverted colours differ by about 85


def test_to_pixels_16_bit_pgm_equals_the_png() -> None:
    grey = np.arange(0, 65_280, 2_720, dtype=np.uint16).reshape(4, 6)
    files = [b"P5 6 4 65535\n" + grey.astype(">u2").tobytes(), encoded(Image.fromarray(grey))]
    pgm, png = (to_pixels(file, "x", None) for file in files)
    assert np.array_equal(pgm, png) and pgm.max() == 244
    # A maximum of 12 bits is scaled by Pillow.
    twelve = b"P5 6 4 4095\n" + (grey // 16).astype(">u2").tobytes()
    assert np.abs(to_pixels(twelve, "x", None).astype(int) - pgm).max() <= 1


def _deep_tiff(values: np.ndarray) -> bytes:
    """Return a colour TIFF of 16 bits a channel, which Pillow reads but does not write."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    longs = {256: width, 257: height, 259: 1, 262: 2, 273: 14, 277: 3, 278: height, 279: len(data)}
    entries = [(tag, 4, 1, value) for tag, value in longs.items()] + [(258, 3, 3, 8)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = struct.pack("<2sHIHHH", b"II", 42, 14 + len(data), 16, 16, 16)
    return head + data + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize(
    ("top", "said"),
    [
        (
            4095,
            r"2 images have 16 bits a channel, such as .*/0.\w+, but only values from .* to 4,095, "
            r"which become 0 to 15 of 255. If 4,095 means white, multiply the values by 16",
        ),
        (65535, None),
    ],
)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_prepare_values_of_12_bits_in_16_are_reported(
    tmp_path: Path,
    empty: Store,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    top: int,
    said: str | None,
) -> None:
    values = np.linspace(0, top, 72).round().astype(np.uint16).reshape(4, 6, 3)
    for name in ("a", "b"):
        for number in range(2):
            save(tmp_path / "p" / name / f"{number}.png", pixels_of(number))
        file = tmp_path / "p" / name / f"0.{kind}"
        deep = _deep_tiff(values) if kind == "tif" else encoded(Image.fromarray(values[..., 2]))
        file.write_bytes(deep)
    task = Task(name="p", images=ImageFolderImages(train="p"))
    for _ in range(2):  # a prepared task keeps the remark
        prepare_quietly(task, empty, tmp_path)
        shown = capsys.readouterr().err
        assert re.search(said, shown) if said else "16 bits" not in shown


# Folder trees.


def test_prepare_counts_skipped_files_by_reason(
    photos: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = prepare_quietly(PHOTOS, empty, photos).fingerprint
    top, ant = photos / "photos", photos / "photos" / "ant"
    for folder in (top / "__MACOSX" / "ant", top / "lost+found", ant / "@eaDir" / "0.png"):
        save(folder / "thumbnail.png", pixels_of(0))
    (ant / "more").mkdir()
    for number, name in enumerate(("x.heic", "more/y.heic", "z.svg", "none", "._0.png")):
        (ant / name).write_bytes(bytes(number))
    (ant / "gone.png").symlink_to(ant / "nowhere.png")
    (ant / "elsewhere").symlink_to(top / "bee")
    save(top / "beside.png", pixels_of(0))
    assert prepare_quietly(PHOTOS, empty, photos).fingerprint == before
    shown = capsys.readouterr().err.splitlines()
    reasons = (
        r"2 .heic files, such as photos/ant/more/y.heic \(HEIC photos: .* pip install pillow-heif\)",
        r"1 .svg file, such as photos/ant/z.svg \(vector drawings: .*\)",
        "1 file without a suffix, such as photos/ant/none",
        "1 hidden file, such as photos/ant/._0.png",
        "1 broken link, such as photos/ant/gone.png",
        "1 linked folder, such as photos/ant/elsewhere",
        "1 image file outside the class folders, such as photos/beside.png",
        "1 __MACOSX folder, such as photos/__MACOSX",
        r"1 lost\+found folder, such as photos/lost\+found",
        "1 @eaDir folder, such as photos/ant/@eaDir",
    )
    for reason in reasons:
        line = f"study: warning: task 'photos': skipped {reason}"
        assert any(re.fullmatch(line, each) for each in shown), reason
    assert len(shown) == len(reasons)


@pytest.mark.parametrize("suffix", ["gif", "jfif", "jpe", "pbm", "pnm", "avif"])
def test_prepare_reads_all_suffixes_of_its_formats(photos: Path, empty: Store, suffix: str) -> None:
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "pbm": "PPM", "pnm": "PPM"}
    kind = kinds.get(suffix, suffix.upper())
    if kind not in FORMATS:
        pytest.skip(f"this Pillow does not read {kind}")
    file = photos / "photos" / "cow" / f"more.{suffix.upper()}"
    file.write_bytes(encoded(Image.fromarray(pixels_of(0)), kind))
    info = prepare_quietly(PHOTOS, empty, photos).info
    assert info.num_train + info.num_test == 31


def test_prepare_of_an_earlier_release_stays_valid(photos: Path, empty: Store) -> None:
    (photos / "photos" / "cow" / "x.gif").write_bytes(encoded(Image.fromarray(pixels_of(0)), "GIF"))
    images = ImageFolderImages(train="photos")
    files = first_folder_files(images, photos)
    assert len(files) == 30
    stats = [(str(file.relative_to(photos)), file.stat()) for file in files]
    plain = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    origin = digest_of(canonical_json(plain))  # as release 0.1.0 computed it
    assert is_origin(images, folder_files(images, photos)[0], photos, origin)
    files[0].touch()
    assert not is_origin(images, folder_files(images, photos)[0], photos, origin)


def test_prepare_animated_image_names_it(
    photos: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.fromarray(pixels_of(number)) for number in range(2)]
    frames[0].save(photos / "photos" / "cow" / "x.gif", save_all=True, append_images=frames[1:])
    prepare_quietly(PHOTOS, empty, photos)
    assert "1 image has several frames or pages, of which only the first is used, such as " in (
        capsys.readouterr().err
    )


def test_prepare_reports_the_first_ten_broken_images_and_a_count(
    photos: Path, empty: Store
) -> None:
    for number in range(6):
        for name in ("ant", "cow"):
            (photos / "photos" / name / f"{number}.png").write_bytes(b"<svg/>")
    with pytest.raises(ValueError, match="task 'photos': these images are broken:") as raised:
        prepare_quietly(PHOTOS, empty, photos)
    lines = str(raised.value).splitlines()
    assert len(lines) == 12 and "… and 2 more images" in lines[-1]
    assert all("not a readable image" in line and "an SVG drawing" in line for line in lines[1:-1])


def test_prepare_class_of_heic_files_says_what_to_install(photos: Path) -> None:
    for file in (photos / "photos" / "bee").iterdir():
        file.rename(file.with_suffix(".heic"))
    images = ImageFolderImages(train="photos", test="photos")
    said = (
        r"class 'bee' has no training image, only 10 .heic files, .*HEIC.*pip install pillow-heif"
    )
    with pytest.raises(ValueError, match=said):
        describe(replace(PHOTOS, images=images), photos)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("set", None, "'test', 'train', which are splits, not classes; "
                      "did you mean train='set/train', test='set/test'?"),
        ("set/train", "set", "test='set': .* splits, not classes"),
        ("set/train", "flat", "test='flat': .*flat has no class folders, only 1 image file; put the"),
        ("flat", None, "train='flat': .*flat has no class folders, only 1 image file"),
        ("outer", None, r"has 1 class folder \('inner'\), .* did you mean 'outer/inner'\?"),
        ("set/train", "cased", "cased/ANT is not a class .*; did you mean 'ant'"),
    ],
)  # fmt: skip
def test_describe_wrong_folder_suggests_the_intent(
    photos: Path, train: str, test: str | None, message: str
) -> None:
    for folder in ("set/train", "set/test", "outer/inner"):
        shutil.copytree(photos / "photos", photos / folder)
    save(photos / "flat" / "0.png", pixels_of(0))
    save(photos / "cased" / "ANT" / "0.png", pixels_of(0))
    with pytest.raises(ValueError, match=message):
        describe(replace(PHOTOS, images=ImageFolderImages(train=train, test=test)), photos)


def test_a_folder_tree(photos: Path, empty: Store) -> None:
    (photos / "photos" / "ant" / "notes.txt").write_text("not an image")
    (photos / "photos" / ".cache").mkdir()
    task = prepare_quietly(PHOTOS, empty, photos)
    assert task.info == describe(PHOTOS, photos)
    assert task.info.classes == ("ant", "bee", "cow")
    assert task.info.image_shape == (3, 4, 6)
    assert np.bincount(task.train_labels).tolist() == [8, 8, 8]
    assert np.bincount(task.test_labels).tolist() == [2, 2, 2]
    expected = {
        pixels_of(label * 10 + number).transpose(2, 0, 1).tobytes(): label
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
        save(photos / "held-out" / name / "one.png", pixels_of(100 + label))
    images = ImageFolderImages(train="photos", test="held-out")
    task = prepare_quietly(replace(PHOTOS, images=images), empty, photos)
    assert (task.info.num_train, task.test_labels.tolist()) == (30, [0, 1, 2])
    save(photos / "held-out" / "dog" / "one.png", pixels_of(0))
    with pytest.raises(ValueError, match=r"held-out/dog is not a class .*'ant', 'bee', 'cow'"):
        describe(replace(PHOTOS, images=images), photos)


def test_classes_by_name_and_by_index_in_the_order_given(photos: Path, empty: Store) -> None:
    task = prepare_quietly(replace(PHOTOS, classes=("cow", 0)), empty, photos)
    assert task.info.classes == ("cow", "ant")
    cows = {pixels_of(20 + number).transpose(2, 0, 1).tobytes() for number in range(10)}
    is_cow = [image.tobytes() in cows for image in task.train_images]
    assert is_cow == (task.train_labels == 0).tolist()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ("cow", "dog"),
            "classes: 'dog' is not a class, choose 0 to 2 or from 'ant', 'bee', 'cow'",
        ),
        ((0, 3), "classes: 3 is not a class, choose 0 to 2"),
        ((0, "ant"), r"classes: 'ant' is given twice \(class 0\)"),
    ],
)
def test_classes_named_wrongly(photos: Path, classes: tuple[int | str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"task 'photos': {message}"):
        describe(replace(PHOTOS, classes=classes), photos)


def test_too_few_images_in_a_class(photos: Path) -> None:
    for number in range(1, 10):
        (photos / "photos" / "bee" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=r"class 'bee' has 1 images: drawing .* needs 2 or more"):
        describe(PHOTOS, photos)
    shutil.copytree(photos / "photos", photos / "held-out")
    (photos / "held-out" / "bee" / "0.png").unlink()
    images = ImageFolderImages(train="photos", test="held-out")
    with pytest.raises(ValueError, match="class 'bee' has no test image"):
        describe(replace(PHOTOS, images=images), photos)


def test_images_of_several_sizes_need_an_image_size(photos: Path, empty: Store) -> None:
    save(photos / "photos" / "cow" / "9.png", pixels_of(0, 5, 5))
    with pytest.raises(ValueError, match=r"photos/cow/9.png is 5×5 pixels, the first image 6×4"):
        prepare_quietly(PHOTOS, empty, photos)
    task = prepare_quietly(replace(PHOTOS, image_size=4), empty, photos)
    assert task.info.image_shape == (3, 4, 4)


def test_a_corrupt_image_is_named_and_nothing_is_published(photos: Path, empty: Store) -> None:
    path = photos / "photos" / "bee" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"task 'photos': photos/bee/3.png: not a readable image"):
        prepare_quietly(PHOTOS, empty, photos)
    assert not [path for path in Path(empty.root).rglob("*") if path.is_file()]


def test_a_wrong_data_directory(photos: Path) -> None:
    with pytest.raises(ValueError, match="task 'photos': it needs a data directory"):
        describe(PHOTOS, None)
    wrong = photos / "elsewhere"
    with pytest.raises(
        ValueError, match=f"train='photos': no folder {wrong}/photos .data directory: {wrong}"
    ):
        describe(PHOTOS, wrong)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "a/b"), ("name", ""), ("classes", (1,)), ("image_size", 0), ("test_fraction", 1.0)],
)
def test_a_wrong_field_of_a_task(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Task.{field}="):
        replace(PHOTOS, **{field: value})


# Parquet files.


def test_parquet_files_with_the_hubs_class_names(tmp_path: Path, empty: Store) -> None:
    parquet(tmp_path / "set" / "train.parquet", [1, 0, 1, 1, 0, 0, 1, 0, 0], ["no", "yes"])
    parquet(tmp_path / "set" / "test.parquet", [1, 0], ["no", "yes"])
    images = ParquetImages(train="set/train.parquet", test="set/test.parquet")
    task = prepare_quietly(Task(name="p", images=images), empty, tmp_path)
    assert task.info == describe(Task(name="p", images=images), tmp_path)
    assert task.info.classes == ("no", "yes")
    assert task.train_labels.tolist() == [1, 0, 1, 1, 0, 0, 1, 0, 0]
    assert task.test_labels.tolist() == [1, 0]
    for row in range(9):
        assert np.array_equal(task.train_images[row], pixels_of(row).transpose(2, 0, 1))


def test_parquet_shards_in_a_folder_a_pattern_or_a_list(tmp_path: Path, empty: Store) -> None:
    for shard in range(2):
        parquet(tmp_path / "set" / f"train-{shard}.parquet", [shard, 1, 0, 1, 2, 2])
    both = ("set/train-0.parquet", "set/train-1.parquet")
    ways: list[str | tuple[str, ...]] = ["set", "set/train-*.parquet", both]
    prepared = [
        prepare_quietly(
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
    expected = sorted((pixels_of(row).transpose(2, 0, 1).tobytes(), label) for row, label in rows)
    assert found == expected


def test_parquet_files_that_disagree_on_the_class_names(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", [0, 1, 0, 1], ["no", "yes"])
    parquet(tmp_path / "test.parquet", [0, 1], ["yes", "no"])
    images = ParquetImages(train="train.parquet", test="test.parquet")
    with pytest.raises(
        ValueError, match=r"test.parquet: its class names 'yes', 'no' are not .*train"
    ):
        describe(Task(name="p", images=images), tmp_path)


def test_parquet_labels_may_be_names_and_images_plain_bytes(tmp_path: Path, empty: Store) -> None:
    plain = [encoded(Image.fromarray(pixels_of(row))) for row in range(4)]
    parquet(tmp_path / "t.parquet", ["b", "a", "b", "a"], img=plain)
    images = ParquetImages(train="t.parquet", test="t.parquet", image_column="img")
    task = prepare_quietly(Task(name="p", images=images), empty, tmp_path)
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
        ([0, 1], {"image_column": "label"}, "image_column='label': t.parquet has int64 there"),
        ([], {}, "train='t.parquet': t.parquet has no rows"),
        (
            pa.array([0, 2**63], pa.uint64()),
            {},
            "t.parquet row 1: label=9223372036854775808 does not fit into int64",
        ),
        ([0, 1], {"train": "u.parquet"}, "train='u.parquet': no Parquet file at .*data directory"),
    ],
)
def test_what_is_wrong_with_a_parquet_file(
    tmp_path: Path, labels: Any, fields: dict[str, str], message: str
) -> None:
    parquet(tmp_path / "t.parquet", labels, ["no", "yes"])
    images = replace(ParquetImages(train="t.parquet", test="t.parquet"), **fields)
    with pytest.raises(ValueError, match=f"task 'p': {message}"):
        describe(Task(name="p", images=images), tmp_path)


def test_a_row_without_a_readable_image_is_named(tmp_path: Path, empty: Store) -> None:
    parquet(tmp_path / "a.parquet", [0, 1, 0, 1, 0, 1])
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
            prepare_quietly(task, empty, tmp_path)


@pytest.mark.parametrize(
    ("pattern", "labels"),
    [
        ("p/*/t-?.parquet", [0, 1, 0, 1]),
        ("p/**/*.parquet", [0, 1, 0, 1]),
        ("p/x", [0, 1, 0, 1]),
        ("p/x/t-[01].parquet", pa.array(["a", "b", "a", "b"], pa.string_view())),
        ("p/x/*", pa.array(["a", "b", "a", "b"]).dictionary_encode()),
    ],
)
def test_prepare_parquet_patterns_and_label_types(
    tmp_path: Path, empty: Store, pattern: str, labels: Any
) -> None:
    is_view = isinstance(labels, pa.Array) and pa.types.is_string_view(labels.type)
    if is_view and int(pa.__version__.partition(".")[0]) < 23:
        pytest.skip("this pyarrow does not write string_view")
    for shard in range(2):
        parquet(tmp_path / "p" / "x" / f"t-{shard}.parquet", labels)
    task = prepare_quietly(Task(name="p", images=ParquetImages(train=pattern)), empty, tmp_path)
    assert np.bincount(task.train_labels).tolist() == [3, 3]
    with pytest.raises(ValueError, match=r"no Parquet file at .*/p .*give 'p/\*\*/\*.parquet'"):
        describe(Task(name="p", images=ParquetImages(train="p")), tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            [0, 1],
            ["0", "1"],
            r"b.parquet has names \(row 0: '0'\), but a.parquet has whole numbers",
        ),
        ([1, 1], [1, 1], r"it has 1 class \('1'\), a task needs 2 or more"),
    ],
)
def test_describe_parquet_shards_that_make_no_task_are_refused(
    tmp_path: Path, first: Any, second: Any, message: str
) -> None:
    parquet(tmp_path / "a.parquet", first)
    parquet(tmp_path / "b.parquet", second)
    for train, test in ((("a.parquet", "b.parquet"), None), ("a.parquet", "b.parquet")):
        with pytest.raises(ValueError, match=message):
            describe(Task(name="p", images=ParquetImages(train=train, test=test)), tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("not json", "are not JSON"),
        ("[]", r"have \[\] instead of an object with 'info'"),
        ('{"info": {"features": [1]}}', r"have \[1\] instead of an object with 'label'"),
        ('{"info": {"features": {"label": {"names": [0, 1]}}}}', r"have the names \[0, 1\]"),
        ('{"info": {"features": {"label": {"names": ["a", "a"]}}}}', ".* different names"),
    ],
)
def test_describe_parquet_invalid_metadata_names_the_file(
    tmp_path: Path, metadata: str, message: str
) -> None:
    path = parquet(tmp_path / "t.parquet", [0, 1, 0, 1])
    table = pq.read_table(path).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, path)
    with pytest.raises(ValueError, match=f"t.parquet: its metadata 'huggingface' {message}"):
        describe(Task(name="p", images=ParquetImages(train="t.parquet")), tmp_path)


def test_prepare_parquet_doubtful_labels_and_files_are_reported(
    tmp_path: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet(tmp_path / "n" / "a.parquet", [0, 1, -1] * 2)
    parquet(tmp_path / "n" / "b.parquet", [])
    parquet(tmp_path / "s" / "a.parquet", ["cat", "cat ", "Cat", "dog"] * 2)
    (tmp_path / "n" / "c.parq").touch()
    for name in ("n", "s"):
        prepare_quietly(Task(name=name, images=ParquetImages(train=name)), empty, tmp_path)
    shown = capsys.readouterr().err
    for said in (
        "task 'n': label=-1 is a class of 2 training images; if it means that there is no label,",
        "task 'n': n/b.parquet has no rows",
        "task 'n': skipped 1 .parq file, such as n/c.parq",
        "task 's': the classes 'Cat', 'cat', 'cat ' differ only in case, spaces or Unicode form",
    ):
        assert f"study: warning: {said}" in shown, said
    assert len(shown.splitlines()) == 4


def test_prepare_parquet_images_of_paths_only_say_what_to_do(tmp_path: Path, empty: Store) -> None:
    images = [{"bytes": None, "path": f"{row}.png"} for row in range(12)]
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 6}), tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="these images are broken") as raised:
        task = Task(name="p", images=ParquetImages(train="t.parquet"), image_size=8)
        prepare_quietly(task, empty, tmp_path)
    said = "only the path '0.png'; write the file's bytes into the column, too"
    assert said in str(raised.value) and "… and 2 more images" in str(raised.value)


def test_a_torn_parquet_file_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t.parquet: not a readable Parquet file"):
        describe(Task(name="p", images=ParquetImages(train="t.parquet")), tmp_path)


# From anywhere.


def test_no_format_that_calls_another_program_is_read(tmp_path: Path) -> None:
    assert Image.open(io.BytesIO(EPS)).format == "EPS", "Pillow itself would have Ghostscript run"
    path = tmp_path / "a.png"
    path.write_bytes(EPS)
    for image in (EPS, path):
        with pytest.raises(ValueError, match=r"a.png: not a readable image \(cannot identify"):
            to_pixels(image, "a.png", None)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)))
    assert len(bomb) < 50_000
    limit = r"a.png: .*13,000×13,000 pixels, the limit is 67,108,864 in all \(set STUDY_MAX_PIXELS"
    tracemalloc.start()
    with pytest.raises(ValueError, match=limit):
        to_pixels(bomb, "a.png", 8)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 1_000
    )  # as for an image that Pillow itself refuses
    with pytest.raises(ValueError, match=r"a.png: .*the limit is .*set STUDY_MAX_PIXELS"):
        to_pixels(bomb, "a.png", 8)
    monkeypatch.setenv("STUDY_MAX_PIXELS", str(13_000**2))
    assert not to_pixels(bomb, "a.png", 8).any()


def test_a_small_parquet_file_that_holds_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [{"bytes": bytes(100_000)}] * 64
    table = pa.table({"image": images, "label": [0, 1] * 32})
    pq.write_table(table, tmp_path / "much.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "much.parquet").stat().st_size < 10_000
    task = Task(name="t", images=ParquetImages(train="much.parquet"))
    monkeypatch.setattr(parquet_module, "MAX_PAGE_BYTES", 2**20)
    with pytest.raises(ValueError, match=r"much.parquet: row group 0 holds 6,\d{3},\d{3} bytes"):
        describe(task, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(parquet_module, "MAX_ENCODED_BYTES", 99_999)
    with pytest.raises(
        ValueError, match=r"much.parquet row 0: an image of 100,000 bytes, the limit"
    ):
        describe(task, tmp_path)


def test_one_image_in_many_rows_of_a_parquet_file(tmp_path: Path, empty: Store) -> None:
    # A dictionary: what stands once in the file stands once in memory.
    image = {"bytes": encoded(Image.fromarray(pixels_of(1)))}
    names = pa.table({"image": [image] * 40, "label": [0, 1] * 20})
    pq.write_table(names, tmp_path / "same.parquet", use_dictionary=True, row_group_size=7)
    task = Task(name="same", images=ParquetImages(train="same.parquet"))
    prepared = prepare_quietly(task, empty, tmp_path)
    assert len(prepared.train_images) + len(prepared.test_images) == 40
    assert (prepared.train_images == pixels_of(1).transpose(2, 0, 1)).all()


def test_a_parquet_file_whose_dictionary_became_too_large(tmp_path: Path, empty: Store) -> None:
    # Its writer began with a dictionary and went on without: both in one group.
    images = [{"bytes": encoded(Image.fromarray(pixels_of(row % 30)))} for row in range(60)]
    table = pa.table({"image": images, "label": [0, 1] * 30})
    path = tmp_path / "p.parquet"
    pq.write_table(table, path, dictionary_pagesize_limit=500, write_batch_size=4)
    encodings = pq.ParquetFile(path).metadata.row_group(0).column(0).encodings
    assert {"PLAIN", "RLE_DICTIONARY"} <= set(encodings)
    prepared = prepare_quietly(
        Task(name="p", images=ParquetImages(train="p.parquet")), empty, tmp_path
    )
    every = [*prepared.train_images, *prepared.test_images]
    found = Counter(image.tobytes() for image in every)
    assert found == {pixels_of(row).transpose(2, 0, 1).tobytes(): 2 for row in range(30)}


@pytest.mark.parametrize("num_bytes", [1, 300, 2**40])
def test_how_many_are_in_memory_at_a_time_changes_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    task = replace(PHOTOS, name="again")
    expected = prepare_quietly(task, open_store(tmp_path / "one"), photos).fingerprint
    monkeypatch.setattr(sys.modules[prepare.__module__], "BYTES_AT_ONCE", num_bytes)
    monkeypatch.setattr(parquet_module, "BYTES_AT_ONCE", num_bytes)
    assert prepare_quietly(task, open_store(tmp_path / "two"), photos).fingerprint == expected
    parquet(tmp_path / "p.parquet", [0, 1] * 10)
    task = Task(name="p", images=ParquetImages(train="p.parquet"))
    prepared = prepare_quietly(task, open_store(tmp_path / "three"), tmp_path)
    found = {image.tobytes() for image in (*prepared.train_images, *prepared.test_images)}
    assert found == {pixels_of(row).transpose(2, 0, 1).tobytes() for row in range(20)}
