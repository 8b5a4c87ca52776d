"""Read the numbers of the second series, which was registered under RULES 2, for README.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import surfaces
from analysis.claims.registration import RULES
from analysis.descent import EPSILON
from analysis.load.export import FOLDER, kept_bias_variance
from analysis.results.kept import Curve, curve_of, errors_of, opened, verdict

LENGTHS: Final = (100, 400, 1_600)  # epochs of `reduced_lengths`


def values() -> dict[str, Any]:
    """Return the variables of the template below `second`, by name."""
    return {
        "c1": [
            _c1("reduced_epochs", "Fashion-MNIST", 500, 2_000),
            _c1("reduced_epochs_cifar", "CIFAR-10", 500, 4_000),
        ],
        "c2": verdict("reduced_source_errors", "C2", RULES),
        "sources": _sources(),
        "fast": verdict("reduced_fast", "C4", RULES),
        "fast_curve": _curve("reduced_fast", 500),
        "variance": variance_of("reduced_fast", 500),
        "penalty": verdict("reduced_penalty", "C4", RULES),
        "penalty_curve": _curve("reduced_penalty", 500),
        "c4b": verdict("reduced_heads", "C4b", RULES),
        "heads": _heads(),
        "edges": _edges(),
        "c5b": verdict("reduced_far_source", "C5b", RULES),
        "fashion": verdict("reduced_far_source", "C4", RULES),
        "replication": pd.read_csv(FOLDER / "replication.csv").to_dict("records"),
    }


def _c1(study: str, name: str, fewer: int, more: int) -> dict[str, Any]:
    sizes = [_over_epochs(study, size) for size in (fewer, more)]
    return {"name": name, "study": study, "verdict": verdict(study, "C1", RULES), "sizes": sizes}


def _over_epochs(study: str, size: int) -> dict[str, float]:
    """Return the lowest (`low`), the highest later and the last mean test error over the epochs."""
    most = opened(study).cells["label_noise"].max()
    errors = surfaces.over_epochs(opened(study), size=size, label_noise=most)
    curve = errors.mean("seed").squeeze().values
    low = int(curve.argmin())
    return {"size": size, "low": curve[low], "peak": curve[low:].max(), "end": curve[-1]}


def _sources() -> list[dict[str, float]]:
    """Return each source's size, final errors, and the mean final test error of its targets."""
    errors = errors_of("reduced_source_errors")
    targets = errors[errors["arm"] == "transfer"].groupby("source_size")["test_error"].mean()
    return [
        {
            "size": row["size"],
            "train": row["train_error"],
            "test": row["test_error"],
            "target": targets[row["size"]],
        }
        for _, row in errors[errors["arm"] == "source"].sort_values("size").iterrows()
    ]


def _curve(study: str, size: int) -> Curve:
    errors = errors_of(study)
    return curve_of(study, errors[(errors["size"] == size) & (errors["arm"] == "transfer")])


def variance_of(study: str, size: int) -> list[dict[str, float]]:
    """Return bias² and variance of the class probabilities: head only, the highest variance, last cut.

    Empty if the study keeps no probabilities.
    """
    table = kept_bias_variance(study)
    if table is None:
        return []
    some = table[table["size"] == size].sort_values("frozen", ascending=False)
    places = (0, int(some["variance"].to_numpy().argmax()), len(some) - 1)
    return [{name: some.iloc[at][name] for name in ("bias2", "variance")} for at in places]


def _heads() -> list[dict[str, Any]]:
    """Return the curves of `reduced_heads`, with the indices of the minimum and of the later peak."""
    errors = errors_of("reduced_heads")
    found = []
    for task, name in (("cifar10-16px", "CIFAR-10"), ("digits-high", "digits")):
        some = errors[(errors["task"] == task) & (errors["arm"] == "transfer")]
        some = some.sort_values("parameters_trained")
        curve = curve_of(name, some)
        low = curve.test.index(min(curve.test))
        after = curve.test[low:]
        found.append(
            {
                "task": name,
                "counts": curve.counts,
                "test": curve.test,
                "is_head_only": some["cut"].iloc[low] == "head only",
                "low": low,
                "peak": low + after.index(max(after)),
            }
        )
    return found


def _edges() -> list[dict[str, Any]]:
    """Return the trained parameters of the first cut that interpolates, by rate, at each length.

    `reduced_lengths` evaluates at log-spaced epochs, so a length is the last evaluation before it.
    """
    study = opened("reduced_lengths")
    cells = study.cells[study.cells["arm"] == "transfer"]
    counts, evaluated = cells["parameters_trained"].to_dict(), cells["evaluations"].to_dict()
    rates = {run.id: run.recipe.learning_rate for run in study.wanted if run.start is not None}
    lines: list[dict[str, Any]] = []

    def use(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        epochs = study.evaluations[evaluated[run_id]].epochs
        for length in LENGTHS:
            at = int(np.searchsorted(epochs, length, side="right")) - 1
            train = float(columns["train_error"][at])
            cut = {"rate": rates[run_id], "length": length, "count": int(counts[run_id])}
            lines.append({**cut, "train": train})

    study.read_values(list(cells.index), ["train_error"], use)
    train = pd.DataFrame(lines).groupby(["rate", "length", "count"])["train"].mean()
    first = train[train <= EPSILON].reset_index().groupby(["rate", "length"])["count"].min()
    return [
        {"rate": rate, "edges": [int(first.get((rate, length), 0)) for length in LENGTHS]}
        for rate in sorted(set(rates.values()))
    ]
