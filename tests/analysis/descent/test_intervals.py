"""Intervals over few seeds are Student's t; with one seed they are unknown."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.descent.intervals import mean_interval, mean_intervals, standard_errors


def test_intervals_are_students_t() -> None:
    values = np.array([[0.1, 0.4, 0.3], [0.2, np.nan, 0.3], [0.4, 0.5, 0.3]])
    mean, half = mean_intervals(values, 0.9)
    for column in range(3):
        seeds = values[np.isfinite(values[:, column]), column]
        low, high = stats.t.interval(
            0.9, len(seeds) - 1, seeds.mean(), max(stats.sem(seeds), 1e-300)
        )
        assert mean[column] == pytest.approx(seeds.mean())
        assert half[column] == pytest.approx((high - low) / 2, abs=1e-12)
        one = mean_interval(seeds, level=0.9)
        assert (one.low, one.high) == pytest.approx((low, high))


def test_intervals_one_seed_is_unknown() -> None:
    mean, half = mean_intervals(np.array([[0.1, np.nan]]), 0.95)
    assert mean[0] == 0.1 and np.isnan(half).all() and np.isnan(mean[1])
    assert (mean_interval([0.3]).low, mean_interval([0.3]).high) == (-np.inf, np.inf)


def test_mean_interval_equal_values_keep_the_error_of_the_grid() -> None:
    assert mean_interval([2.0, 2.0, 2.0]).high == 2.0
    floor = mean_interval([2.0, 2.0, 2.0], resolution=1.0)
    assert floor.high == pytest.approx(2 + stats.t.ppf(0.975, 2) / np.sqrt(36))


def test_standard_errors_equal_those_of_the_intervals() -> None:
    values = np.random.default_rng(0).normal(size=(4, 3))
    values[:, 2] = 0.1
    errors = standard_errors(values, resolution=0.01)
    for column in range(3):
        one = mean_interval(values[:, column], resolution=0.01)
        assert errors[column] == one.standard_error > 0
    assert np.isinf(standard_errors(values[:1])).all()
