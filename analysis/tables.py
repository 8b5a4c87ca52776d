"""The tables of a report: final errors, coverage, and what produced the rows.

Owns what stands in them; returns pandas DataFrames and plain values, and knows no HTML. A cell whose
seeds are not all there says how many are.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from analysis import arms, slices
from analysis.cells import DONE, STATES
from analysis.load import Study

CELL: Final = ["source_size", "size", "frozen"]
_OF_RUN: Final = ("task", "part", "model", "width", "label_noise", "recipe", "num_layers")


def final_errors(study: Study, epsilon: float) -> pd.DataFrame:
    """One line for each cell, sources among them: mean, standard error and number of seeds of the test
    error at the last evaluation, the mean train error, and whether it is ≤ `epsilon`.

    Errors are fractions. A Run that diverged or has no rows is in no mean; `num_wanted` counts it.
    """
    cells = slices.with_origins(study)
    cells = cells.assign(**_last_values(study))
    keys = [*_KEYS]
    grouped = cells.groupby(keys, sort=False, dropna=False)
    count = grouped["test_error"].count()
    table = pd.DataFrame(
        {
            "parameters_trained": grouped["parameters_trained"].first(),
            "num_seeds": count,
            "num_wanted": grouped.size(),
            "test_error": grouped["test_error"].mean(),
            "test_error_standard_error": grouped["test_error"].std(ddof=1) / np.sqrt(count),
            "train_error": grouped["train_error"].mean(),
        }
    ).reset_index()
    interpolates = table["train_error"] <= epsilon
    return table.assign(interpolates=interpolates.where(table["train_error"].notna()))


_KEYS: Final = (
    "arm",
    "source_task",
    "source_part",
    "source_size",
    "source_label_noise",
    "source_recipe",
    "task",
    "part",
    "size",
    "label_noise",
    "model",
    "width",
    "recipe",
    "frozen",
)


def by_frozen(errors: pd.DataFrame, part: slices.Slice) -> pd.DataFrame:
    """The final errors of one slice for reading: a line for each source, source size and size, a column
    for each frozen count; "0.312 ± 0.004 (2 of 3)" with the standard error, "•" where it interpolates.
    """
    lines = []
    for line in part.lines:
        keys = line.cells[list(_KEYS)].drop_duplicates()
        for _, cell in errors.merge(keys, on=list(_KEYS)).iterrows():
            lines.append(
                {
                    "source": line.label,
                    "source images": cell["source_size"] or "",
                    "images": cell["size"],
                    "frozen": cell["frozen"],
                    "text": _cell_text(cell),
                }
            )
    table = pd.DataFrame(lines).pivot_table(
        index=["source", "source images", "images"],
        columns="frozen",
        values="text",
        aggfunc="first",
        sort=False,
    )
    return table[sorted(table.columns)].fillna("").rename_axis(columns="frozen layers")


def coverage(study: Study) -> pd.DataFrame:
    """How many Runs of each arm are in each state; the last line is their sum."""
    counts = pd.crosstab(study.cells["arm"], study.cells["state"])
    counts = counts.reindex(columns=list(STATES), fill_value=0)
    counts = counts.loc[[arm for arm in arms.ARMS if arm in counts.index]]
    counts.insert(0, "wanted", counts.sum(axis=1))
    counts.loc["all"] = counts.sum()
    return counts


def provenance(study: Study) -> dict[str, dict[str, int]]:
    """What produced the rows: for each kind of fact its values, and how many Runs have each."""
    kinds = {
        "code version": "code_version",
        "device": "device",
        "host": "host",
        "resumed": "num_resumes",
    }
    found = {}
    for kind, column in kinds.items():
        counts = study.runs[column].value_counts(dropna=False)
        found[kind] = {str(value): int(count) for value, count in counts.items()}
    return found


def _cell_text(cell: Mapping[str, Any]) -> str:
    if cell["num_seeds"] == 0:
        return "absent"
    text = f"{cell['test_error']:.3f}"
    if cell["num_seeds"] > 1:
        text += f" ± {cell['test_error_standard_error']:.3f}"
    if cell["num_seeds"] < cell["num_wanted"]:
        text += f" ({cell['num_seeds']} of {cell['num_wanted']})"
    return text + (" •" if cell["interpolates"] is True else "")


def _last_values(study: Study) -> dict[str, pd.Series]:
    ended = study.cells.index[study.cells["state"] == DONE]
    last: dict[str, tuple[float, float]] = {}
    lock = threading.Lock()

    def keep(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        with lock:
            last[run_id] = (columns["test_error"][-1], columns["train_error"][-1])

    study.read_values(list(ended), ["test_error", "train_error"], keep)
    frame = pd.DataFrame.from_dict(last, orient="index", columns=["test_error", "train_error"])
    frame = frame.reindex(study.cells.index).astype(float)
    return {name: frame[name] for name in frame.columns}
