"""Where a study is kept, its images lie and its Ray is, where nobody says so: by the environment.

Owns the names of the variables. They are read when a command or a call begins, not at import.
"""

from __future__ import annotations

import os
from pathlib import Path


def default_root() -> str:
    """STUDY_ROOT, or ./store."""
    return os.environ.get("STUDY_ROOT") or "./store"


def default_data() -> Path:
    """STUDY_DATA, or ./data."""
    return Path(os.environ.get("STUDY_DATA") or "./data")


def default_address() -> str:
    """RAY_ADDRESS, or a Ray of this machine alone."""
    return os.environ.get("RAY_ADDRESS") or "local"
