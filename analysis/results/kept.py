"""Open the bundled studies; read their verdicts, final errors and curves for README.md."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pandas as pd

from analysis import load
from analysis.claims import claims
from analysis.descent import EPSILON
from analysis.load import Study
from analysis.load.export import kept_path, kept_verdicts
from analysis.report import tables

# The sources that C5a and C5b compare, as registered.
RELATED: Final[dict[str, dict[str, Any]]] = {
    "reduced": {"more_related": "tiny-near-16px", "less_related": "tiny-far-16px"},
    "reduced_far_source": {"more_related": "fashion-a", "less_related": "tiny-far-16px"},
}


def fixed(value: float, places: int = 3) -> str:
    """Format with `places` decimal places, equally on every CPU type."""
    # Rounding to 9 places first removes the last bit, in which sums differ between CPU types. It would
    # decide how means over ten seeds are rounded, which often end in an exact 5.
    return f"{round(value, 9):z.{places}f}".replace("-", "−")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Mean errors over seeds against trained parameters, head only first, for one source.

    `counts`: trained parameters; `test`, `standard_errors`: test error and its standard error over
    seeds; `train`: train error. All fields have one value for each cut.
    """

    source: str
    counts: tuple[int, ...]
    test: tuple[float, ...]
    train: tuple[float, ...]
    standard_errors: tuple[float, ...]

    @property
    def edge(self) -> int:
        """Return the index of the first cut that interpolates."""
        return next(i for i, error in enumerate(self.train) if error <= EPSILON)

    @property
    def peak(self) -> int:
        """Return the index of the cut with the highest test error."""
        return self.test.index(max(self.test))


@cache
def verdicts(study: str) -> pd.DataFrame:
    """Return the verdicts on a bundled study by the current RULES."""
    return claims(opened(study), **RELATED.get(study, {})).to_dataframe()


def verdict(
    study: str, claim: str, rules: int, *, arm: str = "transfer", epsilon: float | None = None
) -> Any:
    table = kept_verdicts(study, rules)
    assert table is not None, study
    kind = "epsilon" if epsilon else "primary" if arm == "transfer" else "control"
    some = table[(table["claim"] == claim) & (table["kind"] == kind) & (table["arm"] == arm)]
    if epsilon:
        some = some[some["compared"].str.startswith(f"ε = {epsilon:g}:")]
    (row,) = some.itertuples()
    return row


def curve_of(source: str, some: pd.DataFrame) -> Curve:
    ordered = some.sort_values("parameters_trained")
    assert ordered["parameters_trained"].is_unique, source
    return Curve(
        source=source,
        counts=tuple(map(int, ordered["parameters_trained"])),
        test=tuple(map(float, ordered["test_error"])),
        train=tuple(map(float, ordered["train_error"])),
        standard_errors=tuple(map(float, ordered["test_error_standard_error"])),
    )


@cache
def opened(study: str) -> Study:
    path = kept_path(study)
    assert path is not None, study
    return load.open_study(path)


@cache
def errors_of(study: str) -> pd.DataFrame:
    return tables.final_errors(opened(study), EPSILON)
