"""Per-process caches for Runs trained one after another, and tasks copied to the node's disk.

Cached values are shared: never change them.
"""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import pyarrow as pa
import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor, nn

from study.fields import digest_of
from study.networks.build import pretrained
from study.networks.families import ImageShape
from study.run import Run
from study.store import Damaged, Store, open_store, read_weights, similarity, weights_path
from study.store.atomic import draft_beside
from study.store.layout import task_path
from study.store.prepared_tasks import read_task_head
from study.tasks import prepared_file
from study.tasks.draws import TrainingSet, draw
from study.tasks.prepared_file import PreparedTask
from study.training import similarity as measures
from study.training.similarity import measure

MAX_WEIGHTS_BYTES: Final = 256 * 2**20
_NUM_DRAWS: Final = 16
_NUM_SIMILARITIES: Final = 64


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A network's weights by "<layer>.<name>"; `digest`: SHA-256 of the weights in hex."""

    tensors: dict[str, Tensor]
    digest: str
    num_bytes: int


def cached_draw(run: Run, task: PreparedTask) -> TrainingSet:
    """Return the Run's training set from a cache; see `study.tasks.draws.draw`."""
    kept = _draw(task, run.part, run.size, run.seed, float(run.label_noise))
    return replace(kept, **{name: values.copy() for name, values in vars(kept).items()})


@lru_cache(maxsize=_NUM_DRAWS)
def _draw(task: PreparedTask, part: str, size: int, seed: int, label_noise: float) -> TrainingSet:
    # Keyed by the task's identity: `prepared_file.load` returns one object while the file is unchanged.
    return draw(task, part=part, size=size, seed=seed, label_noise=label_noise)


class _WeightsKept:
    """A cache of the last used weights: at most MAX_WEIGHTS_BYTES, but at least one network."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Weights] = OrderedDict()

    def get(self, key: tuple[object, ...]) -> Weights | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: tuple[object, ...], weights: Weights) -> None:
        self._kept[key] = weights
        while len(self._kept) > 1 and self._num_bytes() > MAX_WEIGHTS_BYTES:
            self._kept.popitem(last=False)

    def _num_bytes(self) -> int:
        return sum(weights.num_bytes for weights in self._kept.values())


_weights = _WeightsKept()


def cached_start_weights(store: Store, run_id: str, digest: str) -> Weights:
    """Return a start's weights from a cache; read them again if the file has changed.

    Raises FileNotFoundError, Damaged.
    """
    path = weights_path(run_id, digest)
    local = store.local_path(path)
    if local is not None:
        about = local.stat()
        version: tuple[object, ...] = (about.st_mtime_ns, about.st_size, about.st_ino)
    elif store.exists(path):
        version = ()
    else:
        raise FileNotFoundError(path)
    key = (store.root, path, *version)
    weights = _weights.get(key)
    if weights is None:
        payload = read_weights(store, run_id, digest)
        weights = Weights(
            tensors=tensors_from_bytes(payload), digest=digest, num_bytes=len(payload)
        )
        _weights.put(key, weights)
    return weights


_similarities: OrderedDict[tuple[object, ...], pa.Table] = OrderedDict()


def cached_similarity(
    run: Run,
    task: PreparedTask,
    start_digest: str,
    device: torch.device,
    measure: Callable[[], pa.Table],
) -> pa.Table:
    """Return `measure()` (`study.store.similarity.TABLE`) from a cache, by start, cut and drawn images.

    `measure` uses clean labels and whole layers. Runs that differ only in label noise, recipe and trained
    channels share a result.
    """
    seen = (run.part, run.size, run.seed)
    cut = (run.model, run.width, run.frozen, run.frozen_pieces)
    # The task's fingerprint, not its identity: another task could reuse the address.
    key = (start_digest, task.info.name, task.fingerprint, *seen, *cut, str(device))
    table = _similarities.get(key)
    if table is None:
        table = _similarities[key] = measure()
    _similarities.move_to_end(key)
    while len(_similarities) > _NUM_SIMILARITIES:
        _similarities.popitem(last=False)
    index = table.schema.get_field_index("run_id")
    ids = pa.array([run.id] * table.num_rows, table.schema.field(index).type)
    return table.set_column(index, table.schema.field(index), ids)


_networks: dict[tuple[object, ...], nn.Sequential] = {}  # at most one


def start_network(
    run: Run,
    image_shape: ImageShape,
    weights: Mapping[str, Tensor],
    digest: str,
    device: torch.device,
) -> nn.Sequential:
    """Return a start's network on `device` from a cache; see `study.training.similarity.start_network`.

    `digest`: SHA-256 of the weights. Only the last network is cached, because Runs with the same start are
    trained one after another.
    """
    key = (digest, run.model, run.width, image_shape, str(device))
    if key not in _networks:
        _networks.clear()
        made = measures.start_network(run, image_shape, weights)
        _networks[key] = made.to(device)
    return _networks[key]


@lru_cache(maxsize=1)
def pretrained_weights(model: str, image_shape: ImageShape) -> Weights:
    """Return timm's weights from a cache; see `study.networks.build.pretrained`."""
    tensors = pretrained(model, image_shape)
    payload = tensors_to_bytes(tensors)
    return Weights(tensors=tensors, digest=digest_of(payload), num_bytes=len(payload))


