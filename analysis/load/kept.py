"""The results that come along with the package (`analysis/results`), by the name of their study.

Owns where they lie. They are what `study export` wrote, the verdicts noted with it, and bias and
variance over the seeds, for which an export holds no predictions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd

FOLDER: Final = Path(__file__).parents[1] / "results"


def kept_path(study: str) -> Path | None:
    """The kept export of this study; None where there is none."""
    return _file(f"{study}.parquet") if study in kept_names() else None


def kept_names() -> tuple[str, ...]:
    """The studies whose results come along."""
    return tuple(
        sorted(p.name.removesuffix(".verdicts.csv") for p in FOLDER.glob("*.verdicts.csv"))
    )


def kept_verdicts(study: str) -> pd.DataFrame | None:
    """The verdicts on this study by the code that it was registered with, as a report's table has them."""
    path = _file(f"{study}.verdicts.csv")
    return None if path is None else pd.read_csv(path)


def kept_bias_variance(study: str) -> pd.DataFrame | None:
    """Bias, variance and disagreement over this study's seeds, one line for each cell."""
    path = _file(f"{study}.bias_variance.parquet")
    return None if path is None else pd.read_parquet(path)


def _file(name: str) -> Path | None:
    path = FOLDER / name
    return path if path.is_file() else None
