"""Make the first picture: the surface of the whole study, and the epoch curves of each cell."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis.load import Study
from analysis.plots import figures, maps, style
from analysis.report.gallery import map_caption
from analysis.report.hover import thinned
from analysis.report.picture import Album, Picture, values_in_words
from analysis.report.slices import Line, SliceSummary

MAX_PANELS: Final = 12
WRAP: Final = 2
SHEET: Final = 7.1  # inches: two thirds of a page
PANELS_INCHES: Final = 2.9  # height of all rows of panels: that of the curves beside them
MAX_EPOCHS: Final = 60
MAX_VALUES: Final = 600_000
SCALE: Final = 10_000  # errors are stored as integers, rounded to four digits
ABSENT: Final = 2**16 - 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Lead:
    """The first picture.

    Args:
        curves: the epoch curves of its cells as JSON; "" if epochs are unknown.
        shown: names of the slices that it shows completely.
    """

    picture: Picture
    curves: str
    shown: frozenset[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Panel:
    summary: SliceSummary
    line: Line
    source_size: int


def lead(
    study: Study, summaries: Sequence[SliceSummary], directory: Path, epsilon: float
) -> Lead | None:
    """Draw the surfaces over size × frozen layers after the last epoch; None if no slice has one.

    Only slices of one network share the picture, because frozen counts of different networks cannot be
    compared. If there are more than MAX_PANELS panels, slices with the most label noise come first.
    """
    with_surface = [one for one in summaries if one.has_freezing]
    if not with_surface:
        return None
    model = with_surface[0].part.lines[0].cells["model"].iloc[0]
    alike = [one for one in with_surface if one.part.lines[0].cells["model"].iloc[0] == model]
    if sum(map(len, map(_panels, alike))) > MAX_PANELS:
        alike = sorted(alike, key=lambda one: -one.part.label_noise)
    chosen = [panel for one in alike for panel in _panels(one)]
    panels, left_out = chosen[:MAX_PANELS], len(chosen) - MAX_PANELS
    names, common = _names(panels)
    labels = pd.Index(names, name="panel")
    ends = [_of(one.summary.end, one) for one in panels]
    end = xr.concat(ends, labels, join="outer", coords="minimal", compat="override")
    marks = xr.concat([_of(one.summary.freezing, one) for one in panels], labels, join="outer")
    marks = marks.assign(shown=marks["shown"].fillna(0).astype(bool))
    end = end.assign({name: end[name].fillna(0).astype(bool) for name in ("wanted", "diverged")})

    num_rows = -(-len(panels) // WRAP)
    row_inches = float(np.clip((PANELS_INCHES / num_rows - 0.6) / end.sizes["size"], 0.28, 0.85))

    drawn = figures.freezing_maps(
        end["test_error"],
        end["train_error"],
        rows="",
        columns="panel",
        epsilon=epsilon,
        ridge=marks["at"],
        ridge_shown=marks["shown"],
        diverged=end["diverged"],
        wanted=end["wanted"],
        title=f"{common}: after the last epoch" if common else "After the last epoch",
        wrap=WRAP,
        sheet=SHEET,
        row_inches=row_inches,
    )
    caption = map_caption(drawn[0], epsilon)
    if left_out > 0:
        caption += f" {left_out} more such panels are below."
    album = Album(
        directory=directory,
        name=study.name,
        group=study.name,
        values=values_in_words(end.rename(panel="source")),
    )
    picture = album.add(
        drawn,
        "surface",
        "Training images × frozen layers, after the last epoch",
        caption,
    )
    whole = {one.part.name for one in alike} if left_out <= 0 else set()
    curves = _curves(panels, end, marks, epsilon) if "epoch" in study.measured else ""
    return Lead(picture=picture, curves=curves, shown=frozenset(whole))


def _panels(one: SliceSummary) -> list[_Panel]:
    return [
        _Panel(summary=one, line=line, source_size=size)
        for line in one.main
        for size in sorted(line.cells["source_size"].unique().tolist())
    ]


def _of(array: xr.Dataset, panel: _Panel) -> xr.Dataset:
    sizes = array["source_size"].values.tolist()
    size = panel.source_size if panel.source_size in sizes else sizes[0]
    return array.sel(source=panel.line.label, source_size=size).drop_vars(
        ["source", "source_size", "parameters_trained", "share_trained", "share_frozen"],
        errors="ignore",
    )


def _names(panels: Sequence[_Panel]) -> tuple[list[str], str]:
    """Return a distinct name for each panel, and the words that all panels share."""
    told = []
    for one in panels:
        # Splits "resnet18 width 4, label noise 20%" into network, width and label noise.
        network, title = one.summary.part.network, one.summary.part.title
        parts = [
            part.strip()
            for part in title.replace(network, network.replace(" ", ", ", 1)).split(",")
        ]
        size = f"source: {one.source_size:,} images" if one.source_size else "no source"
        told.append((one.line.label, [*parts, size]))
    everywhere = set.intersection(*(set(parts) for _, parts in told))
    one_source = len({source for source, _ in told}) == 1
    names = [
        ", ".join([*([] if one_source else [source]), *(p for p in parts if p not in everywhere)])
        for source, parts in told
    ]
    source, parts = told[0]
    common = ", ".join(part for part in parts if part in everywhere)
    return [name or size for name in names], " → ".join(
        [source, common] if one_source else [common]
    )


def _curves(panels: Sequence[_Panel], end: xr.Dataset, marks: xr.Dataset, epsilon: float) -> str:
    """Return every seed's test and train error over the epochs of every cell, as JSON for report.js."""
    found = []
    shape = [end.sizes[name] for name in ("size", "frozen", "seed")]
    room = MAX_VALUES // max(1, 2 * len(panels) * int(np.prod(shape)))
    for number, one in enumerate(panels):
        here = maps.only_wanted(
            end["test_error"].isel(panel=number), end["wanted"].isel(panel=number)
        )
        errors = one.summary.errors[one.line.label].sel(source_size=one.source_size)
        errors = errors.reindex({name: here[name] for name in ("size", "frozen", "seed")})
        columns = thinned(errors.sizes["epoch"], max(8, min(MAX_EPOCHS, room)))
        errors = errors.isel(epoch=columns).transpose("size", "frozen", "seed", "epoch")
        found.append(
            {
                "epochs": errors["epoch"].values.tolist(),
                "frozen": errors["frozen"].values.tolist(),
                "test": _packed(errors["test_error"].values),
                "train": _packed(errors["train_error"].values),
            }
        )
    return json.dumps(
        {
            "seeds": end["seed"].values.tolist(),
            "sizes": end["size"].values.tolist(),
            "panels": found,
            "start": _start(end, marks),
            "epsilon": epsilon,
            "scale": SCALE,
            "absent": ABSENT,
        },
        separators=(",", ":"),
    )


def _packed(values: np.ndarray) -> str:
    whole = np.where(np.isfinite(values), np.rint(values * SCALE), ABSENT)
    return base64.b64encode(whole.astype("<u2").tobytes()).decode()


def _start(end: xr.Dataset, marks: xr.Dataset) -> list[int]:
    """Return the initially selected cell: the highest peak, else the highest error."""
    mean = style.seed_mean(end["test_error"])[0].transpose("panel", "size", "frozen")
    at_peak = mean.where(mean["frozen"] == marks["at"]).transpose("panel", "size", "frozen")
    where = at_peak if bool(at_peak.notnull().any()) else mean
    place: Any = np.unravel_index(int(np.nanargmax(where.values)), where.shape)
    panel, size, frozen = (int(index) for index in place)
    here = maps.only_wanted(end["test_error"].isel(panel=panel), end["wanted"].isel(panel=panel))
    return [panel, size, here["frozen"].values.tolist().index(end["frozen"].values[frozen])]
