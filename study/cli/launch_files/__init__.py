"""Write files that start a study on clusters, for the user to edit and keep."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Final

from study.messages import UserError

# File name: purpose.
FILES: Final = {
    "Dockerfile": "the image of every node, by a uv lock",
    "rayjob.yaml": "Kubernetes: KubeRay's RayJob",
    "slurm.sh": "Slurm: ray symmetric-run under srun",
    "ray-up.yaml": "a cloud by Ray's own launcher, with spot workers",
    "sky.yaml": "SkyPilot: spot machines of any cloud",
}


def text_of(name: str) -> str:
    """Return a launch file's text with this machine's Python and Ray versions filled in."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    major, minor, *_ = platform.python_version_tuple()
    return text.replace("@RAY_VERSION@", version("ray")).replace(
        "@PYTHON_VERSION@", f"{major}.{minor}"
    )


def write_launch_files(folder: Path) -> list[Path]:
    """Write FILES into the folder; create it if missing.

    Raises UserError if a file exists, because the user may have changed it.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise UserError(
            f"DIR={folder}: {', '.join(there)} exists already: choose another folder, or move the file"
        )
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in FILES:
        path = folder / name
        path.write_text(text_of(name), encoding="utf-8")
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
        written.append(path)
    return written
