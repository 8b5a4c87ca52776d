"""Tasks of Parquet files: rows as images, their labels and class names, and errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from study.store import Store, open_store
from study.tasks import describe, prepare
from study.tasks import parquet as parquet_module
from tests.image_files import (
    PHOTOS,
    encoded,
    images_from,
    images_of,
    parquet,
    parquet_task,
    pixels_of,
    prepare_quietly,
)


def png(seed: int) -> bytes:
    return encoded(Image.fromarray(pixels_of(seed)))


def test_prepare_parquet_has_the_hubs_class_names(tmp_path: Path, empty: Store) -> None:
    labels = [1, 0, 1, 1, 0, 0, 1, 0, 0]
    parquet(tmp_path / "set" / "train.parquet", labels, ["no", "yes"])
    parquet(tmp_path / "set" / "test.parquet", [1, 0], ["no", "yes"])
    wanted = parquet_task("set/train.parquet", test="set/test.parquet")
    task = prepare_quietly(wanted, empty, tmp_path)
    assert task.info == describe(wanted, tmp_path)
    assert task.info.classes == ("no", "yes")
    assert (task.train_labels.tolist(), task.test_labels.tolist()) == (labels, [1, 0])
    for row in range(9):
        assert np.array_equal(task.train_images[row], pixels_of(row).transpose(2, 0, 1))


@pytest.mark.parametrize(
    "train",
    ["p/x", "p/*/t-?.parquet", "p/**/*.parquet", "p/x/*", ("p/x/t-0.parquet", "p/x/t-1.parquet")],
)
def test_prepare_parquet_folder_pattern_or_list_reads_all_shards(
    tmp_path: Path, empty: Store, train: Any
) -> None:
    for shard in range(2):
        parquet(tmp_path / "p" / "x" / f"t-{shard}.parquet", [shard, 1, 0, 1, 2, 2])
    task = prepare_quietly(replace(parquet_task(train), classes=(2, "0")), empty, tmp_path)
    assert task.info.classes == ("2", "0")
    rows = [(4, 0), (5, 0), (4, 0), (5, 0), (0, 1), (2, 1), (2, 1)]
    assert images_of(task) == images_from(rows)
    with pytest.raises(ValueError, match=r"no Parquet file at .*/p .*give 'p/\*\*/\*.parquet'"):
        describe(parquet_task("p"), tmp_path)


@pytest.mark.parametrize("kind", ["string", "string_view", "dictionary"])
def test_prepare_parquet_labels_may_be_names_and_images_plain_bytes(
    tmp_path: Path, empty: Store, kind: str
) -> None:
    if kind == "string_view" and int(pa.__version__.partition(".")[0]) < 23:
        pytest.skip("this pyarrow does not write string_view")
    names = pa.array(["b", "a"] * 3)
    labels = names.dictionary_encode() if kind == "dictionary" else names.cast(kind)
    parquet(tmp_path / "t.parquet", labels, img=[png(row) for row in range(6)])
    task = prepare_quietly(parquet_task("t.parquet", image_column="img"), empty, tmp_path)
    assert task.info.classes == ("a", "b")
    assert images_of(task) == images_from((row, (row + 1) % 2) for row in range(6))


def test_prepare_parquet_dictionary_that_became_too_large(tmp_path: Path, empty: Store) -> None:
    # The writer begins with a dictionary and continues without one in the same row group.
    images = [{"bytes": png(row % 30)} for row in range(60)]
    table = pa.table({"image": images, "label": [0, 1] * 30})
    path = tmp_path / "p.parquet"
    pq.write_table(table, path, dictionary_pagesize_limit=500, write_batch_size=4)
    encodings = pq.ParquetFile(path).metadata.row_group(0).column(0).encodings
    assert {"PLAIN", "RLE_DICTIONARY"} <= set(encodings)
    prepared = prepare_quietly(parquet_task("p.parquet"), empty, tmp_path)
    assert images_of(prepared) == images_from((row % 30, row % 2) for row in range(60))


@pytest.mark.parametrize("num_bytes", [1, 300, 2**40])
def test_prepare_any_number_of_bytes_at_once_gives_the_same_task(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    expected = prepare_quietly(PHOTOS, open_store(tmp_path / "one"), photos).fingerprint
    monkeypatch.setattr(sys.modules[prepare.__module__], "BYTES_AT_ONCE", num_bytes)
    monkeypatch.setattr(parquet_module, "BYTES_AT_ONCE", num_bytes)
    store = open_store(tmp_path / "two")
    assert prepare_quietly(PHOTOS, store, photos).fingerprint == expected
    # One image is the same in all rows: a dictionary stores it once in the file and in memory.
    images = [{"bytes": png(max(row, 10))} for row in range(20)]
    table = pa.table({"image": images, "label": [0, 1] * 10})
    pq.write_table(table, tmp_path / "p.parquet", use_dictionary=True, row_group_size=7)
    task = prepare_quietly(parquet_task("p.parquet"), store, tmp_path)
    assert images_of(task) == images_from((max(row, 10), row % 2) for row in range(20))


def test_prepare_parquet_doubtful_labels_and_files_are_reported(
    tmp_path: Path, empty: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet(tmp_path / "n" / "a.parquet", [0, 1, -1] * 2)
    parquet(tmp_path / "n" / "b.parquet", [])
    parquet(tmp_path / "s" / "a.parquet", ["cat", "cat ", "Cat", "dog"] * 2)
    (tmp_path / "n" / "c.parq").touch()
    for name in ("n", "s"):
        prepare_quietly(replace(parquet_task(name), name=name), empty, tmp_path)
    shown = capsys.readouterr().err
    for expected in (
        "task 'n': label=-1 is a class of 2 training images; if it means that there is no label,",
        "task 'n': n/b.parquet has no rows",
        "task 'n': skipped 1 .parq file, such as n/c.parq",
        "task 's': the classes 'Cat', 'cat', 'cat ' differ only in case, spaces or Unicode form",
    ):
        assert f"study: warning: {expected}" in shown, expected
    assert len(shown.splitlines()) == 4


# Errors


@pytest.mark.parametrize(
    ("labels", "fields", "message"),
    [
        ([0, 1, 0, 1, 2, 1], {}, "t.parquet row 4: label=2 is not a class, choose from 0, 1"),
        ([0, 1, 0, 1, -1, 1], {}, "t.parquet row 4: label=-1 is not a class"),
        ([0, 1, None, 1], {}, "t.parquet row 2: no label"),
        ([0.5, 1.0], {}, "label_column='label': t.parquet has double there"),
        ([0, 1], {"label_column": "y"}, "label_column='y': not in t.parquet, .* 'image', 'label'"),
        ([0, 1], {"image_column": "x"}, "image_column='x': not in t.parquet, .* 'image', 'label'"),
        ([0, 1], {"image_column": "label"}, "image_column='label': t.parquet has int64 there"),
        ([], {}, "train='t.parquet': t.parquet has no rows"),
        (pa.array([0, 2**63], pa.uint64()), {}, f"row 1: label={2**63} does not fit into int64"),
        ([0, 1], {"train": "u.parquet"}, "train='u.parquet': no Parquet file at .*data directory"),
    ],
)
def test_describe_parquet_wrong_content_or_column_is_named(
    tmp_path: Path, labels: Any, fields: dict[str, str], message: str
) -> None:
    parquet(tmp_path / "t.parquet", labels, ["no", "yes"])
    task = parquet_task(**{"train": "t.parquet", "test": "t.parquet"} | fields)
    with pytest.raises(ValueError, match=f"task 'p': .*{message}"):
        describe(task, tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "names", "message"),
    [
        ([0, 1], ["0", "1"], None, r"b.parquet has names \(row 0: '0'\), but a.parquet has whole"),
        ([1, 1], [1, 1], None, r"it has 1 class \('1'\), a task needs 2 or more"),
        ([0, 1], [0, 1], ["yes", "no"], "b.parquet: its class names 'yes', 'no' are not .*a.parq"),
    ],
)
def test_describe_parquet_files_that_disagree_are_named(
    tmp_path: Path, first: Any, second: Any, names: Any, message: str
) -> None:
    parquet(tmp_path / "a.parquet", first, names and names[::-1])
    parquet(tmp_path / "b.parquet", second, names)
    shards, splits = (
        parquet_task(("a.parquet", "b.parquet")),
        parquet_task("a.parquet", test="b.parquet"),
    )
    for task in (shards, splits):
        with pytest.raises(ValueError, match=message):
            describe(task, tmp_path)


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
        describe(parquet_task("t.parquet"), tmp_path)


def test_prepare_parquet_row_without_a_readable_image_is_named(
    tmp_path: Path, empty: Store
) -> None:
    parquet(tmp_path / "a.parquet", [0, 1, 0, 1, 0, 1])
    table = pq.read_table(tmp_path / "a.parquet")
    for content, num_broken, message in (
        (b"\x89PNG nonsense", 1, "task 'p': b.parquet row 5: not a readable image"),
        (None, 1, "task 'p': b.parquet row 5: no image bytes"),
        (None, 6, "only the path '0.png'; write the file's bytes into the column, too"),
    ):
        images = table["image"].to_pylist()
        for image in images[-num_broken:]:
            image["bytes"] = content
        pq.write_table(table.set_column(0, "image", [images]), tmp_path / "b.parquet")
        with pytest.raises(ValueError, match=f"(?s){message}"):
            prepare_quietly(parquet_task(("a.parquet", "b.parquet")), empty, tmp_path)


def test_describe_parquet_torn_file_is_named(tmp_path: Path) -> None:
    path = parquet(tmp_path / "t.parquet", [0, 1])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"t.parquet: not a readable Parquet file"):
        describe(parquet_task("t.parquet"), tmp_path)


@pytest.mark.parametrize(
    ("name", "limit", "message"),
    [
        ("MAX_PAGE_BYTES", 2**20, r"row group 0 holds 6,\d{3},\d{3} bytes"),
        ("MAX_ENCODED_BYTES", 99_999, "row 0: an image of 100,000 bytes, the limit"),
    ],
)
def test_describe_parquet_small_file_of_much_data_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, message: str
) -> None:
    table = pa.table({"image": [{"bytes": bytes(100_000)}] * 64, "label": [0, 1] * 32})
    path = tmp_path / "much.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(parquet_module, name, limit)
    with pytest.raises(ValueError, match=f"much.parquet:? {message}"):
        describe(parquet_task("much.parquet"), tmp_path)
