"""Writes a large made-up study, stored exactly as the store writes one.

    python -m tests.benchmarks.generate ROOT [--runs 10000] [--epochs 4000]

10,000 Runs of 4,000 epochs are 40 million rows, 1.8 GB; it takes a few minutes. Also writes the export,
ROOT/study.parquet.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from analysis.load import export
from study.store import open_store
from tests import synthetic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=4_000)
    given = parser.parse_args()
    # 2 tasks × 5 sizes of sources × 2 noises × 10 cuts × 5 seeds for each target size.
    sizes = max(1, given.runs // 1_000)
    wanted = synthetic.runs(
        num_epochs=given.epochs,
        source_sizes=(500, 1_000, 2_000, 5_000, 10_000),
        sizes=[250 * 2**index for index in range(sizes)],
        frozen=range(10),
        seeds=range(5),
    )
    began = time.perf_counter()
    synthetic.write(given.root, wanted)
    wrote = time.perf_counter()
    print(f"{len(wanted)} Runs of {given.epochs} epochs: {wrote - began:.1f} s")
    written = export.export(open_store(given.root), "synthetic", given.root / "study.parquet")
    print(f"export of {written.num_rows} rows: {time.perf_counter() - wrote:.1f} s")


if __name__ == "__main__":
    main()
