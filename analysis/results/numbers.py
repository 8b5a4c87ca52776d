"""Read the numbers of README.md from the bundled studies, and draw its figure."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from analysis.claims.contrasts import measure, of_arm, one_image
from analysis.claims.pooled_curves import freezing_curves, freezing_peak
from analysis.claims.registration import LOST_REGISTRATIONS, RULES
from analysis.descent import EPSILON
from analysis.descent.intervals import LEVEL, mean_interval
from analysis.load.export import (
    kept_disagreement,
    kept_names,
    verdicts_name,
)
from analysis.load.rows import ExportRows
from analysis.plots import style
from analysis.plots.curves import capacity_curves
from analysis.report import slices
from analysis.results import second_series
from analysis.results.kept import Curve, curve_of, errors_of, opened, verdict, verdicts

SOURCES: Final = {"cifar100-16px": "CIFAR-100", "tiny-near-16px": "near", "tiny-far-16px": "far"}
BROAD: Final = "cifar100-16px"
SIZE: Final = 1_000
OTHERS: Final = {
    "reduced_vit": "A ViT-Tiny of width 48",
    "reduced_vit_fast": "The ViT at three times the learning rate, with cuts down to nothing frozen",
    "reduced_densenet": "A DenseNet-121 of growth rate 4",
    "reduced_densenet_fast": "The DenseNet at three times the learning rate",
}
LEARNING_RATE: Final = 1e-3
NUM_EPOCHS: Final = 400


def write_verdicts(folder: Path) -> None:
    """Write the verdicts on all bundled studies by the current RULES."""
    for study in kept_names():
        verdicts(study).to_csv(folder / verdicts_name(study, RULES), index=False)


def reduced_curves() -> tuple[Curve, ...]:
    """Return the curves of `reduced` at SIZE target images, one for each source."""
    errors = errors_of("reduced")
    some = errors[(errors["size"] == SIZE) & (errors["arm"] == "transfer")]
    return tuple(
        curve_of(SOURCES[source], some[some["source_task"] == source]) for source in SOURCES
    )


def values() -> dict[str, Any]:
    """Return all variables of the template `readme.md.jinja`, by name."""
    curves = reduced_curves()
    ended = pd.concat([opened(name).runs for name in kept_names()])
    ended = ended[~ended.index.duplicated()]
    took = pd.to_datetime(ended["ended_at"]) - pd.to_datetime(ended["began_at"])
    # Seeds trained together in one block share its time.
    together = {
        run.id: run.recipe.seeds_together for name in kept_names() for run in opened(name).wanted
    }
    hours = took.dt.total_seconds() / 3600 / took.index.map(together)
    return {
        "rules": RULES,
        "studies": [_study(name) for name in kept_names()],
        "num_runs": len(ended),
        "hours": hours.sum(),
        **_claims(RULES),
        "before": _claims(1),
        "level": _level("reduced"),
        "at_least": _at_least("reduced"),
        "by_size": _peaks_by_size("reduced"),
        "late": _late_fall(),
        "sources": _sources(),
        "rises": [100 * (curve.test[curve.peak] - curve.test[0]) for curve in curves],
        "curves": curves,
        "others": [_other(study, name) for study, name in OTHERS.items()],
        "second": second_series.values(),
        "rates": _rates(),
        "disagreement": _disagreement(curves[0]),
        "random": _rise("random frozen"),
        "same": _rise("same task"),
    }


def _study(name: str) -> dict[str, Any]:
    study = opened(name)
    is_lost = name in LOST_REGISTRATIONS
    if is_lost:
        registered_at, digest = LOST_REGISTRATIONS[name]
    else:
        assert isinstance(study.rows, ExportRows) and study.rows.registrations, name
        (registration,) = study.rows.registrations
        registered_at = f"{pd.Timestamp(registration.registered_at):%Y-%m-%d %H:%M:%S}"
        digest = registration.digest
    return {
        "name": name,
        "num_runs": len(study.wanted),
        "registered_at": registered_at,
        "digest": digest,
        "is_lost": is_lost,
    }


def _claims(rules: int) -> dict[str, Any]:
    return {
        "c1": verdict("reduced", "C1", rules),
        "c2": verdict("reduced_sources", "C2", rules),
        "c2_steps": verdict("reduced_sources", "C2", rules, arm="matched steps"),
        "c3": verdict("reduced", "C3", rules),
        "c4": verdict("reduced", "C4", rules),
        "c4_strict": verdict("reduced", "C4", rules, epsilon=0.01),
        "c4_random": verdict("reduced_controls", "C4", rules, arm="random frozen"),
        "c5a": verdict("reduced", "C5a", rules),
        "c5b": verdict("reduced", "C5b", rules),
    }


def _level(study: str) -> str:
    """Return the range in which C4's test error is level, as text; "" if it is not level."""
    row = verdict(study, "C4", RULES, epsilon=EPSILON)
    found = re.search(r"level .* trained parameters", row.compared)
    return "" if found is None else found[0]


