"""Images, decoded once into the store, and which of them a Run draws.

This page hands on what a search-space file names: a Task, and where its images come from.
"""

from study.tasks.image_sets.digits import Digits
from study.tasks.image_sets.folders import ImageFolderImages
from study.tasks.image_sets.hub import HubImages
from study.tasks.image_sets.parquet import ParquetImages
from study.tasks.image_sets.torchvision_sets import TinyImageNetImages, TorchvisionImages
from study.tasks.prepare import describe, prepare
from study.tasks.prepared_file import PreparedTask, TaskInfo, load, load_info
from study.tasks.task import BUILTIN, Task

__all__ = [
    "BUILTIN",
    "Digits",
    "HubImages",
    "ImageFolderImages",
    "ParquetImages",
    "PreparedTask",
    "Task",
    "TaskInfo",
    "TinyImageNetImages",
    "TorchvisionImages",
    "describe",
    "load",
    "load_info",
    "prepare",
]
