"""`surfaces`: all surfaces of a large study, against plain pandas on the same files.

    python -m tests.benchmarks.surfaces write ROOT NUM_RUNS NUM_EPOCHS
    python -m tests.benchmarks.surfaces ours|pandas ROOT

Each step in a process of its own, whose peak of memory is its own. `write` makes up a study, stored as the
store writes one. The others print one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import psutil

from analysis import load
from analysis import surfaces as made
from analysis.surfaces import derived
from tests import synthetic
from tests.benchmarks.table import Line
from tests.processes import environment

GIB_OF_PANDAS_A_MILLION_ROWS: Final = 0.35
COORDINATES: Final = ["source_task", "source_size", "size", "label_noise", "frozen", "seed"]
VALUES: Final = ["test_error", "train_error", "test_loss", "train_loss"]
SPLIT: Final = ["train_error_clean", "train_error_flipped"]


def surfaces(*, quick: bool, folder: Path) -> Iterator[Line]:
    """10 million rows (--quick: one million)."""
    root = str(folder / "surfaces")
    num_runs, num_epochs = ("1000", "1000") if quick else ("2500", "4000")
    _child("write", root, num_runs, num_epochs)
    ours = json.loads(_child("ours", root))
    available = psutil.virtual_memory().available / 2**30
    enough = available > GIB_OF_PANDAS_A_MILLION_ROWS * ours["rows"] / 1e6
    yield from surface_lines(ours, json.loads(_child("pandas", root)) if enough else None)


def surface_lines(ours: Mapping[str, Any], theirs: Mapping[str, Any] | None) -> Iterator[Line]:
    case = f"all surfaces of {ours['rows'] / 1e6:,.0f} million rows, against plain pandas"
    for name, unit in {"cpu": "s of CPU", "gib": "GiB at most"}.items():
        baseline = None if theirs is None else theirs[name]
        yield Line(group="surfaces", case=case, unit=unit, ours=ours[name], baseline=baseline)


def _child(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.benchmarks.surfaces", *arguments]
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _write(root: str, num_runs: str, num_epochs: str) -> None:
    wanted = synthetic.runs(
        num_epochs=int(num_epochs),
        source_sizes=(500, 1_000, 2_000, 5_000, 10_000),
        sizes=[250 * 2**index for index in range(max(1, int(num_runs) // 1_000))],
        frozen=range(10),
        seeds=range(5),
    )
    synthetic.write(Path(root), wanted)


def _ours(root: str) -> int:
    """Make every surface of every seed and epoch, and its means over seeds."""
    study = load.open_study(root)
    for value in VALUES:
        surface = made.over_epochs(study, value)
        made.over_seeds(surface)
        assert np.isfinite(surface.values).all()
        del surface
    for epoch in ("last", 100):
        for value in VALUES[:3]:
            surface = made.at_epoch(study, value, epoch=epoch)
            made.along(surface.mean("seed", keep_attrs=True), "parameters_trained")
    derived.first_interpolation(study)
    derived.effective_capacity(study)
    return int(study.runs["num_rows"].sum())


def _pandas(root: str) -> int:
    """The same with pandas, without checksums: read the columns of all files, concatenate, group."""
    frames = [
        pd.read_feather(path, columns=[*COORDINATES, "epoch", *VALUES, *SPLIT])
        for path in sorted(Path(root, "rows").glob("*.arrow"))
    ]
    rows = pd.concat(frames, ignore_index=True)
    rows = rows[rows["source_task"].notna()]
    grid = COORDINATES[:-1]
    for value in VALUES:
        rows.groupby([*grid, "epoch"], observed=True)[value].agg(["mean", "sem", "count"])
    rows.groupby([*grid, "epoch"], observed=True)[SPLIT].mean()
    for epoch in (rows["epoch"].max(), 100):
        rows[rows["epoch"] == epoch].groupby(grid, observed=True)[VALUES].mean()
    reached = rows[rows["train_error"] <= 0.1]
    first = reached.groupby(COORDINATES, observed=True)["epoch"].min().reset_index()
    first.groupby([name for name in COORDINATES if name != "size"], observed=True)["size"].max()
    return len(rows)


def _measured(compute: Callable[[str], int], root: str) -> str:
    cpu = time.process_time()
    num_rows = compute(root)
    cpu = time.process_time() - cpu
    peak = next(
        int(line.split()[1]) / 2**20
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    return json.dumps({"cpu": cpu, "gib": peak, "rows": num_rows})


if __name__ == "__main__":
    verb, *given = sys.argv[1:]
    if verb == "write":
        _write(*given)
    else:
        print(_measured({"ours": _ours, "pandas": _pandas}[verb], *given))
