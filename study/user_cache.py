"""Keep small computed values, as JSON, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

FOLDER_VARIABLE: Final = "STUDY_CACHE"


def cached(key: object, compute: Callable[[], Any]) -> Any:
    """Return the value of this key; if the cache does not have it, compute and keep it.

    `key`: plain values with everything that determines the value, versions included.
    """
    found = read(key)
    if found is None:
        found = compute()
        write(key, found)
    return found


def read(key: object) -> Any:
    """Return the value under this key; None if missing or unreadable."""
    try:
        about = json.loads(_path(key).read_bytes())
        return about["value"] if about["key"] == _plain(key) else None
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def write(key: object, value: Any) -> None:
    """Keep this value; ignore a failure to write, because the value can be computed again."""
    text = json.dumps({"key": _plain(key), "value": value})
    try:
        path = _path(key)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        Path(file.name).replace(path)
    except (OSError, RuntimeError):
        pass


def _plain(key: object) -> Any:
    return json.loads(json.dumps(key))


def _path(key: object) -> Path:
    """Return the file of a key. Raises RuntimeError if the user has no home."""
    given = os.environ.get(FOLDER_VARIABLE)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    return (Path(given) if given else caches / "freezewise") / f"{digest[:32]}.json"
