"""Build a report's tables: errors, best cuts, disagreement of seeds, coverage, provenance."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis import surfaces
from analysis.load import Study, arms
from analysis.load.cells import ARM, STATES
from analysis.report import slices
from analysis.report.slices import GRID, Slice, SliceSummary
from analysis.surfaces.disagreement import has_predictions
from study.run import COORDINATES
from study.store import Damaged
from study.store.schema import DIVERGED, DONE

# In order from the source to the cut.
_KEYS: Final = (
    ARM,
    *(
        coordinate.name
        for group in ("source", "target", "network", "recipe", "cut")
        for coordinate in COORDINATES
        if coordinate.makes_cell and coordinate.group == group
    ),
)


def final_errors(study: Study, epsilon: float) -> pd.DataFrame:
    """Return the errors at the last evaluation, one line for each cell, sources included.

    Errors are fractions; means and standard errors are over `num_seeds` seeds. `interpolates`: the mean
    train error is ≤ `epsilon`. `num_wanted` includes Runs that diverged (`num_diverged`) or have no rows;
    the means do not.
    """
    cells = slices.with_origins(study)
    cells = cells.assign(**_last_values(study))
    grouped = cells.groupby(list(_KEYS), sort=False, dropna=False)
    count = grouped["test_error"].count()
    table = pd.DataFrame(
        {
            "cut": grouped["cut"].first(),
            "parameters_trained": grouped["parameters_trained"].first(),
            "num_seeds": count,
            "num_wanted": grouped.size(),
            "num_diverged": grouped["state"].agg(lambda states: int((states == DIVERGED).sum())),
            "test_error": grouped["test_error"].mean(),
            "test_error_standard_error": grouped["test_error"].std(ddof=1) / np.sqrt(count),
            "train_error": grouped["train_error"].mean(),
        }
    ).reset_index()
    interpolates = table["train_error"] <= epsilon
    return table.assign(interpolates=interpolates.where(table["train_error"].notna()))


def by_frozen(errors: pd.DataFrame, part: slices.Slice) -> pd.DataFrame:
    """Format the final errors of one slice as text: "0.312 ± 0.004 (2 of 3) •".

    The table has a line for each source, source size and size, and a column for each cut. After ± is the
    standard error, in brackets the number of seeds if some are missing. • marks cells that interpolate.
    """
    lines = []
    for line in part.lines:
        keys = line.cells[list(_KEYS)].drop_duplicates()
        for _, cell in errors.merge(keys, on=list(_KEYS)).iterrows():
            lines.append(
                {
                    "source": line.label,
                    "source images": cell["source_size"] or "",
                    "training images": cell["size"],
                    "frozen": cell["frozen"],
                    "text": _cell_text(cell),
                }
            )
    table = pd.DataFrame(lines).pivot_table(
        index=["source", "source images", "training images"],
        columns="frozen",
        values="text",
        aggfunc="first",
        sort=False,
    )
    table = table[sorted(table.columns, reverse=True)].fillna("")
    cuts = pd.concat([line.cells for line in part.lines]).groupby("frozen")
    heads = {
        frozen: f"{cut} ({count:,.0f})" if np.isfinite(count) else cut
        for frozen, cut, count in zip(
            cuts.groups,
            cuts["cut"].first(),
            cuts["parameters_trained"].first().astype(float),
            strict=True,
        )
    }
    return table.rename(columns=heads).rename_axis(columns="cut (trained parameters)")


def coverage(study: Study) -> pd.DataFrame:
    """Count the Runs of each arm in each state; the last line is the sum."""
    counts = pd.crosstab(study.cells["arm"], study.cells["state"])
    counts = counts.reindex(columns=list(STATES), fill_value=0)
    counts = counts.loc[[arm for arm in arms.ARMS if arm in counts.index]]
    counts.insert(0, "wanted", counts.sum(axis=1))
    counts.loc["all"] = counts.sum()
    return counts


def provenance(study: Study) -> dict[str, dict[str, int]]:
    """Count the Runs by kind of provenance (code version, device, …) and its value."""
    kinds = {
        "trainer": "trainer",
        "code version": "code_version",
        "packages": "packages",
        "device": "device",
        "host": "host",
        "times resumed": "num_resumes",
    }
    found = {}
    for kind, column in kinds.items():
        # Undoes the conversion of integers to floats that missing values cause.
        values = study.runs[column].convert_dtypes()
        counts = values.value_counts(dropna=False)
        found[kind] = {
            str(value): int(count)
            for value, count in zip(
                counts.index.astype(object).fillna("not known"), counts, strict=True
            )
        }
    return found


def _cell_text(cell: pd.Series) -> str:
    if cell["num_seeds"] == 0:
        return "diverged" if cell["num_diverged"] else "absent"
    rest = []
    if cell["num_seeds"] > 1:
        rest.append(f"± {cell['test_error_standard_error']:.3f}")
    if cell["num_seeds"] < cell["num_wanted"]:
        rest.append(f"({cell['num_seeds']} of {cell['num_wanted']})")
    if cell["interpolates"] is True:
        rest.append("•")
    # If a table is too wide for its page, lines break only after the mean.
    return " ".join(
        [f"{cell['test_error']:.3f}", " ".join(rest).replace(" ", "\N{NO-BREAK SPACE}")]
    )


def _last_values(study: Study) -> dict[str, pd.Series]:
    ended = study.cells.index[study.cells["state"] == DONE]
    last: dict[str, tuple[float, ...]] = {}
    lock = threading.Lock()

    names = ["test_error", "train_error"]
    there = [name for name in names if name in study.measured]

    def keep(run_id: str, columns: Mapping[str, np.ndarray]) -> None:
        with lock:
            last[run_id] = tuple(columns[name][-1] for name in there)

    study.read_values(list(ended), there, keep)
    frame = pd.DataFrame.from_dict(last, orient="index", columns=there)
    frame = frame.reindex(study.cells.index, columns=names).astype(float)
    return {name: frame[name] for name in frame.columns}


KEYS: Final = ("source", "source_size", "size")


def cuts_of(part: Slice, end: xr.Dataset) -> xr.Dataset:
    """Return `surfaces.best_cut` of a slice, dims KEYS; `end` is from `slices.at_the_end`."""
    return surfaces.best_cut(end["test_error"], resolution=part.resolution)


def best_cuts(summaries: Sequence[SliceSummary]) -> pd.DataFrame:
    """Tabulate the best cut of each slice, source, source size and size with measured cuts.

    `best`, `low` and `high` are frozen counts. `best_cut` is the best cut in words. `cuts` lists the cuts
    that may be the best, separated by semicolons. Slices with a single cut are left out.
    """
    frames = []
    for one in summaries:
        part, end = one.part, one.end
        if end.sizes["frozen"] < 2:
            continue
        found = cuts_of(part, end)
        frame = found.drop_dims("frozen").to_dataframe(dim_order=list(KEYS)).reset_index()
        inside = found["in_set"].transpose(*KEYS, "frozen").values.reshape(len(frame), -1)
        words = dict(zip(end["frozen"].values.tolist(), end["cut"].values.tolist(), strict=True))
        frame["best_cut"] = [words.get(best, "") for best in frame["best"]]
        texts = np.array(list(words.values()), dtype=object)
        frame["cuts"] = ["; ".join(texts[row][::-1]) for row in inside]
        frame.insert(0, "slice", part.title)
        # Lines without a source are repeated for every source size in `end`, and appear once here.
        alone = {line.label for line in part.lines if (line.cells["source_size"] == 0).all()}
        frame.loc[frame["source"].isin(alone), "source_size"] = 0
        frames.append(frame[frame["num_cuts"] > 0].drop_duplicates(["slice", *KEYS]))
    columns = ["slice", *KEYS, "best_cut", "best", "low", "high", "cuts", "num_seeds", "num_cuts"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def best_cuts_by_size(cuts: pd.DataFrame) -> pd.DataFrame:
    """Format `best_cuts` as text, with a column for each size.

    A text contains the best cut, and the number and range of the cuts that may be the best: "head only (2
    of 3 cuts may be the best, head only to 6 layers frozen)".
    """
    frame = cuts.assign(text=cuts.apply(_text, axis=1)).rename(
        columns={"source_size": "source images"}
    )
    frame["source images"] = (
        frame["source images"].astype(object).where(frame["source images"] > 0, "")
    )
    table = frame.pivot_table(
        index=["source", "source images"],
        columns="size",
        values="text",
        aggfunc="first",
        sort=False,
    )
    return table[sorted(table.columns)].fillna("").rename_axis(columns="training images")


def _text(line: pd.Series[Any]) -> str:
    best = line["best_cut"] or "no seed has all cuts"
    cuts = line["cuts"].split("; ")
    if len(cuts) == 1:
        return str(best)
    ends = f"{cuts[0]} to {cuts[-1]}"
    return f"{best} ({len(cuts)} of {line['num_cuts']} cuts may be the best, {ends})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Disagreements:
    """The disagreement between seeds on a study's lines.

    Args:
        found: `surfaces.disagreement` by (name of the slice, label of the line), dims GRID and "epoch".
        unread: a text for each line whose predictions could not be read, with the reason.
    """

    found: Mapping[tuple[str, str], xr.Dataset]
    unread: tuple[str, ...]


def disagreements(study: Study, parts: Sequence[Slice]) -> Disagreements:
    """Compute the disagreement between seeds on all lines that have predictions."""
    found, unread = {}, []
    for part in parts:
        for line in part.lines:
            if not has_predictions(study, line.cells):
                continue
            try:
                found[part.name, line.label] = slices.predictions_of(study, line)
            except (ValueError, Damaged) as why:
                unread.append(f"{part.title}, {line.label}: {why}")
    return Disagreements(found=found, unread=tuple(unread))


def _at_the_end(one: xr.Dataset) -> xr.Dataset:
    """Select the last evaluation of each cell: dims GRID."""
    there = one["num_seeds"] > 0
    last = there.sizes["epoch"] - 1 - there.isel(epoch=slice(None, None, -1)).argmax("epoch")
    return one.isel(epoch=last).drop_vars("epoch").where(there.any("epoch"))


def disagreement_table(all_of: Disagreements, parts: Sequence[Slice]) -> pd.DataFrame:
    """Tabulate `surfaces.disagreement` at the last evaluation of each cell with predictions.

    `spread` and `spread_of_finite_test_set` are standard deviations over seeds."""
    titles = {part.name: part.title for part in parts}
    frames = []
    for (name, label), one in all_of.found.items():
        frame = _at_the_end(one).to_dataframe(dim_order=list(GRID)).reset_index()
        frame = frame[frame["num_seeds"] > 0].assign(slice=titles[name], source=label)
        frame["spread"] = np.sqrt(frame["measured"])
        frame["spread_of_finite_test_set"] = np.sqrt(frame["finite_test_set"])
        frames.append(frame)
    columns = ["slice", "source", *GRID, "num_seeds", "error", "disagreement"]
    columns += ["spread", "spread_of_finite_test_set"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def finite_share(one: xr.Dataset) -> str:
    """Return two sentences on how much of the spread over seeds the finite test set causes, or ""."""
    end = _at_the_end(one)
    measured, finite = (float(end[name].mean()) for name in ("measured", "finite_test_set"))
    if not measured > 0:
        return ""
    return (
        f"After the last epoch, the test errors of the seeds have a standard deviation of "
        f"{measured**0.5:.4f} (root mean square over the cells). Equally good seeds would have "
        f"{finite**0.5:.4f}, because the test set is finite."
    )
