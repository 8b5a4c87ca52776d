"""Compare the losses of short trainings with pinned ones, to detect rows that change under one TRAINER.

`python -m tests.loss_traces` adds the losses of this machine to the file, or replaces the file if TRAINER
was raised.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import timm
import torch

from study import tasks
from study.run import Recipe, Run
from study.store import Store, open_store
from study.store.provenance import TRAINER
from study.training.loop import Training
from study.training.stacked import Stack
from tests.trainings import to_the_end, training_of

FILE: Final = Path(__file__).parent / "fixtures" / "loss_traces.json"

# Relative tolerances for another CPU. Other instruction sets (SSE4, AVX2, AVX-512) change the losses by up
# to 4e-8; in DenseNet, which normalises small batches in 121 layers, by up to 2e-4.
TOLERANCES: Final = {"resnet18": 1e-5, "densenet121": 2e-3, "vit_tiny": 1e-5}

# Train and test loss at each evaluation, by Run.
Traces = dict[str, list[list[float]]]


def _pair(model: str, width: int, frozen: int, **recipe: Any) -> tuple[Run, Run]:
    """Return a source Run, and a target Run that starts from it with `frozen` layers."""
    source = Run(
        task="digits-low",
        size=60,
        model=model,
        width=width,
        recipe=Recipe(num_epochs=2, batch_size=30, **recipe),
        seed=1,
    )
    target = replace(
        source, task="digits-high", label_noise=0.2, start=source, frozen=frozen, seed=2
    )
    return source, target


SGD: Final = {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.003}
PAIRS: Final = (
    _pair("resnet18", 4, 4, learning_rate=0.003, augmentation="crop_flip"),
    _pair("densenet121", 4, 6, **SGD, schedule="inverse_sqrt", inverse_sqrt_steps=2),
    _pair(
        "vit_tiny",
        12,
        5,
        optimizer="adamw",
        weight_decay=0.1,
        learning_rate=0.01,
        schedule="cosine",
    ),
)
# Of the block of seeds 3 to 5, the last place is empty.
SEEDS_TOGETHER: Final = (3, 4)


def traces(store: Store) -> Traces:
    """Train PAIRS and a block of seeds on one thread; return the losses. `store`: prepared digits."""
    assert torch.get_num_threads() == 1
    found: Traces = {}
    for source, target in PAIRS:
        trained = to_the_end(training_of(source, store))
        for name, training in {
            f"{source.model} source": trained,
            f"{source.model} target": to_the_end(training_of(target, store, trained.weights())),
        }.items():
            found[name] = _losses(training)
        if source.model == "resnet18":
            recipe = replace(target.recipe, augmentation="none", seeds_together=3)
            block = [replace(target, recipe=recipe, seed=seed) for seed in SEEDS_TOGETHER]
            stack = Stack([training_of(run, store, trained.weights()) for run in block])
            for _ in stack:
                pass
            found |= {f"resnet18 seed {m.run.seed} of 3": _losses(m) for m in stack.members}
    return found


def _losses(training: Training) -> list[list[float]]:
    return [[row.train_loss, row.test_loss] for row in training.rows]


def machine() -> dict[str, str]:
    """Return what must be equal for equal bits: the CPU type, and the packages that compute."""
    return {
        "cpu": _cpu(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "numpy": np.__version__,
    }


def _cpu() -> str:
    """Return 12 hex digits over the first processor's type, caches and instruction sets."""
    names = ("vendor_id", "cpu family", "model", "model name", "stepping", "cache size", "flags")
    try:
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
    except OSError:
        first = ""
    lines = [line for line in first.splitlines() if line.partition("\t")[0].strip() in names]
    text = "\n".join([platform.machine(), platform.processor(), *lines])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def recorded() -> dict[str, Any]:
    """Return the file: "trainer", and "recordings", each with its "machine" and "traces"."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def changes(found: Traces, pinned: Traces, *, exact: bool) -> list[str]:
    """Return a line for each loss that has changed: in any bit if `exact`, else beyond TOLERANCES."""
    if {name: len(rows) for name, rows in found.items()} != {
        name: len(rows) for name, rows in pinned.items()
    }:
        return [f"other Runs or evaluations: {sorted(found)}, pinned {sorted(pinned)}"]
    return [
        f"{name}, evaluation {index}: {loss!r}, pinned {before!r}"
        for name in pinned
        for index, (losses, pins) in enumerate(zip(found[name], pinned[name], strict=True))
        for loss, before in zip(losses, pins, strict=True)
        if not math.isclose(loss, before, rel_tol=0 if exact else TOLERANCES[name.split()[0]])
    ]


def main() -> int:
    """Add a recording of this machine; return 1 if losses have changed under the same TRAINER."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(folder)
        for name in ("digits-low", "digits-high"):
            tasks.prepare(tasks.BUILTIN[name], store, None, progress=False)
        found = traces(store)
    kept = recorded() if FILE.exists() else {"trainer": 0}
    if kept["trainer"] != TRAINER:
        kept = {"trainer": TRAINER, "recordings": []}
    recordings = kept["recordings"]
    for each in recordings:
        is_here = each["machine"] == machine()
        if changed := changes(found, each["traces"], exact=is_here):
            print("\n".join(changed), file=sys.stderr)
            print(f"TRAINER={TRAINER}: losses have changed. Raise TRAINER.", file=sys.stderr)
            return 1
        if is_here:
            return 0
    recordings.append({"machine": machine(), "traces": found})
    FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
