"""The pictures of a study, one after another: drawn, saved, and described for who cannot see them.

Owns which figure is made of which slice, its caption and its alternative text. Writes the files of the
figures into a directory; knows nothing of the page that shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import pandas as pd
import xarray as xr

from analysis.load import Study
from analysis.load.rows import StoreRows
from analysis.pictures import cuts, figures
from analysis.pictures.variance import part_grid
from analysis.report import hover, peaks, slices, variance
from analysis.report.album import Album, Picture, values_in_words
from analysis.report.cuts import cuts_of
from analysis.report.slices import Line, Slice
from analysis.report.variance import Variances

READING_MAP: Final = (
    "Lighter is a higher error. The black line is the edge of interpolation, its ticks point to where "
    "the mean train error is at most {epsilon:g}; nothing is interpolated between cells. Circles are "
    "peaks that the seeds show, small dots peaks that only the mean has."
)
MAX_PAIRS: Final = 3
SIMILARITIES: Final = ("logme", "linear_cka_debiased")


def pictures(
    study: Study, directory: Path, *, epsilon: float, variances: Variances
) -> Iterator[Picture]:
    """Draws and saves every figure of the study, slice by slice, then networks beside each other."""
    parts = slices.slices(study)
    ends = []
    for part in parts:
        end = slices.at_the_end(study, part.lines)
        ends.append(end)
        album = Album(
            directory=directory, name=part.name, group=part.title, values=values_in_words(end)
        )
        main = [line for line in part.lines if not line.is_control] or list(part.lines)
        controls = [line for line in part.lines if line not in main]
        for line in main:
            yield from _over_epochs(study, part, line, end, album, epsilon)
        if end["test_error"].notnull().any() and end.sizes["frozen"] > 1:
            yield from _maps_at_the_end(part, end, main, controls, album, epsilon)
            yield from _curves_at_the_end(part, end, main, controls, album, epsilon)
            yield from _best_cuts(part, end, album)
        if controls:
            yield from _controls_over_epochs(study, part, controls, album, epsilon)
        yield from _of_similarity(study, part, main, album, epsilon)
        yield from _of_predictions(part, main, album, variances)
    yield from _of_networks(parts, ends, directory, epsilon)


def _over_epochs(
    study: Study, part: Slice, line: Line, end: xr.Dataset, album: Album, epsilon: float
) -> Iterator[Picture]:
    if "epoch" not in study.measured:
        return
    way = f"{line.label} → {part.title}"
    errors = slices.over_epochs(study, line)
    test, train = errors["test_error"], errors["train_error"]
    if not test.notnull().any():
        return
    yield album.add(
        figures.panel_grid(test, train, epsilon=epsilon, title=way),
        f"{line.label}-curves",
        f"Over the epochs, from {line.label}",
        "Test error over the epochs, one curve for each number of frozen layers; the train error, "
        "against the labels trained on, beneath. Panels: images of the source × images of the target.",
    )
    if test.sizes["frozen"] < 2:
        return
    found = peaks.epoch_peaks(errors, epsilon)
    figure = figures.epoch_maps(
        test,
        train,
        epsilon=epsilon,
        ridge=found["at"],
        ridge_shown=found["shown"],
        diverged=end["diverged"].sel(source=line.label, drop=True),
        title=way,
    )
    yield album.add(
        figure,
        f"{line.label}-epochs",
        f"Epoch × frozen layers, from {line.label}",
        READING_MAP.format(epsilon=epsilon),
        hover.of_maps(figure, test, train, "epoch"),
    )


def _maps_at_the_end(
    part: Slice,
    end: xr.Dataset,
    main: Sequence[Line],
    controls: Sequence[Line],
    album: Album,
    epsilon: float,
) -> Iterator[Picture]:
    for lines in (main, controls):
        if not lines:
            continue
        some = end.sel(source=[line.label for line in lines])
        rows, columns, which = "source", "source_size", ""
        if lines is controls:
            # Controls stand beside the largest source only, where there are several.
            some, rows, columns = some.isel(source_size=-1, drop=True), "", "source"
            which = " (controls)"
        found = peaks.freezing_peaks(some, epsilon)
        figure = figures.freezing_maps(
            some["test_error"],
            some["train_error"],
            rows=rows,
            columns=columns,
            epsilon=epsilon,
            ridge=found["at"],
            ridge_shown=found["shown"],
            diverged=some["diverged"],
            title=f"{part.title}: after the last epoch{which}",
        )
        yield album.add(
            figure,
            "controls-freezing" if which else "freezing",
            f"Training images × frozen layers, after the last epoch{which}",
            READING_MAP.format(epsilon=epsilon),
            hover.of_maps(figure, some["test_error"], some["train_error"], "size"),
        )


def _curves_at_the_end(
    part: Slice,
    end: xr.Dataset,
    main: Sequence[Line],
    controls: Sequence[Line],
    album: Album,
    epsilon: float,
) -> Iterator[Picture]:
    each = "for each source" + (" and control" if controls else "")
    # Parts of a layer lie close together along the count of layers, apart along the capacity.
    partly = bool((end["frozen"] % 1 != 0).any())
    against = "number of trained parameters" if partly else "number of frozen layers"
    has_train = bool(end["train_error"].notnull().any())
    filled = f"Markers are filled where the mean train error is at most {epsilon:g}."
    yield album.add(
        figures.freezing_grid(
            end["test_error"],
            end["train_error"] if has_train else None,
            x="parameters_trained" if partly else "frozen",
            wanted=end["wanted"],
            epsilon=epsilon,
            title=f"{part.title}: after the last epoch",
        ),
        "curves-freezing",
        "Over the freezing, after the last epoch",
        f"Test error after the last epoch against the {against}, {each}."
        + (f" {filled}" if has_train else ""),
    )
    sources = [line.label for line in main]
    for first, second in list(combinations(sources, 2))[:MAX_PAIRS]:
        yield album.add(
            figures.difference_grid(
                end["test_error"], second, first, title=f"{part.title}: {second} minus {first}"
            ),
            f"{second}-minus-{first}",
            f"{second} minus {first}, after the last epoch",
            f"Test error after the last epoch of what started from {second}, minus that of what "
            f"started from {first}, seed by seed. Below zero {second} is the better source. Which of "
            "them is more related to the target is not said here.",
        )


def _best_cuts(part: Slice, end: xr.Dataset, album: Album) -> Iterator[Picture]:
    found = cuts_of(part, end)
    yield album.add(
        cuts.cut_grid(found, title=f"{part.title}: the best number of frozen layers"),
        "best-cut",
        "The best number of frozen layers, after the last epoch",
        "Large: the number of frozen layers with the lowest mean test error. Small, on a line: those "
        "that cannot be told apart from it, by paired tests over seeds that leave out the truly best in "
        "at most 5 % of cells. By one seed nothing is left out.",
    )


def _controls_over_epochs(
    study: Study, part: Slice, controls: Sequence[Line], album: Album, epsilon: float
) -> Iterator[Picture]:
    if "epoch" not in study.measured:
        return
    errors = [slices.over_epochs(study, line).isel(source_size=-1, drop=True) for line in controls]
    labels = pd.Index([line.label for line in controls], name="source")
    together = xr.concat(errors, labels, join="outer")
    if not together["test_error"].notnull().any():
        return
    yield album.add(
        figures.panel_grid(
            together["test_error"],
            together["train_error"],
            rows="source",
            epsilon=epsilon,
            title=f"{part.title}: controls",
        ),
        "controls-curves",
        "Over the epochs (controls)",
        "The rival explanations: no source at all, the same task as source (disjoint images), layers "
        "above the cut made new. Where a control has several source sizes, the largest.",
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
        if known:
            drawn.append(pd.concat(known))
            drawn[-1].attrs = known[0].attrs
    if drawn:
        yield album.add(
            figures.capacity_figure(drawn, title=f"{part.title}: capacity and similarity"),
            "capacity-similarity",
            "Effective capacity against similarity of source and target",
            f"The largest number of training images that is interpolated (train error at most {epsilon:g} "
            "at some epoch): a point for each seed, source size and frozen count, beside the similarity "
            "at the cut for the largest number of images. Arrow: the largest number studied is "
            "interpolated, the capacity may lie beyond.",
        )


def _of_predictions(
    part: Slice, main: Sequence[Line], album: Album, variances: Variances
) -> Iterator[Picture]:
    for line in main:
        one = variances.found.get((part.name, line.label))
        if one is None or one["disagreement"].isnull().all():
            continue
        # Beside the largest source only, where there are several.
        one = one.isel(source_size=-1, drop=True)
        parts = variance.drawn(one)
        if "bias" in parts["part"].values:
            what = (
                "Test error = bias (images whose most frequent label over the seeds is wrong) + net "
                "variance (Domingos 2000). Few seeds give too much bias and too little variance. "
            )
        else:
            what = (
                "How often two seeds give a test image different labels: of so few seeds bias and "
                "variance are not told apart. "
            )
        yield album.add(
            part_grid(parts, title=f"{line.label} → {part.title}: what is predicted"),
            f"{line.label}-variance",
            f"What is predicted over the seeds, from {line.label}",
            what + variance.finite_share(one),
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
            networks = pd.Index([part.network for part in chosen], name="network")
            errors = [ends[i].sel(source=label, drop=True) for i in members]
            together = xr.concat(errors, networks, join="outer", coords="all")
            wanted = together["wanted"].fillna(0).astype(bool)
            title = f"{label} → {chosen[0].task}, label noise {chosen[0].label_noise:.0%}: networks"
            figure = figures.freezing_grid(
                together["test_error"],
                together["train_error"],
                by="network",
                x="share_frozen",
                wanted=wanted,
                epsilon=epsilon,
                title=title,
            )
            album = Album(
                directory=directory,
                name=f"{chosen[0].name}-{label}",
                group="Networks beside each other",
                values=values_in_words(together),
            )
            yield album.add(
                figure,
                "networks",
                title,
                "Test error after the last epoch against the share of a network's layers below its head "
                "that is frozen: depths differ, so frozen counts cannot be compared.",
            )
