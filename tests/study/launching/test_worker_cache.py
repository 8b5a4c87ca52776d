"""Per-process caches give the same bits, and leave nothing of one Run in the next."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save as tensors_to_bytes

from study.fields import digest_of
from study.launching import worker_cache
from study.launching.train_run import execute
from study.launching.worker_cache import record_similarity
from study.networks import build
from study.networks.initial_values import initialise
from study.run import Recipe, Run
from study.store import Damaged, Store, open_store, read_head, similarity, weights_path
from study.store.layout import similarity_path
from study.tasks.draws import draw
from study.tasks.prepared_file import load
from study.training.similarity import linear_cka
from tests.studies import outcome

RECIPE = Recipe(num_epochs=2, learning_rate=1e-2, batch_size=40)
SOURCE = Run(task="digits-low", size=100, model="resnet18", width=4, recipe=RECIPE, seed=1)
A = dataclasses.replace(SOURCE, task="digits-high", start=SOURCE, frozen=3, label_noise=0.2)
# Of the same form, so that whatever is kept for A serves them too; each changes what A could meet.
BETWEEN = (
    dataclasses.replace(A, frozen=0, label_noise=0.4),
    dataclasses.replace(A, seed=2, start=None, frozen=9, trained_channels=4),
    dataclasses.replace(A, recipe=dataclasses.replace(RECIPE, frozen_batchnorm="training")),
    dataclasses.replace(A, recipe=dataclasses.replace(RECIPE, above_cut="reinitialised")),
    dataclasses.replace(A, recipe=dataclasses.replace(RECIPE, precision="bfloat16")),
)


def forget() -> None:
    worker_cache._weights._kept.clear()
    for function in (worker_cache._draw, worker_cache.pretrained_weights, build._outline):
        function.cache_clear()


def test_execute_after_other_runs_in_one_process_gives_the_same_outcome(
    store: Store, tmp_path: Path
) -> None:
    forget()
    execute(SOURCE, store, keep_weights=True)
    shutil.copytree(store.root, tmp_path / "again")
    again = open_store(tmp_path / "again")
    forget()
    execute(A, store, keep_weights=True)
    for each in BETWEEN:
        execute(each, again, keep_weights=True)
    execute(A, again, keep_weights=True)
    assert outcome(again, A.id) == outcome(store, A.id)
    digests = {each.digest for each in worker_cache._weights._kept.values()}
    assert digests == {read_head(store, SOURCE.id).provenance.weights_digest}
    for each in worker_cache._weights._kept.values():
        assert digest_of(tensors_to_bytes(each.tensors)) == each.digest, "a Run has changed them"


def test_cached_start_weights_damaged_later_raises(store: Store) -> None:
    execute(SOURCE, store, keep_weights=True)
    digest = read_head(store, SOURCE.id).provenance.weights_digest
    assert digest is not None
    first = worker_cache.cached_start_weights(store, SOURCE.id, digest)
    assert worker_cache.cached_start_weights(store, SOURCE.id, digest) is first
    path = store.local_path(weights_path(SOURCE.id, digest))
    assert path is not None
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(Damaged, match="digest"):
        worker_cache.cached_start_weights(store, SOURCE.id, digest)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        worker_cache.cached_start_weights(store, SOURCE.id, digest)


def test_cached_weights_are_limited_by_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_cache, "MAX_WEIGHTS_BYTES", 10)
    held = worker_cache._WeightsKept()
    for number, num_bytes in enumerate((4, 4, 4, 40)):
        weights = worker_cache.Weights(tensors={}, digest=str(number), num_bytes=num_bytes)
        held.put((number,), weights)
        if number == 1:
            held.get((0,))  # asked for again: the other one goes first
        if number == 2:
            assert [each.digest for each in held._kept.values()] == ["0", "2"]
    assert [each.digest for each in held._kept.values()] == ["3"]


def test_cached_draw_returns_independent_copies(store: Store) -> None:
    task = load(A.task, store)
    first = worker_cache.cached_draw(A, task)
    for values in vars(first).values():
        values[:] = 0
    expected = draw(task, part=A.part, size=A.size, seed=A.seed, label_noise=A.label_noise)
    for run in (A, dataclasses.replace(A, frozen=5)):
        for name, values in vars(worker_cache.cached_draw(run, task)).items():
            assert (values == vars(expected)[name]).all()
            assert torch.from_numpy(values).is_contiguous()
    other = worker_cache.cached_draw(dataclasses.replace(A, seed=9), task)
    assert (other.indices != expected.indices).any()


# Similarity, measured once for a start and images


def recorded(store: Store, run: Run, seed: int = 0, digest: str = "a" * 64) -> pa.Table:
    """Record the similarity of `run` to a start with initial values by `seed`; return the stored table."""
    layers = build.build(run.model, run.width, 5, (3, 16, 16))
    initialise(layers, run.model, seed)
    record_similarity(
        run, store, load(run.task, store), layers.state_dict(), digest, device=torch.device("cpu")
    )
    return similarity.read(store, run.id)


def test_record_similarity_same_start_keeps_the_file_and_another_replaces_it(store: Store) -> None:
    before = torch.get_rng_state()
    torch.set_float32_matmul_precision("high")
    try:
        table = recorded(store, A)
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.equal(before, torch.get_rng_state())
    finally:
        torch.set_float32_matmul_precision("highest")
    path = store.local_path(similarity_path(A.id))
    assert path is not None
    written = path.stat().st_mtime_ns
    recorded(store, A, seed=9)  # the same digest means the same start
    assert path.stat().st_mtime_ns == written
    again = recorded(store, A, seed=9, digest="b" * 64)
    assert again["start_digest"][0].as_py() == "b" * 64
    assert again["logme"].to_pylist() != table["logme"].to_pylist()
    path.write_bytes(path.read_bytes()[:-20])
    assert recorded(store, A, seed=9, digest="b" * 64).equals(again)
    assert store.quarantined()
    record_similarity(
        SOURCE, store, load(SOURCE.task, store), None, None, device=torch.device("cpu")
    )
    assert not store.exists(similarity_path(SOURCE.id)), "a Run without a start has none"


def test_record_similarity_is_measured_once_for_the_same_cut_images_and_start(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = recorded(store, A, digest="b" * 64)

    def again(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(worker_cache, "measure", again)
    recipe = dataclasses.replace(RECIPE, num_epochs=9, above_cut="reinitialised")
    same = dataclasses.replace(A, label_noise=0.5, recipe=recipe)
    second = recorded(store, same, digest="b" * 64)
    assert set(second["run_id"].to_pylist()) == {same.id}
    assert second.drop_columns("run_id").equals(first.drop_columns("run_id"))
    for change in ({"frozen": 2}, {"size": 40}, {"seed": 5}):
        with pytest.raises(AssertionError, match="measured again"):
            recorded(store, dataclasses.replace(A, **change), digest="b" * 64)
    with pytest.raises(AssertionError, match="measured again"):
        recorded(store, dataclasses.replace(A, label_noise=0.7), digest="c" * 64)


def test_record_similarity_uses_the_drawn_images_with_clean_labels(store: Store) -> None:
    unfrozen = dataclasses.replace(A, frozen=0)
    task = load(A.task, store)
    drawn = draw(task, part="all", size=A.size, seed=A.seed, label_noise=A.label_noise)
    pixels = torch.from_numpy(task.train_images[drawn.indices].mean((2, 3)))
    # The images are grey, so CKA does not change with the channels' means.
    std = torch.tensor(build.normalisation("resnet18")[1])
    expected = linear_cka(pixels / std, torch.from_numpy(drawn.clean_labels))[0]
    found = recorded(store, unfrozen)["linear_cka"][0].as_py()
    assert found == pytest.approx(expected, abs=1e-4)
