"""Peaks to mark on a picture: where `descent` finds one along the epochs or along the freezing.

Owns the search cell by cell; what counts as a peak, and whether it is shown, is `descent`'s to say.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr

from analysis import descent
from analysis.descent.curves import epoch_windows
from analysis.descent.edges import EVERYTHING, NOTHING

# Test and train error, (seeds, points), to the verdict and the place of the peak; None if the points
# make no curve.
Judge = Callable[[np.ndarray, np.ndarray], tuple[descent.Judgement, float] | None]


def epoch_peaks(errors: xr.Dataset, epsilon: float) -> xr.Dataset:
    """Peaks along the epochs: `at` (an epoch, NaN where there is none), `shown` and `could`, over GRID.

    A peak is shown where `descent` finds double descent over the seeds, and otherwise taken at face
    value from their mean. It lies at the epoch whose mean is the highest of the window that `descent`
    names: the window's centre may lie beside the peak that a picture shows. `could`: a peak could be
    seen, since the curve crosses the edge of interpolation (or no train error tells that).
    """

    def judge(test: np.ndarray, train: np.ndarray) -> tuple[descent.Judgement, float] | None:
        known = np.isfinite(test).any(axis=0)
        epochs, test = errors["epoch"].values[known], test[:, known]
        if epochs[-1] <= 0:
            return None  # every seed diverged before its second row: there is no curve
        found = descent.judge_epochs(epochs, test, train_errors=train[:, known], epsilon=epsilon)
        windows = epoch_windows(epochs)
        which = int(np.abs(windows.centres - found.peak).argmin())
        inside = (epochs >= windows.lows[which]) & (epochs <= windows.highs[which])
        return found, float(epochs[inside][test.mean(axis=0)[inside].argmax()])

    return _peaks(errors, "epoch", judge)


def freezing_peaks(errors: xr.Dataset, epsilon: float) -> xr.Dataset:
    """Peaks along the freezing: `at` (a frozen count), `shown` and `could`, over all dims but frozen and
    seed."""
    trained = errors["parameters_trained"].values

    def judge(test: np.ndarray, train: np.ndarray) -> tuple[descent.Judgement, float]:
        known = np.isfinite(test).any(axis=0) & np.isfinite(trained)
        found = descent.judge_freezing(
            trained[known], test[:, known], train_errors=train[:, known], epsilon=epsilon
        )
        return found, found.peak

    # Where a table does not tell how many parameters are trained, nothing tells the order of capacity.
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
        # A seed that ended early has no curve to be judged; points that no seed has are no gap.
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
