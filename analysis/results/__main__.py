"""Write verdicts, README.md and reduced.svg of this folder from the bundled studies, or compare them.

Only verdicts by the current RULES are written. `--check` only compares README.md and reduced.svg.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path

import jinja2

from analysis.load.export import FOLDER
from analysis.results import kept, numbers


def main(argv: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write the files to `folder`, or compare README.md and reduced.svg.

    Returns:
        The exit status: 1 if `--check` is given and a file differs.
    """
    parser = argparse.ArgumentParser(prog="python -m analysis.results", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if a file differs")
    check = parser.parse_args(argv).check
    readme, figure = folder / "README.md", folder / "reduced.svg"
    if not check:
        numbers.write_verdicts(folder)
    text, curves = readme_text(), numbers.reduced_curves()
    if not check:
        readme.write_text(text, encoding="utf-8")
        numbers.draw_figure(curves, figure)
        print(f"{readme}, {figure}: written")
        return 0
    found = _read(readme).splitlines()
    differing = [*unified_diff(found, text.splitlines(), str(readme), "new", n=0, lineterm="")]
    if numbers.figure_description(curves) not in _read(figure):
        differing.append(f"{figure}: its numbers differ from those of the bundled studies")
    print("\n".join(differing) or f"{readme}, {figure}: up to date")
    return 1 if differing else 0


def readme_text() -> str:
    """Render README.md from the bundled studies."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown
        keep_trailing_newline=True,
    )
    environment.filters["fixed"] = kept.fixed
    return environment.get_template("readme.md.jinja").render(numbers.values())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
