"""Divide a study into slices, one per figure, and summarise their errors and peaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr

from analysis import descent, surfaces
from analysis.claims.primary import ERROR
from analysis.descent.curves import epoch_windows, window_means
from analysis.descent.edges import EVERYTHING, NOTHING
from analysis.load import Study, arms
from analysis.load.cells import CELL, grouped
from analysis.surfaces import derived, similarity
from analysis.surfaces.best_cut import smallest_step
from study.run import Recipe
from study.store.schema import DIVERGED
from study.store.similarity import CUT

GRID: Final = ("source_size", "size", "frozen")
VALUES: Final = ("test_error", "train_error")

NO_SOURCE: Final = "no source"  # the label of a line that starts from random weights
_OF_THE_CUT: Final = ("parameters_trained", "share_trained")

# The fields that identify a slice. A line of a slice has one arm, one source task, and dims GRID.
_SLICE: Final = ("task", "model", "width", "label_noise", "recipe")
# If lines have the same arm and source task, the fields that differ are part of their names.
_FURTHER: Final = (
    *(name for name in CELL if name not in (*_SLICE, *GRID, "source_task")),
    "fixed_source_seed",
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One origin of the weights: a source task or a control arm.

    Args:
        is_control: the arm tests a rival explanation (analysis/README.md); False for the transfer.
        cells: the line's rows of `Study.cells`.
    """

    label: str
    is_control: bool
    cells: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Cells with one target task, network, label noise and recipe; `name` is valid in a file name."""

    name: str
    title: str
    network: str
    task: str
    label_noise: float
    recipe: str
    lines: tuple[Line, ...]

    @property
    def num_sizes(self) -> int:
        return len({size for line in self.lines for size in line.cells["size"]})

    @property
    def resolution(self) -> float | None:
        """The test error of one image; None if the number of test images is not known."""
        num = pd.concat([line.cells["num_test"] for line in self.lines]).astype(float).max()
        return 1 / num if num > 0 else None


def slices(study: Study) -> list[Slice]:
    """Return all slices in the order of the study's Runs, without Runs that are only sources."""
    cells = with_origins(study)
    cells = cells[cells["arm"] != arms.SOURCE]
    recipes = _recipe_names(study, list(dict.fromkeys(cells["base_recipe"])))
    several = {name: cells[name].nunique() > 1 for name in ("task", "network", "base_recipe")}
    found = []
    keys = ["task", "network", "label_noise", "base_recipe"]
    for (task, network, noise, recipe), group in grouped(cells, keys, sort=False):
        words = {
            "task": task,
            "label_noise": f"label noise {noise:.0%}",
            "recipe": recipes[recipe] if several["base_recipe"] else "",
        }
        parts = [text for name, text in words.items() if text and study.has_coordinate(name)]
        parts.insert(int(study.has_coordinate("task")), network)
        title = ", ".join(filter(None, parts)) or study.name
        name = f"{task}-{network}-noise{round(100 * noise)}-{recipe}"
        found.append(
            Slice(
                name="".join(c if c.isalnum() or c in "-." else "-" for c in name),
                title=title,
                network=network,
                task=task,
                label_noise=noise,
                recipe=recipe,
                lines=_lines(group),
            )
        )
    return found


def over_epochs(study: Study, line: Line) -> xr.Dataset:
    """Return test and train error of a line: dims (source_size, size, frozen, seed, epoch).

    A cell is NaN at epochs at which it was not evaluated.
    """
    values = _measured(study)
    found = surfaces.over_epochs(study, values, evaluations="union", **_select(line))
    return _narrow(_with_all(found))


