"""Draw and save the figures of a study with captions and alternative texts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from analysis.load import Study
from analysis.load.rows import StoreRows
from analysis.plots import figures, layout, points
from analysis.report import slices, tables
from analysis.report.picture import Album, Picture, values_in_words
from analysis.report.slices import Line, Slice, SliceSummary
from analysis.report.tables import Disagreements, cuts_of

MAX_PAIRS: Final = 3
SIMILARITIES: Final = ("logme", "linear_cka_debiased")


def pictures(
    study: Study,
    summaries: Sequence[SliceSummary],
    directory: Path,
    *,
    epsilon: float,
    disagreements: Disagreements,
    mapped: Collection[str] = (),
    drawn: Collection[str] = (),
) -> Iterator[Picture]:
    """Draw and save every figure of the study, slice by slice, then comparisons of networks.

    Args:
        mapped: names of slices whose map of the transfer arm is already in the page.
        drawn: names of slices whose curves of the transfer arm are already in the page.
    """
    for one in summaries:
        part = one.part
        album = Album(
            directory=directory, name=part.name, group=part.title, values=values_in_words(one.end)
        )
        for line in one.main:
            yield from _over_epochs(one, line, album, epsilon)
        if one.has_freezing:
            yield from _maps_at_the_end(one, album, epsilon, part.name in mapped)
            if one.controls or part.name not in drawn:
                yield from _curves_at_the_end(one, album, epsilon)
            yield from _differences(one, album)
            yield from _best_cuts(part, one.end, album)
        if one.controls:
            yield from _controls_over_epochs(one, album, epsilon)
        yield from _of_similarity(study, part, one.main, album, epsilon)
        yield from _of_predictions(part, one.main, album, disagreements)
    yield from _of_networks(
        [one.part for one in summaries], [one.end for one in summaries], directory, epsilon
    )


def map_caption(figure: Figure, epsilon: float) -> str:
    """Return a caption that explains the marks drawn on a heat map."""
    drawn = layout.legend_names(figure)
    words = ["Lighter is a higher test error."]
    if any(name.startswith("train error") for name in drawn):
        words.append(
            "The black line is the edge of interpolation; its ticks point to where the mean train error "
            f"is at most {epsilon:g}."
        )
    if "peak" in drawn:
        words.append("Circles: the ridge of the peak, if the seeds show it.")
    if any(name.startswith("peak at face value") for name in drawn):
        words.append("Small dots: a peak that only the mean over the seeds has.")
    if "absent" in drawn:
        words.append("Hatched: absent, never filled in.")
    if "a seed diverged" in drawn:
        words.append("×: a seed's loss was not finite.")
    return " ".join(words)


def _over_epochs(one: SliceSummary, line: Line, album: Album, epsilon: float) -> Iterator[Picture]:
    if line.label not in one.epochs:
        return
    way = f"{line.label} → {one.part.title}"
    errors = one.errors[line.label]
    test, train = errors["test_error"], errors["train_error"]
    has_train = bool(train.notnull().any())
    yield album.add(
        figures.panel_grid(test, train, epsilon=epsilon, title=way),
        f"{line.label}-curves",
        f"Over the epochs, from {line.label}",
        "Test error over the epochs, one curve for each cut"
        + ("; the train error, against the labels trained on, beneath." if has_train else "."),
    )
    if test.sizes["frozen"] < 2:
        return
    found = one.epochs[line.label]
    diverged = one.end["diverged"].sel(source=line.label, drop=True)
    drawn = figures.epoch_maps(
        test,
        train,
        epsilon=epsilon,
        ridge=found["at"],
        ridge_shown=found["shown"],
        diverged=diverged,
        title=way,
    )
    yield album.add(
        drawn,
        f"{line.label}-epochs",
        f"Test error by epoch and cut, source {line.label}",
        map_caption(drawn[0], epsilon),
    )


def _maps_at_the_end(
    one: SliceSummary, album: Album, epsilon: float, is_shown: bool
) -> Iterator[Picture]:
    for lines, is_control in ((one.main, False), (one.controls, True)):
        if not lines or (is_shown and not is_control):
            continue
        labels = [line.label for line in lines]
        asked = one.end["wanted"].sel(source=labels)
        if asked.sizes["size"] < 2:
            continue  # a map needs two sizes; the curves show one
        if asked.any([dim for dim in asked.dims if dim != "frozen"]).sum() < 2:
            continue  # a single cut has no surface; the curves and the table show it
        some, found = one.end.sel(source=labels), one.freezing.sel(source=labels)
        rows, columns, which = "source", "source_size", ""
        if is_control:
            # If there are several source sizes, controls are shown only for the largest.
            some, found = (each.isel(source_size=-1, drop=True) for each in (some, found))
            rows, columns, which = "", "source", " (controls)"
        drawn = figures.freezing_maps(
            some["test_error"],
            some["train_error"],
            rows=rows,
            columns=columns,
            epsilon=epsilon,
            ridge=found["at"],
            ridge_shown=found["shown"],
            diverged=some["diverged"],
            wanted=some["wanted"],
            title=f"{one.part.title}: after the last epoch{which}",
        )
        yield album.add(
            drawn,
            "controls-freezing" if which else "freezing",
            f"Training images × trained parameters, after the last epoch{which}",
            map_caption(drawn[0], epsilon),
        )


def _curves_at_the_end(one: SliceSummary, album: Album, epsilon: float) -> Iterator[Picture]:
    end = one.end
    each = "for each source" + (" and control" if one.controls else "")
    x = _axis_of(end)
    against = "number of trained parameters" if x == "parameters_trained" else "cut"
    test, train = end["test_error"], end["train_error"]
    has_train = bool(train.notnull().any())
    yield album.add(
        figures.freezing_grid(
            test,
            train if has_train else None,
            x=x,
            wanted=end["wanted"],
            epsilon=epsilon,
            title=f"{one.part.title}: after the last epoch",
        ),
        "curves-freezing",
        "Over the freezing, after the last epoch",
        f"Test error after the last epoch against the {against}, {each}."
        + (_marker_words(test, train, epsilon) if has_train else ""),
    )


def _axis_of(end: xr.Dataset) -> str:
    counted = bool(np.isfinite(end["parameters_trained"]).all())
    return "parameters_trained" if counted else "frozen"


def _differences(one: SliceSummary, album: Album) -> Iterator[Picture]:
    part, test = one.part, one.end["test_error"]
    x = _axis_of(one.end)
    sources = [line.label for line in one.main]
    for first, second in list(combinations(sources, 2))[:MAX_PAIRS]:
        name = f"{second} minus {first}"
        yield album.add(
            figures.difference_grid(test, second, first, x=x, title=f"{part.title}: {name}"),
            f"{second}-minus-{first}",
            f"{name}, after the last epoch",
            f"Test error after the last epoch of what started from {second}, minus that of what "
            f"started from {first}, seed by seed. Below zero {second} is the better source. Which of "
            "them is more related to the target is not said here.",
        )


def _marker_words(test: xr.DataArray, train: xr.DataArray, epsilon: float) -> str:
    filled, hollow = figures.markers(test, train, epsilon)
    if filled and hollow:
        return f" Markers are filled if the mean train error is at most {epsilon:g}, else hollow."
    return f" The mean train error is {'at most' if filled else 'above'} {epsilon:g} everywhere."


def _best_cuts(part: Slice, end: xr.Dataset, album: Album) -> Iterator[Picture]:
    found = cuts_of(part, end)
    several = bool((found["in_set"].sum("frozen") > 1).any())
    yield album.add(
        points.cut_grid(found, title=f"{part.title}: the best cut"),
        "best-cut",
        "The best cut, after the last epoch",
        "Large: the cut with the lowest mean test error."
        + (
            " Small, on a line: other numbers that may be best, by paired tests over seeds that "
            "leave out the truly best in at most 5 % of cells. One seed leaves nothing out."
            if several
            else ""
        ),
    )


def _controls_over_epochs(one: SliceSummary, album: Album, epsilon: float) -> Iterator[Picture]:
    if not one.errors:
        return
    controls = one.controls
    labels = pd.Index([line.label for line in controls], dtype=object, name="source")
    errors = [one.errors[label].isel(source_size=-1, drop=True) for label in labels]
    together = xr.concat(errors, labels, join="outer")
    test, train = together["test_error"], together["train_error"]
    if not test.notnull().any():
        return
    larger = any(line.cells["source_size"].nunique() > 1 for line in controls)
    yield album.add(
        figures.panel_grid(
            test, train, rows="source", epsilon=epsilon, title=f"{one.part.title}: controls"
        ),
        "controls-curves",
        "Over the epochs (controls)",
        f"The rival explanations: {', '.join(line.label for line in controls)}."
        + (" If a control has several source sizes, the largest is shown." if larger else ""),
    )


def _of_similarity(
    study: Study, part: Slice, main: Sequence[Line], album: Album, epsilon: float
) -> Iterator[Picture]:
    if not isinstance(study.rows, StoreRows) or part.num_sizes < 2:
        return
    joined = [slices.capacity_pairs(study, line, SIMILARITIES, epsilon) for line in main]
    drawn = []
    for measure in SIMILARITIES:
        known = [pairs[measure] for pairs in joined if len(pairs.get(measure, ()))]
        if any((some["capacity"] > 0).any() for some in known):
            drawn.append(pd.concat(known))
            drawn[-1].attrs = known[0].attrs
    if drawn:
        beyond = any(bool(some["censored"].any()) for some in drawn)
        yield album.add(
            figures.capacity_figure(drawn, title=f"{part.title}: capacity and similarity"),
            "capacity-similarity",
            "Effective capacity against similarity of source and target",
            f"The largest number of training images that is interpolated (train error at most {epsilon:g} "
            "at some epoch): a point for each seed, source size and frozen count, beside the similarity "
            "at the cut for the largest number of images."
            + (
                " Arrow: the largest number studied is interpolated, the capacity may be larger."
                if beyond
                else ""
            ),
        )


def _of_predictions(
    part: Slice, main: Sequence[Line], album: Album, found: Disagreements
) -> Iterator[Picture]:
    for line in main:
        one = found.found.get((part.name, line.label))
        if one is None or one["disagreement"].isnull().all():
            continue
        # If there are several source sizes, only the largest is shown.
        one = one.isel(source_size=-1, drop=True)
        yield album.add(
            figures.disagreement_grid(
                one["disagreement"], title=f"{line.label} → {part.title}: disagreement of seeds"
            ),
            f"{line.label}-disagreement",
            f"Disagreement of seeds, from {line.label}",
            "How often two seeds predict different labels for a test image. "
            + tables.finite_share(one),
        )


def _of_networks(
    parts: Sequence[Slice], ends: Sequence[xr.Dataset], directory: Path, epsilon: float
) -> Iterator[Picture]:
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, part in enumerate(parts):
        alike.setdefault((part.task, part.label_noise, part.recipe), []).append(i)
    for members in alike.values():
        if len(members) < 2 or not any(ends[i]["share_frozen"].notnull().any() for i in members):
            continue
        chosen = [parts[i] for i in members]
        labels = set.intersection(
            *({line.label for line in part.lines if not line.is_control} for part in chosen)
        )
        for label in sorted(labels):
            networks = pd.Index([part.network for part in chosen], dtype=object, name="network")
            errors = [ends[i].sel(source=label, drop=True) for i in members]
            together = xr.concat(errors, networks, join="outer", coords="all")
            wanted = together["wanted"].fillna(0).astype(bool)
            title = f"{label} → {chosen[0].task}, label noise {chosen[0].label_noise:.0%}: networks"
            test, train = together["test_error"], together["train_error"]
            album = Album(
                directory=directory,
                name=f"{chosen[0].name}-{label}",
                group="Networks beside each other",
                values=values_in_words(together),
            )
            yield album.add(
                figures.freezing_grid(
                    test,
                    train,
                    by="network",
                    x="share_frozen",
                    wanted=wanted,
                    epsilon=epsilon,
                    title=title,
                ),
                "networks",
                title,
                "Test error after the last epoch against the share of a network's layers below its head "
                "that is frozen: depths differ, so frozen counts cannot be compared."
                + _marker_words(test, train, epsilon),
            )