_FULL = (errno.ENOSPC, errno.EDQUOT)


def load_task(name: str, store: Store, node_cache: Path | None) -> PreparedTask:
    """Load a prepared task as `study.tasks.prepared_file.load`, through a copy in `node_cache` if given.

    Errors are always about the store's file, never about a copy.
    """
    shared = store.local_path(task_path(name))
    if shared is None and store.lease_number:
        return _task_of_lease(name, store, store.lease_number)
    if node_cache is None or shared is None or not shared.exists():
        return prepared_file.load(name, store)
    with store.opened(task_path(name)) as file:
        fingerprint = str(read_task_head(file, task_path(name))["fingerprint"])
    # Each fingerprint has its own folder: another store may have another version of the task.
    folder = node_cache / fingerprint
    copies = open_store(folder)
    copy = folder / task_path(name)
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:  # so that one trial copies while the others wait
            fcntl.flock(lock, fcntl.LOCK_EX)
            if copy.exists() and (found := _checked(name, copies, fingerprint)) is not None:
                return found
            with draft_beside(copy) as draft:
                shutil.copyfile(shared, draft)
                draft.replace(copy)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return prepared_file.load(name, store)
    return _checked(name, copies, fingerprint) or prepared_file.load(name, store)


@lru_cache(maxsize=64)
def _task_of_lease(name: str, store: Store, lease_number: int) -> PreparedTask:
    # A bucket's task does not change while a driver holds the lease; checking takes five requests.
    return prepared_file.load(name, store)


def _checked(name: str, copies: Store, fingerprint: str) -> PreparedTask | None:
    try:
        found = prepared_file.load(name, copies)
    except Damaged:
        return None
    return found if found.fingerprint == fingerprint else None


def record_similarity(
    run: Run,
    store: Store,
    task: PreparedTask,
    start_weights: Mapping[str, Tensor] | None,
    start_digest: str | None,
    *,
    device: torch.device,
    at_cut: Tensor | None = None,
) -> None:
    """Store how similar the target of `run` is to its start, the Run whose weights it begins with.

    Does nothing if `run` starts from no other Run, or if the store has the similarity for this start. A
    damaged similarity is quarantined and replaced. `start_weights`: all weights of the start, including
    its head; `at_cut`: see `study.training.similarity.measure`.
    """
    if run.source is None:
        return
    assert start_weights is not None and start_digest is not None, run.id
    if _recorded_start(store, run.id) == start_digest:
        return
    weights, digest = start_weights, start_digest

    def measured() -> pa.Table:
        layers = start_network(run, task.info.image_shape, weights, digest, device)
        drawn = cached_draw(run, task)
        images = task.train_images[drawn.indices]
        labels = drawn.clean_labels
        return measure(run, layers, images, labels, digest, device=device, at_cut=at_cut)

    similarity.publish(store, run, cached_similarity(run, task, digest, device, measured))


def _recorded_start(store: Store, run_id: str) -> str | None:
    try:
        return similarity.read(store, run_id)["start_digest"][0].as_py()
    except FileNotFoundError:
        return None
    except Damaged as damaged:
        store.quarantine(damaged.path)
        return None