def at_the_end(study: Study, lines: Sequence[Line]) -> xr.Dataset:
    """Return test and train error at the last evaluation of several lines, and which cells were wanted.

    Dims (source, source_size, size, frozen, seed); `wanted` and `diverged` are without seed, and
    `share_frozen` (of the layers below the head) is a coordinate over frozen. The values of a line
    without a source are repeated for every source size, so that they can be drawn beside the others.
    """
    parts = [_end_of(study, line).drop_vars("cut", errors="ignore") for line in lines]
    sizes = sorted({size for part in parts for size in part["source_size"].values.tolist() if size})
    if sizes:
        parts = [
            part.isel(source_size=[0] * len(sizes)).assign_coords(source_size=sizes)
            if part["source_size"].values.tolist() == [0]
            else part.sel(source_size=[s for s in part["source_size"].values if s])
            for part in parts
        ]
    together = xr.concat(
        parts, pd.Index([line.label for line in lines], dtype=object, name="source"), join="outer"
    )
    # All lines have one network. If a line lacks a cut, the parameter count is taken from another line.
    together = together.assign_coords(
        {
            name: together[name].max("source")
            for name in _OF_THE_CUT
            if "source" in together[name].dims
        }
    )
    together = together.assign_coords(cut=_cut_words(together, lines))
    below_head = float(pd.concat([line.cells["num_layers"] for line in lines]).max()) - 1
    together = together.assign_coords(share_frozen=together["frozen"] / below_head)
    return together.assign(
        {name: together[name].fillna(0.0).astype(bool) for name in ("wanted", "diverged")}
    )


def _cut_words(errors: xr.Dataset, lines: Sequence[Line]) -> tuple[str, list[str]]:
    cells = pd.concat([line.cells for line in lines]).drop_duplicates("frozen")
    words = cells.set_index("frozen")["cut"]
    return "frozen", words.loc[errors["frozen"].values].tolist()


