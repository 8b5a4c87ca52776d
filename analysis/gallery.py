"""The pictures of a study, one after another: drawn, saved, and described for who cannot see them.

Owns which figure is made of which slice, its caption and its alternative text. Writes the files of the
figures into a directory; knows nothing of the page that shows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analysis import figures, hover, slices
from analysis.load import Study
from analysis.slices import Line, Slice

READING_MAP: Final = (
    "Lighter is a higher error. The black line is the edge of interpolation, its ticks point to where "
    "the mean train error is at most {epsilon:g}; nothing is interpolated between cells. Circles are "
    "peaks that the seeds show, small dots peaks that only the mean has."
)
MAX_PAIRS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A saved figure: `files` by format; `inches` its size; `hover` what a pointer is told, as JSON.

    `group` says which slice it shows, `heading` what of it.
    """

    group: str
    heading: str
    caption: str
    alternative: str
    files: dict[str, Path]
    inches: tuple[float, float]
    hover: str


def pictures(study: Study, directory: Path, *, epsilon: float) -> Iterator[Picture]:
    """Draws and saves every figure of the study, slice by slice, then networks beside each other."""
    parts = slices.slices(study)
    ends = []
    for part in parts:
        ends.append(slices.at_the_end(study, part.lines))
        yield from _of_slice(study, part, ends[-1], directory, epsilon)
    yield from _of_networks(parts, ends, directory, epsilon)


def _of_slice(
    study: Study, part: Slice, end: xr.Dataset, directory: Path, epsilon: float
) -> Iterator[Picture]:
    main = [line for line in part.lines if not line.is_control] or list(part.lines)
    controls = [line for line in part.lines if line not in main]

    def save(figure: Figure, kind: str, heading: str, caption: str, told: str = "") -> Picture:
        name = re.sub(r"[^\w.-]+", "-", f"{part.name}-{kind}")
        paths = figures.save(figure, directory / name)
        return Picture(
            group=part.title,
            heading=heading,
            caption=caption,
            alternative=f"{heading}; {part.title}. {_ranges(end)} {caption}",
            files=dict(zip(figures.FORMATS, paths, strict=True)),
            inches=tuple(figure.get_size_inches().tolist()),
            hover=told,
        )

    for line in main:
        way = f"{line.label} → {part.title}"
        errors = slices.over_epochs(study, line)
        test, train = errors["test_error"], errors["train_error"]
        if not test.notnull().any():
            continue
        yield save(
            figures.panel_grid(test, train, epsilon=epsilon, title=way),
            f"{line.label}-curves",
            f"Over the epochs, from {line.label}",
            "Test error over the epochs, one curve for each number of frozen layers; the train error, "
            "against the labels trained on, beneath. Rows: images of the source; columns: images of "
            "the target.",
        )
        if test.sizes["epoch"] < 2 or test.sizes["frozen"] < 2:
            continue
        peaks = slices.epoch_peaks(errors, epsilon)
        figure = figures.epoch_maps(
            test,
            train,
            epsilon=epsilon,
            ridge=peaks["at"],
            ridge_shown=peaks["shown"],
            diverged=_of_line(end, line)["diverged"],
            title=way,
        )
        yield save(
            figure,
            f"{line.label}-epochs",
            f"Epoch × frozen layers, from {line.label}",
            READING_MAP.format(epsilon=epsilon),
            hover.of_maps(figure, test, train, "epoch"),
        )

    yield from _of_ends(part, end, main, controls, save, epsilon)
    if controls and end["test_error"].sel(source=[c.label for c in controls]).notnull().any():
        yield _over_epochs_of_controls(study, part, controls, save, epsilon)


