"""`python -m tests.structure`: print the size of the product code and how many files each task touches.

A task touches a file if its entry module imports it, directly or through others (`study`, `analysis` and
`search_spaces` only, imports inside functions included).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import grimp

PACKAGES: Final = ("study", "analysis", "search_spaces")
PROJECT: Final = Path(__file__).parents[1]

# Task: entry module, and the most files that it should touch.
TASKS: Final = {
    "train one Run": ("study.launching.train_run", 49),
    "decide the claims": ("analysis.claims", 40),
    "write a report": ("analysis.report.page", 63),
    "study run": ("study.cli.run", 88),
}
MAX_FILES: Final = 166
MAX_LINES: Final = 26_000


def num_touched(graph: grimp.ImportGraph, entry: str) -> int:
    """Number of product files in the import closure of `entry`, itself included."""
    return len(graph.find_upstream_modules(entry)) + 1


def main() -> None:
    files = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    rows = [
        ("files", len(files), MAX_FILES),
        ("lines", sum(lines.values()), MAX_LINES),
        *((task, num_touched(graph, entry), most) for task, (entry, most) in TASKS.items()),
    ]
    print(f"{'':20}{'now':>8}{'at most':>9}")
    for name, value, most in rows:
        print(f"{name:20}{value:8,}{most:9,}")
    tests = sum(
        len(path.read_text(encoding="utf-8").splitlines())
        for path in (PROJECT / "tests").rglob("*.py")
    )
    print(f"{'lines of tests':20}{tests:8,}{18_500:9,}")
    print("longest files:")
    for path in sorted(lines, key=lines.__getitem__)[:-6:-1]:
        print(f"  {lines[path]:4}  {path.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
