"""Figures: positions, marks, texts that do not overlap, and the values that are returned."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis import surfaces
from analysis.plots import curves, figures, layout, maps, points, style
from analysis.report import slices

SIZES, FROZEN, SEEDS = [50, 200, 800], [0, 2, 5, 9], [0, 1, 2]
EPOCHS = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0]
LIGHTNESS = np.array([0.2126, 0.7152, 0.0722])
# Of FROZEN.
OF_CUTS: dict[str, Any] = {
    "cut": (
        "frozen",
        ["nothing frozen", "2 layers frozen", "8 layers + 28 of 32 channels frozen", "head only"],
    ),
    "parameters_trained": ("frozen", [44_622.0, 38_090.0, 1_490.0, 330.0]),
}


def errors(**sizes: list[float]) -> xr.DataArray:
    shape = tuple(len(values) for values in sizes.values())
    values = np.random.default_rng(7).uniform(0.1, 0.9, shape)
    return xr.DataArray(values, sizes, tuple(sizes), name="test_error")


@pytest.fixture
def axes() -> Axes:
    return Figure(figsize=(4, 3)).add_subplot()


def meshes(axes: Axes) -> list[QuadMesh]:
    return [artist for artist in axes.collections if isinstance(artist, QuadMesh)]


def tick_labels(axes: Axes) -> dict[str, float]:
    ticks, names = axes.get_xticks(), [t.get_text() for t in axes.get_xticklabels()]
    return dict(zip(names, ticks.tolist(), strict=True))


def test_epoch_peaks_need_a_peak_that_the_seeds_show() -> None:
    epochs = np.arange(0.0, 401.0)
    log = np.log(np.maximum(epochs, 0.5))
    bump = 0.2 * np.exp(-0.5 * ((log - np.log(17)) / 0.4) ** 2)
    fall = 0.9 - 0.3 * (log - log[0]) / np.ptp(log) * 2
    curves = np.stack([fall + bump, fall, np.full(len(epochs), np.nan)])
    test = curves[:, None, :] + 0.01 * np.arange(3)[None, :, None]
    test[0, 2, 30:] = np.nan  # this seed diverged
    train = np.broadcast_to(0.9 * np.exp(-epochs / 8), test.shape)  # interpolates after the bump
    dims = ("frozen", "seed", "epoch")
    both = xr.Dataset(
        {"test_error": (dims, test), "train_error": (dims, train)},
        {"frozen": [0, 4, 9], "epoch": epochs},
    )
    found = slices.epoch_peaks(both, 0.1)
    assert found["shown"].values.tolist() == [True, False, False]
    assert 16 <= float(found["at"][0]) <= 17  # not 13, the centre of the window from 10 to 17
    assert np.isnan(found["at"].values[1:]).all()


def test_freezing_peaks_are_frozen_counts() -> None:
    test = np.array([0.20, 0.35, 0.25, 0.30])[:, None] + 0.01 * np.arange(3)
    train = np.broadcast_to([[0.0], [0.05], [0.2], [0.4]], (2, 4, 3))
    dims = ("size", "frozen", "seed")
    both = xr.Dataset(
        {
            "test_error": (dims, np.stack([test, np.sort(test, axis=0)])),
            "train_error": (dims, train),
        },
        {"frozen": FROZEN, "size": [100, 400]},
    ).assign_coords(parameters_trained=("frozen", [9_000.0, 5_000.0, 800.0, 20.0]))
    found = slices.freezing_peaks(both, 0.1)
    assert found["shown"].values.tolist() == [True, False]
    assert np.array_equal(found["at"], [2, np.nan], equal_nan=True)


@given(st.sets(st.integers(1, 400_000), min_size=1, max_size=30), st.booleans())
def test_log_edges_contain_each_epoch_in_its_own_cell(steps: set[int], with_zero: bool) -> None:
    x = np.array([0.0] * with_zero + [step / 63 for step in sorted(steps)])
    left, right = style.log_edges(x)
    at = style.epoch_positions(x)
    assert ((left < at) & (at < right)).all()
    assert (right[:-1] <= left[1:] * (1 + 1e-12)).all()
    assert (left > 0).all()


@pytest.mark.parametrize("number", [2, 4, 10, 19])
def test_colours_are_ordered_in_lightness(number: int) -> None:
    frozen = [to_rgb(colour) for colour in style.frozen_colours(range(number)).values()]
    errors = style.ERROR_COLOURS(np.linspace(0, 1, 64))[:, :3]
    for colours in (np.array(frozen), errors):
        assert (np.diff(colours @ LIGHTNESS) > 0).all()
    assert frozen[-1] @ LIGHTNESS < 0.8  # can be seen on white


def test_seed_mean_ends_with_the_first_seed() -> None:
    curves = errors(epoch=EPOCHS, seed=SEEDS)
    curves[4:, 1] = np.nan  # diverged
    curves[:, 2] = np.nan  # absent
    mean, counts = style.seed_mean(curves, along="epoch")
    assert np.isfinite(mean.values[:4]).all()
    assert np.isnan(mean.values[4:]).all()
    assert mean.values[0] == pytest.approx(curves.values[0, :2].mean())
    assert set(np.atleast_1d(counts)) == {2}


def test_freezing_map_does_not_depend_on_the_order(axes: Axes) -> None:
    some = errors(size=SIZES, frozen=FROZEN)
    shuffled = some.isel(size=[2, 0, 1], frozen=[1, 3, 0, 2]).transpose("frozen", "size")
    cells = maps.freezing_map(axes, shuffled)
    (mesh,) = meshes(axes)
    assert np.array_equal(cells["test"].values, some.values[:, ::-1])
    assert cells["right"].values.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert np.array_equal(np.asarray(mesh.get_array()), some.values[:, ::-1])
    assert list(tick_labels(axes)) == ["9", "5", "2", "0"]


def test_epoch_map_draws_epoch_0_apart(axes: Axes) -> None:
    some = errors(frozen=FROZEN, epoch=EPOCHS)
    cells = maps.epoch_map(axes, some)
    zero, rest = meshes(axes)
    assert np.array_equal(cells["test"].values, some.values[::-1])
    assert cells["right"].values[-1] == axes.get_xlim()[1]
    assert np.array_equal(np.asarray(zero.get_array()), some.values[::-1, :1])
    assert np.array_equal(np.asarray(rest.get_array()), some.values[::-1, 1:])
    assert zero.get_coordinates()[..., 0].max() < rest.get_coordinates()[..., 0].min()


def test_freezing_map_marks_absent_diverged_cells_and_peaks(axes: Axes) -> None:
    some = errors(size=SIZES, frozen=FROZEN, seed=SEEDS)
    some[1, 1:3] = np.nan
    some[0, 0, 1:] = np.nan
    diverged = xr.zeros_like(some[..., 0], dtype=bool)
    diverged[2, 3] = True
    ridge = xr.DataArray([2.0, np.nan, 5.0], {"size": SIZES}, ["size"])
    shown = xr.DataArray([True, False, False], {"size": SIZES}, ["size"])
    maps.freezing_map(axes, some, ridge=ridge, ridge_shown=shown, diverged=diverged)
    (hatch,) = axes.patches
    assert hatch.get_hatch() and hatch.get_bbox().bounds == (0.5, 0.5, 2.0, 1.0)
    marks = {
        str(line.get_label()): [
            (x, y) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if x == x
        ]
        for line in axes.lines
    }
    assert marks["peak"] == [(2, 0)]
    assert marks["peak at face value: the seeds cannot tell"] == [(1, 2)]
    assert marks["a seed diverged"] == [(0, 2)]
    assert "absent" in axes.get_legend_handles_labels()[1]
    assert "1–3 seeds" in axes.get_title(loc="right")


def test_freezing_map_count_that_no_run_has_is_no_column(axes: Axes) -> None:
    some = errors(size=SIZES, frozen=FROZEN)
    wanted = xr.ones_like(some, dtype=bool)
    wanted.loc[{"frozen": 5}] = False
    some.loc[{"frozen": 5}] = np.nan
    maps.freezing_map(axes, some, wanted=wanted)
    assert list(tick_labels(axes)) == ["9", "2", "0"]
    assert "absent" not in axes.get_legend_handles_labels()[1]


def test_region_edge_is_between_cells_with_ticks_inwards(axes: Axes) -> None:
    inside = np.array([[True, True], [True, False]])
    edges = np.array([-0.5, 0.5, 1.5])
    axes.set_xlim(-0.5, 1.5)
    maps.region(axes, inside, np.ones((2, 2), bool), edges, edges, 0.1)
    line, ticks = (c for c in axes.collections if isinstance(c, LineCollection))
    assert sorted(np.asarray(s).tolist() for s in line.get_segments()) == [
        [[0.5, 0.5], [0.5, 1.5]],
        [[0.5, 0.5], [1.5, 0.5]],
    ]
    ends = np.array([segment[1] for segment in ticks.get_segments()])
    assert (ends.min(axis=1) < 0.5).all()  # towards the inside, never into the cell outside
    # Next to an absent cell there is no edge.
    axes.clear()
    maps.region(axes, inside[1:], inside[1:], edges, edges[:2], 0.1)
    assert not axes.collections
    assert axes.get_title(loc="right") == "train error ≤ 0.1"


def test_epoch_map_edge_is_at_the_first_interpolation(axes: Axes) -> None:
    some = errors(frozen=[0, 1], epoch=EPOCHS)
    train = xr.DataArray([[1, 0.2, 0.01, 0.2, 0.01, 0.2], [1.0] * 6], some.coords, some.dims)
    maps.epoch_map(axes, some, train_error=train, epsilon=0.1)
    line = next(c for c in axes.collections if isinstance(c, LineCollection))
    upright = [s for s in line.get_segments() if s[0][0] == s[1][0]]
    assert len(upright) == 1
    assert 1.0 < upright[0][0][0] < 2.0


def test_epoch_norm_ignores_untrained_networks() -> None:
    curve = np.array([0.9, 0.8, 0.3, 0.55, 0.7, 0.4])
    norm = maps.epoch_norm(xr.DataArray([curve], {"epoch": EPOCHS}, ["frozen", "epoch"]))
    assert (norm.vmin, norm.vmax) == (0.3, 0.7)


def test_epoch_curves_differ_by_marker_and_end_in_a_cross(axes: Axes) -> None:
    some = errors(frozen=FROZEN, epoch=EPOCHS)
    some[1, 3:] = np.nan
    some[2] = np.nan
    curves.epoch_curves(axes, some)
    handles, names = axes.get_legend_handles_labels()
    assert names == ["9", "2", "0"]
    assert len({handle.get_marker() for handle in handles}) == 3
    assert len({str(handle.get_linestyle()) for handle in handles}) > 1
    assert any(line.get_marker() == "x" for line in axes.lines)
    note = axes.get_title(loc="right")
    assert "diverged" in note and "absent: frozen 5" in note
    ticks = tick_labels(axes)
    assert axes.get_xlim()[0] < ticks["0"] < ticks["1"] == 1.0 and ticks["0"] > 0


def test_freezing_curves_have_a_gap_only_at_absent_cells(
    axes: Axes,
) -> None:
    some = errors(source_task=["near", "far"], frozen=FROZEN)
    some[:, 1] = np.nan
    wanted = xr.ones_like(some, dtype=bool)
    wanted[1, 1] = False
    curves.freezing_curves(axes, some, wanted=wanted)
    near, far = (
        line for line in axes.lines if line.get_linestyle() != "None" and len(line.get_xdata())
    )
    assert np.isnan(near.get_ydata()).tolist() == [False, True, False, False]
    assert np.asarray(far.get_xdata()).tolist() == [0, 5, 9]


def test_freezing_curves_fill_markers_of_interpolating_cells(axes: Axes) -> None:
    some = errors(source_task=["near"], frozen=FROZEN)
    train = xr.DataArray([[0.0, 0.0, 0.5, 0.5]], some.coords, some.dims)
    curves.freezing_curves(axes, some, train_error=train, epsilon=0.1)
    hollow = next(line for line in axes.lines if line.get_markerfacecolor() == "white")
    assert np.asarray(hollow.get_xdata()).tolist() == [5, 9]


def test_capacity_curves_shade_the_edge_of_interpolation(axes: Axes) -> None:
    both = errors(source=["near"], frozen=FROZEN, seed=SEEDS).assign_coords(OF_CUTS)
    train = xr.full_like(both, 0.0).rename("train_error")
    train.loc[{"frozen": [5, 9]}] = 0.5
    below = Figure().add_subplot()
    above, beneath = curves.capacity_curves(axes, below, both, train, by="source", epsilon=0.1)
    for panel in (axes, below):
        (edge,) = panel.patches
        assert (edge.get_x(), edge.get_x() + edge.get_width()) == (1_490, 38_090)
        assert panel.get_xscale() == "log" and panel.get_xlim()[0] < panel.get_xlim()[1]
        marks = {
            to_rgb(line.get_markerfacecolor()): np.asarray(line.get_xdata()).tolist()
            for line in panel.lines
            if line.get_linestyle() == "None"
        }
        assert marks == {
            to_rgb(style.OKABE_ITO[0]): [38_090, 44_622],
            to_rgb(style.PAPER): [330, 1_490],
        }
    assert below.get_xlabel().endswith("head only → nothing frozen")
    assert above["test error"].values[0] == pytest.approx(both.mean("seed").values[0, ::-1])
    assert list(beneath) == ["train error", "test error"]
    axes.clear()
    curves.capacity_curves(axes, None, both.drop_vars("parameters_trained"), train, by="source")
    assert axes.get_xlim()[0] > axes.get_xlim()[1]  # frozen layers fall


def test_paired_difference_subtracts_the_same_seed(axes: Axes) -> None:
    some = errors(source_task=["near", "far"], frozen=FROZEN, seed=SEEDS)
    some[1] = some[0].values + 0.1
    some[0, 2, 1] = np.nan
    curves.paired_difference(axes, some, "far", "near")
    (bars,) = axes.containers
    assert np.asarray(bars.lines[0].get_ydata()) == pytest.approx([0.1] * 4)
    assert "2–3 seeds" in axes.get_title(loc="right")
    assert "below 0: far better" in axes.get_title(loc="right")


def test_freezing_curves_axis_is_the_share_of_parameters(axes: Axes) -> None:
    some = errors(model=["a"], frozen=FROZEN)
    share = ("frozen", [1.0, 0.5, 0.1, 0.01])
    how = {"by": "model", "x": "share_trained"}
    curves.freezing_curves(axes, some.assign_coords(share_trained=share), **how)
    assert axes.get_xscale() == "log"
    with pytest.raises(ValueError, match="share_trained"):
        curves.freezing_curves(axes, some, **how)


@pytest.mark.parametrize("draw", ["epoch_curves", "freezing_curves", "epoch_map", "freezing_map"])
def test_draw_does_not_depend_on_length_1_dimensions(draw: str, axes: Axes) -> None:
    one = {"source_task": ["near"], "model": ["resnet18"], "frozen": FROZEN, "seed": SEEDS}
    if draw.startswith("epoch"):
        whole = errors(**one, size=[50], epoch=EPOCHS)
    else:
        whole = errors(**one, size=[50] if draw == "freezing_curves" else SIZES)
    of = maps if draw.endswith("map") else curves
    drawn = []
    for some in (whole, whole.squeeze(), whole.isel(model=0, drop=True)):
        axes.clear()
        getattr(of, draw)(axes, some)
        lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
        drawn.append([*lines, *(mesh.get_array().ravel() for mesh in meshes(axes))])
    for other in drawn[1:]:
        assert len(other) == len(drawn[0]) > 0
        assert all(
            np.array_equal(a, b, equal_nan=True) for a, b in zip(drawn[0], other, strict=True)
        )


LEFT_OVER = r"'label_noise' \(0.0, 0.2\) and 'size' \(50, 200, 800\)"


@pytest.mark.parametrize(
    ("draw", "select", "message"),
    [
        (maps.freezing_map, {}, "select first"),
        (curves.freezing_curves, {}, LEFT_OVER),
        (curves.freezing_curves, {"label_noise": 0}, r"'size' .* left over.*\.sel\(size=…\)"),
        (curves.epoch_curves, {}, "one of epoch, step is needed"),
        (
            curves.freezing_curves,
            {"label_noise": 0, "size": 0, "source_task": 0},
            "'source_task' is no dimension of this array: it has 'frozen'",
        ),
    ],
)
def test_draw_wrong_dimensions_raise(
    draw: Any, select: dict[str, int], message: str, axes: Axes
) -> None:
    some = errors(label_noise=[0.0, 0.2], size=SIZES, source_task=["near"], frozen=FROZEN)
    with pytest.raises(ValueError, match=message):
        draw(axes, some.isel(select, drop=True))


def test_freezing_curves_two_seeds_are_dots_without_a_band(axes: Axes) -> None:
    some = errors(source_task=["near"], frozen=FROZEN, seed=SEEDS)
    curves.freezing_curves(axes, some)
    assert len(axes.collections) == 1
    axes.clear()
    curves.freezing_curves(axes, some.isel(seed=[0, 1]))
    assert not axes.collections
    dots = [line for line in axes.lines if line.get_marker() == "."]
    assert len(dots) == 2


def test_draw_cuts_marks_the_row_of_each_cut(axes: Axes) -> None:
    cuts = {"source": ["near", "far"], "size": [50, 800], "frozen": [0, 3, 8.75, 9], "seed": SEEDS}
    some = xr.full_like(errors(**cuts), 0.4)
    some.loc[{"source": "near", "frozen": 3}] -= 0.2
    some.loc[{"source": "far", "size": 800}] = np.nan
    found = points.draw_cuts(axes, surfaces.best_cut(some))
    handles, labels = axes.get_legend_handles_labels()
    near, far = (handle.get_ydata() for handle in handles)
    assert labels == ["near", "far"]
    assert near.tolist() == [2, 2]  # few trained parameters at the bottom: 9, 8.75, 3, 0
    assert np.isnan(far[1]) and np.isfinite(far[0])
    small = [line.get_ydata().tolist() for line in axes.lines if line.get_markersize() == 2.6]
    assert small == [[2, 2], [0, 1, 2, 3]]  # all cuts of "far" may be the best at its one size
    # The large markers are returned.
    large = [
        pair for line in handles for pair in zip(line.get_xdata(), line.get_ydata(), strict=True)
    ]
    drawn = [(float(x), float(y)) for x, y in large if np.isfinite(y)]
    assert list(zip(found["x"], found["y"], strict=True)) == drawn
    assert found["text"][1] == "near, 800 training images\nbest: frozen layers 3"


@pytest.fixture(scope="module")
def grid() -> tuple[xr.DataArray, xr.DataArray]:
    both = [
        errors(source_size=[100, 1000], size=SIZES, frozen=FROZEN, epoch=EPOCHS, seed=SEEDS)
        for _ in range(2)
    ]
    return both[0], both[1].rename("train_error")


def test_panel_grid_draws_and_returns_its_values(
    grid: tuple[xr.DataArray, xr.DataArray],
) -> None:
    figure, panels = figures.panel_grid(*grid, title="near → target")
    assert [panel.axes for panel in panels] == figure.axes and len(panels) == 12
    assert panels[0].axes.get_title(loc="left") == "50 training images"
    assert len({round(panel.axes.get_position().y0, 6) for panel in panels}) == 4
    assert "source: 1,000 images" in [text.get_text() for text in figure.texts]
    select = {"source_size": 1000, "size": 200}
    upper, lower = (panel for panel in panels if panel.select == select)
    for panel, (own, other) in ((upper, grid), (lower, grid[::-1])):
        for name, array in zip(panel.values, (own, other), strict=True):
            expected = array.sel(select).mean("seed").transpose("frozen", "epoch")[::-1]
            assert panel.values[name].values == pytest.approx(expected.values)
        drawn = [line for line in panel.axes.lines if len(line.get_xdata()) == len(EPOCHS) - 1]
        for line, curve in zip(drawn, panel.values[next(iter(panel.values))], strict=True):
            assert np.array_equal(line.get_ydata(), curve.values[1:])
            assert np.array_equal(line.get_xdata(), panel.values["at"].values[1:])


def test_layout_at_drops_epochs_without_values(
    grid: tuple[xr.DataArray, xr.DataArray],
) -> None:
    test = grid[0].copy()
    test.loc[{"size": 50, "epoch": [2.0, 8.0]}] = np.nan
    assert layout.at(test, {"size": 50})["epoch"].values.tolist() == [0, 1, 4, 16]
    assert layout.at(test, {"size": 200}).sizes["epoch"] == 6


def texts_of(figure: Figure) -> list[tuple[str, Bbox]]:
    """Return each visible text of a figure and its box in pixels."""
    figure.canvas.draw()
    view = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    unseen = set()  # ticks beyond the ends of an axis
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:
                    unseen |= {tick.label1, tick.label2}
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text not in unseen]
    boxes = [(text.get_text(), text.get_window_extent(view)) for text in texts if text.get_text()]
    return [(text, box) for text, box in boxes if box.width > 0]


LONG: list[Any] = ["tiny-imagenet-near", "tiny-imagenet-far"]


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
@pytest.mark.parametrize("sizes", [[50], pytest.param([50, 200, 800], marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", ["curves", "epochs", "freezing", "grid", "difference", "capacity", "cuts"]
)
def test_figure_texts_do_not_overlap_or_leave_it(
    kind: str, sizes: list[int], seeds: list[int]
) -> None:
    over: dict[str, Any] = {"source_size": [500, 5_000], "size": sizes, "frozen": FROZEN}
    every = errors(source=LONG, **over, seed=seeds, epoch=EPOCHS).assign_coords(OF_CUTS)
    every.loc[{"frozen": 5, "seed": 0, "epoch": EPOCHS[3:]}] = np.nan  # a seed that diverged
    every.loc[{"frozen": 9, "size": 50}] = np.nan  # an absent cell
    near, end = every.isel(source=0, drop=True), every.isel(epoch=-1, drop=True)
    cells = near.isel(seed=0, epoch=0, drop=True)
    ends = end.isel(seed=0, drop=True)
    title = f"{LONG[1]} → {LONG[0]}: a long title that is wrapped"
    named: dict[str, Any] = {"title": title}
    marked: dict[str, Any] = {"epsilon": 0.5, **named}
    figure, _ = {
        "curves": lambda: figures.panel_grid(near, near, **named),
        "epochs": lambda: figures.epoch_maps(
            near,
            near,
            ridge=xr.full_like(cells, 4.0),
            ridge_shown=xr.ones_like(cells, bool) & (cells["frozen"] > 0),
            diverged=xr.ones_like(cells, bool),
            **marked,
        ),
        "freezing": lambda: figures.freezing_maps(
            end,
            end,
            ridge=xr.full_like(ends.isel(frozen=0, drop=True), 2.0),
            ridge_shown=xr.ones_like(ends.isel(frozen=0, drop=True), bool) & (ends["size"] > 50),
            diverged=xr.ones_like(ends, bool),
            **marked,
        ),
        "grid": lambda: figures.freezing_grid(end, end, x="parameters_trained", **named),
        "difference": lambda: figures.difference_grid(end, *LONG, **named),
        "cuts": lambda: points.cut_grid(surfaces.best_cut(end), **named),
        "capacity": lambda: figures.capacity_grid(
            end.isel(source_size=0), end.isel(source_size=0), columns="size", by="source", **marked
        ),
    }[kind]()
    texts = texts_of(figure)
    frame = figure.bbox
    for i, (text, box) in enumerate(texts):
        assert box.x0 >= -1 and box.x1 <= frame.x1 + 1, (text, box, frame)
        assert box.y0 >= -1 and box.y1 <= frame.y1 + 1, (text, box, frame)
        for other, there in texts[:i]:
            apart = not box.padded(-1).overlaps(there.padded(-1))
            assert apart, (text, other)


@pytest.mark.slow
def test_report_does_not_import_pyplot() -> None:
    code = "import sys, analysis.report; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
