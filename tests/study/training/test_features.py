"""Features shared by a machine's Runs: the same bits as own ones, under a key for each prefix."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from study.launching.driver import run_study
from study.launching.options import LaunchOptions
from study.planning.spaces import space_of
from study.run import Run
from study.store import Store, finished_ids
from study.training import feature_cache, features, inputs
from study.training.cut import cut, starting_network
from study.training.feature_cache import make_room, node_folder, read, tidy, write
from study.training.features import Features, prefix_key, shared_features
from tests.trainings import SHAPE, cell, network, outcome, source, to_the_end, training_of

CELL = cell(size=300, label_noise=0.0)


@pytest.fixture(autouse=True)
def always_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "WORTH_SECONDS_PER_GIB", 0.0)
    monkeypatch.setattr(inputs, "TRAINING_WORTH_SECONDS", 0.0)
    monkeypatch.setattr(inputs, "TEST_WORTH_SECONDS", 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "features").mkdir()
    return tmp_path / "features"


def features_in(folder: Path, images: torch.Tensor, worth_seconds: float = 0.0) -> Features:
    """Return the shared features of a prefix that only flattens."""
    prefix = nn.Sequential(nn.Flatten())

    def batch(span: slice) -> torch.Tensor:
        return images[span].float()

    return shared_features(prefix, images, batch, folder, "k", worth_seconds=worth_seconds)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The size of each batch that passes through a prefix."""
    sizes: list[int] = []

    def counted(given: inputs.Inputs, images: torch.Tensor) -> Callable[[slice], torch.Tensor]:
        def batch(span: slice) -> torch.Tensor:
            sizes.append(len(images[span]))
            return given._normalise(images[span])

        return batch

    monkeypatch.setattr(inputs.Inputs, "_batches", counted)
    return sizes


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("resnet18", {"frozen": 4}),
        ("resnet18", {"frozen": 9}),
        ("resnet18", {"frozen": 9, "trained_channels": 5}),
        ("resnet18", {"frozen": 3, "frozen_pieces": 1}),
        ("resnet18", {"frozen": 3, "start": None}),
        pytest.param("densenet121", {"frozen": 8}, marks=pytest.mark.slow),
        pytest.param("vit_tiny", {"frozen": 7}, marks=pytest.mark.slow),
        ("vit_tiny", {"frozen": 13}),
    ],
)
def test_shared_features_are_computed_once_and_give_the_same_outcome(
    store: Store, folder: Path, batches: list[int], model: str, changes: Any
) -> None:
    run = cell(model, size=300, **changes)
    start = None if run.start is None else network(model).state_dict()
    own = outcome(to_the_end(training_of(run, store, start)))
    batches.clear()
    for _ in range(2):
        shared = training_of(run, store, start, shared_features=folder)
        assert outcome(to_the_end(shared)) == own
    assert sum(batches) == 300 + 179  # training and test images, once


def test_shared_features_of_cells_compute_only_missing_chunks(
    store: Store, folder: Path, batches: list[int]
) -> None:
    start, num_images = network().state_dict(), []
    for changes in (
        {},  # 300 training images, in chunks of 256 and 44, and 179 test images
        {"label_noise": 0.2},  # the same images
        {"size": 299},  # a subset; its first chunk is stored
        {"size": 40},
        {"recipe": replace(CELL.recipe, learning_rate=0.1)},
    ):
        batches.clear()
        training_of(replace(CELL, **changes), store, start, shared_features=folder)
        num_images.append(sum(batches))
    assert num_images == [300 + 179, 0, 43, 40, 0]


def test_run_study_shares_features_between_runs(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, batches: list[int]
) -> None:
    monkeypatch.setenv("STUDY_FEATURES", str(folder))
    others = ({"label_noise": 0.2}, {"size": 40}, {"seed": 3})
    cells = [CELL, *(replace(CELL, **fields) for fields in others)]
    run_study(space_of([source(), *cells], "cells"), store, None, LaunchOptions(gpus_per_trial=0))
    assert {run.id for run in cells} <= finished_ids(store)
    drawn = 300 + 40 + 300  # the noisy Run has the images of the first
    assert sum(batches) == drawn + 179


def test_prefix_key_changes_with_what_changes_features(monkeypatch: pytest.MonkeyPatch) -> None:
    base = replace(CELL, start=None)

    def key(run: Run = base, change: Callable[[nn.Sequential], object] = lambda _: None) -> str:
        nothing = {"frozen": 0, "trained_channels": 0, "frozen_pieces": 0}
        layers = starting_network(replace(run, **nothing), 5, SHAPE, None)
        change(layers)
        return prefix_key(run, cut(layers, run).prefix)

    def last_bit(layers: nn.Sequential) -> None:
        with torch.no_grad():
            layers[3].bn1.running_var[1] += 1e-7

    plain, others = key(), [key(change=last_bit)]
    others.append(key(change=lambda layers: layers.to(memory_format=torch.channels_last)))
    others.append(key(change=lambda layers: setattr(layers[2].act1, "inplace", False)))
    for changes in (
        {"frozen": 3}, {"frozen": 5}, {"frozen_pieces": 1}, {"width": 8}, {"model": "resnet34"},
        {"recipe": replace(CELL.recipe, precision="tf32")},
        {"frozen": 9}, {"frozen": 9, "trained_channels": 1}, {"frozen": 9, "trained_channels": 2},
    ):  # fmt: skip
        others.append(key(replace(base, **changes)))
    torch.set_num_threads(2)
    others.append(key())
    torch.set_num_threads(1)
    for name, value in {
        "normalisation": lambda _: ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "TRAINER": 2,
        "torch.__version__": "9.0",
        "timm.__version__": "9.0",
        "CHUNK": 128,
        "this_process": lambda: SimpleNamespace(host="another", machine=None),
    }.items():
        with monkeypatch.context() as patch:
            patch.setattr(f"study.training.features.{name}", value)
            others.append(key())
    assert len({plain, *others}) == 1 + len(others)
    assert key() == plain
    # Fields that do not change the features do not change the key.
    for changes in ({"size": 20}, {"label_noise": 0.4}, {"part": "a"}):
        run = replace(base, **changes)
        assert key(run) == plain
        assert run.id != base.id


