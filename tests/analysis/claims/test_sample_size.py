"""The number of seeds that a claim needs, compared with the t test's power and with simulations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import load
from analysis.claims import claims, primary_answers
from analysis.claims.sample_size import (
    POWER,
    SURE,
    needs,
    needs_text,
    power,
    seeds_needed,
    upper_limit,
)
from analysis.descent.intervals import mean_interval
from tests import synthetic


def test_power_equals_published_values() -> None:
    # Two-sided 5 %, one sample: n = 10 at one standard deviation has 80.3 % (Cohen 1988).
    assert power(10, 1.0, 1.0, searched=False) == pytest.approx(0.803, abs=0.003)
    assert seeds_needed(1.0, 1.0, searched=False) == 10
    assert seeds_needed(0.5, 1.0, searched=False) == 34
    assert (seeds_needed(0.5, 1.0, searched=True) or 0) > 34  # a search costs seeds


def test_power_equals_the_share_of_intervals_above_zero() -> None:
    draws = np.random.default_rng(0).normal(0.05, 0.03, (4_000, 5))
    cleared = np.mean([mean_interval(row).low > 0 for row in draws])
    assert cleared == pytest.approx(power(5, 0.05, 0.03, searched=False), abs=0.025)


@given(st.floats(0.05, 5), st.floats(0.01, 5), st.booleans())
def test_seeds_needed_is_the_smallest_number(effect: float, spread: float, searched: bool) -> None:
    num = seeds_needed(effect, spread, searched=searched)
    if num is None:
        assert power(1_000, effect, spread, searched=searched) < POWER
        return
    assert power(num, effect, spread, searched=searched) >= POWER
    assert num == 2 or power(num - 1, effect, spread, searched=searched) < POWER


def test_seeds_needed_without_spread_is_two() -> None:
    assert seeds_needed(0.05, 0.0, searched=False) == 2
    assert needs_text([]) == ""
    with pytest.raises(ValueError, match="num_seeds=1"):
        power(1, 0.05, 0.02, searched=False)


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 10])
def test_upper_limit_has_its_level(num_seeds: int) -> None:
    draws = np.random.default_rng(1).normal(0, 1, (20_000, num_seeds))
    limits = [upper_limit(spread, num_seeds) for spread in draws.std(axis=1, ddof=1)]
    assert np.mean(np.array(limits) >= 1) == pytest.approx(SURE, abs=0.015)


@pytest.mark.parametrize("related", [{}, {"more_related": "near", "less_related": "far"}])
def test_needs_of_primary_answers_are_those_of_the_verdicts(
    related: dict[str, str], tmp_path: Path
) -> None:
    axes = {"sizes": (250, 1_000, 4_000), "source_sizes": (500, 5_000), "seeds": range(3)}
    wanted = synthetic.small(num_epochs=60, controls=True, **axes)
    synthetic.write(tmp_path, wanted, absent=wanted[-3:], diverged=wanted[-5:-3])
    pilot = load.open_study(tmp_path, partial=True)
    found = needs(primary_answers(pilot, **related))
    assert found == needs(claims(pilot, **related))
    assert sum(one.seeds is not None for one in found) >= 5
    with pytest.raises(ValueError, match="more_related='nowhere'"):
        primary_answers(pilot, more_related="nowhere")
