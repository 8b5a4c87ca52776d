"""`surfaces`: all surfaces of a large study, against plain pandas on the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from tests.benchmarks.table import Line

GIB_OF_PANDAS_A_MILLION_ROWS: Final = 0.35


def surfaces(*, quick: bool, folder: Path) -> Iterator[Line]:
    """40 million rows (--quick: one million): made up, stored as the store does, read, computed."""
    num_runs, num_epochs = (1_000, 1_000) if quick else (10_000, 4_000)
    root = folder / "surfaces"
    _child("generate", str(root), "--runs", str(num_runs), "--epochs", str(num_epochs))
    ours = json.loads(_child("all_surfaces", str(root)).splitlines()[-1])
    millions = ours["rows"] / 1e6
    case = f"all surfaces of {millions:,.0f} million rows"
    available = psutil.virtual_memory().available / 2**30
    theirs: dict[str, Any] | None = None
    if available > GIB_OF_PANDAS_A_MILLION_ROWS * millions:
        theirs = json.loads(_child("plain_pandas", str(root)).splitlines()[-1])
    yield from surface_lines(case, ours, theirs)
    if theirs is None:
        yield Line(
            group="surfaces",
            case=f"{case}: plain pandas",
            missing=f"only {available:.0f} GiB of memory are free",
        )


def surface_lines(case: str, ours: dict[str, Any], theirs: dict[str, Any] | None) -> Iterator[Line]:
    units = {"wall": "s by the clock", "cpu": "s of CPU", "gib": "GiB at most"}
    for name, unit in units.items():
        yield Line(
            group="surfaces",
            case=case,
            unit=unit,
            ours=ours[name],
            baseline=None if theirs is None else theirs[name],
        )


def _child(module: str, *arguments: str) -> str:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    said = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return said.stdout
