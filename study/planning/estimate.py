"""Estimate the total cost of Runs on this machine, and store this machine's measured pace.

Needs torch only for networks that `cost` has to count.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from study import user_cache
from study.planning.cost import Cost, Memory, cost_of, features_key, work_of
from study.planning.durations import CPU, GPU, Pace, Speeds, Work, assumed_speeds, makespan
from study.run import Run
from study.store.provenance import now, packages
from study.tasks import TaskInfo
from study.training.feature_cache import WORTH_SECONDS_PER_GIB

# Ray starts, then its workers, which load torch.
SECONDS_TO_START: Final = 20.0

# Memory of a process with Python, torch and the other libraries, before a Run.
ASSUMED_BASE_BYTES: Final = 800 * 2**20


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Measurements of earlier launches and of `study check` on devices like this machine's.

    `sums`: (assumed, measured) seconds by network and cut; `base_bytes`: memory of a process before a
    Run; `at`: time of the last measurement.
    """

    sums: Mapping[tuple[str, str], tuple[float, float]]
    base_bytes: int | None
    at: str


NOTHING_KEPT: Final = Kept(sums={}, base_bytes=None, at="")


def speeds_of(*, on_gpus: bool) -> Speeds:
    return GPU if on_gpus else CPU


def kept(speeds: Speeds) -> Kept:
    """Return the stored measurements of this machine's device with these assumed speeds."""
    found = user_cache.read(_key(speeds))
    if found is None:
        return NOTHING_KEPT
    return Kept(
        sums={(network, cut): (a, s) for network, cut, a, s in found["sums"]},
        base_bytes=found["base_bytes"],
        at=found["at"],
    )


def keep(
    speeds: Speeds,
    sums: Mapping[tuple[str, str], tuple[float, float]],
    base_bytes: int | None = None,
) -> None:
    """Store measurements of this machine; they replace those of the same networks and cuts."""
    before = kept(speeds)
    value = {
        "at": now(),
        "base_bytes": base_bytes or before.base_bytes,
        "sums": [[*key, *value] for key, value in {**before.sums, **sums}.items()],
    }
    user_cache.write(_key(speeds), value)


def _key(speeds: Speeds) -> list[object]:
    return ["pace", gpus()[0][0] if speeds == GPU and gpus() else _cpu_name(), speeds]


@cache
def _cpu_name() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


_NVIDIA: Final = (
    "libcuda.so.1",
    ("cuInit", "cuDeviceGetCount", "cuDeviceGetName", "cuDeviceTotalMem_v2"),
)
_AMD: Final = (
    "libamdhip64.so",
    ("hipInit", "hipGetDeviceCount", "hipDeviceGetName", "hipDeviceTotalMem"),
)


@cache
def gpus() -> tuple[tuple[str, int], ...]:
    """Return (name, bytes of memory) of each GPU that torch can use here, without loading torch."""
    version = packages().get("torch", "")
    if version.endswith("+cpu"):
        return ()
    library, functions = _NVIDIA
    if "+rocm" in version:
        library, functions = _AMD  # functions with the same arguments
        inside = importlib.metadata.distribution("torch").locate_file(f"torch/lib/{library}")
        library = str(inside) if Path(str(inside)).exists() else library
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return ()  # no driver: no GPU
    start, count, name_of, bytes_of = (getattr(driver, function) for function in functions)
    number = ctypes.c_int()
    if start(0) or count(ctypes.byref(number)):
        return ()
    found = []
    for index in range(number.value):
        name, size = ctypes.create_string_buffer(256), ctypes.c_size_t()
        if name_of(name, 256, index) or bytes_of(ctypes.byref(size), index):
            return ()
        found.append((name.value.decode(), size.value))
    return tuple(found)


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_bytes() -> int:
    """Return the memory of this machine's smallest GPU, or of the machine if it has none."""
    return min((size for _, size in gpus()), default=machine_bytes())