def test_shared_features_of_other_images_are_other_files(folder: Path) -> None:
    images = torch.zeros(4, *SHAPE, dtype=torch.uint8)
    changed = images.clone()
    changed[3, 2, 15, 15] = 1
    given = [images, changed, images.view(4, 3, 8, 32), torch.cat([images, images])]
    for each in given:
        features_in(folder, each)
    assert len(files(folder)) == len(given)


def test_prefix_key_trainer_1_keeps_the_code_version_of_0_1_0(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[dict[str, Any]] = []
    monkeypatch.setattr(features, "canonical_json", lambda plain: hashed.append(plain) or "")
    for trainer in (1, 2):
        monkeypatch.setattr(features, "TRAINER", trainer)
        prefix_key(CELL, nn.Sequential(nn.Flatten()))
    assert [plain["code"][0] for plain in hashed] == ["0.1.0+95d1b319", "TRAINER 2"]


@pytest.mark.parametrize("num_images", [2, 255, 256, 257, 258, 512, 513])
def test_features_any_span_equals_that_of_one_tensor(num_images: int) -> None:
    whole = torch.arange(num_images * 2).view(num_images, 2)
    spans = features.batch_spans(num_images, features.CHUNK)
    held = Features([whole[span] for span in spans])
    assert torch.equal(held.joined(), whole)
    for size in (2, 64, 100, 256, 300):
        for span in features.batch_spans(num_images, size):
            assert torch.equal(held[span], whole[span])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:100],
        lambda whole: whole[:-1],
        lambda whole: whole[7:],
        lambda whole: whole[:50] + bytes([whole[50] ^ 1]) + whole[51:],
        lambda whole: whole.replace(b"[2, 40]", b"[4, 40]"),
        lambda whole: whole.replace(b'"dtype"', b'"DTYPE"'),
        lambda whole: b"\0" * len(whole),
    ],
)
def test_read_damaged_features_removes_the_file(
    folder: Path, damage: Callable[[bytes], bytes], dtype: torch.dtype
) -> None:
    values = torch.randn(2, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = [write(folder, "k", values), read(folder, "k")]
    [path] = files(folder)
    whole = path.read_bytes()
    path.unlink()
    path.write_bytes(damage(whole))
    assert read(folder, "k") is None
    assert not files(folder)
    for each in found:  # the mapped values stay
        assert each is not None and each.dtype == dtype
        assert torch.equal(each, values)


def test_write_killed_process_leaves_no_readable_file(folder: Path) -> None:
    killed = f"""
import os, signal, torch
from pathlib import Path
from study.training.feature_cache import write
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write(Path({str(folder)!r}), "k", torch.zeros(1000))
"""
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -9
    [left] = files(folder)
    assert read(folder, "k") is None
    assert tidy(folder) == [left]
    assert not files(folder)


def test_make_room_removes_the_least_recently_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, key in enumerate("abc"):
        write(folder, key, torch.zeros(1000))
        os.utime(folder / f"{key}.features", (time.time() - 100 + age,) * 2)
    size = (folder / "a.features").stat().st_size
    usage = SimpleNamespace(free=3 * size)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda _: usage)
    assert read(folder, "a") is not None  # the latest that was used
    assert make_room(folder, 0)
    assert len(files(folder)) == 3
    assert make_room(folder, size)
    assert [path.name for path in files(folder)] == ["a.features", "c.features"]
    assert not make_room(folder, 3 * size)
    assert len(files(folder)) == 2
    os.utime(folder / "a.features", (time.time() - 8 * 24 * 3600,) * 2)
    assert tidy(folder) == [folder / "a.features"]


def test_write_full_disk_returns_the_values(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.ones(3, 2)
    monkeypatch.setattr(feature_cache.os, "fsync", Mock(side_effect=OSError(errno.ENOSPC, "full")))
    assert write(folder, "k", values) is values
    monkeypatch.setattr(feature_cache.os, "fsync", Mock(side_effect=OSError(errno.EIO, "error")))
    with pytest.raises(OSError, match="error"):
        write(folder, "k", values)
    assert not files(folder)


@pytest.mark.parametrize(("of_gib", "of_chunk"), [(math.inf, 0.0), (0.0, math.inf)])
def test_shared_features_cheap_ones_are_not_stored(
    folder: Path, monkeypatch: pytest.MonkeyPatch, of_gib: float, of_chunk: float
) -> None:
    monkeypatch.setattr(features, "WORTH_SECONDS_PER_GIB", of_gib)
    images = torch.arange(600 * 4).to(torch.uint8).view(600, 4)
    assert torch.equal(features_in(folder, images, of_chunk).joined(), images.float())
    assert not files(folder)


def test_node_folder_is_private_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STUDY_FEATURES")
    monkeypatch.setattr(feature_cache.tempfile, "gettempdir", lambda: str(tmp_path))
    made = node_folder()
    assert made == tmp_path / f"freezewise-{os.getuid()}" / "features"
    assert made.stat().st_mode & 0o777 == made.parent.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("STUDY_FEATURES", str(tmp_path / "elsewhere"))
    assert node_folder() == tmp_path / "elsewhere"
    monkeypatch.setattr(feature_cache.os, "getuid", lambda: 12345)
    with pytest.raises(PermissionError, match="set STUDY_FEATURES"):
        node_folder()
