"""Tasks of the Hugging Face hub: Parquet files of encoded images, downloaded once and then read from disk.

Owns which files of a data set are meant, that they are those of one commit, and where they lie below the
data directory. Refuses a branch or a tag, which may mean other images tomorrow, and to download anything
but for `study prepare`.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, Final

from study.requirements import missing_text
from study.tasks.image_sets.listing import Listing, choices
from study.tasks.image_sets.parquet import ParquetImages, list_parquet

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_DONE: Final = "freezewise-files.json"  # written when all files are there
SECONDS_TO_ANSWER: Final = 10.0


@dataclass(frozen=True)
class HubImages:
    """A data set of the Hugging Face hub by its name, "uoft-cs/cifar10", at one commit.

    - `revision`: the commit, 40 hexadecimal digits; where it is left out, or is a branch or a tag, the
      data set is refused, and `study prepare` says which commit that is now.
    - `train`, `test`: patterns of the data set's Parquet files, in which * stands for any letters, "/"
      among them; `test` None: it has no test split.
    - `image_column`, `label_column`: as of ParquetImages.
    """

    name: str
    revision: str | None = None
    train: str = "*train-*.parquet"
    test: str | None = "*test-*.parquet"
    image_column: str = "image"
    label_column: str = "label"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"HubImages.name={self.name!r}: choose a data set's name, as owner/name"
            )


def list_hub(images: HubImages, data: Path, *, download: bool) -> Listing:
    """What the data set has, from its files below `data`, or else downloaded to there if `download`
    says so.

    Raises ValueError for what is no commit, for files that are not there and not to be had, and what
    `list_parquet` does.
    """
    if images.revision is None or not _COMMIT.fullmatch(images.revision):
        raise ValueError(_moves(images, download))
    folder = data / "hub" / images.name.replace("/", "--") / images.revision
    if not (folder / _DONE).is_file():
        if not download:
            raise ValueError(
                f"name={images.name!r}: its files are not in {folder}; `study prepare` downloads them"
            )
        _download(images, folder)
    names = json.loads((folder / _DONE).read_text(encoding="utf-8"))
    found = {field: _matching(images, field, names) for field in ("train", "test")}
    return list_parquet(
        ParquetImages(
            train=found["train"],
            test=found["test"] or None,
            image_column=images.image_column,
            label_column=images.label_column,
        ),
        folder,
    )


def _matching(images: HubImages, field: str, names: list[str]) -> tuple[str, ...]:
    """Of these files those that one field means, by name; () where it is None."""
    pattern = getattr(images, field)
    if pattern is None:
        return ()
    found = tuple(sorted(name for name in names if fnmatch(name, pattern)))
    if not found:
        there = [name for name in names if name.endswith(".parquet")]
        raise ValueError(
            f"{field}={pattern!r}: no file of {images.name} is called so, choose from {choices(there)}"
        )
    return found


def _moves(images: HubImages, download: bool) -> str:
    """What to say of a revision that is no commit; where a download is asked for, which one it is."""
    text = f"revision={images.revision!r}: give a commit, 40 hexadecimal digits; a branch or a tag moves"
    if not download:
        return f"{text}: `study prepare` says which one it is now"
    return f"{text}. It is {_ask(images).sha} now"


def _ask(images: HubImages) -> Any:
    """What the hub says of the data set. Raises ValueError where it does not answer, or has none."""
    hub = _library()
    try:
        return hub.HfApi(endpoint=_endpoint()).dataset_info(
            images.name, revision=images.revision, timeout=SECONDS_TO_ANSWER
        )
    except Exception as error:  # of its library, or of the one by which that speaks with the hub
        raise ValueError(_not_to_be_had(images, error)) from error


def _download(images: HubImages, folder: Path) -> None:
    hub = _library()
    names = [each.rfilename for each in _ask(images).siblings or ()]
    if any(".." in PurePosixPath(name).parts for name in names):
        raise ValueError(f"name={images.name!r}: it has files that lie outside of it")
    wanted = [*_matching(images, "train", names), *_matching(images, "test", names)]
    try:
        hub.snapshot_download(
            images.name,
            repo_type="dataset",
            revision=images.revision,
            local_dir=folder,
            allow_patterns=wanted,
            endpoint=_endpoint(),
        )
    except (OSError, hub.errors.HfHubHTTPError) as error:
        raise ValueError(_not_to_be_had(images, error)) from error
    (folder / _DONE).write_text(json.dumps(wanted), encoding="utf-8")


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise ValueError(missing_text("huggingface_hub")) from error
    return huggingface_hub


def _endpoint() -> str | None:
    # The library itself reads it once, when it is loaded.
    return os.environ.get("HF_ENDPOINT")


def _not_to_be_had(images: HubImages, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = lines[0] if lines else type(error).__name__
    return f"name={images.name!r}: cannot be had from the hub ({cause})"
