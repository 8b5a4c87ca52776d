"""The picture of the best cut shows the set where it is, and nothing where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from analysis import surfaces
from analysis.plots import points
from tests.analysis.plots.test_plots import texts_of

FROZEN = [0, 3, 8.75, 9]


def best(seeds: int = 3) -> xr.Dataset:
    """Of "near" 3 is best at every size, of "far" nothing is measured at size 800."""
    dims = {"source": ["near", "far"], "source_size": [500, 5_000], "size": [50, 800]}
    dims |= {"frozen": FROZEN, "seed": list(range(seeds))}
    random = np.random.default_rng(0)
    shape = tuple(len(values) for values in dims.values())
    errors = xr.DataArray(0.4 + 1e-3 * random.random(shape), dims, list(dims), name="test_error")
    errors.loc[{"source": "near", "frozen": 3}] -= 0.2
    errors.loc[{"source": "far", "size": 800}] = np.nan
    return surfaces.best_cut(errors)


def test_marks_stand_in_the_row_of_their_cut() -> None:
    axes = Figure().add_subplot()
    points.draw_cuts(axes, best().isel(source_size=0))
    handles, labels = axes.get_legend_handles_labels()
    near, far = (handle.get_ydata() for handle in handles)
    assert labels == ["near", "far"]
    assert near.tolist() == [2, 2]  # few trained parameters at the bottom: 9, 8.75, 3, 0
    assert np.isnan(far[1]) and np.isfinite(far[0])
    small = [line.get_ydata().tolist() for line in axes.lines if line.get_markersize() == 2.6]
    assert small == [[2, 2], [0, 1, 2, 3]]  # of "far" nothing is told apart, at the one size it has


def test_draw_cuts_returns_the_large_markers() -> None:
    axes = Figure().add_subplot()
    found = points.draw_cuts(axes, best().isel(source_size=0))
    drawn = [
        (float(x), float(y))
        for line in axes.get_legend_handles_labels()[0]
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if np.isfinite(y)
    ]
    assert list(zip(found["x"], found["y"], strict=True)) == drawn
    assert found["text"][1] == "near, 800 training images\nbest: frozen layers 3"


@pytest.mark.parametrize("seeds", [1, 3])
def test_no_text_lies_on_another_or_leaves_the_figure(seeds: int) -> None:
    title = "tiny-imagenet-far → birds: a long title that is wrapped"
    figure, _ = points.cut_grid(best(seeds), title=title)
    texts = texts_of(figure)
    for i, (text, box) in enumerate(texts):
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, text
        for other, there in texts[:i]:
            assert not box.padded(-1).overlaps(there.padded(-1)), (text, other)
