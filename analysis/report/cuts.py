"""The best frozen count of every target size and source, as the report shows it.

Owns that table, in numbers and for reading. Which cut is best is `surfaces.best_cut`'s to say.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis import surfaces
from analysis.load import Study
from analysis.report import slices
from analysis.report.slices import Slice

KEYS: Final = ("source", "source_size", "size")


def cuts_of(part: Slice, end: xr.Dataset) -> xr.Dataset:
    """`surfaces.best_cut` of a slice, dims KEYS; `end` as `slices.at_the_end` gives it."""
    num_test = pd.concat([line.cells["num_test"] for line in part.lines]).astype(float).max()
    resolution = 1 / num_test if num_test > 0 else None
    return surfaces.best_cut(end["test_error"], resolution=resolution)


def best_cuts(study: Study, parts: list[Slice]) -> pd.DataFrame:
    """One line for each slice, source, source size and size that has a cut measured, of slices with
    several frozen counts.

    `best`, `low` and `high` are frozen counts, `cuts` those that cannot be told apart from the best, with
    spaces between; `num_seeds` and `num_cuts` say what it rests on.
    """
    frames = []
    for part in parts:
        end = slices.at_the_end(study, part.lines)
        if end.sizes["frozen"] < 2:
            continue
        found = cuts_of(part, end)
        frame = found.drop_dims("frozen").to_dataframe(dim_order=list(KEYS)).reset_index()
        inside = found["in_set"].transpose(*KEYS, "frozen").values.reshape(len(frame), -1)
        counts = end["frozen"].values
        frame["cuts"] = [" ".join(f"{count:g}" for count in counts[row]) for row in inside]
        frame.insert(0, "slice", part.title)
        # What has no source stands beside every source size in a picture, and is one line here.
        alone = {line.label for line in part.lines if (line.cells["source_size"] == 0).all()}
        frame.loc[frame["source"].isin(alone), "source_size"] = 0
        frames.append(frame[frame["num_cuts"] > 0].drop_duplicates(["slice", *KEYS]))
    columns = ["slice", *KEYS, "best", "low", "high", "cuts", "num_seeds", "num_cuts"]
    return pd.concat(frames)[columns] if frames else pd.DataFrame(columns=columns)


def by_size(cuts: pd.DataFrame) -> pd.DataFrame:
    """Lines of `best_cuts` for reading: "7 (6–9, 5 of 10 cuts)", a column for each size."""
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
    best = f"{line['best']:.4g}" if np.isfinite(line["best"]) else "no seed has all"
    inside = len(line["cuts"].split())
    return f"{best} ({line['low']:.4g}–{line['high']:.4g}, {inside} of {line['num_cuts']})"
