"""How long all surfaces of a study take, and in how much memory.

    python -m tests.benchmarks.all_surfaces STORE_OR_EXPORT

Prints for each step the seconds by the clock, those of CPU over all threads (which tell more on a busy
machine), and the process's peak of resident memory so far. Every surface holds every seed
and every epoch; it is let go once its mean over seeds is made. The last line is a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from analysis import load, surfaces
from analysis.surfaces import derived
from tests.benchmarks.memory import peak_gib

EVERY_EPOCH = ("test_error", "train_error", "test_loss", "train_loss")
ONE_EPOCH = ("test_error", "train_error", "test_loss")


def timed(name: str, make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    began, cpu = time.perf_counter(), time.process_time()
    answer = make(*args, **options)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = peak_gib()
    print(f"{seconds:7.2f} s  {cpu:7.2f} s CPU  {peak:5.2f} GiB  {name}", flush=True)
    return answer


def main() -> None:
    began = time.perf_counter()
    study = timed("open", load.open_study, sys.argv[1])
    for value in EVERY_EPOCH:
        surface = timed(f"{value} over epochs", surfaces.over_epochs, study, value)
        timed("  its mean, standard error, count", surfaces.over_seeds, surface)
        assert np.isfinite(surface.values).all()
        del surface
    for epoch in ("last", 100):
        for value in ONE_EPOCH:
            name = f"{value}, epoch {epoch}"
            surface = timed(name, surfaces.at_epoch, study, value, epoch=epoch)
            surfaces.along(surface.mean("seed", keep_attrs=True), "parameters_trained")
    timed("first interpolation", derived.first_interpolation, study)
    timed("effective capacity", derived.effective_capacity, study)
    num_rows = int(study.runs["num_rows"].sum())
    seconds = time.perf_counter() - began
    peak = peak_gib()
    print(json.dumps({"wall": seconds, "cpu": time.process_time(), "gib": peak, "rows": num_rows}))


if __name__ == "__main__":
    main()