def _at_least(study: str) -> str:
    """Return C3's lower bound and the number of replicates with this bound, as text; "" without one."""
    found = re.search(r"≥ .*? replicates", str(verdict(study, "C3", RULES).remarks))
    return "" if found is None else found[0]


def _peaks_by_size(study: str) -> list[dict[str, Any]]:
    """Return the height of C4's peak for each target size, pooled over sources."""
    lines = of_arm(measure(opened(study), epsilon=EPSILON).lines, "transfer")
    found = []
    for size, some in lines.groupby("size"):
        peak = freezing_peak(freezing_curves(some), EPSILON, step=one_image(lines))
        assert peak is not None and peak.judgement.height is not None, size
        height = peak.judgement.height
        found.append(
            {"size": size, "effect": height.estimate, "low": height.low, "high": height.high}
        )
    return found


def _late_fall() -> dict[str, Any]:
    """Return the test error's fall over the last two windows of epochs, with 6 or 7 frozen layers."""
    measures = measure(opened("reduced"), epsilon=EPSILON)
    lines = of_arm(measures.lines, "transfer")
    lines = lines[(lines["size"] == SIZE) & lines["frozen"].isin([6, 7])]
    falls = pd.Series(
        {i: measures.curves[i].test[-2] - measures.curves[i].test[-1] for i in lines.index}
    )
    by_seed = falls.groupby(lines["seed"]).mean()
    fall = mean_interval(by_seed.to_numpy())
    return {
        "size": SIZE,
        "effect": fall.estimate,
        "low": fall.low,
        "high": fall.high,
        "num_falls": int((by_seed > 0).sum()),
        "num_seeds": len(by_seed),
    }


def _sources() -> dict[str, dict[str, float]]:
    """Return errors of `reduced_sources` by arm and size of the source ("transfer_small", …).

    `test`, `train`: errors of the source; `target`: mean test error of its targets over the cuts.
    """
    errors = errors_of("reduced_sources")
    recipes = {run.recipe.id: run.recipe for run in opened("reduced_sources").wanted}
    is_source = errors["arm"] == "source"
    has_steps = errors["recipe"].map(lambda name: recipes[name].num_steps is not None)
    found = {}
    for arm, is_in_arm in (("transfer", ~has_steps), ("matched steps", has_steps)):
        sources = errors[is_source & is_in_arm].sort_values("size")
        targets = errors[errors["arm"] == arm].groupby("source_size")["test_error"].mean()
        for which, row in (("small", sources.iloc[0]), ("large", sources.iloc[-1])):
            found[f"{arm.replace(' ', '_')}_{which}"] = {
                "test": row["test_error"],
                "train": row["train_error"],
                "target": targets[row["size"]],
            }
    return found


