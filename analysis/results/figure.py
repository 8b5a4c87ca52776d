"""The README's picture of the results: test and train error against the number of trained parameters.

Owns the picture and its file. The file carries the numbers that it draws, so that a check compares
numbers, not pixels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis.descent import EPSILON
from analysis.plots import style
from analysis.results.numbers import SIZE, Curve

PATH: Final = Path(__file__).parent / "reduced.svg"
_DRAWN: Final = re.compile(r"<dc:description>(.*?)</dc:description>", re.DOTALL)
ABSOLUTE: Final = 1e-9


def draw(curves: Sequence[Curve], path: Path = PATH) -> None:
    """Writes the picture of these curves. Errors are fractions; bars are standard errors over seeds."""
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor=style.PAPER)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        for number, curve in enumerate(curves):
            mark: dict[str, Any] = {
                "color": style.OKABE_ITO[number],
                "marker": style.MARKERS[number],
                "ls": style.DASHES[number],
                "ms": 3.5,
            }
            above.errorbar(
                curve.counts,
                curve.test,
                yerr=curve.standard_errors,
                elinewidth=0.8,
                label=f"from {curve.source}",
                **mark,
            )
            below.plot(curve.counts, curve.train, **mark)
        first, last = (
            [curve.counts[curve.edge + offset] for curve in curves] for offset in (-1, 0)
        )
        for axes in (above, below):
            axes.axvspan(min(first), max(last), color=style.ABSENT, lw=0, zorder=0)
        below.axhline(EPSILON, color=style.FAINT, lw=0.7, ls="--")
        above.set_xscale("log")
        counts = curves[0].counts
        below.xaxis.set_major_locator(FixedLocator(list(counts)))
        below.xaxis.set_major_formatter(FixedFormatter([f"{count:,}" for count in counts]))
        below.xaxis.set_minor_locator(NullLocator())
        for label in below.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")
        above.set_ylabel("test error (fraction)")
        below.set_ylabel("train error")
        below.set_xlabel(
            "trained parameters (log scale): of the head alone to those of the last four layers"
        )
        above.set_title(
            f"CIFAR-10 at 16×16, {SIZE:,} images, a fifth of the labels wrong; mean of ten seeds, "
            "± standard error;\nshaded: where the train error falls under "
            f"{EPSILON:g}, the edge of interpolation"
        )
        above.legend(loc="lower right", ncols=len(curves))
        # An ampersand or a bracket of the JSON would be the SVG's.
        text = escape(json.dumps(_numbers(curves)), quote=False)
        figure.savefig(path, metadata={"Date": None, "Description": text})


def differences(curves: Sequence[Curve], path: Path = PATH) -> list[str]:
    """In what the numbers that the file draws differ from these curves; [] where they do not."""
    if not path.is_file():
        return [f"{path.name} is not there"]
    found = _DRAWN.search(path.read_text(encoding="utf-8"))
    drawn = json.loads(unescape(unescape(found.group(1)))) if found else {}
    there = _numbers(curves)
    if drawn.keys() != there.keys():
        return [f"{path.name} draws {', '.join(drawn) or 'nothing known'}, not {', '.join(there)}"]
    return [
        f"{path.name}: other numbers from {name}"
        for name in there
        if np.shape(drawn[name]) != np.shape(there[name])
        or not np.allclose(drawn[name], there[name], rtol=0, atol=ABSOLUTE)
    ]


def _numbers(curves: Sequence[Curve]) -> dict[str, list[list[float]]]:
    return {
        curve.source: [
            list(map(float, curve.counts)),
            list(curve.test),
            list(curve.standard_errors),
            list(curve.train),
        ]
        for curve in curves
    }
