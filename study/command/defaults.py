"""Where images lie and Ray is, where nobody says so: by the environment (the store: `default_root`).

Owns the names of the variables. They are read when a command or a call begins, not at import.
"""

from __future__ import annotations

import os
from pathlib import Path


def default_data() -> Path:
    """STUDY_DATA, or ./data."""
    return Path(os.environ.get("STUDY_DATA") or "./data")


def is_ray_job() -> bool:
    """Whether `ray job submit` has started this process: it runs in a folder that is the job's own."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def default_address() -> str:
    """RAY_ADDRESS, or a Ray of this machine alone."""
    return os.environ.get("RAY_ADDRESS") or "local"
