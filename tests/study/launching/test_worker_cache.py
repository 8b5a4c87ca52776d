"""Per-process caches and tasks copied to a node's disk: the same bits, and no damaged values."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save as tensors_to_bytes

from study.launching import worker_cache
from study.launching.train_run import execute
from study.launching.worker_cache import cached_draw, cached_start_weights, load_task
from study.networks import build
from study.networks.initial_values import initialise
from study.run import Run
from study.store import Damaged, Store, open_store, similarity, weights_path
from study.store.artifacts import publish_weights
from study.store.layout import similarity_path, task_path
from study.tasks import prepared_file
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.similarity import linear_cka
from tests.studies import CELL, SOURCE, outcome

RECIPE = CELL.recipe
# Runs that use the same cached values as CELL; each changes something that CELL could meet.
BETWEEN = (
    replace(CELL, frozen=0, label_noise=0.4),
    replace(CELL, seed=2, start=None, frozen=9, trained_channels=4),
    replace(CELL, recipe=replace(RECIPE, frozen_batchnorm="training")),
    replace(CELL, recipe=replace(RECIPE, above_cut="reinitialised")),
    replace(CELL, recipe=replace(RECIPE, precision="bfloat16")),
)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_execute_after_other_runs_in_one_process_gives_the_same_outcome(
    store: Store, tmp_path: Path
) -> None:
    execute(SOURCE, store, keep_weights=True)
    shutil.copytree(store.root, tmp_path / "again")
    again = open_store(tmp_path / "again")
    execute(CELL, store, keep_weights=True)
    for each in (*BETWEEN, CELL):
        execute(each, again, keep_weights=True)
    assert outcome(again, CELL.id) == outcome(store, CELL.id)


A, B, C = (letter * 12 for letter in "abc")


def put_weights(store: Store, run_id: str) -> str:
    """Store 1,024 bytes of weights, and return their digest."""
    return publish_weights(store, run_id, tensors_to_bytes({run_id: torch.zeros(256)}))


def test_cached_start_weights_damaged_or_removed_later_raises(empty: Store) -> None:
    digest = put_weights(empty, A)
    path = Path(empty.root, weights_path(A, digest))
    first = cached_start_weights(empty, A, digest)
    assert cached_start_weights(empty, A, digest) is first
    flip_a_bit(path)
    with pytest.raises(Damaged, match="digest"):
        cached_start_weights(empty, A, digest)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        cached_start_weights(empty, A, digest)


def test_cached_start_weights_over_the_limit_forget_the_least_recently_used(
    empty: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {name: put_weights(empty, name) for name in (A, B, C)}
    size = Path(empty.root, weights_path(A, digests[A])).stat().st_size
    monkeypatch.setattr(worker_cache, "MAX_WEIGHTS_BYTES", 2 * size)
    seen = {name: cached_start_weights(empty, name, digests[name]) for name in (A, B, A, C)}
    for name, is_kept in {A: True, C: True, B: False}.items():
        assert (cached_start_weights(empty, name, digests[name]) is seen[name]) == is_kept


def test_cached_draw_returns_independent_copies(store: Store) -> None:
    task = load(CELL.task, store)
    for values in vars(cached_draw(CELL, task)).values():
        values[:] = 0
    expected = draw(task, part=CELL.part, size=CELL.size, seed=CELL.seed, label_noise=0.2)
    for run in (CELL, replace(CELL, frozen=5)):
        for name, values in vars(cached_draw(run, task)).items():
            assert (values == vars(expected)[name]).all()
            assert torch.from_numpy(values).is_contiguous()
    assert (cached_draw(replace(CELL, seed=9), task).indices != expected.indices).any()


# Similarity


def recorded(store: Store, run: Run, *, seed: int = 0, digest: str = "a") -> pa.Table:
    """Record the similarity to a start with the initial values of `seed`; return the stored table."""
    layers = build.build(run.model, run.width, 5, (3, 16, 16))
    initialise(layers, run.model, seed)
    weights, task = layers.state_dict(), load(run.task, store)
    worker_cache.record_similarity(
        run, store, task, weights, digest * 64, device=torch.device("cpu")
    )
    return similarity.read(store, run.id)


def test_record_similarity_keeps_the_file_of_the_same_start_and_replaces_others(
    store: Store,
) -> None:
    before = torch.get_rng_state()
    torch.set_float32_matmul_precision("high")
    try:
        table = recorded(store, CELL)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.equal(before, torch.get_rng_state())
    finally:
        torch.set_float32_matmul_precision("highest")
    path = Path(store.root, similarity_path(CELL.id))
    written = path.stat().st_mtime_ns
    recorded(store, CELL, seed=9)  # the same digest means the same start
    assert path.stat().st_mtime_ns == written
    again = recorded(store, CELL, seed=9, digest="b")
    assert again["start_digest"][0].as_py() == "b" * 64
    assert again["logme"].to_pylist() != table["logme"].to_pylist()
    path.write_bytes(path.read_bytes()[:-20])
    assert recorded(store, CELL, seed=9, digest="b").equals(again)
    assert store.quarantined()
    execute(SOURCE, store)
    assert not store.exists(similarity_path(SOURCE.id)), "a Run without a start has none"


def test_record_similarity_is_measured_once_for_the_same_cut_images_and_start(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = recorded(store, CELL, digest="d")
    measure = Mock(wraps=worker_cache.measure)
    monkeypatch.setattr(worker_cache, "measure", measure)
    recipe = replace(RECIPE, num_epochs=9, above_cut="reinitialised")
    same = replace(CELL, label_noise=0.5, recipe=recipe)
    second = recorded(store, same, digest="d")
    assert set(second["run_id"].to_pylist()) == {same.id}
    assert second.drop_columns("run_id").equals(first.drop_columns("run_id"))
    assert not measure.called
    for number, change in enumerate(({"frozen": 2}, {"size": 40}, {"seed": 5}), start=1):
        recorded(store, replace(CELL, **change), digest="d")
        assert measure.call_count == number
    recorded(store, replace(CELL, label_noise=0.7), digest="c")
    assert measure.call_count == 4


def test_record_similarity_uses_the_drawn_images_with_clean_labels(store: Store) -> None:
    task = load(CELL.task, store)
    drawn = draw(task, part="all", size=CELL.size, seed=CELL.seed, label_noise=CELL.label_noise)
    pixels = torch.from_numpy(task.train_images[drawn.indices].mean((2, 3)))
    # The images are grey, so CKA does not change with the channels' means.
    std = torch.tensor(build.normalisation("resnet18")[1])
    expected = linear_cka(pixels / std, torch.from_numpy(drawn.clean_labels))[0]
    found = recorded(store, replace(CELL, frozen=0))["linear_cka"][0].as_py()
    assert found == pytest.approx(expected, abs=1e-4)


# Tasks copied to a node's disk


def test_load_task_copies_once_and_replaces_a_damaged_copy(store: Store, tmp_path: Path) -> None:
    own = load_task("digits-low", store, None)
    assert own is prepared_file.load("digits-low", store)
    node = tmp_path / "node"
    first = load_task("digits-low", store, node)
    (copy,) = node.rglob("*.arrow")
    whole, made_at = copy.read_bytes(), copy.stat().st_mtime_ns
    assert load_task("digits-low", store, node) is first, "mapped and checked once"
    assert copy.stat().st_mtime_ns == made_at
    assert first.fingerprint == own.fingerprint
    assert (first.train_images == own.train_images).all()
    with pytest.raises(ValueError, match="not prepared in"):
        load_task("nowhere", store, node)

    flip_a_bit(copy)
    assert load_task("digits-low", store, node).fingerprint == own.fingerprint
    assert copy.read_bytes() == whole
    flip_a_bit(Path(store.root, task_path("digits-low")))
    copy.unlink()
    with pytest.raises(Damaged, match="digits-low"):
        load_task("digits-low", store, node)


def test_load_task_full_disk_reads_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker_cache.shutil, "copyfile", full)
    own = prepared_file.load("digits-low", store)
    assert load_task("digits-low", store, tmp_path / "node") is own
    assert {path.name for path in (tmp_path / "node").rglob("*") if path.is_file()} == {"lock"}
