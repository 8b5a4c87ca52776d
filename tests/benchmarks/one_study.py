"""A study of tiny Runs in a process of its own, which says what it took.

    python -m tests.benchmarks.one_study ROOT inline|ray nothing|source NUM FIRST_SEED

Prints one JSON object: CPU and wall seconds of the whole study and, inline, of the same Runs' bare
training: their steps and evaluations alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Final

import torch

from study.launching.driver import run_study
from study.launching.inline import run_inline  # noqa: F401 (imported before anything is timed)
from study.launching.options import LaunchOptions
from study.planning.spaces import space_of
from study.run import Recipe, Run
from study.store import finished_ids, open_store, read_head, read_weights
from tests.trainings import training_of

RECIPE: Final = Recipe(num_steps=2, batch_size=32, learning_rate=1e-3)
START: Final = Run(task="digits-low", size=40, model="resnet18", width=4, recipe=RECIPE, seed=0)


def runs(kind: str, num: int, first_seed: int) -> list[Run]:
    """Tiny Runs from nothing, or from one tiny source: a cut after the other, seed by seed."""
    seeds = range(first_seed, first_seed + num)
    if kind == "nothing":
        return [
            Run(task="digits-low", size=40, model="resnet18", width=4, recipe=RECIPE, seed=seed)
            for seed in seeds
        ]
    return [
        Run(
            task="digits-high",
            size=40,
            model="resnet18",
            width=4,
            recipe=RECIPE,
            start=START,
            frozen=seed % 10,
            seed=seed,
        )
        for seed in seeds
    ]


def main() -> None:
    root, how, kind, num, first_seed = sys.argv[1:]
    store = open_store(root)
    options = LaunchOptions(
        address="local" if how == "ray" else None, gpus_per_trial=0, max_concurrent=2
    )
    wanted = runs(kind, int(num), int(first_seed))
    starts = [START] if kind == "source" else []
    if starts:
        run_study(space_of(starts, "starts"), store, None, LaunchOptions(gpus_per_trial=0))
    said = {}
    if how == "inline":
        weights = None
        if starts:
            # Trained once more where nobody has kept them.
            run_study(
                space_of([*starts, wanted[0]], "first"),
                store,
                None,
                LaunchOptions(gpus_per_trial=0),
            )
            digest = read_head(store, START.id).provenance.weights_digest
            assert digest is not None
            from safetensors.torch import load

            weights = load(read_weights(store, START.id, digest))
        torch.set_num_threads(1)
        folder = Path(os.environ["STUDY_FEATURES"])
        bare_cpu = bare_wall = 0.0
        bare_runs = wanted[: min(len(wanted), 100)]
        for run in bare_runs:
            training = training_of(run, store, weights, shared_features=folder)
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in training:
                pass
            bare_cpu += time.process_time() - cpu
            bare_wall += time.perf_counter() - wall
        said = {"bare_cpu": bare_cpu / len(bare_runs), "bare_wall": bare_wall / len(bare_runs)}
    before = len(finished_ids(store))
    space = space_of([*starts, *wanted], f"{how}-{kind}")
    cpu, wall = time.process_time(), time.perf_counter()
    run_study(space, store, None, options)
    said |= {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "num": len(finished_ids(store)) - before,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
