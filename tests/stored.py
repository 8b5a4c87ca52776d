"""Objects for tests of the store, and a directory in place of a bucket."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from obstore.store import LocalStore

from study.run import Recipe, Run
from study.store import Failure, Provenance, schema, similarity
from study.store.artifacts import predictions_table
from study.store.schema import FINISHED

SOURCE = Run(
    task="near", size=100, model="resnet18", width=4, recipe=Recipe(num_epochs=3), seed=0, part="a"
)


def a_run(seed: int = 0) -> Run:
    return replace(SOURCE, task="target", part="all", start=SOURCE, frozen=3, seed=seed)


def a_table(run: Run | None = None, values: list[float] | None = None) -> pa.Table:
    measured = [
        schema.Row(
            epoch=float(epoch),
            step=10 * epoch,
            train_loss=value,
            train_error=0.5,
            train_loss_clean=value / 3,
            train_error_clean=0.25,
            train_loss_flipped=None if epoch % 2 else value,
            train_error_flipped=None,
            test_loss=1.0,
            test_error=0.75,
            learning_rate=1e-4,
            wall_seconds=0.1 * epoch,
        )
        for epoch, value in enumerate(values or [2.0, 1.0, 0.1])
    ]
    dimensions = schema.Sizes(
        num_layers=10, num_classes=5, parameters_total=9_000, parameters_trained=4_000
    )
    return schema.rows_table(run or a_run(), dimensions, measured, FINISHED)


def a_predictions() -> pa.Table:
    labels = np.arange(3 * 40).reshape(3, 40) ** 2 % 300  # of more classes than a byte holds
    return predictions_table([0.0, 1.0, 2.0], [0, 10, 20], labels)


def a_similarity(
    run: Run, start_digest: str = "0" * 64, value: float = 0.5, debiased: float | None = None
) -> pa.Table:
    """Return a table with this value at the cut, and 1 more at the head."""
    measured = []
    for place in similarity.PLACES:
        at_place = value + (place != similarity.CUT)
        measured.append(
            similarity.Similarity(
                place=place, num_images=4, num_classes=2, num_features=3, logme=at_place,
                linear_cka=at_place, linear_cka_debiased=debiased, effective_rank=2.5,
            )
        )  # fmt: skip
    return similarity.table_of(run, start_digest, measured, "0.1.0")


def a_provenance() -> Provenance:
    return Provenance(
        code_version="0.1.0+01234567",
        packages={"torch": "2.14.0"},
        device="cpu",
        host="here",
        began_at="2026-01-01T00:00:00+00:00",
        ended_at="2026-01-01T00:01:00+00:00",
        num_resumes=1,
        weights_digest="0" * 64,
    )


def a_failure() -> Failure:
    return Failure(tries=3, error="out of memory", final=True, at="2026-01-01T00:00:00+00:00")


def a_bucket_in(folder: Path) -> Any:
    """The client of a bucket whose objects are the files of a folder; it has no conditional update."""
    return LocalStore(folder, mkdir=True)
