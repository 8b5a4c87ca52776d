"""Read the numbers of the README's results from the bundled files, and draw its figure.

The figure's file contains the numbers that it shows, so a check compares numbers, not pixels."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape, unescape
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from analysis import load
from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.export import kept_bias_variance, kept_names, kept_path, kept_verdicts
from analysis.plots import style
from analysis.report import tables

SOURCES: Final = {"cifar100-16px": "CIFAR-100", "tiny-near-16px": "near", "tiny-far-16px": "far"}
BROAD: Final = "cifar100-16px"
SIZE: Final = 1_000
OTHERS: Final = {
    "reduced_vit": "A ViT-Tiny of width 48",
    "reduced_densenet": "A DenseNet-121 of growth rate 4",
}
LEARNING_RATE: Final = 1e-3
NUM_EPOCHS: Final = 400


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Errors against trained parameters, head only first, for one source: means over its seeds.

    `counts`: trained parameters; `test`, `standard_errors`: test error and its standard error over
    seeds; `train`: train error; all of equal length.
    """

    source: str
    counts: tuple[int, ...]
    test: tuple[float, ...]
    train: tuple[float, ...]
    standard_errors: tuple[float, ...]

    @property
    def edge(self) -> int:
        """Index of the first cut that interpolates."""
        return next(i for i, error in enumerate(self.train) if error <= EPSILON)


def reduced_curves() -> tuple[Curve, ...]:
    """The curves of `reduced` at SIZE target images, one for each source."""
    errors = _errors("reduced")
    some = errors[(errors["size"] == SIZE) & (errors["arm"] == "transfer")]
    return tuple(_curve(SOURCES[source], some[some["source_task"] == source]) for source in SOURCES)


def values() -> dict[str, Any]:
    """Everything that `section.md.jinja` names."""
    found = reduced_curves()
    broad = found[0]
    ended = pd.concat([_opened(name).runs for name in kept_names()])
    ended = ended[~ended.index.duplicated()]
    took = pd.to_datetime(ended["ended_at"]) - pd.to_datetime(ended["began_at"])
    return {
        "num_runs": len(ended),
        "core_hours": f"{took.dt.total_seconds().sum() / 3600:.1f}",
        "c1": _verdict("reduced", "C1"),
        "c2": _verdict("reduced_sources", "C2"),
        "c2_steps": _verdict("reduced_sources", "C2", arm="matched steps"),
        "c3": _verdict("reduced", "C3"),
        "c4": _verdict("reduced", "C4"),
        "c4_strict": _verdict("reduced", "C4", epsilon=0.01),
        "others": [_other(study, name) for study, name in OTHERS.items()],
        "c5a": _verdict("reduced", "C5a"),
        "c5b": _verdict("reduced", "C5b"),
        "edge": {
            "below": f"{broad.counts[broad.edge - 1]:,}",
            "above": f"{broad.counts[broad.edge]:,}",
        },
        "counts": broad.counts,
        "lines": [{"source": one.source, "texts": _texts(one.test)} for one in found],
        "rates": _rates(),
        "parts": _parts(broad),
        "random": _rise("random frozen"),
        "same": _rise("same task"),
    }


def _verdict(
    study: str, claim: str, *, arm: str = "transfer", epsilon: float | None = None
) -> dict[str, str]:
    """A verdict with its effect in the units of each sentence."""
    table = kept_verdicts(study)
    assert table is not None, study
    kind = "epsilon" if epsilon else "primary" if arm == "transfer" else "control"
    some = table[(table["claim"] == claim) & (table["kind"] == kind) & (table["arm"] == arm)]
    if epsilon:
        some = some[some["compared"].str.startswith(f"ε = {epsilon:g}:")]
    ((_, found),) = some.iterrows()
    effect, low, high = (float(found[name]) for name in ("effect", "low", "high"))
    return {
        "answer": found["answer"],
        "because": str(found["because"]),
        "times": f"{10**effect:.2f}",
        "times_between": f"[{10**low:.2f}, {10**high:.2f}]",
        "doublings": f"{effect:+.1f}",
        "doublings_between": f"[{low:.1f}, {high:.1f}]",
        "points": f"{100 * effect:.1f}",
        "points_between": f"[{100 * low:.1f}, {100 * high:.1f}]",
        "points_against": f"{-100 * effect:.1f}",
        "points_against_between": f"[{-100 * high:.1f}, {-100 * low:.1f}]",
    }


def _rates() -> dict[str, str]:
    """The first cut that interpolates, in trained parameters, by recipe."""
    study = _opened("reduced_rates")
    recipes = {run.id: run.recipe for run in study.wanted}
    cells = study.cells[study.cells["arm"] == "transfer"]
    of = {str(name): recipes[ids[0]] for name, ids in cells.groupby("recipe").groups.items()}
    errors = _errors("reduced_rates")
    found = {
        (recipe.learning_rate, recipe.num_epochs): _curve(
            name, errors[(errors["recipe"] == name) & (errors["arm"] == "transfer")]
        )
        for name, recipe in of.items()
    }
    slow = found[3e-4, NUM_EPOCHS]
    at = {
        "base": found[LEARNING_RATE, NUM_EPOCHS],
        "slow": slow,
        "long": found[LEARNING_RATE, 4 * NUM_EPOCHS],
        "fast": found[3e-3, NUM_EPOCHS],
    }
    edges = {name: f"{curve.counts[curve.edge]:,}" for name, curve in at.items()}
    return edges | {"slow_peak": f"{slow.counts[slow.test.index(max(slow.test))]:,}"}


