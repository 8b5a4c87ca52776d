"""Hands a request to the analysis, which runs in a process of its own: `study` does not import it.

Owns how the request travels. It goes by standard input, not in the argument list: a root may carry
credentials, which every user of a machine could read there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from study.messages import MARK, UserError


def ask_analysis(verb: str, **request: str | bool | None) -> int:
    """Has `python -m analysis` do this, prints what it prints, and returns its exit status.

    `request`: the keyword arguments of the verb; those that are None are left to their defaults.
    """
    ended = answered(verb, **request)
    sys.stderr.write(ended.stderr)
    sys.stdout.write(ended.stdout)
    return ended.returncode


def answer_of_analysis(verb: str, **request: str | bool | None) -> Any:
    """What `python -m analysis` answers, as JSON. Raises UserError with its words where it refuses."""
    ended = answered(verb, **request)
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        raise UserError("\n".join(line.removeprefix(MARK) for line in lines))
    return json.loads(ended.stdout)


def answered(verb: str, **request: str | bool | None) -> subprocess.CompletedProcess[str]:
    """How that process ended, with what it printed; arguments as of `ask_analysis`."""
    given = {name: value for name, value in request.items() if value is not None}
    # -P: a folder `analysis` of the user's, where the command is given, is not meant.
    found_in = os.pathsep.join(
        [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    return subprocess.run(
        [sys.executable, "-P", "-m", "analysis", "--request"],
        input=json.dumps({"verb": verb, **given}),
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": found_in, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
