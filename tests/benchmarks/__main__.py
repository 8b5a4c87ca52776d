"""`python -m tests.benchmarks [--quick] [GROUP…]`: one table of what a study costs.

Ten minutes on two idle cores, --quick three. Each line is printed to stderr when it is
measured; the table, with machine and versions, comes last, as Markdown. Seconds are CPU seconds.
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

from tests.benchmarks.studies import runs, schedule
from tests.benchmarks.surfaces import surfaces
from tests.benchmarks.table import Line, head, rendered
from tests.benchmarks.training import narrow, wide

GROUPS: Final[Mapping[str, Callable[..., Iterator[Line]]]] = {
    "narrow": narrow,
    "wide": wide,
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
            print("\ninterrupted: the table has what was measured so far", file=sys.stderr)
    minutes = (time.monotonic() - began) / 60
    how = " --quick" if given.quick else ""
    print("\n".join([*top, f"`python -m tests.benchmarks{how}`: {minutes:.0f} minutes", ""]))
    print(rendered(lines))
    num_missed = sum(line.is_reached is False for line in lines)
    print(f"\nratio: baseline ÷ ours; goals missed: {num_missed}")
    return 1 if any(line.error for line in lines) else 0


def _measured(name: str, *, quick: bool, folder: Path) -> Iterator[Line]:
    """Yield the lines of a group; if it fails, its last line has the error."""
    try:
        yield from GROUPS[name](quick=quick, folder=folder)
    except Exception as error:
        traceback.print_exc()
        yield Line(group=name, case="the rest", error=str(error))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"of {', '.join(GROUPS)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="smaller samples, one round")
    given = parser.parse_args()
    for name in given.groups:
        if name not in GROUPS:
            parser.error(f"GROUP={name}: choose from {', '.join(GROUPS)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
