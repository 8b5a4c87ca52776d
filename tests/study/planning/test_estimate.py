"""The cost of several Runs, and the measured speed of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import torch

from study.planning import estimate
from study.planning.cost import cost_of, layer_costs, work_of
from study.planning.durations import ASSUMED_SHARE, PEAK_RATES, TYPICAL, Measured, Pace
from study.planning.estimate import SECONDS_TO_START, Price
from study.run import Run
from study.training.cuda_graphs import NUM_WARM
from tests.made_up import INFO, run


def priced(monkeypatch: pytest.MonkeyPatch, *runs: Run) -> Price:
    """Return the price on a machine with two typical cores and no GPU."""
    monkeypatch.setattr(estimate, "measured_pace", lambda *_: Pace(TYPICAL))
    monkeypatch.setattr(estimate, "num_cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return estimate.price(runs, {"made up": INFO})


def test_price_is_the_sum_over_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = [replace(run(), seed=seed) for seed in range(4)]
    asked = priced(monkeypatch, *runs)
    assert asked.machine == "2 cores"
    assert asked.flops == sum(cost_of(each, INFO).flops for each in runs)
    assert asked.largest == cost_of(runs[0], INFO).memory
    assert asked.wall_seconds == pytest.approx(SECONDS_TO_START + asked.one_seconds / 2)
    alone = priced(monkeypatch, runs[0])
    assert alone.wall_seconds == pytest.approx(SECONDS_TO_START + asked.one_seconds / 4)
    nothing = priced(monkeypatch)
    assert (nothing.wall_seconds, nothing.one_seconds, nothing.largest) == (0, 0, None)


def test_price_counts_features_of_a_start_and_cut_once(monkeypatch: pytest.MonkeyPatch) -> None:
    start = run()
    cells = [
        replace(run(frozen=5), start=start, size=size, label_noise=noise)
        for size in (250, 500)
        for noise in (0, 0.2)
    ]
    first = cost_of(cells[2], INFO)
    assert 0 < first.pass_flops < first.flops
    asked = priced(monkeypatch, *cells)
    each = [cost_of(cell, INFO) for cell in cells]
    assert asked.flops == sum(one.flops for one in each)
    assert (
        asked.shared_flops == asked.flops - sum(one.pass_flops for one in each) + first.pass_flops
    )
    assert asked.features_bytes == first.pass_bytes == 700 * 4 * 16 * 16 * 16
    both = [priced(monkeypatch, *those).one_seconds for those in (cells[:1], cells[:2])]
    alone = priced(monkeypatch, cells[1]).one_seconds
    assert both[1] < both[0] + alone, "the second does not pay for the pass"
    others = [
        replace(cells[2], seed=1),
        replace(cells[2], frozen=6),
        replace(cells[2], start=replace(start, seed=1)),
        replace(cells[2], start=None),
    ]
    for other in others:
        pair = priced(monkeypatch, cells[2], other)
        assert pair.shared_flops == pair.flops, other
    moving = replace(run(frozen=5).recipe, frozen_batchnorm="training")
    assert cost_of(replace(cells[0], recipe=moving), INFO).pass_flops == 0


def test_price_on_gpus_depends_on_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    low = run(precision="bfloat16", num_epochs=5)
    asked = priced(monkeypatch, run(), low)
    for kind, peaks in PEAK_RATES.items():
        hours = [
            cost_of(each, INFO).flops / (ASSUMED_SHARE * peaks[each.recipe.precision])
            for each in (run(), low)
        ]
        assert asked.elsewhere[kind] == pytest.approx(sum(hours))


def test_measured_pace_uses_the_recipes_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "SECONDS_EACH", 0.0)
    dtypes = []
    low = run(width=2, frozen=5, precision="bfloat16")
    works = {low.id: work_of(low, INFO, shares_features=True)}
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, _, values: dtypes.append(values.dtype)
    )
    with hook:
        pace = estimate.measured_pace([low], works, {"made up": INFO}, "cpu")
    assert pace.num_measured == 3, "a pass of the frozen layers, a step, an evaluation"
    assert dtypes[-1] == torch.bfloat16
    assert len(dtypes) > 2 * len(layer_costs("resnet18", 2, 5, INFO.image_shape))


def test_price_of_a_network_larger_than_the_machine_builds_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=2**20))
    monkeypatch.setattr(estimate, "build", lambda *_: pytest.fail("a network was built"))
    found = estimate.price([run()], {"made up": INFO})
    assert (found.num_unmeasured, found.machine_bytes) == (1, 2**20)


def test_measured_pace_on_a_gpu_times_replays_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "SECONDS_EACH", 0.0)
    computed: list[bool] = []  # for each step: is it timed?
    replayed: list[bool] = []
    timing = False
    seconds = estimate._seconds

    def timed(action: Callable[[], object], device: str) -> float:
        nonlocal timing
        timing = True
        try:
            return seconds(action, device)
        finally:
            timing = False

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        return lambda: replayed.append(timing)

    monkeypatch.setattr(estimate, "_seconds", timed)
    monkeypatch.setattr(estimate, "capture_on", lambda *_, **__: capture)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda _: computed.append(timing))
    each = run(width=2, frozen=5)
    works = {each.id: work_of(each, INFO, shares_features=False)}
    estimate.measured_pace([each], works, {"made up": INFO}, "cpu")
    assert computed == [False] * NUM_WARM
    assert replayed.count(True) >= 2


def test_pace_follows_measurements() -> None:
    work = work_of(run(), INFO, shares_features=True)
    pace = Pace(TYPICAL, [Measured(work.network, work.cut, work.whole(), 1234.0)])
    assert pace.seconds(work.network, work.cut, work.whole()) == pytest.approx(1234, rel=0.03)
    half = pace.seconds(work.network, work.cut, work.until(25))
    assert 0.4 * 1234 < half < 0.6 * 1234
    other = work_of(run("vit_tiny", 12), INFO, shares_features=True)
    slow = pace.seconds(other.network, other.cut, other.whole())
    typical = Pace(TYPICAL).seconds(other.network, other.cut, other.whole())
    scale = 1234 / Pace(TYPICAL).seconds(work.network, work.cut, work.whole())
    assert slow == pytest.approx(scale * typical, rel=0.3), "as much slower here as the first is"


def test_num_cores_is_at_least_one() -> None:
    assert 1 <= estimate.num_cores() <= (os.cpu_count() or 1)