def _of_ends(
    part: Slice,
    end: xr.Dataset,
    main: Sequence[Line],
    controls: Sequence[Line],
    save: Any,
    epsilon: float,
) -> Iterator[Picture]:
    if end.sizes["frozen"] < 2 or not end["test_error"].notnull().any():
        return
    for kind, lines in (("main", main), ("controls", controls)):
        if not lines:
            continue
        some = end.sel(source=[line.label for line in lines])
        rows, columns = "source", "source_size"
        if kind == "controls":
            # Controls stand beside the largest source only, where there are several.
            some, rows, columns = some.isel(source_size=-1, drop=True), "", "source"
        peaks = slices.freezing_peaks(some, epsilon)
        title = f"{part.title}: after the last epoch" + (", controls" if lines is controls else "")
        figure = figures.freezing_maps(
            some["test_error"],
            some["train_error"],
            rows=rows,
            columns=columns,
            epsilon=epsilon,
            ridge=peaks["at"],
            ridge_shown=peaks["shown"],
            diverged=some["diverged"],
            title=title,
        )
        yield save(
            figure,
            f"{kind}-freezing",
            "Training images × frozen layers, after the last epoch"
            + (" (controls)" if lines is controls else ""),
            READING_MAP.format(epsilon=epsilon),
            hover.of_maps(figure, some["test_error"], some["train_error"], "size"),
        )
    yield save(
        figures.freezing_grid(
            end["test_error"],
            end["train_error"],
            wanted=end["wanted"],
            epsilon=epsilon,
            title=f"{part.title}: after the last epoch",
        ),
        "curves-freezing",
        "Over the freezing, after the last epoch",
        "Test error after the last epoch against the number of frozen layers, for each source"
        + (" and control" if controls else "")
        + f". Markers are filled where the mean train error is at most {epsilon:g}.",
    )
    sources = [line.label for line in main]
    for first, second in list(combinations(sources, 2))[:MAX_PAIRS]:
        if end.sizes["seed"] < 2:
            continue
        yield save(
            figures.difference_grid(
                end["test_error"], second, first, title=f"{part.title}: {second} minus {first}"
            ),
            f"{second}-minus-{first}",
            f"{second} minus {first}, after the last epoch",
            f"Test error after the last epoch of what started from {second}, minus that of what "
            f"started from {first}, seed by seed. Below zero {second} is the better source. Which of "
            "them is more related to the target is not said here.",
        )


def _over_epochs_of_controls(
    study: Study, part: Slice, controls: Sequence[Line], save: Any, epsilon: float
) -> Picture:
    errors = [slices.over_epochs(study, line).isel(source_size=-1, drop=True) for line in controls]
    labels = pd.Index([line.label for line in controls], name="source")
    together = xr.concat(errors, labels, join="outer")
    title = f"{part.title}: controls"
    return save(
        figures.panel_grid(
            together["test_error"],
            together["train_error"],
            rows="source",
            epsilon=epsilon,
            title=title,
        ),
        "controls-curves",
        "Over the epochs (controls)",
        "The rival explanations: no source at all, the same task as source (disjoint images), layers "
        "above the cut made new. Where a control has several source sizes, the largest.",
    )


def _of_networks(
    parts: Sequence[Slice], ends: Sequence[xr.Dataset], directory: Path, epsilon: float
) -> Iterator[Picture]:
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, part in enumerate(parts):
        alike.setdefault((part.task, part.label_noise, part.recipe), []).append(i)
    for members in alike.values():
        if len(members) < 2:
            continue
        chosen = [parts[i] for i in members]
        labels = set.intersection(
            *({line.label for line in part.lines if not line.is_control} for part in chosen)
        )
        for label in sorted(labels):
            networks = pd.Index([part.network for part in chosen], name="network")
            errors = [ends[i].sel(source=label, drop=True) for i in members]
            together = xr.concat(errors, networks, join="outer", coords="all")
            wanted = together["wanted"].fillna(0).astype(bool)
            title = f"{label} → {chosen[0].task}, label noise {chosen[0].label_noise:.0%}: networks"
            figure = figures.network_grid(
                together["test_error"],
                together["train_error"],
                by="network",
                wanted=wanted,
                epsilon=epsilon,
                title=title,
            )
            name = re.sub(r"[^\w.-]+", "-", f"{chosen[0].name}-{label}-networks")
            paths = figures.save(figure, directory / name)
            caption = (
                "Test error after the last epoch against the share of its parameters that a network "
                "trains: depths differ, so frozen counts cannot be compared."
            )
            yield Picture(
                group="Networks beside each other",
                heading=title,
                caption=caption,
                alternative=f"Networks: {title}. {_ranges(together)} {caption}",
                files=dict(zip(figures.FORMATS, paths, strict=True)),
                inches=tuple(figure.get_size_inches().tolist()),
                hover="",
            )


def _of_line(end: xr.Dataset, line: Line) -> xr.Dataset:
    return end.sel(source=line.label, drop=True)


def _ranges(end: xr.Dataset) -> str:
    """What the values are, in words: for who hears the page."""
    mean = end["test_error"].mean("seed")
    if not np.isfinite(mean.values).any():
        return "No value is there yet."
    words = []
    for which, place in (("lowest", mean.argmin(...)), ("highest", mean.argmax(...))):
        cell = mean.isel(place)
        where = ", ".join(
            f"{name.replace('_', ' ')} {cell[name].item()}"
            for name in ("source", "network", "source_size", "size", "frozen")
            if name in cell.coords
        )
        words.append(f"{which} mean test error at the end: {cell.item():.3f} ({where})")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}."
