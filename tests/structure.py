"""`python -m tests.structure`: print the size of the product code and how many files each task touches.

A task touches a file if its entry module imports it, directly or not, also inside functions.
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
MAX_LINES_OF_TESTS: Final = 18_500


def num_lines(*folders: str) -> dict[Path, int]:
    """Return the number of lines of each Python file in these folders."""
    paths = sorted(path for folder in folders for path in (PROJECT / folder).rglob("*.py"))
    return {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}


def main() -> None:
    lines = num_lines(*PACKAGES)
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    rows = [("files", len(lines), MAX_FILES), ("lines", sum(lines.values()), MAX_LINES)]
    for task, (entry, most) in TASKS.items():
        rows.append((task, len(graph.find_upstream_modules(entry)) + 1, most))
    rows.append(("lines of tests", sum(num_lines("tests").values()), MAX_LINES_OF_TESTS))
    print(f"{'':20}{'now':>8}{'at most':>9}")
    for name, value, most in rows:
        print(f"{name:20}{value:8,}{most:9,}")
    print("longest files:")
    for path in sorted(lines, key=lines.__getitem__)[:-6:-1]:
        print(f"  {lines[path]:4}  {path.relative_to(PROJECT)}")


if __name__ == "__main__":
    main()
