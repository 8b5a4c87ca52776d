"""Make the first pictures: the curves over trained parameters with their epoch curves, and the map."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis.load import Study
from analysis.plots import figures, layout, style
from analysis.report.gallery import map_caption
from analysis.report.hover import thinned
from analysis.report.picture import Album, Picture, values_in_words
from analysis.report.slices import Line, SliceSummary, distinguishing

MAX_PANELS: Final = 4  # of curves
MAX_MAPS: Final = 12
SHEET: Final = 7.1  # inches: two thirds of a page
MAX_EPOCHS: Final = 60
MAX_VALUES: Final = 600_000
SCALE: Final = 10_000  # errors are stored as integers, rounded to four digits
ABSENT: Final = 2**16 - 1

# The first of these fields in which curves differ distinguishes the lines within a panel. The other fields
# distinguish the panels.
_LINES: Final = ("source", "size", "source_size", "slice")


@dataclass(frozen=True, eq=False, kw_only=True)
class Lead:
    """The first pictures of the report.

    Args:
        picture: test error over trained parameters.
        surface: the map over size × cut; None if no slice has two sizes.
        curves: the epoch curves of each point of `picture` as JSON; "" if epochs are unknown.
        mapped, drawn: names of slices whose lines, except controls, are all in `surface` (`picture`).
    """

    picture: Picture
    surface: Picture | None
    curves: str
    mapped: frozenset[str]
    drawn: frozenset[str]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Curve:
    """One curve over the cut after the last epoch; `names`: its value of each field of _LINES, as text."""

    summary: SliceSummary
    line: Line
    source_size: int
    size: int
    names: Mapping[str, str]

    def at_the_end(self, values: xr.Dataset) -> xr.Dataset:
        return _of(values, self.line, self.source_size).sel(size=self.size, drop=True)


def lead(
    study: Study, summaries: Sequence[SliceSummary], directory: Path, epsilon: float
) -> Lead | None:
    """Draw test error over trained parameters, and the map; None if no slice has two cuts.

    Only slices of one network share a picture, because cuts of different networks cannot be compared.
    """
    with_surface = [one for one in summaries if one.has_freezing]
    if not with_surface:
        return None
    model = _model(with_surface[0])
    alike = [one for one in with_surface if _model(one) == model]
    panels, by, common, left_out = _panels(alike)
    album = Album(
        directory=directory,
        name=study.name,
        group=study.name,
        values=values_in_words(with_surface[0].end),
    )
    errors = _together(panels)
    drawn = figures.capacity_grid(
        errors["test_error"],
        errors["train_error"],
        columns="panel",
        by="line",
        wanted=errors["wanted"],
        epsilon=epsilon,
        title=f"{common}: after the last epoch" if common else "After the last epoch",
        wrap=3 if len(panels) == 3 else 2,
        sheet=SHEET,
    )
    caption = f"A line for each {_CALLED[by]}, from few to many trained parameters."
    if any(name.startswith("edge") for name in layout.legend_names(drawn[0])):
        caption += f" Shaded: the edge, where the mean train error falls to {epsilon:g}."
    if left_out:
        caption += f" {left_out} more such panels are below."
    has_epochs = "epoch" in study.measured
    if has_epochs:
        caption += " The ring marks the point whose epochs are drawn beside."
    picture = album.add(drawn, "curves", "Test error over trained parameters", caption)
    surface, mapped = _surface(alike, album, epsilon)
    return Lead(
        picture=picture,
        surface=surface,
        curves=_epoch_curves(panels, errors, epsilon) if has_epochs else "",
        mapped=mapped,
        drawn=frozenset() if left_out else frozenset(one.part.name for one in alike),
    )


_CALLED: Final = {
    "source": "source",
    "size": "number of training images",
    "source_size": "number of source images",
    "slice": "slice",
}


def _model(one: SliceSummary) -> str:
    return str(one.part.lines[0].cells["model"].iloc[0])


def _panels(alike: Sequence[SliceSummary]) -> tuple[dict[str, list[_Curve]], str, str, int]:
    """Divide the curves into at most MAX_PANELS panels, those with the most label noise and images.

    Returns:
        The curves by panel, the field of _LINES that distinguishes the lines within a panel, the words
        common to all curves, and the number of panels left out.
    """
    curves = [curve for one in alike for curve in _curves(one)]
    words = [curve.names["slice"].split("\n") for curve in curves]
    everywhere = [word for word in words[0] if all(word in other for other in words)]
    several = {name: len({curve.names[name] for curve in curves}) > 1 for name in _LINES}
    # Lines of one panel share the x axis, so they need the same network.
    several["slice"] &= len({curve.summary.part.network for curve in curves}) == 1
    by = next((name for name in _LINES if several[name]), "source")
    apart = [name for name in _LINES if name != by]
    panels: dict[str, list[_Curve]] = {}
    for curve, slice_words in zip(curves, distinguishing(words), strict=True):
        names = dict(curve.names) | {"slice": slice_words}
        differing = [names[name] for name in apart if len({c.names[name] for c in curves}) > 1]
        panels.setdefault(", ".join(filter(None, differing)), []).append(
            replace(curve, names=names | {"line": names[by] or curve.line.label})
        )
    first = sorted(
        panels, key=lambda name: (-panels[name][0].summary.part.label_noise, -panels[name][0].size)
    )[:MAX_PANELS]
    shared = [
        curves[0].names[name]
        for name in ("source", "source_size", "size")
        if name != by and not several[name]
    ]
    one_source = [f"{shared[0]} →"] if not several["source"] and by != "source" else []
    common = ", ".join([*everywhere, *(text for text in shared if text != curves[0].line.label)])
    return (
        {name: panels[name] for name in panels if name in first},
        by,
        " ".join([*one_source, common]),
        len(panels) - len(first),
    )


def _curves(one: SliceSummary) -> list[_Curve]:
    found = []
    network, title = one.part.network, one.part.title
    # Splits "resnet18 width 4, label noise 20%" into network, width and label noise.
    parts = title.replace(network, network.replace(" ", ", ", 1)).split(",")
    for line in one.main:
        for source_size in sorted(line.cells["source_size"].unique().tolist()):
            cells = line.cells[line.cells["source_size"] == source_size]
            for size in sorted(cells["size"].unique().tolist()):
                names = {
                    "source": line.label,
                    "size": f"{size:,} training images" if size else "",
                    "source_size": f"source: {source_size:,} images"
                    if source_size
                    else "no source",
                    "slice": "\n".join(part.strip() for part in parts),
                }
                found.append(
                    _Curve(summary=one, line=line, source_size=source_size, size=size, names=names)
                )
    return found


def _of(values: xr.Dataset, line: Line, source_size: int) -> xr.Dataset:
    sizes = values["source_size"].values.tolist()
    size = source_size if source_size in sizes else sizes[0]
    values = values.sel(source=line.label, source_size=size)
    return values.drop_vars(
        ["source", "source_size", "share_trained", "share_frozen"], errors="ignore"
    )


def _together(panels: Mapping[str, Sequence[_Curve]]) -> xr.Dataset:
    """Return errors, `wanted` and `at` (the peak's frozen count): dims (panel, line, frozen, seed)."""
    rows = []
    for curves in panels.values():
        lines = pd.Index([curve.names["line"] for curve in curves], dtype=object, name="line")
        ends = [
            curve.at_the_end(curve.summary.end).assign(
                at=curve.at_the_end(curve.summary.freezing)["at"]
            )
            for curve in curves
        ]
        rows.append(xr.concat(ends, lines, join="outer", coords="minimal", compat="override"))
    names = pd.Index(list(panels), dtype=object, name="panel")
    of_cuts = [name for name in style.OF_CUTS if name in rows[0].coords]
    found = xr.concat(rows, names, join="outer", coords=of_cuts, compat="override")
    return found.assign(wanted=found["wanted"].fillna(0).astype(bool))


def _surface(
    alike: Sequence[SliceSummary], album: Album, epsilon: float
) -> tuple[Picture | None, frozenset[str]]:
    """Draw the maps over size × cut of the slices that have several sizes, at most MAX_MAPS.

    Maps with the most label noise are drawn first. Also return the names of these slices; empty if some
    maps are left out.
    """
    some = [one for one in alike if one.end.sizes["size"] > 1]
    if not some:
        return None, frozenset()
    panels = [
        (one, line, size)
        for one in sorted(some, key=lambda one: -one.part.label_noise)
        for line in one.main
        for size in sorted(line.cells["source_size"].unique().tolist())
    ]
    left_out = len(panels) - MAX_MAPS
    panels = panels[:MAX_MAPS]
    several = {size for _, _, size in panels}
    labels = [
        ", ".join(
            [
                line.label,
                *([one.part.title] if len(some) > 1 else []),
                *([f"source: {size:,} images"] if len(several) > 1 and size else []),
            ]
        )
        for one, line, size in panels
    ]
    names = pd.Index(labels, dtype=object, name="panel")
    ends = [_of(one.end, line, size) for one, line, size in panels]
    of_cuts = [name for name in style.OF_CUTS if name in ends[0].coords]
    end = xr.concat(ends, names, join="outer", coords=of_cuts, compat="override")
    peaks = [_of(one.freezing, line, size) for one, line, size in panels]
    marks = xr.concat(peaks, names, join="outer", coords="minimal", compat="override")
    num_rows = -(-len(panels) // 3)
    drawn = figures.freezing_maps(
        end["test_error"],
        end["train_error"],
        rows="",
        columns="panel",
        epsilon=epsilon,
        ridge=marks["at"],
        ridge_shown=marks["shown"].fillna(0).astype(bool),
        diverged=end["diverged"].fillna(0).astype(bool),
        wanted=end["wanted"].fillna(0).astype(bool),
        title="" if len(some) > 1 else f"{some[0].part.title}: after the last epoch",
        wrap=3,
        row_inches=float(np.clip(2.2 / num_rows / end.sizes["size"], 0.24, 0.5)),
    )
    caption = map_caption(drawn[0], epsilon)
    if left_out > 0:
        caption += f" {left_out} more such panels are below."
    picture = album.add(
        drawn, "surface", "Training images × trained parameters, after the last epoch", caption
    )
    return picture, frozenset() if left_out > 0 else frozenset(one.part.name for one in some)


def _epoch_curves(
    panels: Mapping[str, Sequence[_Curve]], errors: xr.Dataset, epsilon: float
) -> str:
    """Return test and train error over epochs for every point and seed, as JSON for report.js."""
    ordered = errors.sortby("frozen", ascending=False)
    seeds, frozen = ordered["seed"].values, ordered["frozen"].values
    num = sum(map(len, panels.values())) * len(seeds) * len(frozen)
    room = max(8, min(MAX_EPOCHS, MAX_VALUES // max(1, 2 * num)))
    found = []
    for curves in panels.values():
        lines = []
        for curve in curves:
            own = curve.summary.errors[curve.line.label]
            own = own.sel(source_size=curve.source_size, size=curve.size)
            own = own.reindex(frozen=frozen, seed=seeds).transpose("frozen", "seed", "epoch")
            own = own.isel(epoch=own["test_error"].notnull().any(("frozen", "seed")).values)
            own = own.isel(epoch=thinned(own.sizes["epoch"], room))
            lines.append(
                {
                    "name": curve.names["line"],
                    "epochs": own["epoch"].values.tolist(),
                    "test": _packed(own["test_error"].values),
                    "train": _packed(own["train_error"].values),
                }
            )
        found.append(lines)
    has_train = bool(errors["train_error"].notnull().any())
    panel, line, cut = _start(ordered)
    # `found` lists only a panel's own lines, so the index differs from that in `ordered`.
    line = [one["name"] for one in found[panel]].index(ordered["line"].values[line])
    return json.dumps(
        {
            "seeds": seeds.tolist(),
            "panels": found,
            "panelsOfEach": 2 if has_train else 1,
            "start": [panel, line, cut],
            "epsilon": epsilon,
            "scale": SCALE,
            "absent": ABSENT,
        },
        separators=(",", ":"),
    )


def _packed(values: np.ndarray) -> str:
    whole = np.where(np.isfinite(values), np.rint(values * SCALE), ABSENT)
    return base64.b64encode(whole.astype("<u2").tobytes()).decode()


def _start(ordered: xr.Dataset) -> list[int]:
    """Return panel, line and cut of the point selected first: the highest peak, or the highest error."""
    mean = style.seed_mean(ordered["test_error"])[0].transpose("panel", "line", "frozen")
    at_peak = mean.where(mean["frozen"] == ordered["at"]).transpose("panel", "line", "frozen")
    where = at_peak if bool(at_peak.notnull().any()) else mean
    place: Any = np.unravel_index(int(np.nanargmax(where.values)), where.shape)
    return [int(index) for index in place]
