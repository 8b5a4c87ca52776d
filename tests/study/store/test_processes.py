"""Detect whether a process still runs, and when that is unknown."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from study.store.processes import Process, this_process

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="this system does not say when a process began"
)


def test_is_alive_ended_child_is_dead_before_it_is_waited_for() -> None:
    tell = "import study.store.processes as p; print(vars(p.this_process()), flush=True)"
    child = subprocess.Popen(
        [sys.executable, "-c", tell + "; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    process = Process(**eval(child.stdout.readline()))
    assert process.pid == child.pid
    assert process.is_alive()
    child.kill()
    child.stdout.read()
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
        pass
    assert process.is_alive() is False, "a zombie"
    child.communicate()
    assert process.is_alive() is False


def test_is_alive_later_process_with_the_same_pid_is_dead() -> None:
    ours = this_process()
    assert ours.is_alive()
    assert ours.pid_start is not None
    assert replace(ours, pid_start=ours.pid_start - 1).is_alive() is False


def test_is_alive_on_another_machine_is_unknown() -> None:
    assert replace(this_process(), machine="another").is_alive() is None
    assert replace(this_process(), machine=None).is_alive() is None