def _other(study: str, name: str) -> dict[str, Any]:
    """Of a study of another architecture: its verdict on C4, and the curve that it speaks of."""
    errors = _errors(study)
    (size,) = errors.loc[errors["arm"] == "transfer", "size"].unique()
    curve = _curve(name, errors[errors["arm"] == "transfer"])
    peak = curve.test.index(max(curve.test))
    c4 = _verdict(study, "C4")
    wanted = re.search(r"about ([\d,]+) seeds would tell", c4["because"])
    return {
        "name": name,
        "study": study,
        "size": f"{size:,}",
        "c4": c4,
        "head": f"{curve.test[0]:.3f}",
        "edge": f"{curve.test[curve.edge]:.3f}",
        "edge_at": f"{curve.counts[curve.edge]:,}",
        "last": f"{curve.test[-1]:.3f}",
        "last_at": f"{curve.counts[-1]:,}",
        "rises": peak == len(curve.test) - 1,
        "peak": f"{curve.test[peak]:.3f}",
        "peak_at": f"{curve.counts[peak]:,}",
        "seeds": None if wanted is None else wanted[1],
    }


def _parts(broad: Curve) -> dict[str, str]:
    """Disagreement, error of the majority and net variance: head only, at the peak, last cut."""
    table = kept_bias_variance("reduced")
    assert table is not None
    some = table[(table["source_task"] == BROAD) & (table["size"] == SIZE)]
    some = some.set_index("parameters_trained")
    peak = broad.counts[broad.test.index(max(broad.test))]
    at = some.loc[[broad.counts[0], peak, broad.counts[-1]]]
    return {
        "differ": ", ".join(f"{100 * value:.0f} %" for value in at["disagreement"]),
        "bias": ", ".join(f"{value:.2f}" for value in at["bias"]),
        "net": ", ".join(f"{value:.2f}" for value in at["net_variance"]),
    }


def _rise(arm: str) -> dict[str, str]:
    """Test error at head only, and the highest up to the cut behind the edge, of a control arm."""
    errors = _errors("reduced_controls")
    noisy = errors[(errors["arm"] == arm) & (errors["label_noise"] > 0)]
    curve = _curve(arm, noisy)
    peak = max(curve.test[: curve.edge + 2])
    return {"head": f"{curve.test[0]:.3f}", "peak": f"{peak:.3f}"}


def _curve(source: str, some: pd.DataFrame) -> Curve:
    ordered = some.sort_values("parameters_trained")
    assert ordered["parameters_trained"].is_unique, source
    return Curve(
        source=source,
        counts=tuple(map(int, ordered["parameters_trained"])),
        test=tuple(map(float, ordered["test_error"])),
        train=tuple(map(float, ordered["train_error"])),
        standard_errors=tuple(map(float, ordered["test_error_standard_error"])),
    )


def _texts(errors: tuple[float, ...]) -> list[str]:
    """Errors to three places, the largest in bold."""
    return [f"**{e:.3f}**" if e == max(errors) else f"{e:.3f}" for e in errors]


@cache
def _opened(study: str) -> Study:
    path = kept_path(study)
    assert path is not None, study
    return load.open(path)


@cache
def _errors(study: str) -> pd.DataFrame:
    return tables.final_errors(_opened(study), EPSILON)


FIGURE_PATH: Final = Path(__file__).parent / "reduced.svg"
_DRAWN: Final = re.compile(r"<dc:description>(.*?)</dc:description>", re.DOTALL)
ABSOLUTE: Final = 1e-9


def draw_figure(curves: Sequence[Curve], path: Path = FIGURE_PATH) -> None:
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
        text = escape(json.dumps(_figure_numbers(curves)), quote=False)
        figure.savefig(path, metadata={"Date": None, "Description": text})


def figure_differences(curves: Sequence[Curve], path: Path = FIGURE_PATH) -> list[str]:
    """In what the numbers that the file draws differ from these curves; [] where they do not."""
    if not path.is_file():
        return [f"{path.name} is not there"]
    found = _DRAWN.search(path.read_text(encoding="utf-8"))
    drawn = json.loads(unescape(unescape(found.group(1)))) if found else {}
    there = _figure_numbers(curves)
    if drawn.keys() != there.keys():
        return [f"{path.name} draws {', '.join(drawn) or 'nothing known'}, not {', '.join(there)}"]
    return [
        f"{path.name}: other numbers from {name}"
        for name in there
        if np.shape(drawn[name]) != np.shape(there[name])
        or not np.allclose(drawn[name], there[name], rtol=0, atol=ABSOLUTE)
    ]


def _figure_numbers(curves: Sequence[Curve]) -> dict[str, list[list[float]]]:
    return {
        curve.source: [
            list(map(float, curve.counts)),
            list(curve.test),
            list(curve.standard_errors),
            list(curve.train),
        ]
        for curve in curves
    }