def in_the_last_window(end: xr.Dataset, errors: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return `end` with the errors averaged over the last window of epochs, as the claims use them.

    `errors`: from `over_epochs`, by the line's label; lines without epochs keep their values.
    """
    found = {name: end[name].copy() for name in VALUES}
    for label, one in errors.items():
        for name in VALUES:
            values = one[name].transpose(*GRID, "seed", "epoch")
            last = np.full(values.shape[:-1], np.nan)
            for cell in np.ndindex(values.shape[:-2]):
                known = np.isfinite(values.values[cell]).any(axis=0)
                epochs = values["epoch"].values[known]
                if (epochs > 0).any():  # else every seed diverged before its second row
                    windows = epoch_windows(epochs)
                    last[cell] = window_means(values.values[cell][:, known], windows)[:, -1]
            coords = {dim: values[dim] for dim in values.dims[:-1]}
            window = xr.DataArray(last, coords, values.dims[:-1])
            if one["source_size"].values.tolist() == [0]:  # repeated in `end` for every source size
                window = window.isel(source_size=0, drop=True)
            here = end[name].sel(source=label)
            found[name].loc[{"source": label}] = (
                window.broadcast_like(here)
                .reindex_like(here)
                .where(here.notnull())
                .transpose(*here.dims)
            )
    return end.assign(found)


def capacity_pairs(
    study: Study, line: Line, measures: Sequence[str], epsilon: float
) -> dict[str, pd.DataFrame]:
    """Return a table of effective capacity and similarity at the cut for each of `measures`, by name.

    The result is empty if no similarity was measured. `study` must have been opened from a store.
    """
    if similarity.read(study, list(line.cells.index)).empty:
        return {}
    select = _select(line)
    measured = similarity.similarity_surfaces(study, partial=True, **select).sel(
        place=CUT, drop=True
    )
    capacity = derived.effective_capacity(study, epsilon=epsilon, partial=True, **select)
    found = {}
    for name in measures:
        one = measured[name]
        one = one.assign_attrs(long_name=f"{one.attrs['long_name']} at the cut")
        found[name] = similarity.capacity_and_similarity(capacity, one)
    return found


def predictions_of(study: Study, line: Line) -> xr.Dataset:
    """Return a line's `surfaces.disagreement` at all epochs: dims (source_size, size, frozen, epoch).

    Raises:
        ValueError, Damaged: the line's predictions cannot be read.
    """
    select = _select(line)
    return _narrow(
        surfaces.disagreement(study, epoch="all", evaluations="union", partial=True, **select)
    )


def target_cells(study: Study) -> pd.DataFrame:
    """Return `Study.cells` without sources; if all Runs are sources, return all."""
    cells = study.cells[study.cells["arm"] != arms.SOURCE]
    return cells if len(cells) else study.cells


def with_origins(study: Study) -> pd.DataFrame:
    """Return `Study.cells` with four more columns, which identify slices and lines.

    They are base_recipe, network, origin and fixed_source_seed (−1 if the source has the Run's own seed).
    """
    bases: dict[str, str] = {}
    for run in study.wanted:
        bases[run.recipe.cell_id] = run.recipe.base.id
    width = study.cells["width"].map(lambda value: f" width {value}" if value else "")
    model = study.cells["model"] if study.has_coordinate("model") else ""
    fixed = (study.cells["source_seed"] >= 0) & (study.cells["source_seed"] != study.cells["seed"])
    return study.cells.assign(
        base_recipe=study.cells["recipe"].map(lambda recipe: bases.get(recipe, recipe)),
        network=(model + width).str.strip(),
        fixed_source_seed=np.where(fixed, study.cells["source_seed"], -1),
        origin=np.where(
            study.cells["arm"].isin([arms.SCRATCH, arms.RANDOM_FROZEN]),
            arms.RANDOM_FROZEN,
            study.cells["arm"],
        ),
    )


def _recipe_names(study: Study, ids: Sequence[str]) -> dict[str, str]:
    """Return a name for each recipe id, made of the fields in which the recipes differ."""
    recipes: dict[str, Recipe] = {}
    for run in study.wanted:
        plain = run.recipe.base
        if plain.id in ids:
            recipes[plain.id] = plain
    differ = [
        field.name
        for field in fields(Recipe)
        if len({getattr(recipe, field.name) for recipe in recipes.values()}) > 1
    ]
    # For a table, only the recipe's name is known.
    return {name: name for name in ids} | {
        name: ", ".join(f"{field} {getattr(recipe, field)}" for field in differ)
        for name, recipe in recipes.items()
    }


def _lines(group: pd.DataFrame) -> tuple[Line, ...]:
    keys = ["origin", "source_task", *_FURTHER]
    found = list(grouped(group, keys, sort=False))
    lines = []
    for key, cells in found:
        values = dict(zip(keys, key, strict=True))
        twins = [
            dict(zip(keys, other, strict=True))
            for other, _ in found
            if other[:2] == key[:2] and other != key
        ]
        differ = [name for name in _FURTHER if any(t[name] != values[name] for t in twins)]
        label = _label(values["origin"], values["source_task"])
        label += "".join(f", {name.replace('_', ' ')} {values[name]}" for name in differ)
        is_control = values["origin"] not in (arms.TRANSFER, arms.FROM_PRETRAINED)
        lines.append(Line(label=label, is_control=is_control, cells=cells))
    return tuple(sorted(lines, key=lambda line: line.is_control))


def _label(origin: str, source_task: str) -> str:
    if origin == arms.RANDOM_FROZEN:
        return NO_SOURCE
    if origin == arms.SAME_TASK:
        return "same task"
    if origin == arms.REINITIALISED:
        return f"{source_task}, new above"
    if origin == arms.MATCHED_STEPS:
        return f"{source_task}, matched steps"
    return source_task


def _select(line: Line) -> dict[str, Any]:
    names = [name for name in (*CELL, "source_seed") if name not in GRID]
    chosen: dict[str, Any] = {name: line.cells[name].unique().tolist() for name in names}
    return chosen | {"arm": line.cells["arm"].unique().tolist()}


def _end_of(study: Study, line: Line) -> xr.Dataset:
    errors = _narrow(_with_all(surfaces.at_epoch(study, _measured(study), **_select(line))))
    flags = line.cells.assign(
        wanted=1.0, diverged=(line.cells["state"] == DIVERGED).astype(float)
    ).groupby(list(GRID))[["wanted", "diverged"]]
    return errors.merge(flags.max().to_xarray(), join="left")


def _measured(study: Study) -> list[str]:
    return [name for name in VALUES if name in study.measured]


def _with_all(errors: xr.Dataset) -> xr.Dataset:
    """Add missing variables of VALUES as NaN."""
    absent = [name for name in VALUES if name not in errors]
    return errors.assign({name: xr.full_like(errors["test_error"], np.nan) for name in absent})


def _narrow(errors: xr.Dataset) -> xr.Dataset:
    keep = {*GRID, "seed", "epoch"}
    others = {dim: 0 for dim in errors.dims if dim not in keep}
    assert all(errors.sizes[dim] == 1 for dim in others), errors.sizes
    order: Mapping[str, Any] = {dim: None for dim in (*GRID, "seed", "epoch") if dim in errors.dims}
    return errors.isel(others, drop=True).transpose(*order)


# A function of test and train error, both (seeds, points), that returns the judgement and the place of the
# peak, or None if the points are not a curve.
Judge = Callable[[np.ndarray, np.ndarray], tuple[descent.Judgement, float] | None]


def _has_curve(epochs: np.ndarray) -> bool:
    """Return False if every seed diverged before its second row."""
    return bool(epochs[-1] > 0)


def epoch_peaks(errors: xr.Dataset, epsilon: float, *, resolution: float = 0.0) -> xr.Dataset:
    """Return peaks along the epochs, over GRID, by C1's rule (`resolution`: the test error of one image).

    - `at`: the epoch with the highest mean within the window of the peak; NaN without a peak.
    - `shown`: the seeds show double descent. If False, only the mean over seeds has the peak.
    - `could`: a peak is possible: the curve crosses the edge of interpolation, or the train error is
      unknown.
    """

    def judge(test: np.ndarray, train: np.ndarray) -> tuple[descent.Judgement, float] | None:
        known = np.isfinite(test).any(axis=0)
        epochs, test = errors["epoch"].values[known], test[:, known]
        if not _has_curve(epochs):
            return None
        found = descent.judge_epochs(
            epochs,
            test,
            train_errors=train[:, known],
            epsilon=epsilon,
            min_height=ERROR,
            resolution=resolution,
        )
        windows = epoch_windows(epochs)
        which = int(np.abs(windows.centres - found.peak).argmin())
        inside = (epochs >= windows.lows[which]) & (epochs <= windows.highs[which])
        return found, float(epochs[inside][test.mean(axis=0)[inside].argmax()])

    return _peaks(errors, "epoch", judge)


def freezing_peaks(errors: xr.Dataset, epsilon: float, *, resolution: float = 0.0) -> xr.Dataset:
    """Return peaks along the freezing, over all dims except frozen and seed, by C4's rule.

    `at` is a frozen count; `shown` and `could` are as in `epoch_peaks`."""
    trained = errors["parameters_trained"].values

    def judge(test: np.ndarray, train: np.ndarray) -> tuple[descent.Judgement, float]:
        known = np.isfinite(test).any(axis=0) & np.isfinite(trained)
        found = descent.judge_freezing(
            trained[known],
            test[:, known],
            train_errors=train[:, known],
            epsilon=epsilon,
            min_height=ERROR,
            resolution=resolution,
        )
        return found, found.peak

    # Without the number of trained parameters, the order of capacity is unknown.
    found = _peaks(errors.where(np.isfinite(errors["parameters_trained"])), "frozen", judge)
    counts = np.append(errors["frozen"].values.astype(float), np.nan)
    places = np.append(np.where(np.isfinite(trained), trained, np.inf), np.inf)
    nearest = np.abs(places - found["at"].values[..., None])
    index = np.where(np.isfinite(found["at"].values), nearest[..., :-1].argmin(-1), len(counts) - 1)
    return found.assign(at=(found["at"].dims, counts[index]))


def _peaks(errors: xr.Dataset, along: str, judge: Judge) -> xr.Dataset:
    test = errors["test_error"].transpose(..., "seed", along)
    train = errors["train_error"].transpose(*test.dims)
    places = np.full(test.shape[:-2], np.nan)
    shown, could = np.zeros(places.shape, bool), np.zeros(places.shape, bool)
    for index in np.ndindex(places.shape):
        curves = test.values[index]
        # Seeds with gaps are left out. Points that every seed lacks do not count as gaps.
        whole = np.isfinite(curves[:, np.isfinite(curves).any(axis=0)]).all(axis=1)
        whole &= np.isfinite(curves).any(axis=1)
        if not whole.any():
            continue
        judged = judge(curves[whole], train.values[index][whole])
        if judged is None:
            continue
        found, place = judged
        could[index] = found.x.size >= 3 and found.interpolates not in (NOTHING, EVERYTHING)
        shown[index] = found.status in (descent.WEAK, descent.STRONG)
        if shown[index] or found.face_value in (descent.WEAK, descent.STRONG):
            places[index] = place
    dims = test.dims[:-2]
    coords = {dim: errors[dim] for dim in dims}
    return xr.Dataset(
        {"at": (dims, places), "shown": (dims, shown), "could": (dims, could)}, coords
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class SliceSummary:
    """The errors and peaks of one slice.

    Args:
        end: all lines at their last evaluation, from `at_the_end`.
        freezing: peaks along the freezing in the last window of epochs, from `freezing_peaks`.
        errors: errors over epochs, from `over_epochs`, by the line's label; empty if epochs are unknown.
        epochs: peaks of `errors`, from `epoch_peaks`; lines without a value are left out.
    """

    part: Slice
    end: xr.Dataset
    freezing: xr.Dataset
    errors: Mapping[str, xr.Dataset]
    epochs: Mapping[str, xr.Dataset]

    @property
    def main(self) -> list[Line]:
        """Return the lines of the transfer, or all lines if there is none."""
        return [line for line in self.part.lines if not line.is_control] or list(self.part.lines)

    @property
    def controls(self) -> list[Line]:
        return [line for line in self.part.lines if line not in self.main]

    @property
    def has_freezing(self) -> bool:
        return self.end.sizes["frozen"] > 1 and bool(self.end["test_error"].notnull().any())


def summarise_slices(study: Study, parts: Sequence[Slice], epsilon: float) -> list[SliceSummary]:
    found = []
    for part in parts:
        end = at_the_end(study, part.lines)
        lines = part.lines if "epoch" in study.measured else ()
        errors = {line.label: over_epochs(study, line) for line in lines}
        resolution = part.resolution or smallest_step(end["test_error"].values)
        epochs = {
            label: epoch_peaks(one, epsilon, resolution=resolution)
            for label, one in errors.items()
            if one["test_error"].notnull().any()
        }
        judged = in_the_last_window(end, errors)
        freezing = freezing_peaks(judged, epsilon, resolution=resolution)
        found.append(
            SliceSummary(part=part, end=end, freezing=freezing, errors=errors, epochs=epochs)
        )
    return found


def distinguishing(titles: Sequence[Sequence[str]]) -> list[str]:
    """Return the first words of each title that distinguish the titles, without words that all have."""
    everywhere = set(titles[0]).intersection(*titles)
    words = [[word for word in title if word not in everywhere] for title in titles]
    num_different = len({tuple(each) for each in words})
    for num in range(1, max(map(len, words), default=0) + 1):
        found = [", ".join(each[:num]) for each in words]
        if len(set(found)) == num_different:
            return found
    return ["" for _ in words]
