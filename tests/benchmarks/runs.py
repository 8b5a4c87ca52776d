"""`runs`: what a Run costs beside its training, inline and through Ray; and what the driver takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from study import tasks
from study.store import open_store
from tests.benchmarks.table import Line
from tests.processes import Watched, environment

MOST_MS: Final = {"nothing": 30.0, "source": 40.0}
MOST_RAY_MS: Final = 60.0
MOST_DRIVER_GIB: Final = 1.2
MOST_DRIVER_MS: Final = 15.0
NUM_SLOTS: Final = 2


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One launch of `num` Runs, as it was seen from outside; seconds.

    `said`: what its process prints; `workers`: CPU of each worker; `driver_cpu`, `driver_bytes`: of the
    process itself.
    """

    num: int
    said: dict[str, Any]
    workers: tuple[float, ...]
    driver_cpu: float
    driver_bytes: int


def runs(*, quick: bool, folder: Path) -> Iterator[Line]:
    """Studies of tiny Runs, 200 and 3,000 of them (--quick: 40 and 200), a process each."""
    few, many = (40, 200) if quick else (200, 3_000)
    bare = 0.0
    for kind in ("source", "nothing"):
        inline = [
            _launch(folder, "inline", kind, few, number) for number in range(1 if quick else 3)
        ]
        yield from inline_lines(kind, inline)
        bare = median(each.said["bare_cpu"] for each in inline)
    if not quick:
        yield from inline_lines("nothing", [_launch(folder, "inline", "nothing", many, 9)])
    if not Path("/proc/self/maps").exists():
        yield Line(group="runs", case="through Ray", missing="workers are told apart by /proc")
        return
    launches = [_launch(folder, "ray", "nothing", num, num) for num in (few, many)]
    yield from ray_lines(*launches, bare=bare)


def inline_lines(kind: str, launches: list[Launch]) -> Iterator[Line]:
    num = launches[0].num
    each = [1000 * (one.said["cpu"] / one.num - one.said["bare_cpu"]) for one in launches]
    walls = [1000 * (one.said["wall"] / one.num - one.said["bare_wall"]) for one in launches]
    case = f"inline, {num:,} Runs from {'nothing' if kind == 'nothing' else 'a source'}: beside training"
    yield Line(
        group="runs", case=case, unit="ms of CPU a Run", ours=median(each), at_most=MOST_MS[kind]
    )
    yield Line(group="runs", case=case, unit="ms a Run by the clock", ours=median(walls))


def ray_lines(few: Launch, many: Launch, *, bare: float) -> Iterator[Line]:
    """`few` has what a launch takes whatever its Runs: what is between the two is the Runs'.

    `bare`: seconds of CPU of a Run's training alone.
    """
    num = many.num - few.num
    wall = 1000 * NUM_SLOTS * (many.said["wall"] - few.said["wall"]) / num
    cpu = 1000 * ((sum(many.workers) - sum(few.workers)) / num - bare)
    case = f"through Ray, from {few.num:,} to {many.num:,} Runs on {NUM_SLOTS} workers"
    yield Line(
        group="runs", case=f"{case}: all of a Run", unit="ms by the clock and worker", ours=wall
    )
    yield Line(
        group="runs",
        case=f"{case}: beside training",
        unit="ms of a worker's CPU",
        ours=cpu,
        at_most=MOST_RAY_MS,
    )
    yield Line(
        group="runs",
        case=f"{case}: the driver",
        unit="ms of CPU a Run",
        ours=1000 * (many.driver_cpu - few.driver_cpu) / num,
        at_most=MOST_DRIVER_MS,
    )
    for launch in (few, many):
        case = f"through Ray, {launch.num:,} Runs"
        yield Line(
            group="runs", case=f"{case}: all", unit="s by the clock", ours=launch.said["wall"]
        )
        yield Line(
            group="runs",
            case=f"{case}: workers started",
            unit="",
            ours=float(len(launch.workers)),
            at_most=float(min(NUM_SLOTS, os.cpu_count() or 1)),
        )
        yield Line(
            group="runs",
            case=f"{case}: the driver's peak",
            unit="GiB",
            ours=launch.driver_bytes / 2**30,
            at_most=MOST_DRIVER_GIB,
        )


def _launch(folder: Path, how: str, kind: str, num: int, number: int) -> Launch:
    root = folder / f"{how}-{kind}-{number}"
    for name in ("digits-low", "digits-high"):
        tasks.prepare(tasks.BUILTIN[name], open_store(root), None, progress=False)
    command = [sys.executable, "-m", "tests.benchmarks.one_study"]
    process = subprocess.Popen(
        [*command, str(root), how, kind, str(num), str(1000 * number)],
        env=environment(STUDY_FEATURES=str(folder / "features")),
        stdout=subprocess.PIPE,
        text=True,
    )
    with Watched(process.pid) as watched:
        out, _ = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{how}, {kind}, {num} Runs: exit status {process.returncode}")
    said = json.loads(out.splitlines()[-1])
    return Launch(
        num=said["num"],
        said=said,
        workers=tuple(watched.workers.values()),
        driver_cpu=watched.own_cpu_seconds,
        driver_bytes=watched.own_peak_bytes,
    )
