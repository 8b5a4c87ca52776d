"""`python -m analysis.results [--check] [README]`: the README's results, made from the files here.

Owns where they stand: from the line "## Results so far" to the next heading of its rank, and the figure
beside the files. With `--check` nothing is written: words and numbers of the README, and the numbers
drawn, are held against those of the files. A number may differ by one in its last place.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

import jinja2

from analysis.results import numbers

HEADING: Final = "## Results so far\n"
_NUMBER: Final = re.compile(r"\d[\d,]*(?:\.\d+)?")


def main(argv: Sequence[str] | None = None) -> int:
    """Writes section and figure, or checks them; returns the exit status: 1 where they differ, 2 for no
    README or one without the section."""
    parser = argparse.ArgumentParser(prog="python -m analysis.results", description=__doc__)
    parser.add_argument("readme", nargs="?", default="README.md", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where they differ")
    chosen = parser.parse_args(argv)
    try:
        text = chosen.readme.read_text(encoding="utf-8")
        first, last = _place(text)
    except (OSError, ValueError) as wrong:
        print(f"results: {wrong}", file=sys.stderr)
        return 2
    made = section()
    if not chosen.check:
        chosen.readme.write_text(text[:first] + made + text[last:], encoding="utf-8")
        numbers.draw_figure(numbers.reduced_curves())
        print(f"{chosen.readme}: {HEADING.strip('# ').strip()}; {numbers.FIGURE_PATH}")
        return 0
    found = [
        *differences(text[first:last], made),
        *numbers.figure_differences(numbers.reduced_curves()),
    ]
    for line in found:
        print(f"results: {line}", file=sys.stderr)
    print(f"results: {len(_NUMBER.findall(made))} numbers checked, {len(found)} lines differ")
    return 1 if found else 0


def section() -> str:
    """The README's section, from the files."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
    )
    return environment.get_template("section.md.jinja").render(numbers.values()) + "\n\n"


def differences(there: str, made: str) -> list[str]:
    """Lines of `there` that do not say what the same line of `made` says."""
    ours, theirs = made.strip().splitlines(), there.strip().splitlines()
    found = [
        f"the README says {line!r}, the files {ours[index]!r}"
        for index, line in enumerate(theirs[: len(ours)])
        if not _same(line, ours[index])
    ]
    if len(ours) != len(theirs):
        found.append(f"the README has {len(theirs)} lines here, the files make {len(ours)}")
    return found


def _same(line: str, other: str) -> bool:
    """Equal words, and numbers that differ by one in the last place at most."""
    if _NUMBER.sub("#", line).replace("*", "") != _NUMBER.sub("#", other).replace("*", ""):
        return False
    pairs = zip(_NUMBER.findall(line), _NUMBER.findall(other), strict=True)
    return all(_near(Decimal(a.replace(",", "")), Decimal(b.replace(",", ""))) for a, b in pairs)


def _near(a: Decimal, b: Decimal) -> bool:
    exponent = a.as_tuple().exponent
    if exponent != b.as_tuple().exponent or not isinstance(exponent, int):
        return False
    # A whole number is a count: it has no last place that another machine could round.
    return a == b if exponent == 0 else abs(a - b) <= Decimal(1).scaleb(exponent)


def _place(text: str) -> tuple[int, int]:
    """Where the section begins and ends. Raises ValueError where it is not there."""
    first = text.find(HEADING)
    if first < 0:
        raise ValueError(f"the README has no line {HEADING.strip()!r}")
    following = text.find("\n## ", first + 1)
    return first, len(text) if following < 0 else following + 1


if __name__ == "__main__":
    sys.exit(main())