@dataclass(frozen=True, kw_only=True)
class Price:
    """The total cost of Runs.

    - `flops`: if each Run computes the features of its frozen layers, as on a GPU; `shared_flops`: if all
      Runs of a start and cut share features, as on the CPUs of one machine; `features_bytes`: the most
      that these features take on the machine's disk.
    - `machine`: this machine, as "2 cores" or "1 GPU"; `wall_seconds`: training time on the machine,
      without the start of Ray; `one_seconds`: training time on one core or GPU.
    - `num_networks`: all networks; `num_measured`: networks measured on this machine, last at
      `measured_at`. If no network was measured, the times are assumed.
    - `elsewhere`: assumed seconds on one GPU, by kind of GPU, if this machine has no GPU.
    - `largest`: memory of the largest Run; `base_bytes`: memory of a process before a Run; `device_bytes`:
      memory of this machine, or of its smallest GPU; `num_too_large`: Runs that need more memory.
    """

    flops: int
    shared_flops: int
    features_bytes: int
    machine: str
    wall_seconds: float
    one_seconds: float
    num_networks: int
    num_measured: int
    measured_at: str
    elsewhere: Mapping[str, float]
    largest: Memory | None
    base_bytes: int
    device_bytes: int
    num_too_large: int


def price(runs: Sequence[Run], infos: Mapping[str, TaskInfo]) -> Price:
    """Return the price of these Runs, each start before its dependants."""
    costs = {run.id: cost_of(run, infos[run.task]) for run in runs}
    passes = _passes(runs, costs)
    own = sum(cost.flops - cost.pass_flops for cost in costs.values())
    on_gpus = bool(gpus())
    speeds = speeds_of(on_gpus=on_gpus)
    known = kept(speeds)
    works = {
        run.id: work_of(run, infos[run.task], speeds, shares_features=not on_gpus) for run in runs
    }
    pace = Pace(known.sums)
    seconds = _seconds_by_run(works, pace)
    num, unit = (len(gpus()), "GPU") if on_gpus else (num_cores(), "core")
    elsewhere: dict[str, float] = {}
    if not on_gpus:
        for run in runs:
            for kind, there in assumed_speeds(run.recipe.precision).items():
                work = work_of(run, infos[run.task], there, shares_features=False)
                elsewhere[kind] = elsewhere.get(kind, 0.0) + work.whole()
    networks, measured = {work.network for work in works.values()}, {n for n, _ in known.sums}
    base_bytes = known.base_bytes or ASSUMED_BASE_BYTES
    free_bytes = device_bytes() - (0 if on_gpus else base_bytes)
    return Price(
        flops=sum(cost.flops for cost in costs.values()),
        shared_flops=own + sum(cost.pass_flops for cost, _ in passes),
        features_bytes=sum(
            cost.pass_bytes
            for cost, run in passes
            if _seconds_of_pass(works[run.id], pace) * 2**30
            >= WORTH_SECONDS_PER_GIB * cost.pass_bytes
        )
        if not on_gpus
        else 0,
        machine=f"{num} {unit}" + ("s" if num > 1 else ""),
        wall_seconds=makespan({run.id: run for run in runs}, seconds, (), num),
        one_seconds=sum(seconds.values()),
        num_networks=len(networks),
        num_measured=len(networks & measured),
        measured_at=known.at,
        elsewhere=elsewhere,
        largest=max((c.memory for c in costs.values()), key=lambda m: m.total, default=None),
        base_bytes=base_bytes,
        device_bytes=device_bytes(),
        num_too_large=sum(cost.memory.total > free_bytes for cost in costs.values()),
    )


def _passes(runs: Sequence[Run], costs: Mapping[str, Cost]) -> list[tuple[Cost, Run]]:
    dearest: dict[tuple[object, ...], Run] = {}
    for run in runs:
        key = features_key(run)
        # The largest training set counts: it contains the images of the smaller sets.
        if key not in dearest or costs[dearest[key].id].pass_flops < costs[run.id].pass_flops:
            dearest[key] = run
    return [(costs[run.id], run) for run in dearest.values()]


def _seconds_by_run(works: Mapping[str, Work], pace: Pace) -> dict[str, float]:
    paid: set[Hashable] = set()
    seconds = {}
    for run_id, work in works.items():
        seconds[run_id] = pace.seconds(work, work.whole(paid))
        paid.update(key for key, _ in work.features)
    return seconds


def _seconds_of_pass(work: Work, pace: Pace) -> float:
    return pace.seconds(work, sum(seconds for _, seconds in work.features))
