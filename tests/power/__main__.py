"""`python -m tests.power [--simulations N]` simulates anew and rewrites table.md beside this file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from tests.power import tables

TABLE: Final = Path(__file__).with_name("table.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.power", description=__doc__)
    parser.add_argument(
        "--simulations", type=int, default=1_000, metavar="N", help="a shape; default: %(default)s"
    )
    num = parser.parse_args().simulations
    if num < 2:
        parser.error(f"--simulations {num}: at least 2 are needed")
    lines = []
    for line in tables.page(num):
        print(line, flush=True)
        lines.append(line)
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
