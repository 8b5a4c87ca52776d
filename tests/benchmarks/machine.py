"""What stands above the table: the machine, versions, how busy it was."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil
import timm
import torch


def head() -> list[str]:
    """Lines on the machine and on what was measured with."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    try:
        ray = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError:
        ray = "none"
    memory = psutil.virtual_memory().total / 2**30
    return [
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {_commit()}",
        f"{_cpu()}, {os.cpu_count()} cores, {memory:.0f} GiB; {gpu}; load at the beginning {load}",
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__} "
        f"({torch.backends.cpu.get_cpu_capability()}), timm {timm.__version__}, Ray {ray}",
    ]


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _commit() -> str:
    here = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "no git"
    return said.stdout.strip()
