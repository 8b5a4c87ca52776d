"""How a Run's start saw its target, measured once and kept in the store.

Owns when it is measured; `study.training.similarity` measures, `study.store.similarity` is the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import torch
from torch import Tensor

from study.launching import kept
from study.run import Run
from study.store import Damaged, Store, similarity
from study.store.layout import similarity_path
from study.tasks.prepared_file import PreparedTask
from study.training.similarity import measure


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
    """Publishes how the start of `run` sees its target, unless the store has it for this start.

    Nothing is done for a Run whose start is no Run. `start_weights` are all that the start published,
    its head too; `at_cut`: see `study.training.similarity.measure`. What is damaged in the store is set
    aside and measured anew.
    """
    if run.source is None:
        return
    assert start_weights is not None and start_digest is not None, run.id
    if _recorded_start(store, run.id) == start_digest:
        return
    weights, digest = start_weights, start_digest

    def measured() -> pa.Table:
        layers = kept.start_network(run, task.info.image_shape, weights, digest, device)
        drawn = kept.drawn(run, task)
        images = task.train_images[drawn.indices]
        labels = drawn.clean_labels
        return measure(run, layers, images, labels, digest, device=device, at_cut=at_cut)

    similarity.publish(store, run, kept.similarity(run, task, digest, device, measured))


def _recorded_start(store: Store, run_id: str) -> str | None:
    if not store.exists(similarity_path(run_id)):
        return None
    try:
        return similarity.read(store, run_id)["start_digest"][0].as_py()
    except Damaged as damaged:
        store.set_aside(damaged.path)
        return None
