"""The cost of several Runs, and the measured speed of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from study import user_cache
from study.planning import estimate
from study.planning.cost import cost_of, work_of
from study.planning.durations import ASSUMED_SHARE, CPU, PEAK_RATES, Pace
from study.planning.estimate import Price
from tests.made_up import INFO, run

Priced = Callable[..., Price]


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Priced:
    """Return the price of Runs on a machine with two cores, no GPU and nothing measured."""
    monkeypatch.setenv(user_cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(estimate, "num_cores", lambda: 2)
    monkeypatch.setattr(estimate, "gpus", lambda: ())
    return lambda *runs: estimate.price(runs, {"made up": INFO})


def test_price_is_the_sum_over_the_cores(priced: Priced) -> None:
    runs = [replace(run(), seed=seed) for seed in range(4)]
    asked = priced(*runs)
    assert asked.machine == "2 cores"
    assert asked.flops == sum(cost_of(each, INFO).flops for each in runs)
    assert asked.largest == cost_of(runs[0], INFO).memory
    assert asked.wall_seconds == pytest.approx(asked.one_seconds / 2)
    assert priced(runs[0]).wall_seconds == pytest.approx(asked.one_seconds / 4)
    nothing = priced()
    assert (nothing.wall_seconds, nothing.one_seconds, nothing.largest) == (0, 0, None)


def test_price_counts_features_of_a_start_and_cut_once(priced: Priced) -> None:
    start = run()
    cells = [
        replace(run(frozen=5), start=start, size=size, label_noise=noise)
        for size in (250, 500)
        for noise in (0, 0.2)
    ]
    first = cost_of(cells[2], INFO)
    assert 0 < first.pass_flops < first.flops
    asked = priced(*cells)
    each = [cost_of(cell, INFO) for cell in cells]
    assert asked.flops == sum(one.flops for one in each)
    assert (
        asked.shared_flops == asked.flops - sum(one.pass_flops for one in each) + first.pass_flops
    )
    assert asked.features_bytes == first.pass_bytes == 700 * 4 * 16 * 16 * 16
    both = [priced(*those).one_seconds for those in (cells[:1], cells[:2])]
    alone = priced(cells[1]).one_seconds
    assert both[1] < both[0] + alone, "the second does not pay for the pass"
    others = [
        replace(cells[2], seed=1),
        replace(cells[2], frozen=6),
        replace(cells[2], start=replace(start, seed=1)),
        replace(cells[2], start=None),
    ]
    for other in others:
        pair = priced(cells[2], other)
        assert pair.shared_flops == pair.flops, other
    moving = replace(run(frozen=5).recipe, frozen_batchnorm="training")
    assert cost_of(replace(cells[0], recipe=moving), INFO).pass_flops == 0


def test_price_on_gpus_depends_on_the_precision(priced: Priced) -> None:
    wide = {"model": "resnet18", "width": 1024}
    exact, low = (priced(run(**wide, precision=each)) for each in ("float32", "bfloat16"))
    for kind, peaks in PEAK_RATES.items():
        seconds = exact.flops / (ASSUMED_SHARE * peaks["float32"])
        assert 1 < exact.elsewhere[kind] / seconds < 1.2, "operations take most of the time"
        assert low.elsewhere[kind] < exact.elsewhere[kind] / 2
    assert len({round(seconds, 1) for seconds in priced(run(width=1)).elsewhere.values()}) == 1


def test_price_counts_runs_that_are_larger_than_the_machine(
    priced: Priced, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert priced(run()).num_too_large == 0
    monkeypatch.setattr(estimate, "machine_bytes", lambda: 2**20)
    found = priced(run())
    assert (found.num_too_large, found.device_bytes) == (1, 2**20)


def test_price_uses_the_kept_speed_of_this_machine(priced: Priced) -> None:
    runs = run(), run("vit_tiny", 12)
    assumed = [priced(each) for each in runs]
    work = work_of(runs[0], INFO, CPU, shares_features=True)
    estimate.keep(CPU, {(work.network, work.cut): (1.0, 3.0)}, base_bytes=7)
    found, other = (priced(each) for each in runs)
    assert found.one_seconds == pytest.approx(3 * assumed[0].one_seconds)
    assert (found.num_measured, found.num_networks, found.base_bytes) == (1, 1, 7)
    assert other.one_seconds == pytest.approx(3 * assumed[1].one_seconds), "the same machine"
    assert other.num_measured == 0
    estimate.keep(CPU, {(work.network, work.cut): (1.0, 2.0), ("another", "0"): (1.0, 9.0)})
    again = priced(*runs)
    assert (again.num_measured, again.num_networks, again.base_bytes) == (1, 2, 7)
    assert priced(runs[0]).one_seconds == pytest.approx(2 * assumed[0].one_seconds)


def test_pace_prefers_what_this_launch_measures() -> None:
    works = [
        work_of(run(model, width, frozen), INFO, CPU, shares_features=True)
        for model, width, frozen in (
            ("resnet18", 8, 0),
            ("resnet18", 8, 9),
            ("resnet18", 4, 0),
        )
    ]
    first, cut, _ = works
    pace = Pace(
        {(each.network, each.cut): (1.0, factor) for each, factor in ((first, 2.0), (cut, 6.0))}
    )
    assert [pace.seconds(each, 1.0) for each in works] == [2, 6, 4]
    pace.measured(first, 10.0, 100.0)
    assert [pace.seconds(each, 1.0) for each in works] == pytest.approx([10, 30, 20])
    copy = pace.copy()
    copy.measured(cut, 1.0, 1.0)
    assert copy.seconds(cut, 1.0) == 1
    assert pace.seconds(cut, 1.0) == pytest.approx(30)


def test_num_cores_is_at_least_one() -> None:
    assert 1 <= estimate.num_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("version", "library", "prefix"),
    [("2.9.0+cu128", "libcuda.so.1", "cu"), ("2.9.0+rocm6.4", "libamdhip64.so", "hip")],
)
def test_gpus_of_both_makers_are_found(
    version: str, library: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Driver:
        """Stand-in for the driver's library on a machine with two GPUs."""

        def __init__(self, name: str) -> None:
            assert name == library

        def __getattr__(self, function: str) -> Callable[..., int]:
            assert function.startswith(prefix)
            return getattr(self, "_" + function.removeprefix(prefix).removesuffix("_v2"))

        def _Init(self, flags: int) -> int:  # noqa: N802 (the driver's names)
            return flags

        def _DeviceGetCount(self, number: Any) -> int:  # noqa: N802
            number._obj.value = 2
            return 0

        _GetDeviceCount = _DeviceGetCount

        def _DeviceGetName(self, name: Any, size: int, index: int) -> int:  # noqa: N802
            name.value = f"GPU {index}".encode()[:size]
            return 0

        def _DeviceTotalMem(self, size: Any, index: int) -> int:  # noqa: N802
            size._obj.value = (index + 1) * 2**30
            return 0

    monkeypatch.setattr(estimate, "packages", lambda: {"torch": version})
    monkeypatch.setattr(estimate.ctypes, "CDLL", Driver)
    assert estimate.gpus.__wrapped__() == (("GPU 0", 2**30), ("GPU 1", 2**31))
