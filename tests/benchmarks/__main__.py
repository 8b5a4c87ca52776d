"""`python -m tests.benchmarks [--quick] [GROUP…]`: one table of what a study costs.

Under half an hour on two idle cores, --quick about five minutes. Each line is told as it is measured, on
stderr; the table, with the machine and versions at its head, comes last, as Markdown.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.benchmarks.cells import cells, grid
from tests.benchmarks.machine import head
from tests.benchmarks.runs import runs
from tests.benchmarks.schedule import schedule
from tests.benchmarks.surfaces import surfaces
from tests.benchmarks.table import Line, missed, rendered

GROUPS: Final[Mapping[str, Callable[..., Iterator[Line]]]] = {
    "cells": cells,
    "grid": grid,
    "runs": runs,
    "schedule": schedule,
    "surfaces": surfaces,
}


def main() -> int:
    given = _arguments()
    lines: list[Line] = []
    top, began = head(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="freezewise-benchmarks-") as folder:
        os.environ["STUDY_FEATURES"] = str(Path(folder, "features"))
        Path(folder, "features").mkdir()
        try:
            for name in given.groups or GROUPS:
                for line in _measured(name, quick=given.quick, folder=Path(folder)):
                    print("  ".join(filter(None, line.cells())), file=sys.stderr, flush=True)
                    lines.append(line)
        except KeyboardInterrupt:
            print("\nended early: what follows is what was measured so far", file=sys.stderr)
    minutes = (time.monotonic() - began) / 60
    how = " --quick" if given.quick else ""
    print("\n".join([*top, f"`python -m tests.benchmarks{how}`: {minutes:.0f} minutes", ""]))
    print(rendered(lines))
    print(f"\nratio: baseline ÷ ours; goals missed: {missed(lines)}")
    return 1 if any(line.has_failed for line in lines) else 0


def _measured(name: str, *, quick: bool, folder: Path) -> Iterator[Line]:
    """The lines of a group; where it fails, that is its last line, and the other groups go on."""
    try:
        yield from GROUPS[name](quick=quick, folder=folder)
    except Exception as error:
        traceback.print_exc()
        yield Line(group=name, case="the rest", missing=f"failed: {error}", has_failed=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller samples, one round")
    given = parser.parse_args()
    for name in given.groups:
        if name not in GROUPS:
            parser.error(f"GROUP={name}: choose of {', '.join(GROUPS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
