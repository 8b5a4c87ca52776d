"""The same as a user would write it with pandas: read all files, concatenate, group.

    python -m tests.benchmarks.plain_pandas ROOT

Checks no checksum and notices nothing absent. It reads only the columns it needs: with all of them the
frame of 40 million rows does not fit in memory. The last line is a JSON object.
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd

from tests.benchmarks.memory import peak_gib

COORDINATES = ["source_task", "source_size", "size", "label_noise", "frozen", "seed"]
VALUES = ["test_error", "train_error", "test_loss", "train_loss"]
SPLIT = ["train_error_clean", "train_error_flipped"]

began = time.perf_counter()
frames = [
    pd.read_feather(path, columns=[*COORDINATES, "epoch", *VALUES, *SPLIT])
    for path in sorted(Path(sys.argv[1], "rows").glob("*.arrow"))
]
rows = pd.concat(frames, ignore_index=True)
rows = rows[rows["source_task"].notna()]
print(f"{time.perf_counter() - began:7.2f} s  read and concatenated {len(rows)} rows", flush=True)

grid = COORDINATES[:-1]
for value in VALUES:
    over_seeds = rows.groupby([*grid, "epoch"], observed=True)[value].agg(["mean", "sem", "count"])
split = rows.groupby([*grid, "epoch"], observed=True)[SPLIT].mean()
print(f"{time.perf_counter() - began:7.2f} s  epoch surfaces", flush=True)

for epoch in (rows["epoch"].max(), 100):
    final = rows[rows["epoch"] == epoch].groupby(grid, observed=True)[VALUES].mean()
reached = rows[rows["train_error"] <= 0.1]
first = reached.groupby(COORDINATES, observed=True)["epoch"].min()
but_size = [name for name in COORDINATES if name != "size"]
capacity = first.reset_index().groupby(but_size, observed=True)["size"].max()
peak = peak_gib()
seconds = time.perf_counter() - began
print(json.dumps({"wall": seconds, "cpu": time.process_time(), "gib": peak, "rows": len(rows)}))
