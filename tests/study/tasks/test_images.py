"""Image files as pixels, and folders of them as tasks: what is read, and which errors there are."""

from __future__ import annotations

import io
import re
import shutil
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from study.fields import canonical_json, digest_of
from study.store import Store
from study.tasks import describe
from study.tasks.images import (
    FORMATS,
    ImageFolderImages,
    first_folder_files,
    folder_files,
    to_pixels,
)
from study.tasks.task import is_origin
from tests.image_files import (
    PHOTOS,
    encoded,
    images_from,
    images_of,
    pixels_of,
    prepare_quietly,
    save,
)

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
showpage
%%EOF
"""
COLOUR = pixels_of(0)
GREY = np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)
DEEP = GREY.astype(np.uint16)


def pixels(image: np.ndarray | bytes, size: int | None = None) -> np.ndarray:
    return to_pixels(image, "x", size)


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown after a quarter turn clockwise
    return encoded(Image.fromarray(COLOUR), exif=exif)


def transparent() -> bytes:
    """Only the upper half is opaque."""
    alpha = np.repeat(np.array([[255], [0]], dtype=np.uint8), 2, axis=0).repeat(6, axis=1)
    return encoded(Image.fromarray(np.dstack([COLOUR, alpha])))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (encoded(Image.fromarray(COLOUR)), COLOUR),
        (GREY, GREY),
        (encoded(Image.fromarray(GREY)), GREY),
        (encoded(Image.fromarray(GREY).convert("P")), GREY),
        (encoded(Image.fromarray(GREY >= 120)), np.where(GREY >= 120, 255, 0)),
        (encoded(Image.fromarray(DEEP * 256 + 255)), GREY),
        (b"P5 6 4 65535\n" + (DEEP * 256).astype(">u2").tobytes(), GREY),  # PGM
        (turned(), np.rot90(COLOUR, -1)),
        (transparent(), np.concatenate([COLOUR[:2], np.full_like(COLOUR[2:], 255)])),
    ],
    ids=[
        "colour",
        "array",
        "grey",
        "palette",
        "bits",
        "16-bit",
        "16-bit-pgm",
        "turned",
        "transparent",
    ],
)
def test_to_pixels_any_kind_becomes_three_channels(image: Any, expected: np.ndarray) -> None:
    if expected.ndim == 2:
        expected = np.dstack([expected] * 3)
    assert np.array_equal(pixels(image).transpose(1, 2, 0), expected)


def test_to_pixels_transparent_palette_entry_becomes_white() -> None:
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([9, 8, 7, 6, 5, 4])
    assert pixels(encoded(palette, transparency=0))[:, 0].T.tolist() == [[255] * 3, [6, 5, 4]]


def test_to_pixels_converted_values_are_close_to_the_original() -> None:
    colour = Image.fromarray(np.kron(COLOUR, np.ones((16, 16, 1), dtype=np.uint8)))
    twins = [encoded(colour.convert(mode), "JPEG", quality=95) for mode in ("CMYK", "RGB")]
    cmyk, rgb = (pixels(twin).astype(int) for twin in twins)
    assert np.abs(cmyk - rgb).mean() < 5  # JPEG's own loss; inverted colours differ by about 85
    twelve_bits = b"P5 6 4 4095\n" + (DEEP * 16).astype(">u2").tobytes()
    assert np.abs(pixels(twelve_bits).astype(int) - GREY).max() <= 1


def test_to_pixels_resized_keeps_the_middle_square_and_does_not_alias() -> None:
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 200
    assert (pixels(wide, 8) == 200).all()
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 200
    inner = pixels(stripes, 8)[:, 1:-1, 1:-1].astype(int)
    assert np.abs(inner - 100).max() <= 2  # picking every eighth column would give 0 or 200


@pytest.mark.parametrize("mode", ["I", "F"])
def test_to_pixels_of_unknown_range_is_an_error(mode: str) -> None:
    image = Image.fromarray(GREY).convert(mode)
    with pytest.raises(ValueError, match=f"a.tif: '{mode}' pixels"):
        to_pixels(encoded(image, "TIFF"), "a.tif", None)


def test_to_pixels_format_that_calls_another_program_is_an_error(tmp_path: Path) -> None:
    assert Image.open(io.BytesIO(EPS)).format == "EPS", "Pillow itself would have Ghostscript run"
    path = tmp_path / "a.png"
    path.write_bytes(EPS)
    for image in (EPS, path):
        with pytest.raises(ValueError, match=r"a.png: not a readable image \(cannot identify"):
            to_pixels(image, "a.png", None)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_to_pixels_too_large_image_is_an_error_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bomb = encoded(Image.new("1", (13_000, 13_000)))
    limit = r"a.png: .*13,000×13,000 pixels, the limit is 67,108,864 in all \(set STUDY_MAX_PIXELS"
    tracemalloc.start()
    with pytest.raises(ValueError, match=limit):
        to_pixels(bomb, "a.png", 8)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    # An image beyond Pillow's own limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    with pytest.raises(ValueError, match=r"a.png: .*the limit is .*set STUDY_MAX_PIXELS"):
        to_pixels(bomb, "a.png", 8)
    monkeypatch.setenv("STUDY_MAX_PIXELS", str(13_000**2))
    assert not pixels(bomb, 8).any()


# Folders


def with_test(test: str | None, train: str = "photos") -> Any:
    return replace(PHOTOS, images=ImageFolderImages(train=train, test=test))


def test_prepare_folder_reads_every_image_and_draws_a_test_split(
    photos: Path, empty: Store
) -> None:
    (photos / "photos" / "ant" / "notes.txt").write_text("not an image")
    (photos / "photos" / ".cache").mkdir()
    task = prepare_quietly(PHOTOS, empty, photos)
    assert task.info == describe(PHOTOS, photos)
    assert task.info.classes == ("ant", "bee", "cow")
    assert task.info.image_shape == (3, 4, 6)
    assert np.bincount(task.train_labels).tolist() == [8, 8, 8]
    assert images_of(task) == images_from((number, number // 10) for number in range(30))


def test_prepare_test_folder_is_the_test_split(photos: Path, empty: Store) -> None:
    for label, name in enumerate(("ant", "bee", "cow")):
        save(photos / "held-out" / name / "one.png", pixels_of(100 + label))
    task = prepare_quietly(with_test("held-out"), empty, photos)
    assert (task.info.num_train, task.test_labels.tolist()) == (30, [0, 1, 2])
    save(photos / "held-out" / "dog" / "one.png", pixels_of(0))
    with pytest.raises(ValueError, match=r"held-out/dog is not a class .*'ant', 'bee', 'cow'"):
        describe(with_test("held-out"), photos)


def test_prepare_classes_by_name_and_index_keep_their_order(photos: Path, empty: Store) -> None:
    task = prepare_quietly(replace(PHOTOS, classes=("cow", 0)), empty, photos)
    assert task.info.classes == ("cow", "ant")
    cows, ants = (
        [(first + number, label) for number in range(10)] for first, label in ((20, 0), (0, 1))
    )
    assert images_of(task) == images_from(cows + ants)


def test_prepare_images_of_several_sizes_needs_image_size(photos: Path, empty: Store) -> None:
    save(photos / "photos" / "cow" / "9.png", pixels_of(0, 5, 5))
    with pytest.raises(ValueError, match=r"photos/cow/9.png is 5×5 pixels, the first image 6×4"):
        prepare_quietly(PHOTOS, empty, photos)
    task = prepare_quietly(replace(PHOTOS, image_size=4), empty, photos)
    assert task.info.image_shape == (3, 4, 4)


@pytest.mark.parametrize("suffix", ["gif", "jfif", "jpe", "pbm", "pnm", "avif"])
def test_prepare_reads_all_suffixes_of_its_formats(photos: Path, empty: Store, suffix: str) -> None:
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "pbm": "PPM", "pnm": "PPM"}
    kind = kinds.get(suffix, suffix.upper())
    if kind not in FORMATS:
        pytest.skip(f"this Pillow does not read {kind}")
    file = photos / "photos" / "cow" / f"more.{suffix.upper()}"
    file.write_bytes(encoded(Image.fromarray(COLOUR), kind))
    info = prepare_quietly(PHOTOS, empty, photos).info
    assert info.num_train + info.num_test == 31


def test_prepare_of_an_earlier_release_stays_valid(photos: Path) -> None:
    (photos / "photos" / "cow" / "x.gif").write_bytes(encoded(Image.fromarray(COLOUR), "GIF"))
    images = ImageFolderImages(train="photos")
    files = first_folder_files(images, photos)
    assert len(files) == 30
    stats = [(str(file.relative_to(photos)), file.stat()) for file in files]
    plain = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    origin = digest_of(canonical_json(plain))  # as release 0.1.0 computed it
    assert is_origin(images, folder_files(images, photos)[0], photos, origin)
    files[0].touch()
    assert not is_origin(images, folder_files(images, photos)[0], photos, origin)


# Folders: warnings


def test_prepare_counts_skipped_files_by_reason(
    photos: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    before = prepare_quietly(PHOTOS, empty, photos).fingerprint
    top, ant = photos / "photos", photos / "photos" / "ant"
    for folder in (top / "__MACOSX" / "ant", top / "lost+found", ant / "@eaDir" / "0.png"):
        save(folder / "thumbnail.png", COLOUR)
    (ant / "more").mkdir()
    for number, name in enumerate(("x.heic", "more/y.heic", "z.svg", "none", "._0.png")):
        (ant / name).write_bytes(bytes(number))
    (ant / "gone.png").symlink_to(ant / "nowhere.png")
    (ant / "elsewhere").symlink_to(top / "bee")
    save(top / "beside.png", COLOUR)
    assert prepare_quietly(PHOTOS, empty, photos).fingerprint == before
    shown = capsys.readouterr().err.splitlines()
    reasons = (
        r"2 .heic files, such as photos/ant/more/y.heic \(HEIC photos: .* install pillow-heif` .*\)",
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


def deep_tiff(values: np.ndarray) -> bytes:
    """Return a colour TIFF of 16 bits a channel, which Pillow reads but does not write."""
    height, width, _ = values.shape
    data = values.astype("<u2").tobytes()
    longs = {256: width, 257: height, 259: 1, 262: 2, 273: 14, 277: 3, 278: height, 279: len(data)}
    entries = [(tag, 4, 1, value) for tag, value in longs.items()] + [(258, 3, 3, 8)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    head = struct.pack("<2sHIHHH", b"II", 42, 14 + len(data), 16, 16, 16)
    return head + data + struct.pack("<H", len(entries)) + directory + bytes(4)


@pytest.mark.parametrize("top", [4095, 65535])
def test_prepare_values_of_12_bits_in_16_are_reported(
    photos: Path, empty: Store, capsys: pytest.CaptureFixture[str], top: int
) -> None:
    values = np.linspace(0, top, 72).round().astype(np.uint16).reshape(4, 6, 3)
    ant, cow = photos / "photos" / "ant", photos / "photos" / "cow"
    (ant / "0.png").write_bytes(encoded(Image.fromarray(values[..., 2])))
    (cow / "0.tif").write_bytes(deep_tiff(values))
    expected = (
        r"2 images have 16 bits a channel, such as .*/0.\w+, but only values from .* to 4,095, "
        r"which become 0 to 15 of 255. If 4,095 means white, multiply the values by 16"
    )
    for _ in range(2):  # the second time, the task is prepared
        prepare_quietly(PHOTOS, empty, photos)
        shown = capsys.readouterr().err
        assert re.search(expected, shown) if top == 4095 else "16 bits" not in shown


def test_prepare_animated_image_names_it(
    photos: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (Image.fromarray(pixels_of(number)) for number in range(2))
    first.save(photos / "photos" / "cow" / "x.gif", save_all=True, append_images=[second])
    prepare_quietly(PHOTOS, empty, photos)
    expected = "1 image has several frames or pages, of which only the first is used, such as "
    assert expected in capsys.readouterr().err


# Folders: errors


def test_prepare_broken_images_are_named_and_nothing_is_published(
    photos: Path, empty: Store
) -> None:
    path = photos / "photos" / "bee" / "3.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:60])
    with pytest.raises(ValueError, match=r"task 'photos': photos/bee/3.png: not a readable image"):
        prepare_quietly(PHOTOS, empty, photos)
    path.write_bytes(whole)
    for number in range(6):
        for name in ("ant", "cow"):
            (photos / "photos" / name / f"{number}.png").write_bytes(b"<svg/>")
    with pytest.raises(ValueError, match="task 'photos': these images are broken:") as raised:
        prepare_quietly(PHOTOS, empty, photos)
    lines = str(raised.value).splitlines()
    assert len(lines) == 12 and "… and 2 more images" in lines[-1]
    assert all("not a readable image" in line and "an SVG drawing" in line for line in lines[1:-1])
    assert not [path for path in Path(empty.root).rglob("*") if path.is_file()]


def test_describe_class_with_too_few_images_is_named(photos: Path) -> None:
    shutil.copytree(photos / "photos", photos / "held-out")
    for number in range(1, 10):
        (photos / "photos" / "bee" / f"{number}.png").unlink()
    with pytest.raises(ValueError, match=r"class 'bee' has 1 images: drawing .* needs 2 or more"):
        describe(PHOTOS, photos)
    for file in (photos / "held-out" / "bee").iterdir():
        file.rename(file.with_suffix(".heic"))
    for task, expected in (
        (with_test("held-out"), "class 'bee' has no test image"),
        (with_test("photos", "held-out"), "class 'bee' has no training image, only 10 .heic files"),
    ):
        with pytest.raises(ValueError, match=f"{expected}.*pip install pillow-heif"):
            describe(task, photos)


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
        ("gone", None, "train='gone': no folder .*/gone .data directory: "),
    ],
)  # fmt: skip
def test_describe_wrong_folder_suggests_the_intent(
    photos: Path, train: str, test: str | None, message: str
) -> None:
    for folder in ("set/train", "set/test", "outer/inner"):
        shutil.copytree(photos / "photos", photos / folder)
    save(photos / "flat" / "0.png", COLOUR)
    save(photos / "cased" / "ANT" / "0.png", COLOUR)
    with pytest.raises(ValueError, match=message):
        describe(with_test(test, train), photos)


def test_describe_without_a_data_directory_is_an_error() -> None:
    with pytest.raises(ValueError, match="task 'photos': it needs a data directory"):
        describe(PHOTOS, None)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (("cow", "dog"), "'dog' is not a class, choose 0 to 2 or from 'ant', 'bee', 'cow'"),
        ((0, 3), "3 is not a class, choose 0 to 2"),
        ((0, "ant"), r"'ant' is given twice \(class 0\)"),
    ],
)
def test_describe_wrong_classes_are_named(photos: Path, classes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"task 'photos': classes: {message}"):
        describe(replace(PHOTOS, classes=classes), photos)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "a/b"), ("name", ""), ("classes", (1,)), ("image_size", 0), ("test_fraction", 1.0)],
)
def test_task_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"Task.{field}="):
        replace(PHOTOS, **{field: value})