def _rates() -> dict[str, Any]:
    """Return the trained parameters of the first cut that interpolates, by recipe; and `slow_peak`."""
    study = opened("reduced_rates")
    recipes = {run.id: run.recipe for run in study.wanted}
    cells = study.cells[study.cells["arm"] == "transfer"]
    of = {str(name): recipes[ids[0]] for name, ids in cells.groupby("recipe").groups.items()}
    errors = errors_of("reduced_rates")
    found = {
        (recipe.learning_rate, recipe.num_epochs): curve_of(
            name, errors[(errors["recipe"] == name) & (errors["arm"] == "transfer")]
        )
        for name, recipe in of.items()
    }
    at = {
        "base": found[LEARNING_RATE, NUM_EPOCHS],
        "slow": found[3e-4, NUM_EPOCHS],
        "long": found[LEARNING_RATE, 4 * NUM_EPOCHS],
        "fast": found[3e-3, NUM_EPOCHS],
    }
    edges = {name: curve.counts[curve.edge] for name, curve in at.items()}
    return edges | {"slow_peak": at["slow"].counts[at["slow"].peak]}


def _other(study: str, name: str) -> dict[str, Any]:
    errors = errors_of(study)
    c4 = verdict(study, "C4", RULES)
    because = c4.because if isinstance(c4.because, str) else ""
    tell = re.search(r"(about [\d,]+ seeds would|more seeds may not) tell", because)
    return {
        "name": name,
        "study": study,
        "c4": c4,
        "curve": curve_of(name, errors[errors["arm"] == "transfer"]),
        "variance": second_series.variance_of(study, 250),
        "c4_strict": verdict(study, "C4", RULES, epsilon=0.01),
        "tell": "" if tell is None else tell[0],
    }


def _disagreement(broad: Curve) -> list[float]:
    """Return the disagreement of two seeds at head only, at the peak and at the last cut."""
    table = kept_disagreement("reduced")
    assert table is not None
    some = table[(table["source_task"] == BROAD) & (table["size"] == SIZE)]
    at = [broad.counts[0], broad.counts[broad.peak], broad.counts[-1]]
    return list(map(float, some.set_index("parameters_trained").loc[at, "disagreement"]))


def _rise(arm: str) -> dict[str, float]:
    """Return a control arm's test error at head only, and its highest up to one cut after the edge."""
    errors = errors_of("reduced_controls")
    noisy = errors[(errors["arm"] == arm) & (errors["label_noise"] > 0)]
    curve = curve_of(arm, noisy)
    return {"head": curve.test[0], "peak": max(curve.test[: curve.edge + 2])}


def draw_figure(curves: Sequence[Curve], path: Path) -> None:
    """Draw test and train errors of `reduced` as its report does; `curves` are for the metadata."""
    study = opened("reduced")
    (part,) = slices.slices(study)
    end = slices.at_the_end(study, part.lines).sel(size=SIZE, source=list(SOURCES))
    end = end.assign_coords(source=[f"from {name}" for name in SOURCES.values()])
    with matplotlib.rc_context(style.STYLE):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor=style.PAPER)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
        capacity_curves(above, below, end["test_error"], end["train_error"], by="source")
        above.set_title(
            f"CIFAR-10 at 16×16, {SIZE:,} images, a fifth of the labels wrong; mean of ten seeds,\n"
            f"band: {LEVEL:.0%} t-interval; filled: train error ≤ {EPSILON:g}"
        )
        above.set_title("", loc="right")
        figure.legend(loc="outside lower center", ncols=4)
        figure.savefig(path, metadata={"Date": None, "Description": figure_description(curves)})


def figure_description(curves: Sequence[Curve]) -> str:
    """Return the drawn numbers as JSON for the figure's metadata; `--check` compares them, not pixels."""
    drawn = {
        curve.source: [
            list(curve.counts),
            *(
                [round(value, 9) for value in errors]
                for errors in (curve.test, curve.standard_errors, curve.train)
            ),
        ]
        for curve in curves
    }
    return json.dumps(drawn)
