"""Small random images, as image files and as Parquet files."""

import io
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from study.store import Store
from study.tasks import PreparedTask, Task, prepare
from study.tasks.images import ImageFolderImages
from study.tasks.parquet import ParquetImages

PHOTOS = Task(name="photos", images=ImageFolderImages(train="photos"))


def pixels_of(seed: int, height: int = 4, width: int = 6) -> np.ndarray:
    """Random colours: uint8, shape (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def images_of(task: PreparedTask) -> Counter[tuple[bytes, int]]:
    """Count the images of both splits with their labels."""
    images = [*task.train_images, *task.test_images]
    labels = [*task.train_labels.tolist(), *task.test_labels.tolist()]
    return Counter((i.tobytes(), label) for i, label in zip(images, labels, strict=True))


def images_from(seeds_and_labels: Iterable[tuple[int, int]]) -> Counter[tuple[bytes, int]]:
    """`images_of` a task whose images are `pixels_of` these seeds."""
    return Counter(
        (pixels_of(s).transpose(2, 0, 1).tobytes(), label) for s, label in seeds_and_labels
    )


def save(path: Path, pixels: np.ndarray) -> None:
    """Write an image file in the format of its suffix; create its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def parquet(path: Path, labels: Any, names: list[str] | None = None, **columns: Any) -> Path:
    """A Parquet file in the hub's form; the image in row i has the pixels of seed i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"bytes": encoded(Image.fromarray(pixels_of(row))), "path": f"{row}.png"}
        for row in range(len(labels))
    ]
    table = pa.table({"image": images, "label": labels} | columns)
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, path, row_group_size=4)
    return path


def parquet_task(train: str | tuple[str, ...], **fields: Any) -> Task:
    return Task(name="p", images=ParquetImages(train=train, **fields))


def prepare_quietly(task: Task, store: Store, data: Path | None) -> PreparedTask:
    """`tasks.prepare` without a progress bar."""
    return prepare(task, store, data, progress=False)
