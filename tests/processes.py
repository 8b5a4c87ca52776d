"""Watch processes that run this code from outside: CPU time, memory, workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SECONDS_BETWEEN_LOOKS = 0.1


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that runs this code, without this process's settings."""
    settings = ("RAY_ADDRESS", "STUDY_ROOT", "STUDY_DATA")
    here = {name: value for name, value in os.environ.items() if name not in settings}
    return here | {"PYTHONPATH": str(Path(__file__).parents[1]), **more}


def start_python(
    *words: str, folder: Path | None = None, **variables: str
) -> subprocess.Popen[str]:
    """Start Python with these arguments, in this folder and with these environment variables."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=environment(PYTHONUTF8="1", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def run_python(
    *words: str, status: int = 0, folder: Path | None = None, **variables: str
) -> tuple[str, str]:
    """Run Python to its end, check its exit status, and return what it printed on stdout and stderr."""
    process = start_python(*words, folder=folder, **variables)
    try:
        out, err = process.communicate(timeout=900)
    finally:
        process.kill()
    assert process.returncode == status, (words, out, err)
    return out, err


@dataclass
class Watched:
    """The CPU time and memory of a process (`own_…`) and of its descendants, while in the context.

    `workers`: CPU seconds of each Ray worker that has loaded torch, by (pid, start time). Loading torch
    takes seconds, so no worker is missed. `others`: CPU seconds of all other descendants.
    """

    pid: int
    own_cpu_seconds: float = 0.0
    own_peak_bytes: int = 0
    workers: dict[tuple[int, float], float] = field(default_factory=dict)
    others: dict[tuple[int, float], float] = field(default_factory=dict)

    def __enter__(self) -> Watched:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process(self.pid)
        while not self._done.wait(SECONDS_BETWEEN_LOOKS):
            try:
                with process.oneshot():
                    self.own_cpu_seconds = _cpu_seconds(process)
                    self.own_peak_bytes = max(self.own_peak_bytes, process.memory_info().rss)
                descendants = process.children(recursive=True)
            except psutil.NoSuchProcess:
                return
            for each in descendants:
                self._look_at(each)

    def _look_at(self, process: psutil.Process) -> None:
        try:
            key = (process.pid, process.create_time())
            if key in self.workers or _is_worker_with_torch(process):
                self.workers[key] = _cpu_seconds(process)
                self.others.pop(key, None)
            else:
                self.others[key] = _cpu_seconds(process)
        except psutil.Error:
            pass  # it has ended since it was listed


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _is_worker_with_torch(process: psutil.Process) -> bool:
    # By its parent too: a process that a worker has just forked has the worker's title and memory.
    try:
        is_worker = "".join(process.cmdline()).startswith("ray::")
        if not is_worker or "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
            return False
        parent = process.parent()
        return parent is not None and parent.name() == "raylet"
    except OSError:
        return False
